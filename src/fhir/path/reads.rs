//! Which elements of a resource an expression reads, as far as that can be told without one: who may not see an element
//! must not find it by an expression either. What cannot be told is a fault.

use std::collections::BTreeSet;

use super::eval::fault;
use super::ops::{Binary, Func, Op};
use crate::error::Result;

/// Where the items of a collection are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// The resource itself.
    Root,
    /// Something in it, below one of the members that were noted, or made from that.
    Below,
    /// What a reference leads to.
    Beyond,
}

/// The members of the resource that the expression reads.
pub(super) fn members(op: &Op) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    match walk(op, At::Root, &mut found)? {
        At::Below => Ok(found),
        At::Root => Err(fault("the expression must end at an element, not at the resource")),
        At::Beyond => Err(fault("the expression must not end at what a reference leads to")),
    }
}

/// An operand that must be no resource as a whole.
fn element(op: &Op, this: At, found: &mut BTreeSet<String>) -> Result<()> {
    match walk(op, this, found)? {
        At::Below => Ok(()),
        At::Root | At::Beyond => Err(fault("a whole resource cannot be an operand here")),
    }
}

fn walk(op: &Op, this: At, found: &mut BTreeSet<String>) -> Result<At> {
    Ok(match op {
        Op::This | Op::Root(_) => this,
        Op::Index | Op::Total | Op::Nothing | Op::Literal(_) => At::Below,
        Op::Variable(name) if ["ucum", "sct", "loinc"].contains(&&**name) => At::Below,
        Op::Variable(name) => return Err(fault(&format!("`%{name}` cannot be used here"))),
        Op::Path { from, steps } => {
            let from = from.as_deref().map_or(Ok(this), |from| walk(from, this, found))?;
            match (from, steps.first()) {
                (from, None) => from,
                (At::Root, Some(first)) => {
                    found.insert(first.name.to_string());
                    At::Below
                }
                (At::Below, Some(_)) => At::Below,
                (At::Beyond, Some(_)) => return Err(fault("the content of what is referred to cannot be read here")),
            }
        }
        Op::Item(on, index) => {
            element(index, this, found)?;
            walk(on, this, found)?
        }
        Op::Binary(op, a, b) => {
            let known = [walk(a, this, found)?, walk(b, this, found)?];
            let whole = known.iter().any(|at| *at != At::Below);
            if whole && !matches!(op, Binary::And | Binary::Or | Binary::Xor | Binary::Implies) {
                return Err(fault("a whole resource cannot be an operand here"));
            }
            At::Below
        }
        Op::Negate(on) | Op::Plus(on) => {
            element(on, this, found)?;
            At::Below
        }
        // Of what type it is says nothing of what it holds.
        Op::Is(on, _) => {
            walk(on, this, found)?;
            At::Below
        }
        Op::As(on, ..) | Op::OfType(on, _) => walk(on, this, found)?,
        Op::Call { on, func, args } => {
            let on = walk(on, this, found)?;
            call(on, *func, args, this, found)?
        }
    })
}

fn call(on: At, func: Func, args: &[Op], this: At, found: &mut BTreeSet<String>) -> Result<At> {
    match func {
        Func::Repeat
        | Func::RepeatAll
        | Func::Descendants
        | Func::Aggregate
        | Func::DefineVariable
        | Func::Now
        | Func::Today
        | Func::TimeOfDay => Err(fault(&format!("`{}()` cannot be used here", func.name()))),
        Func::Extension | Func::HasExtension => {
            args.iter().try_for_each(|arg| element(arg, this, found))?;
            match on {
                At::Root => drop(found.insert("extension".to_owned())),
                At::Below => {}
                At::Beyond => return Err(fault("the content of what is referred to cannot be read here")),
            }
            Ok(At::Below)
        }
        Func::Resolve if on == At::Below => Ok(At::Beyond),
        // Their arguments look at each item.
        Func::Where | Func::Exists | Func::All => {
            args.iter().try_for_each(|arg| element(arg, on, found))?;
            Ok(if func == Func::Where { on } else { At::Below })
        }
        Func::Select => walk(&args[0], on, found),
        Func::Iif => {
            args.iter().try_for_each(|arg| element(arg, on, found))?;
            Ok(At::Below)
        }
        Func::Empty | Func::Count => Ok(At::Below),
        Func::First | Func::Last | Func::Single | Func::Tail => Ok(on),
        _ => {
            args.iter().try_for_each(|arg| element(arg, this, found))?;
            match on {
                At::Below => Ok(At::Below),
                At::Root | At::Beyond => {
                    Err(fault(&format!("`{}()` cannot work on a whole resource here", func.name())))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fhir::ParamKind;
    use crate::fhir::definitions::Param;
    use crate::fhir::path::Expr;

    fn of(text: &str) -> Result<Vec<String>, String> {
        let expr = Expr::parse(text).expect(text);
        expr.members().map(|found| found.into_iter().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn members_are_told() {
        for (text, members) in [
            ("Patient.name.given", &["name"][..]),
            ("Patient.name.given | Patient.alias", &["alias", "name"]),
            ("Patient.extension.where(url = 'http://a').value", &["extension"]),
            ("Patient.extension('http://a').value.ofType(Coding)", &["extension"]),
            ("Patient.where(telecom.exists()).name", &["name", "telecom"]),
            ("Patient.select(address | contact.address)", &["address", "contact"]),
            ("(Observation.value as Quantity)", &["value"]),
            ("Observation.subject.where(resolve() is Patient)", &["subject"]),
            ("Patient.deceased.exists() and Patient.deceased != false", &["deceased"]),
            ("iif(Patient.active, Patient.name, Patient.contact.name).family", &["active", "contact", "name"]),
        ] {
            assert_eq!(of(text).expect(text), members, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for text in [
            "Patient",
            "$this",
            "%resource.name",
            "Patient.name.where(%resource.birthDate.exists())",
            "Patient.descendants()",
            "Patient.children()",
            "Patient.repeat(contained)",
            "Patient.generalPractitioner.resolve().name",
            "Patient.generalPractitioner.resolve()",
            "Patient.where($this = $this).name.select(%rootResource)",
            "Patient.defineVariable('a').select(%a.telecom)",
            "Patient.name | Patient",
            "Patient.toString()",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    /// What R4 itself publishes can nearly all be told: the analysis is no obstacle to sane expressions.
    #[test]
    fn published_expressions_are_told() {
        let definitions = crate::fhir::definitions();
        let mut faults = Vec::new();
        for of in definitions.types() {
            let own = |param: &&&Param| !param.code.starts_with('_') && param.kind != ParamKind::Composite;
            for param in definitions.params(*of).iter().filter(own) {
                if let Some(expr) = param.expr(*of)
                    && let Err(error) = expr.members()
                {
                    faults.push(format!("{} {}: {error}", definitions.type_name(*of), param.code));
                }
            }
        }
        assert_eq!(faults, Vec::<String>::new());
    }
}
