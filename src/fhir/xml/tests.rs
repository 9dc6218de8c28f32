//! Round trips, faults with their places, hostile documents, and the official examples as oracle.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::json;

use super::{narrative, read, write};
use crate::error::Kind;
use crate::fhir::json::Node;
use crate::fhir::validate;

fn xml(inner: &str) -> String {
    format!("<Patient xmlns=\"http://hl7.org/fhir\">{inner}</Patient>")
}

fn node(text: &str) -> Node {
    read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Examples of which there are two editions: name and place.
const EXCEPTIONS: &str = include_str!("../../../conformance/xml-exceptions.txt");

/// The message and place of the fault.
fn refused(text: &str) -> (String, String) {
    let error = read(text.as_bytes()).err().unwrap_or_else(|| panic!("{text} is refused"));
    assert_eq!(error.kind, Kind::Invalid);
    let issue = &error.issues[0];
    (issue.diagnostics.to_string(), issue.expression.clone().unwrap_or_default())
}

fn there_and_back(node: &Node) {
    let text = write(node).unwrap_or_else(|error| panic!("{node}: {error}"));
    let back = read(&text).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&text)));
    // As text: the order of members counts too.
    assert_eq!(back.to_string(), node.to_string());
}

#[test]
fn json_survives() {
    let text = r##"{"resourceType":"Patient","id":"p","meta":{"versionId":"1","profile":["http://x/unknown"]},
        "text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">  a <b>b</b>\n\n <br/> &amp; &lt; &#160;é <!-- c --> </div>"},
        "contained":[{"resourceType":"Basic","id":"c","code":{"text":"x"}},{"resourceType":"Basic","id":"d","code":{"text":"y"}}],
        "extension":[{"url":"http://x/1","valueDecimal":1.00},{"url":"http://x/2","valueDecimal":-0.10e-10},{"url":"http://x/3","valueInteger":-12},
          {"url":"http://x/4","extension":[{"url":"a","valueString":"deep"}]},{"url":"http://x/5","_valueString":{"extension":[{"url":"n","valueCode":"unknown"}]}}],
        "active":true,
        "name":[{"id":"n1","family":"Ü<&\"'>\t\r\n x  ","given":["a",null,"c"],"_given":[null,{"extension":[{"url":"http://x/g","valueCode":"masked"}]},{"id":"g3"}]}],
        "_gender":{"id":"g"},
        "birthDate":"1974-12","_birthDate":{"id":"b","extension":[{"url":"http://x/t","valueDateTime":"1974-12-25T14:35:45-05:00"}]},
        "deceasedBoolean":false,"multipleBirthInteger":2}"##;
    there_and_back(&serde_json::from_str(text).expect("JSON"));
}

#[test]
fn bundles_and_parameters_survive() {
    there_and_back(&json!({
        "resourceType": "Bundle", "type": "transaction",
        "entry": [
            {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient", "contained": [{"resourceType": "Basic"}]},
             "request": {"method": "POST", "url": "Patient"}},
            {"request": {"method": "DELETE", "url": "Patient/1"}}
        ]
    }));
    there_and_back(&json!({
        "resourceType": "Parameters",
        "parameter": [{"name": "a", "part": [{"name": "r", "resource": {"resourceType": "Binary", "contentType": "a/b"}}]},
                      {"name": "b", "valueBoolean": true}]
    }));
}

