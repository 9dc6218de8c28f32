//! `_include` and `_revinclude`.

use super::chain::{Fault, in_records, searchable, type_id};
use super::wanted::{may_target, target_names};
use super::{Include, QueryOptions, parse::limits};
use crate::error::{Error, Kind};
use crate::fhir::{ParamKind, TypeId, definitions};

/// `_revinclude=*`: every type that may refer to this one, by any of its parameters. AuditEvents are not among them.
pub(super) fn every(kind: TypeId) -> Vec<Include> {
    let refers = |source: &TypeId| {
        in_records("_revinclude", *source).is_ok()
            && definitions()
                .params(*source)
                .iter()
                .any(|param| param.kind == ParamKind::Reference && may_target(param, kind))
    };
    let include = |source| Include { source, param: None, target: Some(kind), iterate: false, every: true };
    definitions().types().iter().copied().filter(refers).map(include).collect()
}

/// Parses `Source:param[:Target]`, `Source:*` or `*`. `name` is `_include` or `_revinclude`, perhaps with `:iterate`.
pub(super) fn include(
    kind: TypeId,
    name: &str,
    value: &str,
    options: &QueryOptions,
    so_far: usize,
) -> Result<Include, Fault> {
    let wrong = |text: String| Fault::Wrong(Error::invalid(text));
    let (base, iterate) = match name.split_once(':') {
        None => (name, false),
        Some((base, "iterate")) => (base, true),
        Some((base, other)) => {
            return Err(wrong(format!("The modifier ':{other}' does not apply to '{base}'; it takes :iterate.")));
        }
    };
    if so_far >= limits::INCLUDES {
        let text = format!("At most {} of _include and of _revinclude are taken.", limits::INCLUDES);
        return Err(Fault::Wrong(Error::new(Kind::TooCostly, text)));
    }
    let reverse = base == "_revinclude";
    if value == "*" && !reverse {
        return Ok(Include { source: kind, param: None, target: None, iterate, every: false });
    }
    let parts: Vec<&str> = value.split(':').collect();
    let (source, code, target) = match parts.as_slice() {
        [source, code] => (*source, *code, None),
        [source, code, target] => (*source, *code, Some(*target)),
        _ => {
            return Err(wrong(format!(
                "The value '{value}' of '{name}' is not valid; expected Type:parameter[:Type]."
            )));
        }
    };
    let source = type_id(name, source)?;
    let target = target.map(|target| type_id(name, target)).transpose()?;
    for of in [Some(source), target].into_iter().flatten() {
        in_records(name, of)?;
    }
    let type_name = |of| definitions().type_name(of);
    // Without :iterate, references of the matches are followed (or those to them): others would never find anything.
    if !iterate && !reverse && source != kind {
        let text =
            format!("'{name}={value}' starts at {}, not at {}: use :iterate.", type_name(source), type_name(kind));
        return Err(wrong(text));
    }
    if !iterate && reverse && target.is_some_and(|target| target != kind) {
        return Err(wrong(format!("'{name}={value}' does not lead to {}: use :iterate.", type_name(kind))));
    }
    if code == "*" {
        return Ok(Include { source, param: None, target, iterate, every: false });
    }
    let param = searchable(source, code, options)?;
    if param.kind != ParamKind::Reference {
        return Err(wrong(format!("'{code}' of {} in '{name}' is no reference.", type_name(source))));
    }
    let must = target.or((reverse && !iterate).then_some(kind));
    if let Some(of) = must.filter(|of| !may_target(param, *of)) {
        let may = target_names(param, None);
        return Err(wrong(format!("'{code}' in '{name}' does not refer to {}, but to {may}.", type_name(of))));
    }
    Ok(Include { source, param: Some(param.id), target, iterate, every: false })
}
