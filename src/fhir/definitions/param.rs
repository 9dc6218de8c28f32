//! Search parameters. Their FHIRPath is compiled when it is first needed, type by type.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{ParamId, TypeId, definitions};
use crate::fhir::path::Expr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamKind {
    Number,
    Date,
    String,
    Token,
    Reference,
    Composite,
    Quantity,
    Uri,
    /// A string that is compared by how it sounds (`xpathUsage` phonetic).
    Phonetic,
    /// `near` and others that no rule covers.
    Special,
}

impl ParamKind {
    /// By its [name](ParamKind::name).
    pub fn of(name: &str) -> Option<ParamKind> {
        Some(match name {
            "number" => ParamKind::Number,
            "date" => ParamKind::Date,
            "string" => ParamKind::String,
            "token" => ParamKind::Token,
            "reference" => ParamKind::Reference,
            "composite" => ParamKind::Composite,
            "quantity" => ParamKind::Quantity,
            "uri" => ParamKind::Uri,
            "phonetic" => ParamKind::Phonetic,
            "special" => ParamKind::Special,
            _ => return None,
        })
    }

    /// The code of `search-param-type`.
    pub fn code(self) -> &'static str {
        match self {
            ParamKind::Phonetic => "string",
            other => other.name(),
        }
    }

    /// As the tables and mappings write it: the code, but for what R4 calls a string and compares otherwise.
    pub fn name(self) -> &'static str {
        match self {
            ParamKind::Number => "number",
            ParamKind::Date => "date",
            ParamKind::String => "string",
            ParamKind::Phonetic => "phonetic",
            ParamKind::Token => "token",
            ParamKind::Reference => "reference",
            ParamKind::Composite => "composite",
            ParamKind::Quantity => "quantity",
            ParamKind::Uri => "uri",
            ParamKind::Special => "special",
        }
    }
}

/// One search parameter as it applies to one or more types. Parameters of `Resource` (`_id`, `_lastUpdated`, `_tag`,
/// `_profile`, `_security`, `_source`, `_content`, `_query`) apply to all, `_text` to those with a narrative.
pub struct Param {
    pub id: ParamId,
    /// The name in a query: `birthdate`, `_lastUpdated`.
    pub code: &'static str,
    /// Canonical url.
    pub url: &'static str,
    pub kind: ParamKind,
    /// Types it applies to, by number; empty: all.
    pub bases: Vec<TypeId>,
    /// For references: the types it may point to; empty: any.
    pub targets: Vec<TypeId>,
    /// For composites: the component parameters with their own expressions, relative to what [`Param::expr`] gives.
    pub components: Vec<Component>,
    /// As published (for all its types), for the CapabilityStatement and for messages. Empty: none (`_text`).
    pub expression: &'static str,
    pub limits: Limits,
    /// One per base (one in all when it applies to all types).
    pub(super) compiled: Box<[OnceLock<Option<Expr>>]>,
}

/// What a search may do with a parameter; by default everything that its kind allows.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Codes of the modifiers it takes; None: all of its kind.
    pub modifiers: Option<Vec<String>>,
    /// Prefixes it takes; None: all of its kind.
    pub comparators: Option<Vec<String>>,
    /// Codes of the parameters that may be chained to it; None: all.
    #[serde(default)]
    pub chains: Option<Vec<String>>,
    /// No values joined by commas (`multipleOr`).
    #[serde(default)]
    pub one_value: bool,
    /// Only once in a query (`multipleAnd`).
    #[serde(default)]
    pub once: bool,
}

/// One component of a composite parameter.
pub struct Component {
    pub(super) of: Of,
    pub expression: &'static str,
    /// The types of which the parameter holds every value of the component; None: all.
    pub(super) told: Option<Vec<TypeId>>,
    pub(super) compiled: OnceLock<Expr>,
}

/// The parameter that a component is a value of.
pub(super) enum Of {
    Number(ParamId),
    /// What a parameter of the site was when the composite was defined.
    Own(Box<Param>),
}

impl Component {
    /// The parameter by whose kind values are read; its own expression does not matter here. None: no such number.
    pub fn param(&self) -> Option<&Param> {
        match &self.of {
            Of::Number(id) => definitions().param_by_id(*id),
            Of::Own(param) => Some(param),
        }
    }

    /// The parameter that holds every value of this component in resources of a type, if one does.
    pub fn told_by(&self, kind: TypeId) -> Option<ParamId> {
        match self.of {
            Of::Number(id) => self.told.as_ref().is_none_or(|told| told.contains(&kind)).then_some(id),
            Of::Own(_) => None,
        }
    }

    /// The compiled expression.
    pub fn expr(&self) -> &Expr {
        self.compiled.get_or_init(|| compile(self.expression))
    }
}

impl Param {
    /// The compiled part of the expression for one type; None when it does not apply to the type or no expression is
    /// published.
    pub fn expr(&self, of: TypeId) -> Option<&Expr> {
        self.compiled[self.place(of)?].get_or_init(|| self.text(of).map(|text| compile(&text))).as_ref()
    }

