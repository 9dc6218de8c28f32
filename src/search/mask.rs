//! What a search may not look at: search values of elements that lie in a section the caller may not open. A number
//! that is not shown must not be guessed by searching, sorting or counting either. Must not know callers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, RwLock};

use super::borrowed::ValueRef;
use crate::error::Result;
use crate::fhir::definitions::{Component, custom};
use crate::fhir::{ParamId, TypeId, definitions};
use crate::mapping::{Items, Section, mapping};

/// The values of one type that lie in closed sections.
#[derive(Debug, PartialEq, Eq)]
pub struct Mask {
    /// Parameters that look at a closed element.
    closed: BTreeSet<ParamId>,
    /// Parameters of the site that look at none. One that is not known yet counts as closed.
    open_custom: BTreeSet<ParamId>,
    /// Parameters of which single items are closed: those that the rules with these places in the mapping pick.
    items: Vec<(ParamId, usize)>,
    kind: TypeId,
}

type Masks = HashMap<(TypeId, u8), Option<Arc<Mask>>>;

impl Mask {
    /// What is closed of a type where only some sections are open; None: nothing of it.
    pub fn of(kind: TypeId, open: impl Fn(Section) -> bool) -> Option<Arc<Mask>> {
        static MASKS: LazyLock<RwLock<(usize, Masks)>> = LazyLock::new(RwLock::default);
        let mut closed = Section::ALL.into_iter().filter(|section| !open(*section)).peekable();
        closed.peek()?;
        let key = (kind, closed.fold(0u8, |all, section| all | 1 << section as u8));
        let defined = custom::count();
        {
            let known = MASKS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some(mask) = known.1.get(&key).filter(|_| known.0 == defined) {
                return mask.clone();
            }
        }
        let mask = Mask::make(kind, &open);
        let mut known = MASKS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Parameters were defined since: every mask has to be made again.
        if known.0 < defined {
            *known = (defined, Masks::new());
        }
        if known.0 == defined {
            known.1.insert(key, mask.clone());
        }
        mask
    }

    fn make(kind: TypeId, open: &impl Fn(Section) -> bool) -> Option<Arc<Mask>> {
        let mapping = mapping(kind);
        let mut mask = Mask { closed: BTreeSet::new(), open_custom: BTreeSet::new(), items: Vec::new(), kind };
        mask.look_at_custom(open);
        for param in definitions().params(kind).iter().filter(|param| !param.code.starts_with('_')) {
            let text = param.text(kind).unwrap_or_default();
            for element in elements(&text, definitions().type_name(kind)) {
                if !open(mapping.of_member(element)) {
                    mask.closed.insert(param.id);
                }
                let rules = mapping.elements.iter().enumerate();
                let rules =
                    rules.filter(|(_, rule)| rule.name == element && rule.items.is_some() && !open(rule.section));
                mask.items.extend(rules.map(|(at, _)| (param.id, at)));
            }
        }
        let part_closed = |part: &Component| part.param().is_some_and(|param| mask.closed.contains(&param.id));
        let params = definitions().params(kind).iter();
        let composites = params.filter(|param| param.components.iter().any(part_closed));
        let composites: Vec<ParamId> = composites.map(|param| param.id).collect();
        mask.closed.extend(composites);
        let custom = custom::of_type(kind).iter().any(|param| !mask.open_custom.contains(&param.id));
        (custom || !mask.closed.is_empty() || !mask.items.is_empty()).then(|| Arc::new(mask))
    }

    fn look_at_custom(&mut self, open: &impl Fn(Section) -> bool) {
        let mapping = mapping(self.kind);
        for param in custom::of_type(self.kind) {
            let Some(members) = param.members(self.kind) else { continue };
            if !members.iter().all(|member| open(mapping.of_member(member))) {
                continue;
            }
            self.open_custom.insert(param.id);
            let rules = mapping.elements.iter().enumerate();
            let rules = rules.filter(|(_, rule)| members.contains(&rule.name) && rule.items.is_some());
            self.items.extend(rules.filter(|(_, rule)| !open(rule.section)).map(|(at, _)| (param.id, at)));
        }
    }

