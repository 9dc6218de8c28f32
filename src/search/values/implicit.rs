//! The code system of elements of type `code`, which is not written in the data: it follows from the required binding.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::fhir::definitions::Param;
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};

static SYSTEMS: LazyLock<HashMap<(TypeId, ParamId), &'static str>> = LazyLock::new(|| {
    let all =
        definitions().types().iter().flat_map(|of| definitions().params(*of).iter().map(move |param| (*of, *param)));
    all.filter_map(|(of, param)| Some(((of, param.id), compute(of, param)?))).collect()
});

/// The system of the codes that a token parameter of a type finds in elements of type `code`.
pub(super) fn system(of: TypeId, param: ParamId) -> Option<&'static str> {
    if param.is_custom() {
        return compute(of, definitions().param_by_id(param)?);
    }
    SYSTEMS.get(&(of, param)).copied()
}

/// Of a plain path (`Patient.gender`) to an element of type `code`, the one code system of its required value set. Other
/// expressions, and value sets that mix systems, have none.
fn compute(of: TypeId, param: &Param) -> Option<&'static str> {
    if param.kind != ParamKind::Token {
        return None;
    }
    let text = param.text(of)?;
    let (first, steps) = text.split_once('.')?;
    let mut shape = definitions().shape(first)?;
    let mut steps = steps.split('.').peekable();
    while let Some(step) = steps.next() {
        let child = shape.child(step)?;
        if steps.peek().is_some() {
            shape = child.shape()?;
            continue;
        }
        let value_set = child.element.required_binding.filter(|_| child.kind == "code")?;
        return definitions().code_system(value_set);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_system_of_their_binding() {
        for (of, code, expected) in [
            ("Patient", "gender", Some("http://hl7.org/fhir/administrative-gender")),
            ("Observation", "status", Some("http://hl7.org/fhir/observation-status")),
            ("Appointment", "status", Some("http://hl7.org/fhir/appointmentstatus")),
            ("Appointment", "part-status", Some("http://hl7.org/fhir/participationstatus")),
            ("MedicationRequest", "status", Some("http://hl7.org/fhir/CodeSystem/medicationrequest-status")),
            ("Bundle", "type", Some("http://hl7.org/fhir/bundle-type")),
            ("Observation", "code", None),
            ("Patient", "active", None),
            ("Patient", "identifier", None),
        ] {
            let kind = definitions().type_id(of).expect(of);
            let param = definitions().param(kind, code).expect(code);
            assert_eq!(system(kind, param.id), expected, "{of}.{code}");
        }
    }
}