#[test]
fn numbers_stay_as_written() {
    for number in ["1.00", "1e-10", "1E-10", "1E+10", "0.10e5", "-0", "0.000000000000000000000000000000001"] {
        let text = format!("<value value=\"{number}\"/>");
        let text =
            format!("<Observation xmlns=\"http://hl7.org/fhir\"><valueQuantity>{text}</valueQuantity></Observation>");
        let found = node(&text);
        assert_eq!(found["valueQuantity"]["value"].to_string(), number);
        let back = write(&found).expect("writes");
        assert!(String::from_utf8(back).expect("UTF-8").contains(&format!("value=\"{number}\"")));
    }
    for number in ["12345678901234567890", "2147483648"] {
        let text = xml(&format!("<multipleBirthInteger value=\"{number}\"/>"));
        assert_eq!(node(&text)["multipleBirthInteger"].to_string(), number, "kept for validation to refuse");
    }
    for wrong in ["01", "1.0", "+1", "", " 1", "1e2", "x", "0x1", "--1", "1 2"] {
        let (text, place) = refused(&xml(&format!("<multipleBirthInteger value=\"{wrong}\"/>")));
        assert!(text.contains("integer"), "{wrong}: {text}");
        assert_eq!(place, "Patient.multipleBirth");
    }
    for wrong in ["1.", ".5", "1e", "NaN", "1.0.0", "1,0"] {
        let inner = format!("<extension url=\"a\"><valueDecimal value=\"{wrong}\"/></extension>");
        assert_eq!(refused(&xml(&inner)).1, "Patient.extension[0].value");
    }
    assert!(refused(&xml("<active value=\"1\"/>")).0.contains("boolean"));
}

#[test]
fn faults_name_line_and_place() {
    let (text, place) = refused(&xml("\n\n<name>\n<familly value=\"x\"/></name>"));
    assert!(text.contains("line 4") && text.contains("`familly`"), "{text}");
    assert_eq!(place, "Patient.name[0]");
    for (inner, says, at) in [
        ("<name/>", "without content", "Patient.name[0]"),
        ("<birthDate/>", "without a value", "Patient.birthDate"),
        ("<birthDate value=\"1\" lang=\"x\"/>", "`lang`", "Patient.birthDate"),
        ("<birthDate value=\"1\"/><birthDate value=\"1\"/>", "only once", "Patient"),
        ("<name><given value=\"a\"/><given value=\"b\" x=\"\"/></name>", "`x`", "Patient.name[0].given[1]"),
        ("text", "text where", "Patient"),
        ("<name use=\"official\"/>", "`use`", "Patient.name[0]"),
        ("<contained/>", "resource is missing", "Patient.contained[0]"),
        ("<contained><Nothing/></contained>", "`Nothing`", "Patient.contained[0]"),
        ("<contained><Basic/><Basic/></contained>", "several", "Patient.contained[0]"),
        ("<name xmlns=\"http://other\"/>", "namespace", "Patient"),
        ("<text><status value=\"generated\"/><div>x</div></text>", "namespace", "Patient.text"),
        ("<name><id value=\"x\"/></name>", "`id`", "Patient.name[0]"),
        ("<id value=\"a&nbsp;b\"/>", "entity", "Patient.id"),
        ("<id value=\"a&#1;b\"/>", "character", "Patient.id"),
        ("<id value=\"a", "not well-formed", "Patient"),
        ("<name><family value=\"x\"/></nam>", "not well-formed", "Patient.name[0]"),
        ("<valueString value=\"x\"/>", "`valueString`", "Patient"),
    ] {
        let (text, place) = refused(&xml(inner));
        assert!(text.contains(says), "{inner}: {text}");
        assert_eq!(place, at, "{inner}");
    }
}

