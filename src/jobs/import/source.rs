//! Paths to documents: folders are walked, gzip is opened, NDJSON is read line by line. Nothing is skipped unsaid.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use super::lines;
use crate::access::policy::owned;
use crate::error::{Error, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{TypeId, definitions, xml};

/// Largest document, and largest line of NDJSON, in bytes after decompression.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;
/// Depth of folders that are walked.
const DEPTH_MAX: usize = 32;

/// Where a resource came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<str>,
    /// 1-based: of NDJSON, or where the entry of the Bundle begins.
    pub line: Option<u64>,
    /// 0-based index in a Bundle, as FHIRPath counts.
    pub entry: Option<usize>,
    /// Where the entries of the Bundle begin that is the whole file.
    entries: Arc<[u64]>,
}

impl Origin {
    /// A whole file.
    pub fn of(file: impl Into<Arc<str>>) -> Origin {
        Origin { file: file.into(), line: None, entry: None, entries: Arc::default() }
    }

    /// An entry of the Bundle.
    pub fn entry(&self, n: usize) -> Origin {
        Origin { entry: Some(n), ..self.line_of(n) }
    }

    /// The Bundle, with the line of what a FHIRPath in it names.
    pub fn of_place(&self, place: &str) -> Origin {
        let number = place.strip_prefix("Bundle.entry[").and_then(|rest| rest.split(']').next());
        number.and_then(|number| number.parse().ok()).map_or_else(|| self.clone(), |n| self.line_of(n))
    }

    fn line_of(&self, n: usize) -> Origin {
        Origin { line: self.line.or_else(|| self.entries.get(n).copied()), ..self.clone() }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.entry {
            Some(entry) => write!(f, ", Bundle.entry[{entry}]"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Xml,
    Ndjson,
}

/// One file that will be read.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    name: Arc<str>,
    form: Form,
    gzip: bool,
    /// Bytes on disk, for the progress bar.
    pub size: u64,
    /// Documents of another turn than the one before may refer to what that one holds.
    pub turn: Turn,
}

/// Whether resources of the type can be of a patient, and its place among these.
pub type Turn = (bool, usize);

/// What lies under the given paths.
#[derive(Default)]
pub struct Found {
    pub documents: Vec<Document>,
    /// Files whose names say that they are no FHIR.
    pub others: Vec<PathBuf>,
}

/// Lists the documents under the paths: those of a folder by the type that their names begin with, so that what others
/// refer to comes first, then by name; hidden files left out.
///
/// # Errors
/// A path that is not there, cannot be read or was named itself but has no known ending.
pub fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let about = fs::metadata(path).map_err(|e| unreadable(path, &e))?;
        if about.is_dir() {
            walk(path, 0, &mut found)?;
        } else if !found.take(path, about.len()) {
            let endings = "expected .json, .xml or .ndjson, each also with .gz";
            return Err(Error::invalid(format!("{}: {endings}", path.display())));
        }
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Found) -> Result<()> {
    if depth == DEPTH_MAX {
        return Err(Error::invalid(format!("{}: folders are nested deeper than {DEPTH_MAX}", folder.display())));
    }
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut paths: Vec<PathBuf> = entries.map_err(|e| unreadable(folder, &e))?.iter().map(fs::DirEntry::path).collect();
    paths.sort_by_cached_key(|path| (turn(path), path.clone()));
    for path in paths {
        let about = fs::metadata(&path).map_err(|e| unreadable(&path, &e))?;
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            found.others.push(path);
        } else if about.is_dir() {
            walk(&path, depth + 1, found)?;
        } else if !found.take(&path, about.len()) {
            found.others.push(path);
        }
    }
    Ok(())
}

/// When it is the turn of a file (`Patient.ndjson.gz`, `Patient-12.json`): first what belongs to no patient, those that
/// refer to few types before others; then the rest, those that many types refer to (patients) before others.
fn turn(path: &Path) -> Turn {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let letters = name.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(name.len());
    let Some(kind) = definitions().type_id(&name[..letters]) else { return (true, usize::MAX) };
    let refers = |from: TypeId| definitions().params(from).iter().flat_map(|param| &param.targets);
    match owned(kind) {
        false => (false, refers(kind).collect::<BTreeSet<_>>().len()),
        true => {
            let types = definitions().types().iter();
            (true, usize::MAX - 1 - types.filter(|from| refers(**from).any(|to| *to == kind)).count())
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::invalid(format!("{}: {error}", path.display()))
}

impl Found {
    fn take(&mut self, path: &Path, size: u64) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let form = match plain.rsplit_once('.').map(|(_, ending)| ending) {
            Some("json") => Form::Json,
            Some("xml") => Form::Xml,
            Some("ndjson" | "jsonl") => Form::Ndjson,
            _ => return false,
        };
        let gzip = plain.len() != name.len();
        let (turn, name) = (turn(path), path.display().to_string().into());
        self.documents.push(Document { path: path.to_owned(), name, form, gzip, size, turn });
        true
    }
}

impl Document {
    /// Gives every resource of the document, or the fault where one should be, to `give`, until that says stop. NDJSON
    /// goes on behind a bad line.
    /// `progress` counts the bytes read from the disk.
    pub fn read(&self, progress: &AtomicU64, give: &mut dyn FnMut(Origin, Result<Node>) -> bool) {
        let whole = Origin::of(self.name.clone());
        let opened = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) => {
                give(whole, Err(Error::invalid(format!("cannot be read: {error}"))));
                return;
            }
        };
        let counted = Counted { inner: BufReader::with_capacity(1 << 16, opened), progress };
        let input: Box<dyn Read + '_> =
            if self.gzip { Box::new(MultiGzDecoder::new(counted)) } else { Box::new(counted) };
        match self.form {
            Form::Ndjson => each_line(BufReader::with_capacity(1 << 16, input), &whole, give),
            Form::Json | Form::Xml => {
                let (entries, node) = match limited(input) {
                    Ok(bytes) => self.parse(&bytes),
                    Err(error) => (Vec::new(), Err(error)),
                };
                give(Origin { entries: entries.into(), ..whole }, node);
            }
        }
    }

    /// What it says, and on which lines its entries begin.
    fn parse(&self, bytes: &[u8]) -> (Vec<u64>, Result<Node>) {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        match self.form {
            Form::Xml => (lines::of_xml(bytes), xml::read(bytes)),
            Form::Json | Form::Ndjson => (lines::of_json(bytes), json::parse(bytes)),
        }
    }
}

