//! The sample sets that lie beside the checkout (`../shared/data/samples`), read as what a client would send.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

/// One thing to send.
pub enum Content {
    /// A resource of its own, a Bundle among them where a set has Bundles as examples.
    Resource(Value),
    /// A transaction or batch.
    Bundle(Value),
    Xml(Vec<u8>),
}

pub struct Sample {
    /// File and line, for messages.
    pub name: String,
    pub content: Content,
}

/// A set and how much of it the quick run takes.
struct Set {
    name: &'static str,
    /// Files whose names contain one of these; empty: all.
    quick_files: &'static [&'static str],
    /// Every n-th resource of what is left.
    quick_step: usize,
    /// Lines of each NDJSON file.
    quick_lines: usize,
}

const SETS: &[Set] = &[
    Set {
        name: "inferno",
        quick_files: &["patient_907", "client_test", "asserted", "group_1a", "pdex"],
        quick_step: 1,
        quick_lines: 0,
    },
    Set { name: "hl7-r4-examples/json", quick_files: &[], quick_step: 9, quick_lines: 0 },
    Set { name: "hl7-r4-examples", quick_files: &[], quick_step: 19, quick_lines: 0 },
    Set { name: "us-core-packages", quick_files: &["700"], quick_step: 1, quick_lines: 60 },
    Set { name: "synthea-2018-smart", quick_files: &["Chet_Hoeger", "Louis_Miller"], quick_step: 1, quick_lines: 0 },
    Set { name: "fhir-test-data-r4", quick_files: &[], quick_step: 1, quick_lines: 8 },
    Set { name: "microsoft", quick_files: &[], quick_step: 1, quick_lines: 0 },
    Set { name: "medplum", quick_files: &[], quick_step: 1, quick_lines: 0 },
    Set { name: "generated-clinosim", quick_files: &[], quick_step: 1, quick_lines: 6 },
];

/// `../shared/data/samples`, or None with a printed note.
pub fn folder() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/samples");
    if !path.is_dir() {
        println!("skipped: the sample sets are not beside the checkout (../shared/data/samples)");
        return None;
    }
    Some(path)
}

/// The names of the sets.
pub fn names() -> Vec<&'static str> {
    SETS.iter().map(|set| set.name).collect()
}

/// Gives the samples of a set one after another.
pub fn each(name: &str, all: bool, give: &mut dyn FnMut(Sample)) {
    let (Some(folder), Some(set)) = (folder(), SETS.iter().find(|set| set.name == name)) else { return };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder.join(name)).expect("the set is there").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut count = 0;
    for path in paths.iter().filter(|path| path.is_file()) {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let wanted = all || set.quick_files.is_empty() || set.quick_files.iter().any(|part| file.contains(part));
        if !wanted {
            continue;
        }
        let step = if all { 1 } else { set.quick_step };
        let lines = if all { usize::MAX } else { set.quick_lines };
        read(path, &file, lines, &mut |sample| {
            if count % step == 0 {
                give(sample);
            }
            count += 1;
        });
    }
}

fn read(path: &Path, file: &str, lines: usize, give: &mut dyn FnMut(Sample)) {
    if file.ends_with(".tar.gz") {
        return tar(path, give);
    }
    let metadata = ["COUNTS.json", "manifest.json", "_generator_metadata.json"].contains(&file);
    if metadata || file.ends_with(".tgz") {
        return;
    }
    let mut input: Box<dyn BufRead> = match file.ends_with(".gz") {
        true => Box::new(BufReader::new(MultiGzDecoder::new(File::open(path).unwrap()))),
        false => Box::new(BufReader::new(File::open(path).unwrap())),
    };
    if file.contains(".ndjson") {
        for (n, line) in input.lines().take(lines).enumerate() {
            let resource = serde_json::from_str(&line.unwrap()).expect("a line of JSON");
            give(Sample { name: format!("{file}:{}", n + 1), content: Content::Resource(resource) });
        }
        return;
    }
    let mut text = Vec::new();
    input.read_to_end(&mut text).unwrap();
    let node: Value = serde_json::from_slice(&text).expect("a JSON document");
    let performed =
        matches!(node["type"].as_str(), Some("transaction" | "batch")) && !path.to_string_lossy().contains("hl7-r4");
    let content = match node["resourceType"] == "Bundle" && performed {
        true => Content::Bundle(node),
        false => Content::Resource(node),
    };
    give(Sample { name: file.to_owned(), content });
}

/// The XML files of a tar archive.
fn tar(path: &Path, give: &mut dyn FnMut(Sample)) {
    let mut input = MultiGzDecoder::new(File::open(path).unwrap());
    let mut header = [0u8; 512];
    while input.read_exact(&mut header).is_ok() && header[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim_matches(['\0', ' ']).to_owned()
        };
        let name = text(0..100);
        let size = usize::from_str_radix(&text(124..136), 8).expect("a size");
        let mut body = vec![0; size.next_multiple_of(512)];
        input.read_exact(&mut body).expect("a whole archive");
        body.truncate(size);
        let own_file = !name.rsplit('/').next().unwrap_or_default().starts_with('.');
        if header[156] == b'0' && name.ends_with(".xml") && own_file {
            give(Sample { name, content: Content::Xml(body) });
        }
    }
}
