//! What is known of R4: types, elements, search parameters, compartments. Loaded once from the compact fact tables
//! under `fhir-profiles/r4/`, which are embedded in the binary. Must not know any resource by name.

pub mod custom;
mod load;
mod param;
mod shape;

use std::collections::HashMap;
use std::sync::OnceLock;

pub use param::{Component, Limits, Param, ParamKind, of_type, within};
pub use shape::{Child, Element, Primitive, Shape, ShapeKind};

/// A resource type. The number is fixed by the fact tables (only ever appended to): it is stored in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u16);

/// A search parameter. The number is fixed by the fact tables: it is part of blind terms and capsules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub u16);

/// All of it.
pub struct Definitions {
    types: Vec<TypeId>,
    /// By number.
    names: Vec<&'static str>,
    ids: HashMap<&'static str, TypeId>,
    /// Shape of each resource type, by number.
    of_type: Vec<u16>,
    shapes: Vec<Shape>,
    by_path: HashMap<&'static str, u16>,
    /// Type name to the name of its base: `Patient` to `DomainResource`, `Age` to `Quantity`, `id` to `string`.
    bases: HashMap<&'static str, &'static str>,
    codes: HashMap<&'static str, &'static [&'static str]>,
    systems: HashMap<&'static str, &'static str>,
    /// By number.
    params: Vec<Option<&'static Param>>,
    /// By type number, sorted by code.
    of_params: Vec<Vec<&'static Param>>,
    compartments: HashMap<&'static str, HashMap<TypeId, Vec<&'static str>>>,
}

/// The one copy, loaded at first use.
pub fn definitions() -> &'static Definitions {
    static ONE: OnceLock<Definitions> = OnceLock::new();
    ONE.get_or_init(load::load)
}

impl Definitions {
    /// All concrete resource types, by number.
    pub fn types(&self) -> &[TypeId] {
        &self.types
    }

    pub fn type_id(&self, name: &str) -> Option<TypeId> {
        self.ids.get(name).copied()
    }

