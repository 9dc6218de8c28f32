//! XHTML in resources: a string in JSON, elements in XML. The text is kept byte for byte but for what XML cannot hold.

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::PrefixDeclaration;

use super::entities::character;
use super::source::Source;
use super::{DEEPEST, XHTML, is_xml_char};
use crate::error::Result;

/// A narrative on its way from one form to the other.
struct Copy<'s, 't> {
    source: &'s mut Source<'t>,
    out: String,
    /// Up to here the source has been copied.
    done: usize,
}

/// Reads the narrative whose `div` has begun.
pub(super) fn read(source: &mut Source, start: &BytesStart) -> Result<String> {
    let done = source.begin;
    let mut copy = Copy { source, out: String::new(), done };
    copy.div(start)?;
    Ok(copy.out)
}

/// The narrative of JSON as XML can hold it.
///
/// # Errors
/// `Kind::Invalid`: it is not one well-formed `div`.
pub(super) fn to_xml(text: &str) -> Result<String> {
    // White space around the `div` is no part of it.
    let mut source = Source::fragment(text.trim_matches([' ', '\t', '\r', '\n']));
    if text.chars().any(|c| !is_xml_char(c)) {
        return Err(source.fault("a character that XML does not allow"));
    }
    let start = match source.token()? {
        Event::Start(start) if start.local_name().as_ref() == b"div" => start,
        _ => return Err(source.fault("it does not begin with a `div`")),
    };
    let mut copy = Copy { done: source.begin, source: &mut source, out: String::new() };
    copy.div(&start)?;
    let out = copy.out;
    match source.token()? {
        Event::Eof => Ok(out),
        _ => Err(source.fault("something follows the `div`")),
    }
}

impl Copy<'_, '_> {
    /// Copies the source up to the end of the token before the one at hand.
    fn flush(&mut self, to: usize) {
        self.out += &self.source.text[self.done..to];
        self.done = to;
    }

    /// Text: a carriage return of JSON is written as a reference, since a bare one is read as a line end.
    fn text(&mut self) {
        let source = self.source.text;
        let part = &source[self.source.begin..self.source.end()];
        if part.contains('\r') {
            self.flush(self.source.begin);
            if self.source.fragment {
                self.out += &part.replace('\r', "&#xD;");
            } else {
                self.out += &part.replace("\r\n", "\n").replace('\r', "\n");
            }
            self.done = self.source.end();
        }
    }

    fn div(&mut self, start: &BytesStart) -> Result<()> {
        let mut depth = 1;
        self.tag(start, true)?;
        loop {
            match self.source.token()? {
                Event::Start(start) => {
                    depth += 1;
                    if depth > DEEPEST {
                        return Err(self.source.fault("nested too deep"));
                    }
                    self.tag(&start, false)?;
                }
                Event::End(end) => {
                    depth -= 1;
                    let written = self.source.end() > self.source.begin;
                    if written && end.name().prefix().is_some() {
                        self.flush(self.source.begin);
                        self.out += &format!("</{}>", String::from_utf8_lossy(end.local_name().as_ref()));
                        self.done = self.source.end();
                    }
                    if depth == 0 {
                        self.flush(self.source.end());
                        return Ok(());
                    }
                }
                Event::GeneralRef(reference) => {
                    let name = String::from_utf8_lossy(&reference).into_owned();
                    self.entity(&name)?;
                }
                Event::Text(_) => self.text(),
                Event::Decl(_) => return Err(self.source.fault("a declaration inside the narrative")),
                Event::Eof => return Err(self.source.fault("the narrative ends too early")),
                _ => {}
            }
        }
    }

    /// The tag at hand: as it is, unless it names its namespace by a prefix or inherits it.
    fn tag(&mut self, start: &BytesStart, root: bool) -> Result<()> {
        let prefixed = start.name().prefix().is_some();
        if prefixed && !self.source.is_in(start, XHTML) {
            return Err(self.source.fault("an element in the narrative that is not XHTML"));
        }
        let mut own = false;
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|_| self.source.fault("an attribute is malformed"))?;
            match attribute.key.as_namespace_binding() {
                Some(PrefixDeclaration::Default) => {
                    own = *attribute.value == *XHTML.as_bytes();
                    if root && !own {
                        return Err(self.source.fault("the `div` is not XHTML"));
                    }
                }
                Some(PrefixDeclaration::Named(_)) => {}
                None => {
                    if attribute.key.prefix().is_some_and(|prefix| prefix.as_ref() != b"xml") {
                        return Err(self.source.fault("an attribute of a foreign namespace in the narrative"));
                    }
                    self.attribute_text(&attribute.value)?;
                }
            }
        }
        let source = self.source.text;
        let raw = &source[self.source.begin..self.source.end()];
        if !prefixed && (own || !root) && !raw.contains(['&', '\r']) {
            return Ok(());
        }
        self.flush(self.source.begin);
        let name = start.name();
        let rest = &raw[1 + name.as_ref().len()..];
        let declared = if root && !own { format!(" xmlns=\"{XHTML}\"") } else { String::new() };
        let local = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
        self.out += &format!("<{local}{declared}");
        self.rest_of_tag(rest);
        self.done = self.source.end();
        Ok(())
    }

    /// Checks the entities in the value of an attribute.
    fn attribute_text(&self, value: &[u8]) -> Result<()> {
        if value.contains(&b'<') {
            return Err(self.source.fault("`<` in the value of an attribute"));
        }
        let text = String::from_utf8_lossy(value);
        for part in text.split('&').skip(1) {
            let name = part.split_once(';').map(|(name, _)| name);
            if name.is_none_or(|name| character(name).is_none()) {
                return Err(self.source.fault("an entity that is not known"));
            }
        }
        Ok(())
    }

    /// Attributes: in their values entities of XHTML become characters (those of XML stay) and carriage returns are
    /// what they are in text. White space between them is kept.
    fn rest_of_tag(&mut self, tag: &str) {
        let mut quote = None;
        let mut rest = tag;
        while let Some(c) = rest.chars().next() {
            let mut length = c.len_utf8();
            match (c, quote) {
                ('"' | '\'', None) => quote = Some(c),
                (_, Some(open)) if c == open => quote = None,
                ('&', Some(_)) => {
                    let name = rest[1..].split_once(';').map_or("", |(name, _)| name);
                    if let Some(found) = character(name).filter(|c| !is_own(name) || self.is_carriage(*c)) {
                        self.out.push(found);
                        rest = &rest[name.len() + 2..];
                        continue;
                    }
                }
                ('\r', Some(_)) if self.source.fragment => {
                    self.out += "&#xD;";
                    rest = &rest[length..];
                    continue;
                }
                ('\r', Some(_)) => {
                    length += usize::from(rest[length..].starts_with('\n'));
                    self.out.push('\n');
                    rest = &rest[length..];
                    continue;
                }
                _ => {}
            }
            self.out += &rest[..length];
            rest = &rest[length..];
        }
    }

    /// Whether this is a reference that stands for a carriage return of JSON.
    fn is_carriage(&self, found: char) -> bool {
        found == '\r' && !self.source.fragment
    }

    fn entity(&mut self, name: &str) -> Result<()> {
        let Some(found) = character(name) else {
            return Err(self.source.fault("an entity that is not known"));
        };
        if !is_own(name) || self.is_carriage(found) {
            self.flush(self.source.begin);
            self.out.push(found);
            self.done = self.source.end();
        }
        Ok(())
    }
}

/// Entities that every XML document has: they stay as they are.
fn is_own(name: &str) -> bool {
    name.starts_with('#') || matches!(name, "amp" | "lt" | "gt" | "quot" | "apos")
}