#[test]
fn hostile_documents_are_refused() {
    let bomb = "<!DOCTYPE x [<!ENTITY a \"b\">]><Patient xmlns=\"http://hl7.org/fhir\"><id value=\"&a;\"/></Patient>";
    assert!(refused(bomb).0.contains("document type"));
    assert!(refused(&xml("<id value=\"&a;\"/>")).0.contains("entity"));
    assert!(refused("<Patient/>").0.contains("namespace"));
    assert!(refused("<Patient xmlns=\"urn:x\"/>").0.contains("namespace"));
    assert!(refused("").0.contains("no element"));
    assert!(refused(&(xml("") + "<x/>")).0.contains("follows"));
    assert!(refused(&(xml("") + "x")).0.contains("text"));
    assert!(refused(&xml("\u{1}")).0.contains("character"));
    assert!(refused(&format!("<?xml version=\"1.0\" encoding=\"latin1\"?>{}", xml(""))).0.contains("UTF-8"));
    assert!(refused(&format!("<?xml version=\"1.1\"?>{}", xml(""))).0.contains("version"));
    assert!(read(b"<Patient xmlns=\"http://hl7.org/fhir\"><id value=\"\xff\"/></Patient>").is_err());
    let deep = "<extension url=\"a\">".repeat(5000) + &"</extension>".repeat(5000);
    assert!(refused(&xml(&deep)).0.contains("deep"));
    let deep = "<div xmlns=\"http://www.w3.org/1999/xhtml\">".repeat(5000) + &"</div>".repeat(5000);
    assert!(refused(&xml(&format!("<text>{deep}</text>"))).0.contains("deep"));
}

#[test]
fn what_does_not_matter_is_passed_over() {
    let text = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><!-- a --><?style x?>\
        <f:Patient xmlns:f=\"http://hl7.org/fhir\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
        xsi:schemaLocation=\"a b\"><!-- b --><f:id value=\"x\"></f:id><?c d?></f:Patient>\n<!-- e -->";
    assert_eq!(node(text), json!({"resourceType": "Patient", "id": "x"}));
}

