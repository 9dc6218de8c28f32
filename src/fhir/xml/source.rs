//! The tokens of a document, with places for messages. Refuses what no FHIR document may have.

use quick_xml::NsReader;
use quick_xml::XmlVersion;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, PrefixDeclaration, ResolveResult};

use super::{LARGEST, is_xml_char};
use crate::error::{Error, Kind, Result};

pub(super) struct Source<'t> {
    pub text: &'t str,
    pub reader: NsReader<&'t [u8]>,
    /// Where the token at hand begins, as a byte offset.
    pub begin: usize,
    /// A narrative of JSON: it is not told by line.
    pub fragment: bool,
}

impl<'t> Source<'t> {
    pub fn new(bytes: &'t [u8]) -> Result<Source<'t>> {
        if bytes.len() > LARGEST {
            return Err(Error::new(Kind::TooLarge, "The XML document is larger than 256 MiB."));
        }
        let text = std::str::from_utf8(bytes).map_err(|fault| {
            let line = 1 + bytes[..fault.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            Error::invalid(format!("XML, line {line}: the document is not UTF-8."))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Source::open(text, false);
        match text.char_indices().find(|(_, c)| !is_xml_char(*c)) {
            Some((at, _)) => Err(source.fault_at(at, "a character that XML does not allow")),
            None => Ok(source),
        }
    }

    /// The text of a narrative.
    pub fn fragment(text: &'t str) -> Source<'t> {
        Source::open(text, true)
    }

    fn open(text: &'t str, fragment: bool) -> Source<'t> {
        let mut reader = NsReader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        reader.config_mut().check_comments = true;
        Source { text, reader, begin: 0, fragment }
    }

    /// Where the token at hand ends.
    pub fn end(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(self.text.len()).min(self.text.len())
    }

    pub fn fault_at(&self, at: usize, what: &str) -> Error {
        if self.fragment {
            return Error::invalid(format!("Narrative: {what}."));
        }
        let line = 1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count();
        Error::invalid(format!("XML, line {line}: {what}."))
    }

    pub fn fault(&self, what: &str) -> Error {
        self.fault_at(self.begin, what)
    }

    /// The next token of any kind.
    pub fn token(&mut self) -> Result<Event<'t>> {
        self.begin = self.end();
        match self.reader.read_event() {
            Ok(Event::DocType(_)) => Err(self.fault("a document type is not allowed")),
            Ok(event) => Ok(event),
            Err(fault) => {
                let at = usize::try_from(self.reader.error_position()).unwrap_or(0);
                // The text of the library quotes at most names of elements.
                Err(self.fault_at(at, &format!("not well-formed ({fault})")))
            }
        }
    }

    /// The next token that means something where elements are expected: a start, an end, or the end of all.
    pub fn element_token(&mut self) -> Result<Event<'t>> {
        loop {
            match self.token()? {
                Event::Comment(_) | Event::PI(_) => {}
                Event::Decl(decl) if self.begin == 0 => {
                    let named = decl.encoding().transpose().ok().flatten();
                    if named.is_some_and(|name| !name.eq_ignore_ascii_case(b"utf-8")) {
                        return Err(self.fault("the encoding is not UTF-8"));
                    }
                    if !matches!(decl.version().as_deref(), Ok(b"1.0")) {
                        return Err(self.fault("the version of XML is not 1.0"));
                    }
                }
                Event::Text(text) if text.iter().all(u8::is_ascii_whitespace) => {}
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => {
                    return Err(self.fault("text where only elements are allowed"));
                }
                Event::Decl(_) => return Err(self.fault("a declaration that does not come first")),
                event => return Ok(event),
            }
        }
    }

    /// Whether the element that began last is of this namespace.
    pub fn is_in(&self, start: &BytesStart, namespace: &str) -> bool {
        let (found, _) = self.reader.resolver().resolve_element(start.name());
        found == ResolveResult::Bound(Namespace(namespace.as_bytes()))
    }

    /// The attributes of an element but for declarations of namespaces: prefix's namespace, local name, value.
    pub fn attributes(
        &self,
        start: &BytesStart<'t>,
        mut visit: impl FnMut(Option<&[u8]>, &str, &str) -> Result<()>,
    ) -> Result<()> {
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|fault| self.fault(&format!("an attribute is malformed ({fault})")))?;
            if matches!(
                attribute.key.as_namespace_binding(),
                Some(PrefixDeclaration::Default | PrefixDeclaration::Named(_))
            ) {
                continue;
            }
            let (space, name) = self.reader.resolver().resolve_attribute(attribute.key);
            let space = match space {
                ResolveResult::Bound(Namespace(space)) => Some(space),
                ResolveResult::Unbound => None,
                ResolveResult::Unknown(_) => return Err(self.fault("a prefix that is not declared")),
            };
            let name = String::from_utf8_lossy(name.into_inner());
            visit(space, &name, &self.value(&attribute)?)?;
        }
        Ok(())
    }

    fn value(&self, attribute: &Attribute<'t>) -> Result<String> {
        if attribute.value.contains(&b'<') {
            return Err(self.fault("`<` in the value of an attribute"));
        }
        let value = attribute
            .normalized_value(XmlVersion::Explicit1_0)
            .map_err(|_| self.fault("an entity that is not one of XML's own"))?;
        match value.chars().find(|c| !is_xml_char(*c)) {
            Some(_) => Err(self.fault("a character that XML does not allow")),
            None => Ok(value.into_owned()),
        }
    }
}
