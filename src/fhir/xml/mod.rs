//! FHIR XML in and out. JSON to XML to JSON loses nothing, narrative white space included.
//!
//! Driven by the definitions: they say the order of elements, which of them repeat, which are attributes, and what a
//! value is in JSON. Knows no resource by name. Input is hostile: no document type, no entities but those of XML (and
//! in narrative those of XHTML), namespaces checked, depth and size limited, nothing unknown passed over.

mod entities;
mod narrative;
mod pretty;
mod read;
mod source;
#[cfg(test)]
mod tests;
mod write;

pub use pretty::indented;
pub use read::read;
pub use write::write;

use crate::fhir::definitions::{Child, Primitive};

const FHIR: &str = "http://hl7.org/fhir";
const XHTML: &str = "http://www.w3.org/1999/xhtml";
const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// Deepest nesting of elements. The deepest example of R4 has 23.
const DEEPEST: usize = 100;
/// Largest document, in bytes. Requests have lower limits of their own.
const LARGEST: usize = 256 << 20;

/// What a primitive is in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Json {
    Boolean,
    Integer,
    Decimal,
    String,
}

fn json_kind(primitive: Primitive) -> Json {
    match primitive {
        Primitive::Boolean => Json::Boolean,
        Primitive::Integer | Primitive::UnsignedInt | Primitive::PositiveInt => Json::Integer,
        Primitive::Decimal => Json::Decimal,
        _ => Json::String,
    }
}

/// Whether JSON has an array for this element.
fn repeats(child: &Child) -> bool {
    child.element.max.is_none_or(|max| max > 1)
}

/// Characters that XML 1.0 can hold, escaped or not.
fn is_xml_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Where in a resource reading or writing is, to be told as FHIRPath.
#[derive(Default)]
struct Place {
    steps: Vec<(&'static str, Option<usize>)>,
}

impl Place {
    fn push(&mut self, name: &'static str, index: Option<usize>) {
        self.steps.push((name, index));
    }

    fn pop(&mut self) {
        self.steps.pop();
    }

    fn depth(&self) -> usize {
        self.steps.len()
    }

    fn path(&self) -> String {
        let mut out = String::new();
        for (n, (name, index)) in self.steps.iter().enumerate() {
            out += if n > 0 { "." } else { "" };
            out += name;
            if let Some(index) = index {
                out += &format!("[{index}]");
            }
        }
        out
    }
}