    /// The part of the published expression that concerns one type: its own alternatives of `A.x | B.y`.
    pub fn text(&self, of: TypeId) -> Option<Cow<'static, str>> {
        self.place(of)?;
        if self.id.is_custom() && self.bases.len() == 1 {
            return Some(Cow::Borrowed(self.expression));
        }
        let name = definitions().type_name(of);
        let mut pieces = alternatives(self.expression).filter(|piece| concerns(piece, name));
        let first = pieces.next()?;
        Some(pieces.fold(Cow::Borrowed(first), |all, piece| Cow::Owned(format!("{all} | {piece}"))))
    }

    /// The members of a type that its values come from; None where that cannot be told.
    pub fn members(&self, of: TypeId) -> Option<BTreeSet<String>> {
        if self.kind != ParamKind::Composite {
            return self.expr(of)?.members().ok();
        }
        let text = self.text(of)?;
        let mut all = BTreeSet::new();
        for component in &self.components {
            all.extend(Expr::parse(&within(&text, component.expression)).ok()?.members().ok()?);
        }
        Some(all)
    }

    fn place(&self, of: TypeId) -> Option<usize> {
        if self.bases.is_empty() { Some(0) } else { self.bases.binary_search(&of).ok() }
    }
}

/// The alternatives of an expression that concern a type; empty when none does.
pub fn of_type(expression: &str, name: &str) -> String {
    alternatives(expression).filter(|piece| concerns(piece, name)).collect::<Vec<_>>().join(" | ")
}

/// One expression for what a component finds in all that its composite is based on.
pub fn within(base: &str, component: &str) -> String {
    let each = |piece| format!("({piece}\n).select({component}\n)");
    alternatives(base).map(each).collect::<Vec<_>>().join(" | ")
}

/// Whether the values at this path below `base` are all among those that a parameter has by its own expression.
pub(super) fn tells(param: &Param, of: TypeId, base: &str, path: &str) -> bool {
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let own = param.text(of).unwrap_or_default();
    let own: Vec<String> = alternatives(&own).map(bare).collect();
    alternatives(base).all(|piece| own.contains(&bare(&format!("{piece}.{path}"))))
}

fn compile(text: &str) -> Expr {
    Expr::parse(text).expect("published expressions compile (a test compiles every one), others were before")
}

/// The pieces between the `|` that stand outside of brackets and quotes.
fn alternatives<'a>(text: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (mut depth, mut quoted, mut end) = (0, false, rest.len());
            for (n, c) in rest.bytes().enumerate() {
                match c {
                    b'\'' => quoted = !quoted,
                    b'(' if !quoted => depth += 1,
                    b')' if !quoted => depth -= 1,
                    b'|' if !quoted && depth == 0 => {
                        end = n;
                        break;
                    }
                    _ => {}
                }
            }
            let piece = rest[..end].trim();
            rest = rest.get(end + 1..).unwrap_or("");
            if !piece.is_empty() {
                return Some(piece);
            }
        }
        None
    })
}

/// Whether an alternative is about the type: it starts with the type's name, with that of a base type, or with no type
/// at all (`name`).
fn concerns(piece: &str, name: &str) -> bool {
    let start = piece.trim_start_matches(['(', ' ']);
    let end = start.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(start.len());
    let head = &start[..end];
    head == name || head == "Resource" || head == "DomainResource" || definitions().type_id(head).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_respect_brackets_and_quotes() {
        let found: Vec<_> = alternatives("(A.x as B) | A.y.where(z='|' | w) |  | C").collect();
        assert_eq!(found, ["(A.x as B)", "A.y.where(z='|' | w)", "C"]);
        assert_eq!(alternatives("").count(), 0);
    }

    #[test]
    fn alternatives_go_to_their_types() {
        assert!(concerns("(Patient.deceased as dateTime)", "Patient"));
        assert!(!concerns("Patient.name", "Practitioner"));
        assert!(concerns("Resource.id", "Practitioner"));
        assert!(concerns("alias", "InsurancePlan"));
    }

    /// Every parameter has something to evaluate for each of its types, but for those the standard leaves open.
    #[test]
    fn expressions_cover_their_types() {
        let d = definitions();
        let mut without = Vec::new();
        for &of in d.types() {
            for param in d.params(of) {
                if param.text(of).is_none() && !param.bases.is_empty() && !param.code.starts_with('_') {
                    without.push(format!("{}.{}", d.type_name(of), param.code));
                }
            }
        }
        assert_eq!(without, ["Patient.age"]);
    }

    #[test]
    fn every_expression_compiles() {
        let d = definitions();
        let mut faults = Vec::new();
        let mut try_one = |param: &Param, text: &str| {
            if let Err(e) = Expr::parse(text) {
                faults.push(format!("{}: {text}: {e}", param.url));
            }
        };
        for &of in d.types() {
            for param in d.params(of) {
                if let Some(text) = param.text(of) {
                    try_one(param, &text);
                }
                for component in &param.components {
                    try_one(param, component.expression);
                    assert!(component.param().is_some(), "{}", param.url);
                }
            }
        }
        assert_eq!(faults, Vec::<String>::new());
    }
}