    /// Whether no value of the parameter may be looked at.
    pub fn closes(&self, param: ParamId) -> bool {
        if param.is_custom() { !self.open_custom.contains(&param) } else { self.closed.contains(&param) }
    }

    /// Whether this value of the parameter may not be looked at.
    ///
    /// # Errors
    /// `Kind::Tampered` when the value does not decode.
    pub fn hides(&self, param: ParamId, value: &ValueRef<'_>) -> Result<bool> {
        if self.closes(param) {
            return Ok(true);
        }
        let rules: Vec<&Items> = self.items_of(param).collect();
        let ValueRef::Identifier { system, types, .. } = value else { return Ok(!rules.is_empty()) };
        for rule in rules {
            let mut codes = Vec::new();
            for coding in types.iter() {
                codes.extend(coding?.1);
            }
            if rule.pick(system.unwrap_or_default(), codes.into_iter()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn items_of(&self, param: ParamId) -> impl Iterator<Item = &'static Items> {
        let mapping = mapping(self.kind);
        let places = self.items.iter().filter(move |(of, _)| *of == param);
        places.filter_map(|(_, at)| mapping.elements.get(*at)?.items.as_ref())
    }
}

/// The members of the type that an expression names: `telecom` of `Patient.telecom.where(system='phone')`.
fn elements<'a>(expression: &'a str, name: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for (at, _) in expression.match_indices(name) {
        let before = expression[..at].chars().next_back();
        let Some(rest) = expression[at + name.len()..].strip_prefix('.') else { continue };
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.') {
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        found.insert(&rest[..end]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_sections_close_what_searches_look_at() {
        let kind = definitions().type_id("Patient").unwrap();
        let id = |code: &str| definitions().param(kind, code).unwrap().id;
        assert!(Mask::of(kind, |_| true).is_none());
        let mask = Mask::of(kind, |section| section == Section::Identity).unwrap();
        for code in ["telecom", "phone", "email", "address", "address-city", "address-postalcode"] {
            assert!(mask.closes(id(code)), "{code}");
        }
        for code in ["name", "family", "birthdate", "gender", "general-practitioner", "identifier", "_id"] {
            assert!(!mask.closes(id(code)), "{code}");
        }
        let identifier = |system| ValueRef::Identifier {
            system: Some(system),
            value: Some("1"),
            text: None,
            types: crate::search::borrowed::Types::NONE,
        };
        let hides = |system| mask.hides(id("identifier"), &identifier(system)).unwrap();
        assert!(hides("http://hl7.org/fhir/sid/us-ssn") && hides("urn:oid:2.16.840.1.113883.4.3.25"));
        assert!(!hides("http://hospital.example/mrn"));
        let open = Mask::of(kind, |section| section != Section::Insurance).unwrap();
        assert!(!open.hides(id("identifier"), &identifier("http://hl7.org/fhir/sid/us-ssn")).unwrap());
    }

    #[test]
    fn a_composite_is_closed_with_its_parts() {
        let kind = definitions().type_id("Observation").unwrap();
        let id = |code: &str| definitions().param(kind, code).unwrap().id;
        let mask = Mask::of(kind, |section| section != Section::Clinical).unwrap();
        for code in ["code", "value-quantity", "code-value-quantity", "combo-code-value-concept"] {
            assert!(mask.closes(id(code)), "{code}");
        }
    }

    #[test]
    fn the_reason_of_an_appointment_is_not_to_be_guessed() {
        let kind = definitions().type_id("Appointment").unwrap();
        let id = |code: &str| definitions().param(kind, code).unwrap().id;
        let mask = Mask::of(kind, |section| section != Section::Clinical).unwrap();
        for (code, closed) in [("reason-code", true), ("reason-reference", true), ("date", false), ("actor", false)] {
            assert_eq!(mask.closes(id(code)), closed, "{code}");
        }
    }
}
