//! JSON in and out: numbers kept as written, member order kept, duplicate members and trailing bytes refused.
//!
//! The reader is our own because no reader at hand keeps `1E-10` as written (they make `1e-10` of it), tells of
//! duplicate members, or can be kept from mistaking an object with a certain member for a number.

use std::ops::Range;

use serde_json::{Map, Number, Value};

use crate::error::{Error, Kind, Result};

/// A JSON tree that keeps member order and the digits of numbers (`1.00` stays `1.00`).
pub type Node = Value;

/// The deepest nesting of objects and arrays that is read.
pub const MAX_DEPTH: usize = 100;

/// Parses one JSON document (RFC 8259; a byte order mark is skipped). Refuses duplicate members, trailing bytes, a
/// depth over [`MAX_DEPTH`] and invalid UTF-8.
///
/// # Errors
/// `Kind::Invalid` naming line and column (in characters, from 1) and, for a duplicate, the member.
pub fn parse(bytes: &[u8]) -> Result<Node> {
    read(bytes, |reader| reader.value())
}

/// A Bundle with the resources of its entries apart.
pub struct Apart {
    /// The Bundle without them.
    pub outer: Node,
    /// By entry: where its resource lies in the text, and its tree.
    pub resources: Vec<Option<(Range<usize>, Option<Node>)>>,
}

/// Parses a Bundle, leaving the trees of resources away once those that are kept make up `trees_max` bytes of text. All
/// of it is read to the same rules.
///
/// # Errors
/// As [`parse`].
pub fn parse_apart(bytes: &[u8], trees_max: usize) -> Result<Apart> {
    let mut resources = Resources { trees_left: trees_max, found: Vec::new() };
    let outer = read(bytes, |reader| reader.bundle(&mut resources))?;
    Ok(Apart { outer, resources: resources.found })
}

fn read(bytes: &[u8], document: impl FnOnce(&mut Reader<'_>) -> Result<Node, Fault>) -> Result<Node> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            return Err(fault("the text is not valid UTF-8", &before));
        }
    };
    // Places count from the start of the bytes.
    let start = if text.starts_with(MARK) { MARK.len_utf8() } else { 0 };
    let mut reader = Reader { text, bytes, at: start, depth: 0 };
    let read = document(&mut reader).and_then(|node| {
        reader.space();
        if reader.at == reader.bytes.len() {
            Ok(node)
        } else {
            Err("nothing but white space after the document".into())
        }
    });
    read.map_err(|what: Fault| fault(&what, &text[start..text.floor_char_boundary(reader.at)]))
}

/// Compact JSON bytes, as stored and as sent.
pub fn write(node: &Node) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_to(node, &mut out);
    out
}