    /// The name of a type; empty for a number that no type has.
    pub fn type_name(&self, id: TypeId) -> &'static str {
        self.names.get(usize::from(id.0)).copied().unwrap_or("")
    }

    /// Every search parameter of a type, those of all types included, sorted by code.
    pub fn params(&self, of: TypeId) -> &[&'static Param] {
        self.of_params.get(usize::from(of.0)).map_or(&[], Vec::as_slice)
    }

    pub fn param(&self, of: TypeId, code: &str) -> Option<&'static Param> {
        let params = self.params(of);
        params.binary_search_by(|p| p.code.cmp(code)).ok().map(|n| params[n])
    }

    /// By number, parameters of the site included (see [`custom`]).
    pub fn param_by_id(&self, id: ParamId) -> Option<&'static Param> {
        if id.is_custom() {
            return custom::by_id(id);
        }
        self.params.get(usize::from(id.0)).copied().flatten()
    }

    /// What is known of a type or backbone path: `Patient`, `Patient.contact`, `HumanName`, `Element`. None for
    /// primitive types and unknown names.
    pub fn shape(&'static self, of: &str) -> Option<&'static Shape> {
        self.by_path.get(of).map(|&n| &self.shapes[usize::from(n)])
    }

    /// Everything that is known of types and backbone paths.
    pub fn shapes(&'static self) -> &'static [Shape] {
        &self.shapes
    }

    /// The shape of a resource type.
    pub fn resource_shape(&'static self, of: TypeId) -> Option<&'static Shape> {
        self.of_type.get(usize::from(of.0)).and_then(|&n| self.shapes.get(usize::from(n)))
    }

    /// The children of a type or of a backbone path (`Patient`, `Patient.contact`, `HumanName`), in order.
    pub fn children(&'static self, of: &str) -> Option<&'static [Element]> {
        self.shape(of).map(|s| s.elements)
    }

    /// The element a JSON member stands for, choice names resolved: in `Observation`, `valueQuantity` is the element
    /// `value[x]` holding a `Quantity`. `of` as for [`Definitions::shape`]. Hot paths keep the [`Shape`] instead.
    pub fn child(&'static self, of: &str, name: &str) -> Option<&'static Child> {
        self.shape(of)?.child(name)
    }

    /// Whether a path below a type leads to an element: `name`, `contact.name.family`; choices without their type.
    pub fn is_path(&'static self, of: &str, path: &str) -> bool {
        let mut at: Vec<&'static Shape> = self.shape(of).into_iter().collect();
        path.split('.').all(|step| {
            let children = at.iter().flat_map(|shape| shape.members()).filter(|child| child.element.name == step);
            let children: Vec<&'static Child> = children.collect();
            at = children.iter().filter_map(|child| child.shape()).collect();
            !children.is_empty()
        })
    }

    /// Whether `kind` is `ancestor` or derived from it: `Patient` is a `Resource`, `Age` a `Quantity`, `id` a
    /// `string`, and every datatype an `Element`.
    pub fn is_a(&self, kind: &str, ancestor: &str) -> bool {
        let mut at = kind;
        loop {
            if at == ancestor {
                return true;
            }
            match self.bases.get(at) {
                Some(base) => at = base,
                None => return false,
            }
        }
    }

    /// What a type derives from directly: `DomainResource` for `Patient`; None for `Element`, `Resource` and the unknown.
    pub fn base(&self, kind: &str) -> Option<&'static str> {
        self.bases.get(kind).copied().filter(|base| !base.is_empty())
    }

    /// Whether a type of this name exists at all (resource, datatype or primitive; abstract ones included).
    pub fn is_type(&self, name: &str) -> bool {
        self.bases.contains_key(name)
    }

    /// Codes of a required value set, sorted, if the tables list them.
    pub fn codes(&self, value_set: &str) -> Option<&'static [&'static str]> {
        self.codes.get(value_set).copied()
    }

    /// The code system of a value set that a `code` element is bound to, if it draws from one alone. A version after
    /// `|` is ignored.
    pub fn code_system(&self, value_set: &str) -> Option<&'static str> {
        self.systems.get(value_set.split('|').next().unwrap_or(value_set)).copied()
    }

    /// Codes of the parameters by which a type belongs to a compartment (`Patient`, `Practitioner`, `Encounter`,
    /// `RelatedPerson`, `Device`); None: it is not in it. `{def}` (the resource itself) is given as `_id`.
    pub fn compartment(&self, compartment: &str, of: TypeId) -> Option<&[&'static str]> {
        self.compartments.get(compartment)?.get(&of).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_stable_numbers() {
        let d = definitions();
        assert_eq!(d.types().len(), 146);
        assert_eq!(d.type_id("Account"), Some(TypeId(1)));
        assert_eq!(d.type_id("VisionPrescription"), Some(TypeId(146)));
        assert_eq!(d.type_name(d.type_id("Patient").expect("a type")), "Patient");
        assert_eq!(d.type_id("DomainResource"), None);
        assert_eq!(d.type_id("HumanName"), None);
        assert_eq!(d.type_name(TypeId(0)), "");
        assert_eq!(d.type_name(TypeId(9999)), "");
    }

    #[test]
    fn children_are_found_by_json_name() {
        let d = definitions();
        let value = d.child("Observation", "valueQuantity").expect("a choice");
        assert_eq!((value.element.name, value.kind, value.element.choice), ("value", "Quantity", true));
        assert_eq!(value.shape().expect("a datatype").path, "Quantity");
        assert!(d.child("Observation", "value").is_none());
        assert!(d.child("Observation", "valueAddress").is_none());
        let contact = d.child("Patient", "contact").expect("a backbone element");
        assert_eq!(contact.shape().expect("its own").path, "Patient.contact");
        let range = d.child("Observation.component", "referenceRange").expect("by contentReference");
        assert_eq!(range.shape().expect("of the resource").path, "Observation.referenceRange");
        let birth = d.child("Patient", "birthDate").expect("a primitive");
        assert_eq!(birth.primitive, Some(Primitive::Date));
        assert!(birth.shape().is_none());
        assert_eq!(d.child("Patient", "id").expect("inherited").primitive, Some(Primitive::Id));
        assert_eq!(d.child("Extension", "url").map(|c| (c.kind, c.element.attribute)), Some(("uri", true)));
        assert_eq!(d.child("Narrative", "div").map(|c| c.primitive), Some(Some(Primitive::Xhtml)));
        assert_eq!(d.child("Timing.repeat", "boundsPeriod").map(|c| c.kind), Some("Period"));
        let all = d.children("Patient").expect("a type");
        assert_eq!(all[0].name, "id");
        assert!(all.iter().position(|e| e.name == "gender") < all.iter().position(|e| e.name == "birthDate"));
    }

    #[test]
    fn paths_lead_to_elements() {
        let d = definitions();
        for path in ["name", "contact.name.family", "id", "deceased", "extension.value.code", "link.other.reference"] {
            assert!(d.is_path("Patient", path), "{path}");
        }
        for path in ["", "nme", "contact.nme", "birthDate.year", "name.", "deceasedBoolean", "contained.name"] {
            assert!(!d.is_path("Patient", path), "{path}");
        }
    }

    #[test]
    fn every_element_leads_somewhere() {
        let d = definitions();
        let mut seen = 0;
        for shape in &d.shapes {
            for child in shape.members() {
                seen += 1;
                assert!(child.primitive.is_some() || child.shape().is_some(), "{} {}", shape.path, child.name);
                assert!(std::ptr::eq(shape.child(child.name).expect("found"), child), "{}", child.name);
            }
            for element in shape.elements {
                for kind in &element.types {
                    assert!(d.is_type(kind), "{} {} {kind}", shape.path, element.name);
                }
            }
        }
        assert!(seen > 7000);
    }

    #[test]
    fn types_derive() {
        let d = definitions();
        for (kind, ancestor, is) in [
            ("Patient", "DomainResource", true),
            ("Patient", "Resource", true),
            ("Bundle", "DomainResource", false),
            ("Age", "Quantity", true),
            ("id", "string", true),
            ("string", "Element", true),
            ("Quantity", "Age", false),
            ("Nothing", "Element", false),
        ] {
            assert_eq!(d.is_a(kind, ancestor), is, "{kind} {ancestor}");
        }
    }

    #[test]
    fn params_are_found() {
        let d = definitions();
        let patient = d.type_id("Patient").expect("a type");
        let birth = d.param(patient, "birthdate").expect("published");
        assert_eq!(birth.kind, ParamKind::Date);
        assert_eq!(birth.text(patient).as_deref(), Some("Patient.birthDate"));
        assert!(std::ptr::eq(d.param_by_id(birth.id).expect("by number"), birth));
        for code in ["_id", "_lastUpdated", "_text", "_content", "_tag"] {
            assert!(d.param(patient, code).is_some(), "{code}");
        }
        assert!(d.param(patient, "nonsense").is_none());
        let observation = d.type_id("Observation").expect("a type");
        let of_patient = d.param(observation, "patient").expect("published");
        assert_eq!(of_patient.text(observation).as_deref(), Some("Observation.subject.where(resolve() is Patient)"));
        assert_eq!(of_patient.id, d.param(d.type_id("Condition").expect("a type"), "patient").expect("shared").id);
        let pair = d.param(observation, "code-value-quantity").expect("a composite");
        assert_eq!(pair.components.len(), 2);
        assert_eq!(pair.components[1].expression, "value.as(Quantity)");
        let plan = d.type_id("InsurancePlan").expect("a type");
        assert_eq!(d.param(plan, "name").and_then(|p| p.text(plan)).as_deref(), Some("name | alias"));
        let binary = d.type_id("Binary").expect("a type");
        assert!(d.param(binary, "_text").is_none(), "Binary has no narrative");
    }

    #[test]
    fn compartments_are_known() {
        let d = definitions();
        let id = |name| d.type_id(name).expect("a type");
        assert_eq!(d.compartment("Patient", id("Observation")), Some(&["subject", "performer"][..]));
        assert_eq!(d.compartment("Patient", id("Patient")), Some(&["_id", "link"][..]));
        assert_eq!(d.compartment("Patient", id("Organization")), None);
        assert_eq!(d.compartment("Encounter", id("Encounter")), Some(&["_id"][..]));
        for compartment in ["Patient", "Practitioner", "RelatedPerson", "Encounter", "Device"] {
            for &of in d.types() {
                for code in d.compartment(compartment, of).unwrap_or(&[]) {
                    assert!(d.param(of, code).is_some(), "{compartment} {} {code}", d.type_name(of));
                }
            }
        }
    }

    #[test]
    fn required_codes_are_listed() {
        let d = definitions();
        let gender = d.child("Patient", "gender").expect("an element");
        assert_eq!(gender.codes, Some(&["female", "male", "other", "unknown"][..]));
        assert!(d.child("Attachment", "contentType").expect("an element").codes.is_none());
    }
}
