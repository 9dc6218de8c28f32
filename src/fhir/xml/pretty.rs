//! XML for a person to read: one element a line. Only for what `write` made, which has no white space of its own
//! between elements and no bare `<` or `>` in values. Narrative is left as it is: its white space is content.

/// Breaks and indents a document that [`super::write`] made.
pub fn indented(xml: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(xml.len() + xml.len() / 4);
    let (mut depth, mut rest, mut narrative) = (0usize, xml, false);
    while let Some(end) = rest.iter().position(|byte| *byte == b'>') {
        let (tag, tail) = rest.split_at(end + 1);
        rest = tail;
        let closing = tag.starts_with(b"</");
        depth -= usize::from(closing && !narrative && depth > 0);
        if tag.starts_with(b"<") && !narrative && !out.is_empty() {
            out.push(b'\n');
            out.extend(std::iter::repeat_n(b' ', 2 * depth));
        }
        out.extend_from_slice(tag);
        if narrative {
            // A narrative is a single div of a `text` element; divs inside it close before `</div></text>` does.
            narrative = !(tag.ends_with(b"</div>") && rest.starts_with(b"</text>"));
        } else if tag.starts_with(b"<div ") || tag.starts_with(b"<div>") {
            narrative = !tag.ends_with(b"/>");
        } else if !closing && !tag.ends_with(b"/>") && !tag.starts_with(b"<?") {
            depth += 1;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'\n');
    out
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
}
