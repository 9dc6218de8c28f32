//! XML for a person to read: one element a line. Only for what `write` made, which has no white space of its own
//! between elements. Narrative is left as it is: its white space is content.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Breaks and indents a document that [`super::write`] made; anything else comes back as it is.
pub fn indented(xml: &[u8]) -> Vec<u8> {
    broken(xml).unwrap_or_else(|| xml.to_vec())
}

fn broken(xml: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::from_reader(xml);
    let mut out = Vec::with_capacity(xml.len() + xml.len() / 4);
    let (mut depth, mut from) = (0usize, 0);
    loop {
        let event = reader.read_event().ok()?;
        let (mut before, mut after) = (depth, depth);
        match &event {
            Event::Start(tag) if tag.name().as_ref() == b"div" => {
                reader.read_to_end(tag.name()).ok()?;
            }
            Event::Start(_) => after += 1,
            Event::End(_) => {
                before = depth.checked_sub(1)?;
                after = before;
            }
            Event::Eof => break,
            _ => {}
        }
        let to = usize::try_from(reader.buffer_position()).ok()?;
        if matches!(event, Event::Start(_) | Event::Empty(_) | Event::End(_)) && !out.is_empty() {
            out.push(b'\n');
            out.extend(std::iter::repeat_n(b' ', 2 * before));
        }
        out.extend_from_slice(xml.get(from..to)?);
        (depth, from) = (after, to);
    }
    out.push(b'\n');
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::{json, xml};

    #[test]
    fn indenting_changes_white_space_between_elements_alone() {
        let text = r#"{"resourceType":"Patient","id":"p","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><div>a <b>b</b>\n </div> <i>c</i></div>"},"active":true,"name":[{"family":"A > B"}]}"#;
        let node = json::parse(text.as_bytes()).expect("JSON");
        let plain = xml::write(&node).expect("XML");
        let pretty = indented(&plain);
        let shown = String::from_utf8(pretty.clone()).expect("UTF-8");
        assert!(
            shown.contains("\n  <active value=\"true\"/>\n  <name>\n    <family value=\"A &gt; B\"/>\n  </name>\n"),
            "{shown}"
        );
        assert!(shown.contains("<div>a <b>b</b>\n </div> <i>c</i></div>\n  </text>"), "{shown}");
        assert!(shown.ends_with("\n</Patient>\n"), "{shown}");
        let again = xml::read(&pretty).expect("XML");
        assert!(json::write(&again) == json::write(&node));
    }

    #[test]
    fn nothing_inside_a_narrative_looks_like_its_end() {
        let inner = "<a title=\"&lt;/div>\">x</a><!-- </div></text> --><text><div>y</div></text><p>z</p>";
        let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inner}</div>");
        let node = serde_json::json!({"resourceType": "Patient", "text": {"status": "generated", "div": div}});
        let pretty = indented(&xml::write(&node).expect("XML"));
        assert!(xml::read(&pretty).expect("XML") == node, "{}", String::from_utf8_lossy(&pretty));
    }
}
