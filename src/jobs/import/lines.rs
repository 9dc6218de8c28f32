//! On which line of its file each entry of a Bundle begins, so that a bad one is found with an editor. The text has been
//! read as JSON or XML by then; in what is neither, the lines mean nothing, and nobody is told them.

/// 1-based lines of the elements of the member `entry` of a JSON object.
pub fn of_json(text: &[u8]) -> Vec<u64> {
    let (mut lines, mut line, mut depth) = (Vec::new(), 1, 0u32);
    // Where the string began that was read last, and whether we are in the list, before an element.
    let (mut key, mut listed, mut awaits) = (&text[..0], false, false);
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if awaits && !byte.is_ascii_whitespace() && !b",]".contains(&byte) {
            lines.push(line);
            awaits = false;
        }
        match byte {
            b'\n' => line += 1,
            b'"' => {
                let end = string_end(text, at);
                if depth == 1 {
                    key = &text[at..end];
                }
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth == 2 && byte == b'[' && key == b"\"entry\"" {
                    (listed, awaits) = (true, true);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 1 {
                    (key, listed, awaits) = (&text[..0], false, false);
                }
            }
            b',' => awaits = listed && depth == 2,
            _ => {}
        }
        at += 1;
    }
    lines
}

/// Behind the quote that ends the string which begins here. A string of JSON holds no line break.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = text.get(at) {
        at += if byte == b'\\' { 2 } else { 1 };
        if byte == b'"' {
            break;
        }
    }
    at.min(text.len())
}

/// 1-based lines of the elements `entry` right below the root.
pub fn of_xml(text: &[u8]) -> Vec<u64> {
    let (mut lines, mut line, mut depth) = (Vec::new(), 1, 0u32);
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte != b'<' {
            line += u64::from(byte == b'\n');
            at += 1;
            continue;
        }
        let rest = &text[at..];
        let end = at + markup_length(rest);
        let markup = &text[at..end];
        if rest.starts_with(b"</") {
            depth = depth.saturating_sub(1);
        } else if !rest.starts_with(b"<!") && !rest.starts_with(b"<?") {
            let name = markup[1..].split(|byte| byte.is_ascii_whitespace() || b"/>".contains(byte)).next();
            if depth == 1 && name == Some(b"entry") {
                lines.push(line);
            }
            depth += u32::from(!markup.ends_with(b"/>"));
        }
        line += markup.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        at = end;
    }
    lines
}

/// Bytes of the tag, comment or the like that begins here.
fn markup_length(rest: &[u8]) -> usize {
    let until =
        |end: &[u8]| rest.windows(end.len()).position(|part| part == end).map_or(rest.len(), |at| at + end.len());
    if rest.starts_with(b"<!--") {
        return until(b"-->");
    }
    if rest.starts_with(b"<![CDATA[") {
        return until(b"]]>");
    }
    let mut quote = None;
    for (at, byte) in rest.iter().enumerate() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'>') => return at + 1,
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_json_are_found_on_their_lines() {
        let text = b"{\"type\": \"entry\",\n \"link\": [{\"entry\": [1,\n2]}], \"x\": \"a\\\"[,\",\n\"entry\"\n: [ {\"a\": [1, 2,\n {}]},\n\n3, \"b,c\"\n,[4]\n], \"z\": [5, 6]}";
        assert_eq!(of_json(text), [5, 8, 8, 9]);
        assert_eq!(of_json(b"{\"entry\": []}"), [0u64; 0]);
        assert_eq!(of_json(b"{\"entry\": [{}]}"), [1]);
        for broken in [&b"\"\\"[..], b"{\"entry\": [\"", b"]]]", b""] {
            of_json(broken);
        }
    }

    #[test]
    fn entries_of_xml_are_found_on_their_lines() {
        let text = b"<?xml version='1.0'?>\n<Bundle xmlns='x'><!-- <entry>\n -->\n<type value='a>b'/><entry><resource><B><entry/>\n</B></resource></entry>\n<entry\n  id='1'/><entry>\n</entry></Bundle>";
        assert_eq!(of_xml(text), [4, 6, 7]);
        for broken in [&b"<"[..], b"<a b='", b"</a></a><entry", b"<!--", b"<![CDATA[<entry>"] {
            of_xml(broken);
        }
    }
}