/// Appends compact JSON bytes.
pub fn write_to(node: &Node, out: &mut Vec<u8>) {
    match node {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(n) => out.extend_from_slice(n.as_str().as_bytes()),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_to(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (n, (name, value)) in members.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_to(value, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends a JSON string with its quotes. Only what JSON requires is escaped.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &b) in bytes.iter().enumerate() {
        if PLAIN[usize::from(b)] {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Bytes that stand for themselves inside a string.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut b = 0;
    while b < 0x20 {
        plain[b] = false;
        b += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

type Fault = std::borrow::Cow<'static, str>;

/// The byte order mark.
const MARK: char = '\u{feff}';

fn fault(what: &str, before: &str) -> Error {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    let mut error = Error::new(Kind::Invalid, format!("Not readable JSON: {what} at line {line} column {column}."));
    error.issues[0].code = "structure";
    error
}

/// The resources of entries, as they are met.
struct Resources {
    /// Bytes of text whose trees are still kept.
    trees_left: usize,
    found: Vec<Option<(Range<usize>, Option<Node>)>>,
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Node, Fault> {
        self.space();
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err("expected a value".into()),
            None => Err("the text ends where a value is expected".into()),
        }
    }

    fn word(&mut self, word: &'static str, value: Node) -> Result<Node, Fault> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        Err("expected a value".into())
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Result<Node, Fault>) -> Result<Node, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nesting deeper than {MAX_DEPTH}").into());
        }
        self.at += 1;
        let node = inner(self)?;
        self.depth -= 1;
        Ok(node)
    }

    fn object(&mut self) -> Result<Node, Fault> {
        self.members(|reader, _| reader.value())
    }

    /// An object; `read` reads the value of each member.
    fn members(&mut self, mut read: impl FnMut(&mut Self, &str) -> Result<Node, Fault>) -> Result<Node, Fault> {
        let mut members = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Map::new()));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err("expected the name of a member in quotes".into());
            }
            let name = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err("expected a colon".into());
            }
            self.at += 1;
            let value = read(self, &name)?;
            members.push((start, name, value));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return self.map(members);
                }
                _ => return Err("expected a comma or a closing brace".into()),
            }
        }
    }

    /// A map of the right size: one that grew takes twice the memory, and a large Bundle has half a million.
    fn map(&mut self, members: Vec<(usize, String, Node)>) -> Result<Node, Fault> {
        let mut map = Map::with_capacity(members.len());
        for (start, name, value) in members {
            let slot = map.entry(name);
            if let serde_json::map::Entry::Occupied(taken) = &slot {
                self.at = start;
                let name: String = taken.key().chars().take(64).collect();
                return Err(format!("duplicate member \"{name}\"").into());
            }
            slot.or_insert(value);
        }
        Ok(Value::Object(map))
    }

    fn array(&mut self) -> Result<Node, Fault> {
        self.items(Self::value)
    }

    /// An array; `read` reads each of its items.
    fn items(&mut self, mut read: impl FnMut(&mut Self) -> Result<Node, Fault>) -> Result<Node, Fault> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(read(self)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    items.shrink_to_fit();
                    return Ok(Value::Array(items));
                }
                _ => return Err("expected a comma or a closing bracket".into()),
            }
        }
    }

    /// A document of which the resources of entries are put apart.
    fn bundle(&mut self, resources: &mut Resources) -> Result<Node, Fault> {
        self.members_or_value(|reader, name| match name {
            "entry" => reader.items_or_value(|reader| {
                resources.found.push(None);
                reader.members_or_value(|reader, name| match name {
                    "resource" => reader.apart(resources),
                    _ => reader.value(),
                })
            }),
            _ => reader.value(),
        })
    }

    fn members_or_value(&mut self, read: impl FnMut(&mut Self, &str) -> Result<Node, Fault>) -> Result<Node, Fault> {
        self.space();
        if self.peek() == Some(b'{') { self.nested(|reader| reader.members(read)) } else { self.value() }
    }

    fn items_or_value(&mut self, read: impl FnMut(&mut Self) -> Result<Node, Fault>) -> Result<Node, Fault> {
        self.space();
        if self.peek() == Some(b'[') { self.nested(|reader| reader.items(read)) } else { self.value() }
    }

    /// The resource of the entry that was begun last; null in its place. What is no object stays where it is.
    fn apart(&mut self, resources: &mut Resources) -> Result<Node, Fault> {
        self.space();
        let start = self.at;
        let tree = self.value()?;
        if !tree.is_object() {
            return Ok(tree);
        }
        let place = start..self.at;
        let left = resources.trees_left.checked_sub(place.len());
        resources.trees_left = left.unwrap_or(0);
        if let Some(slot) = resources.found.last_mut() {
            *slot = Some((place, left.map(|_| tree)));
        }
        Ok(Value::Null)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err("expected a digit".into()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Node, Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.at;
        self.digits()?;
        if self.bytes[first] == b'0' && self.at > first + 1 {
            self.at = first;
            return Err("a number with a leading zero".into());
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        // The text is a number by the grammar just read, and this is the one way to keep it as written.
        Ok(Value::Number(Number::from_string_unchecked(self.text[start..self.at].to_owned())))
    }

    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let start = self.at;
        self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(self.text[start..self.at - 1].to_owned());
        }
        let mut out = self.text[start..self.at].to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err("an unescaped control character in a string".into()),
                None => return Err("the text ends inside a string".into()),
            }
            let start = self.at;
            self.plain();
            out.push_str(&self.text[start..self.at]);
        }
    }

    fn plain(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|&b| !PLAIN[usize::from(b)]).unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, Fault> {
        self.at += 1;
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err("an escape that JSON does not have".into()),
        };
        self.at += 1;
        Ok(c)
    }

    /// `\uXXXX` or a pair of them; `at` is on the `u`.
    fn unicode(&mut self) -> Result<char, Fault> {
        let unit = self.hex4()?;
        let code = match unit {
            0xD800..=0xDBFF if self.bytes[self.at..].starts_with(b"\\u") => {
                self.at += 1;
                match self.hex4()? {
                    low @ 0xDC00..=0xDFFF => 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00),
                    _ => return Err("half of a surrogate pair".into()),
                }
            }
            unit => unit,
        };
        char::from_u32(code).ok_or_else(|| "half of a surrogate pair".into())
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or(b"");
        let mut code = 0;
        for &b in digits {
            code = code * 16 + char::from(b).to_digit(16).ok_or("expected four hexadecimal digits")?;
        }
        if digits.is_empty() {
            return Err("expected four hexadecimal digits".into());
        }
        self.at += 5;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fails(text: &str) -> String {
        parse(text.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn numbers_stay_as_written() {
        for number in
            ["1E-10", "1e+5", "1.00", "-0", "-0.0", "12345678901234567890", "0.1234567890123456789012", "1E400"]
        {
            let text = format!("[{number},{{\"a\":{number}}}]");
            let node = parse(text.as_bytes()).expect("valid");
            assert_eq!(write(&node), text.as_bytes());
            assert_eq!(serde_json::to_string(&node).expect("writes"), text);
        }
        for bad in ["01", "-01", "+1", "1.", ".5", "1e", "1e+", "-", "0x1", "NaN", "1_0"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        assert_eq!(fails("{\n \"a\": 1,\n \"a\": 2}"), "Not readable JSON: duplicate member \"a\" at line 3 column 2.");
        assert!(fails("{\"é\":}").contains("line 1 column 6"));
        assert!(fails("{\"a\":1} x").contains("nothing but white space after the document at line 1 column 9"));
        assert!(fails("").contains("line 1 column 1"));
        let invalid = parse(b"{\"a\":\"\xff\"}").expect_err("refused").to_string();
        assert!(invalid.contains("UTF-8 at line 1 column 7"), "{invalid}");
        let deep = "[".repeat(101);
        assert!(fails(&deep).contains("deeper than 100 at line 1 column 101"));
        assert!(parse(format!("{}{}", "[".repeat(100), "]".repeat(100)).as_bytes()).is_ok());
    }

    #[test]
    fn duplicates_are_found_however_they_are_spelt() {
        assert!(fails(r#"{"resourceType":"Patient","resource\u0054ype":"Group"}"#).contains("duplicate"));
    }

    #[test]
    fn an_object_is_never_a_number() {
        let text = br#"{"$serde_json::private::Number":"1"}"#;
        let node = parse(text).expect("valid");
        assert!(node.is_object());
        assert_eq!(write(&node), text);
    }

    #[test]
    fn strings_come_back() {
        let text = r#"["\"\\\/\b\f\n\r\t","\ud83d\ude00é\u0041\u0000"]"#;
        let node = parse(text.as_bytes()).expect("valid");
        assert_eq!(node, serde_json::from_str::<Value>(text).expect("valid"));
        assert_eq!(write(&node), serde_json::to_vec(&node).expect("writes"));
        for bad in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\u12""#, r#""\x""#, "\"\n\"", "\"abc"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse("\u{feff}{}".as_bytes()).is_ok());
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| Value::Number(n.into())),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(node in tree()) {
            let bytes = write(&node);
            prop_assert_eq!(&parse(&bytes).expect("valid"), &node);
            prop_assert_eq!(&serde_json::from_slice::<Value>(&bytes).expect("valid"), &node);
            let pretty = serde_json::to_vec_pretty(&node).expect("writes");
            prop_assert_eq!(&parse(&pretty).expect("valid"), &node);
        }

        /// Broken documents are refused exactly when the reader of serde_json refuses them.
        #[test]
        fn verdicts_agree(node in tree(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = write(&node);
            let at = cut.index(bytes.len());
            bytes[at] = byte;
            if !bytes.starts_with(b"\xef\xbb\xbf") {
                let ours = parse(&bytes);
                let duplicate = ours.as_ref().err().is_some_and(|e| e.to_string().contains("duplicate"));
                prop_assert!(duplicate || ours.is_ok() == serde_json::from_slice::<Value>(&bytes).is_ok());
            }
        }
    }
}