struct Counted<'a, R> {
    inner: R,
    progress: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.progress.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

fn limited(input: Box<dyn Read + '_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input
        .take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::invalid(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Error::invalid(format!("is larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn each_line(mut input: impl BufRead, whole: &Origin, give: &mut dyn FnMut(Origin, Result<Node>) -> bool) {
    let mut line = Vec::new();
    for number in 1.. {
        let origin = Origin { line: Some(number), ..whole.clone() };
        line.clear();
        match input.by_ref().take(DOCUMENT_BYTES_MAX + 1).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(n) if n as u64 > DOCUMENT_BYTES_MAX => {
                give(origin, Err(Error::invalid(format!("the line is longer than {DOCUMENT_BYTES_MAX} bytes"))));
                return;
            }
            Ok(_) => {}
            Err(error) => {
                give(origin, Err(Error::invalid(format!("cannot be read: {error}"))));
                return;
            }
        }
        let text = line.strip_prefix(b"\xEF\xBB\xBF").filter(|_| number == 1).unwrap_or(&line).trim_ascii();
        if !text.is_empty() && !give(origin, json::parse(text)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(paths: &[PathBuf]) -> (Vec<(String, Option<Node>)>, usize) {
        let found = find(paths).unwrap();
        let mut out = Vec::new();
        for document in &found.documents {
            document.read(&AtomicU64::new(0), &mut |origin, node| {
                out.push((origin.to_string(), node.ok()));
                true
            });
        }
        (out, found.others.len())
    }

    #[test]
    fn folders_gzip_and_lines_are_read_and_faults_keep_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("inner")).unwrap();
        fs::write(at("a.ndjson"), "\u{feff}{\"a\":1}\n\n{broken\r\n{\"a\":2}").unwrap();
        fs::write(at("notes.txt"), "x").unwrap();
        let mut gzip =
            flate2::write::GzEncoder::new(File::create(at("inner/b.json.gz")).unwrap(), flate2::Compression::fast());
        gzip.write_all(b"{\"b\":1.50}").unwrap();
        gzip.finish().unwrap();
        let (read, others) = read(&[dir.path().to_owned()]);
        let places: Vec<&str> = read.iter().map(|(place, _)| place.rsplit('/').next().unwrap()).collect();
        assert_eq!(places, ["a.ndjson:1", "a.ndjson:3", "a.ndjson:4", "b.json.gz"]);
        assert!(read[1].1.is_none() && read[0].1.is_some() && read[2].1.is_some());
        assert_eq!(read[3].1.as_ref().unwrap().to_string(), "{\"b\":1.50}");
        assert_eq!(others, 1);
    }

    #[test]
    fn what_others_refer_to_is_read_before_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "Appendix.ndjson",
            "Composition.ndjson",
            "Encounter-2.ndjson",
            "Encounter-1.ndjson",
            "Location.ndjson",
            "Observation.ndjson.gz",
            "Organization.ndjson",
            "Patient.ndjson",
            "PractitionerRole.ndjson",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = find(&[dir.path().to_owned()]).unwrap();
        let names = found.documents.iter().map(|document| document.name.rsplit('/').next().unwrap());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "Organization.ndjson",
                "Location.ndjson",
                "PractitionerRole.ndjson",
                "Patient.ndjson",
                "Encounter-1.ndjson",
                "Encounter-2.ndjson",
                "Observation.ndjson.gz",
                "Composition.ndjson",
                "Appendix.ndjson",
            ]
        );
        let turns: BTreeSet<Turn> = found.documents.iter().map(|document| document.turn).collect();
        assert!(turns.len() == 8 && found.documents.is_sorted_by_key(|document| document.turn));
    }

    #[test]
    fn a_path_that_is_named_must_be_there_and_be_of_a_known_form() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.txt"), "").unwrap();
        assert!(find(&[dir.path().join("x.txt")]).is_err());
        assert!(find(&[dir.path().join("none")]).is_err());
    }
}
