//! The code system of elements of type `code`, which is not written in the data: it follows from the required binding.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::fhir::definitions::Param;
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};

const VALUE_SET: &str = "http://hl7.org/fhir/ValueSet/";

static SYSTEMS: LazyLock<HashMap<(TypeId, ParamId), String>> = LazyLock::new(|| {
    let all =
        definitions().types().iter().flat_map(|of| definitions().params(*of).iter().map(move |param| (*of, *param)));
    all.filter_map(|(of, param)| Some(((of, param.id), compute(of, param)?))).collect()
});

/// The system of the codes that a token parameter of a type finds in elements of type `code`.
pub(super) fn system(of: TypeId, param: ParamId) -> Option<&'static str> {
    SYSTEMS.get(&(of, param)).map(String::as_str)
}

/// Of a plain path (`Patient.gender`) to an element of type `code` with a required value set of HL7, the code system of
/// the same name. Other expressions, and value sets from elsewhere, have none.
fn compute(of: TypeId, param: &Param) -> Option<String> {
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
        let name = value_set.split('|').next()?.strip_prefix(VALUE_SET)?;
        return Some(format!("http://hl7.org/fhir/{name}"));
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