#[test]
fn narrative_is_kept() {
    let read_div = |div: &str| node(&xml(&format!("<text>{div}</text>")))["text"]["div"].clone();
    let plain = "<div xmlns=\"http://www.w3.org/1999/xhtml\"> a\n <b class='x'>&lt;&#160;</b> <br/><br></br> </div>";
    assert_eq!(read_div(plain), json!(plain));
    let named = "<div xmlns=\"http://www.w3.org/1999/xhtml\" title=\"a&eacute;&amp;\">&nbsp;&copy;</div>";
    assert_eq!(read_div(named), json!("<div xmlns=\"http://www.w3.org/1999/xhtml\" title=\"aé&amp;\">\u{a0}©</div>"));
    let prefixed = "<h:div xmlns:h=\"http://www.w3.org/1999/xhtml\" class=\"c\"><h:p>a<h:br/></h:p></h:div>";
    let text = read_div(prefixed);
    let text = text.as_str().expect("a string");
    assert!(text.starts_with("<div xmlns=\"http://www.w3.org/1999/xhtml\""), "{text}");
    assert!(text.ends_with("class=\"c\"><p>a<br/></p></div>"), "{text}");
    assert!(narrative::to_xml(text).is_ok());
    let node = json!({"resourceType": "Basic", "text": {"status": "generated",
        "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p title=\"a\r\nb\rc &lt; d\">e\r\nf</p></div>"},
        "code": {"text": "x"}});
    assert_eq!(read(&write(&node).expect("writes")).expect("reads"), node);
    let lines = "<div xmlns=\"http://www.w3.org/1999/xhtml\">a\r\nb\rc&#13;d</div>";
    assert_eq!(read_div(lines), json!("<div xmlns=\"http://www.w3.org/1999/xhtml\">a\nb\nc\rd</div>"));
    for wrong in
        ["<div xmlns=\"http://www.w3.org/1999/xhtml\">&bogus;</div>", "<p xmlns=\"http://www.w3.org/1999/xhtml\"/>"]
    {
        assert!(read(xml(&format!("<text>{wrong}</text>")).as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn line_ends_of_narrative_survive() {
    for inner in ["a\rb\r\nc\n", "<p\r\n class='a\rb\r\nc'\r>x</p>", "<!-- a\rb\r\n -->", "<![CDATA[a\rb]]>", "<br\r/>"]
    {
        let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inner}</div>");
        there_and_back(&json!({"resourceType": "Patient", "text": {"status": "generated", "div": div}}));
    }
}

#[test]
fn white_space_around_a_narrative_is_left_out() {
    let div = "<div xmlns=\"http://www.w3.org/1999/xhtml\">a</div>";
    let node = json!({"resourceType": "Patient", "text": {"status": "generated", "div": format!("\r\n {div}\n\t")}});
    assert!(!validate::refuses(&validate::structure(&node)), "it may be stored");
    let back = read(&write(&node).expect("writes")).expect("reads");
    assert_eq!(back["text"]["div"], div);
}

#[test]
fn a_narrative_cannot_break_out() {
    for wrong in [
        "<div xmlns=\"http://www.w3.org/1999/xhtml\">a</div></text><active value=\"true\"/><text>",
        "<div xmlns=\"http://www.w3.org/1999/xhtml\">a",
        "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p></div>",
        "<div xmlns=\"http://www.w3.org/1999/xhtml\">&bogus;</div>",
        "<div xmlns=\"http://www.w3.org/1999/xhtml\" x=\"&bogus;\">a</div>",
        "<div xmlns=\"http://www.w3.org/1999/xhtml\">\u{1}</div>",
        "<div xmlns=\"http://hl7.org/fhir\">a</div>",
        "<!DOCTYPE div []><div xmlns=\"http://www.w3.org/1999/xhtml\">a</div>",
        "<?xml version=\"1.0\"?><div xmlns=\"http://www.w3.org/1999/xhtml\">a</div>",
        "plain",
        "",
    ] {
        let patient = json!({"resourceType": "Patient", "text": {"status": "generated", "div": wrong}});
        assert!(validate::refuses(&validate::structure(&patient)), "never stored: {wrong}");
        let error = write(&patient).expect_err(wrong);
        assert_eq!(error.kind, Kind::NotAcceptable);
        assert_eq!(error.issues[0].expression.as_deref(), Some("Patient.text.div"));
    }
}

#[test]
fn what_xml_cannot_say_is_refused() {
    for (part, place) in [
        (json!({"unknown": 1}), "Patient"),
        (json!({"active": "true"}), "Patient.active"),
        (json!({"name": {"family": "x"}}), "Patient.name"),
        (json!({"name": [{}]}), "Patient.name[0]"),
        (json!({"birthDate": ["1970"]}), "Patient.birthDate"),
        (json!({"name": [{"given": [null]}]}), "Patient.name[0].given[0]"),
        (json!({"birthDate": "\u{1}"}), "Patient.birthDate"),
        (json!({"_name": [{"id": "x"}]}), "Patient"),
        (json!({"contained": [{"resourceType": "Nothing"}]}), "Patient.contained[0]"),
        (json!({"extension": [{"url": 1}]}), "Patient.extension[0]"),
    ] {
        let mut patient = json!({"resourceType": "Patient"});
        patient.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
        let error = write(&patient).err().unwrap_or_else(|| panic!("{patient}"));
        assert_eq!(error.issues[0].expression.as_deref(), Some(place), "{patient}");
    }
}

proptest::proptest! {
    /// Any damage to a document is refused, or read as something that can be written and read again; nothing panics.
    #[test]
    fn no_damage_panics(at in 0usize..900, cut in 0usize..12, put in "[ -~é\\r\\n]{0,6}") {
        let whole = xml("<text><status value=\"generated\"/><div xmlns=\"http://www.w3.org/1999/xhtml\"> <p class='a'>é&lt;&#160;\
            &nbsp;<!-- c --><![CDATA[d]]><br/></p></div></text><contained><Basic><id value=\"b\"/><code><text value=\"x\"/>\
            </code></Basic></contained><extension url=\"u\"><valueDecimal value=\"1.00\"/></extension><name id=\"n\"><given \
            value=\"a&amp;b\"/><given><extension url=\"v\"><valueCode value=\"w\"/></extension></given></name>");
        let mut damaged = whole.into_bytes();
        let from = at.min(damaged.len());
        let to = (from + cut).min(damaged.len());
        damaged.splice(from..to, put.bytes());
        if let Ok(node) = read(&damaged)
            && let Ok(text) = write(&node)
        {
            proptest::prop_assert_eq!(read(&text).expect("what is written is read").to_string(), node.to_string());
        }
    }

    /// No text of a narrative or value breaks the document it is written into.
    #[test]
    fn no_text_breaks_out(text in "[<>&;\"'/=a-z! \\r\\n\\t#x0-9-]{0,40}") {
        let node = json!({"resourceType": "Patient", "name": [{"family": text}]});
        there_and_back(&node);
        let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{text}</div>");
        let node = json!({"resourceType": "Patient", "text": {"status": "generated", "div": div}});
        match write(&node) {
            Ok(text) => {
                let back = read(&text).expect("what is written is read");
                proptest::prop_assert_eq!(back.as_object().map(|o| o.len()), Some(2));
            }
            // What is stored can be had as XML.
            Err(error) => proptest::prop_assert!(validate::refuses(&validate::structure(&node)), "{}: {error}", node),
        }
    }
}

/// The folder with sample data beside the project, if it is there.
fn shared(part: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(part);
    if !path.exists() {
        println!("skipped: ../shared/data/{part} is not there");
        return None;
    }
    Some(path)
}

fn json_files(folder: &str) -> Vec<(String, Node)> {
    let Some(folder) = shared(folder) else { return Vec::new() };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("a file");
        out.push((name, serde_json::from_slice(&bytes).expect("JSON")));
    }
    out
}

/// As XML has it: members in the order of the definitions is what XML gives, so order is not compared here.
#[test]
fn every_example_survives() {
    let mut count = 0;
    for folder in ["samples/hl7-r4-examples/json", "suites/fhir-test-cases-r4-examples"] {
        for (name, node) in json_files(folder) {
            if node.get("resourceType").is_none() {
                continue;
            }
            let text = write(&node).unwrap_or_else(|error| panic!("{name}: {error}"));
            let back = read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(back == node, "{name} is not the same:\n{back}\n{node}");
            count += 1;
        }
    }
    println!("{count} examples");
}

/// The files of a tar archive: regular files with short names only.
fn untar(bytes: &[u8]) -> HashMap<String, Vec<u8>> {
    let mut out = HashMap::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 512) {
        let text = |from: usize, to: usize| {
            let part = &head[from..to];
            let end = part.iter().position(|b| *b == 0).unwrap_or(part.len());
            String::from_utf8_lossy(&part[..end]).trim().to_owned()
        };
        let size = usize::from_str_radix(&text(124, 136), 8).unwrap_or(0);
        let body = bytes.get(at + 512..at + 512 + size).filter(|_| size > 0 && matches!(head[156], b'0' | 0));
        if let Some(body) = body {
            out.insert(text(0, 100), body.to_vec());
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    out
}

/// The official XML of an example is the official JSON of the same example.
#[test]
fn official_xml_is_official_json() {
    let Some(archive) = shared("samples/hl7-r4-examples/hl7-r4-examples-xml.tar.gz") else { return };
    let mut tar = Vec::new();
    let packed = std::fs::File::open(archive).expect("a file");
    flate2::read::GzDecoder::new(packed).read_to_end(&mut tar).expect("gzip");
    let key =
        |node: &Node| format!("{}/{}", node["resourceType"].as_str().unwrap_or(""), node["id"].as_str().unwrap_or(""));
    let official: HashMap<String, Node> = json_files("samples/hl7-r4-examples/json")
        .into_iter()
        .map(|(_, mut node)| {
            bare(&mut node);
            (key(&node), node)
        })
        .collect();
    let (mut same, mut alone, mut differ) = (0, 0, Vec::new());
    for (name, bytes) in untar(&tar) {
        let mut node = read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = read(&write(&node).unwrap_or_else(|error| panic!("{name}: {error}"))).expect("reads");
        assert_eq!(again.to_string(), node.to_string(), "{name}");
        bare(&mut node);
        match official.get(&key(&node)) {
            None => alone += 1,
            Some(other) if *other == node => same += 1,
            Some(other) => {
                differ.push((name.trim_start_matches("xml/").to_owned(), difference(&node, other, &key(&node))))
            }
        }
    }
    differ.sort();
    println!("{same} the same, {alone} without JSON of the same id, {} differ", differ.len());
    let listed: Vec<&str> = EXCEPTIONS.lines().filter_map(|line| Some(line.split_once('\t')?.0)).collect();
    for (name, at) in &differ {
        assert!(listed.contains(&&**name), "{name} differs: {at}");
    }
    let found = |name: &&str| differ.iter().any(|(other, _)| *other == **name);
    assert!(listed.iter().all(found), "an exception is none any more: {:?}", listed.iter().find(|name| !found(name)));
}

/// An independent codec reads what is written here, and is read here. It loses white space of narrative and rewrites
/// numbers, so these are not compared.
#[test]
fn another_codec_agrees() {
    use fhirbolt_element::{Element, FhirReleases};
    use fhirbolt_serde::{json, xml};
    let mut count = 0;
    for (name, mut node) in json_files("samples/hl7-r4-examples/json").into_iter().step_by(4) {
        if node.to_string().contains("e-") {
            continue;
        }
        let ours = write(&node).unwrap_or_else(|error| panic!("{name}: {error}"));
        let element: Element<{ FhirReleases::R4 }> =
            xml::from_slice(&ours, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs = xml::to_vec(&element, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let element_json = json::to_vec(&element, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut by_them: Node = serde_json::from_slice(&element_json).expect("JSON");
        let mut by_us = read(&theirs).unwrap_or_else(|error| panic!("{name}: {error}"));
        for tree in [&mut node, &mut by_them, &mut by_us] {
            squeeze(tree);
        }
        assert!(by_them == node, "{name}: {}", difference(&by_them, &node, "read by them"));
        assert!(by_us == node, "{name}: {}", difference(&by_us, &node, "written by them"));
        count += 1;
    }
    println!("{count} examples");
}

/// Takes out narratives and the kind of white space.
fn squeeze(node: &mut Node) {
    match node {
        Node::Array(nodes) => nodes.iter_mut().for_each(squeeze),
        Node::Object(object) => {
            if let Some(Node::String(div)) = object.get_mut("div") {
                div.clear();
            }
            object.values_mut().for_each(squeeze);
        }
        // It writes line ends in attributes bare, where XML makes blanks of them.
        Node::String(text) => *text = text.replace(['\n', '\t', '\r'], " "),
        _ => {}
    }
}

/// Without what the XML examples lack: the narrative and metadata of resources.
fn bare(node: &mut Node) {
    match node {
        Node::Array(nodes) => nodes.iter_mut().for_each(bare),
        Node::Object(object) => {
            if object.contains_key("resourceType") {
                object.shift_remove("text");
                object.shift_remove("meta");
            }
            object.values_mut().for_each(bare);
        }
        _ => {}
    }
}

/// The first place where two trees differ.
fn difference(a: &Node, b: &Node, at: &str) -> String {
    match (a, b) {
        (Node::Object(x), Node::Object(y)) => {
            for key in x.keys().chain(y.keys()) {
                match (x.get(key), y.get(key)) {
                    (Some(a), Some(b)) if a != b => return difference(a, b, &format!("{at}.{key}")),
                    (Some(_), Some(_)) => {}
                    (None, _) => return format!("{at}.{key} only in JSON"),
                    (_, None) => return format!("{at}.{key} only in XML"),
                }
            }
            at.to_owned()
        }
        (Node::Array(x), Node::Array(y)) if x.len() == y.len() => {
            let found = x.iter().zip(y).enumerate().find(|(_, (a, b))| a != b);
            found.map_or(at.to_owned(), |(n, (a, b))| difference(a, b, &format!("{at}[{n}]")))
        }
        _ => {
            let short = |node: &Node| node.to_string().chars().take(300).collect::<String>();
            format!("{at}: {} / {}", short(a), short(b))
        }
    }
}
