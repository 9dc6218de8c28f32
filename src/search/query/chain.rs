//! The name of a parameter: modifiers, chains (`subject:Patient.name`), `_has`, `_list`.

use std::collections::HashSet;

use super::wanted::{may_target, target_names, wanted};
use super::{Criterion, Modifier, QueryOptions, Wanted, WantedReference, escape, parse::limits};
use crate::error::{Error, Kind};
use crate::fhir::definitions::Param;
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::mapping::{self, Treatment};
use crate::search::custom::{Defined, Standing};
use crate::search::words::Words;

/// Why a parameter is not applied.
pub(super) enum Fault {
    /// Unknown or unsupported: lenient handling leaves it out.
    Unknown(Error),
    /// Wrong: refused in any case.
    Wrong(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Wrong(error)
    }
}

fn wrong(text: String) -> Fault {
    Fault::Wrong(Error::invalid(text))
}

/// How many inner searches a query has named so far.
#[derive(Default)]
pub(super) struct Links {
    count: usize,
}

/// Parses one condition; the value is not empty. `depth` counts the chains and `_has` around it.
pub(super) fn criterion(
    kind: TypeId,
    name: &str,
    value: &str,
    options: &QueryOptions,
    links: &mut Links,
    depth: usize,
) -> Result<Criterion, Fault> {
    if depth > limits::DEPTH {
        let text = format!("'{name}' is nested too deeply: at most {} chains and _has in one another.", limits::DEPTH);
        return Err(Fault::Wrong(Error::new(Kind::TooCostly, text)));
    }
    let next = |kind, rest: &str, links: &mut Links| criterion(kind, rest, value, options, links, depth + 1);
    if let Some(rest) = name.strip_prefix("_has:") {
        return has((kind, name), rest, options, links, next);
    }
    if let Some((head, rest)) = name.split_once('.') {
        return chain((kind, name), (head, rest), options, links, next);
    }
    match name {
        "_filter" => super::filter::filter(kind, value, options, links, depth),
        "_list" => list(kind, value, options, links),
        "_text" | "_content" if depth == 0 => words(kind, name, value, options),
        _ => simple(kind, name, value, options, links),
    }
}

/// A parameter of a type that can be searched by, or why not.
pub(super) fn searchable(kind: TypeId, code: &str, options: &QueryOptions) -> Result<&'static Param, Fault> {
    let type_name = definitions().type_name(kind);
    let param = match definitions().param(kind, code) {
        Some(param) => param,
        None => custom(kind, code, options)?,
    };
    not_refused(kind, param)?;
    if param.text(kind).is_none() {
        let text = format!("The search parameter '{code}' of {type_name} is not supported.");
        return Err(Fault::Unknown(Error::unsupported(text)));
    }
    Ok(param)
}

/// Fails with the reason of a mapping that refuses a parameter.
fn not_refused(kind: TypeId, param: &Param) -> Result<(), Fault> {
    let Treatment::Refused { reason } = mapping::treatment(kind, param.id) else { return Ok(()) };
    let (code, of) = (param.code, definitions().type_name(kind));
    let text = format!("The search parameter '{code}' of {of} is not supported: {reason}");
    Err(Fault::Unknown(Error::unsupported(text)))
}

/// A parameter of the site. One that is being indexed is refused whatever the handling: without it the answer would be
/// another one, and it would be there the next time.
fn custom(kind: TypeId, code: &str, options: &QueryOptions) -> Result<&'static Param, Fault> {
    let type_name = definitions().type_name(kind);
    match options.customs.find(kind, code) {
        None => {
            let standard = definitions().params(kind).iter().map(|param| param.code);
            let near = super::control::near(code, standard.chain(options.customs.codes(kind)));
            let text = format!("'{code}' is no search parameter of {type_name}{near}.");
            Err(Fault::Unknown(Error::invalid(text)))
        }
        Some(Defined { standing: Standing::Indexing { done, total }, .. }) => {
            let far = match total {
                0 => "is yet to be indexed".to_owned(),
                total => format!("is being indexed, {done} of {total} resources so far"),
            };
            let text =
                format!("The search parameter '{code}' of {type_name} {far}. It can be searched by when all are.");
            Err(Fault::Wrong(Error::unsupported(text)))
        }
        Some(defined) => Ok(defined.param),
    }
}

fn simple(
    kind: TypeId,
    name: &str,
    value: &str,
    options: &QueryOptions,
    links: &mut Links,
) -> Result<Criterion, Fault> {
    let (code, modifier) = match name.split_once(':') {
        Some((code, modifier)) => (code, Some(modifier)),
        None => (name, None),
    };
    let param = searchable(kind, code, options)?;
    let modifier = modifier.map(|text| read_modifier(param, code, text)).transpose()?;
    let parts: Vec<&str> = escape::split(value, ',').into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(wrong(format!("'{name}' has only empty values.")));
    }
    if param.limits.one_value && parts.len() > 1 {
        return Err(wrong(format!(
            "By its definition '{code}' takes one value, none joined by commas ('multipleOr')."
        )));
    }
    if parts.len() > limits::VALUES {
        let text = format!("'{name}' has {} values; at most {} are taken.", parts.len(), limits::VALUES);
        return Err(Fault::Wrong(Error::new(Kind::TooCostly, text)));
    }
    if modifier == Some(Modifier::Missing) && parts.len() > 1 {
        return Err(wrong(format!("'{name}' takes one value, true or false.")));
    }
    let any_of: Vec<Wanted> =
        parts.into_iter().map(|part| wanted(param, modifier, name, part, options)).collect::<Result<_, _>>()?;
    match modifier {
        Some(modifier @ (Modifier::Above | Modifier::Below)) if param.kind == ParamKind::Reference => {
            hierarchy(param, modifier, name, any_of, links)
        }
        _ => Ok(Criterion::Param { param: param.id, modifier, any_of }),
    }
}

/// `:above` and `:below` on references: resources by what they are part of, canonicals by their versions.
fn hierarchy(
    param: &Param,
    modifier: Modifier,
    name: &str,
    any_of: Vec<Wanted>,
    links: &mut Links,
) -> Result<Criterion, Fault> {
    let up = modifier == Modifier::Above;
    let (mut roads, mut urls) = (Vec::new(), Vec::new());
    for wanted in any_of {
        let Wanted::Reference(WantedReference::Local { kinds, id, .. }) = &wanted else {
            urls.push(wanted);
            continue;
        };
        let steps: Vec<(TypeId, &Param)> = kinds.iter().filter_map(|kind| Some((*kind, part_of(*kind)?))).collect();
        if steps.is_empty() {
            let text = "does not lead to a type with a hierarchy: one that has a parameter partof or part-of";
            return Err(wrong(format!("'{name}' {text}.")));
        }
        for (target, via) in steps {
            links.add(name)?;
            let seen = HashSet::from([id.clone()]);
            let inner = Box::new(super::pending::step(target, via.id, up, seen.clone()));
            roads.push(vec![Criterion::Hierarchy { param: param.id, target, up, via: via.id, inner, seen }]);
        }
    }
    if !urls.is_empty() {
        roads.push(vec![Criterion::Param { param: param.id, modifier: Some(modifier), any_of: urls }]);
    }
    Ok(any(roads))
}

/// The parameter by which resources of a type are part of others of the type.
fn part_of(kind: TypeId) -> Option<&'static Param> {
    let params = ["partof", "part-of"].into_iter().filter_map(|code| definitions().param(kind, code));
    params.into_iter().find(|param| param.kind == ParamKind::Reference && may_target(param, kind))
}

/// At least one of the roads.
pub(super) fn any(mut roads: Vec<Vec<Criterion>>) -> Criterion {
    if roads.len() == 1 && roads[0].len() == 1 {
        return roads.remove(0).remove(0);
    }
    Criterion::AnyOf(roads)
}

/// `_text` and `_content`.
fn words(kind: TypeId, name: &str, value: &str, options: &QueryOptions) -> Result<Criterion, Fault> {
    let Some(param) = definitions().param(kind, name) else {
        return Err(searchable(kind, name, options)
            .err()
            .unwrap_or_else(|| wrong(format!("'{name}' is no search parameter."))));
    };
    not_refused(kind, param)?;
    let one = |part: &str| {
        let words = Words::read(name == "_text", &escape::unescape(part));
        words.map(Wanted::Words).ok_or_else(|| wrong(format!("'{name}' needs at least one letter or digit.")))
    };
    let parts = escape::split(value, ',').into_iter().filter(|part| !part.is_empty());
    let any_of: Vec<Wanted> = parts.map(one).collect::<Result<_, _>>()?;
    if any_of.is_empty() || any_of.len() > WORDS_MAX {
        return Err(wrong(format!("'{name}' takes from 1 to {WORDS_MAX} values.")));
    }
    Ok(Criterion::Param { param: param.id, modifier: None, any_of })
}

/// Values of one `_text` or `_content`: each is looked for in every body.
const WORDS_MAX: usize = 20;

/// `_list=42`: what the List refers to.
fn list(kind: TypeId, value: &str, options: &QueryOptions, links: &mut Links) -> Result<Criterion, Fault> {
    if value.starts_with('$') {
        let text = format!("The list '{value}' is not kept by this server: '_list' takes the ids of List resources.");
        return Err(Fault::Unknown(Error::unsupported(text)));
    }
    let source = type_id("_list", "List")?;
    let param = searchable(source, "item", options)?.id;
    links.add("_list")?;
    let inner = Box::new(simple(source, "_id", value, options, links)?);
    Ok(Criterion::Has { source, param, of: kind, inner })
}

/// Modifiers by the table of R4, 2.21.1.4; one that does not apply is refused, whatever the handling.
fn read_modifier(param: &Param, code: &str, text: &str) -> Result<Modifier, Fault> {
    let modifier = match text {
        "exact" => Some(Modifier::Exact),
        "contains" => Some(Modifier::Contains),
        "text" => Some(Modifier::Text),
        "not" => Some(Modifier::Not),
        "missing" => Some(Modifier::Missing),
        "of-type" => Some(Modifier::OfType),
        "identifier" => Some(Modifier::Identifier),
        "above" => Some(Modifier::Above),
        "below" => Some(Modifier::Below),
        "in" => Some(Modifier::In),
        "not-in" => Some(Modifier::NotIn),
        other => definitions().type_id(other).map(Modifier::Type),
    };
    let applies = modifier.is_some_and(|modifier| match (modifier, param.kind) {
        (Modifier::Missing, of) => of != ParamKind::Composite && of != ParamKind::Special,
        (Modifier::Exact | Modifier::Contains, of) => of == ParamKind::String,
        (Modifier::Text | Modifier::Not | Modifier::OfType | Modifier::In | Modifier::NotIn, of) => {
            of == ParamKind::Token
        }
        (Modifier::Above | Modifier::Below, of) => {
            matches!(of, ParamKind::Uri | ParamKind::Token | ParamKind::Reference)
        }
        (Modifier::Whole | Modifier::Ends | Modifier::Other, _) => false,
        (Modifier::Identifier, of) => of == ParamKind::Reference,
        (Modifier::Type(kind), of) => of == ParamKind::Reference && may_target(param, kind),
    });
    if applies {
        allows(param, text)?;
    }
    match modifier {
        Some(modifier) if applies => Ok(modifier),
        _ => {
            let kind = param.kind.name();
            let known = match param.kind {
                ParamKind::String => ":missing, :exact, :contains".into(),
                ParamKind::Token => ":missing, :text, :not, :of-type, :in, :not-in, :above, :below".into(),
                ParamKind::Uri => ":missing, :above, :below".into(),
                ParamKind::Reference if param.targets.is_empty() => {
                    ":missing, :identifier, :above, :below, :[type]".into()
                }
                ParamKind::Reference => {
                    format!(":missing, :identifier, :above, :below, or a type ({})", target_names(param, None))
                }
                ParamKind::Number | ParamKind::Date | ParamKind::Quantity | ParamKind::Phonetic => ":missing".into(),
                ParamKind::Composite | ParamKind::Special => "none".to_owned(),
            };
            let text =
                format!("The modifier ':{text}' does not apply to the {kind} parameter '{code}'; it takes {known}.");
            Err(wrong(text))
        }
    }
}

/// Whether the definition lets a search use a modifier that its kind has.
pub(super) fn allows(param: &Param, text: &str) -> Result<(), Fault> {
    match &param.limits.modifiers {
        Some(stated) if !stated.iter().any(|code| code == stated_as(text)) => {
            let all: Vec<String> = stated.iter().map(|code| format!(":{code}")).collect();
            let known = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            let code = param.code;
            Err(wrong(format!("By its definition '{code}' does not take the modifier ':{text}', but {known}.")))
        }
        _ => Ok(()),
    }
}

/// Whether the definition lets `rest` be chained to a reference (`chain`).
pub(super) fn may_chain(param: &Param, rest: &str) -> Result<(), Fault> {
    let next = rest.split([':', '.']).next().unwrap_or_default();
    match &param.limits.chains {
        Some(stated) if !stated.iter().any(|code| code == next) => {
            let (code, known) = (param.code, stated.join(", "));
            Err(wrong(format!("By its definition '{code}' is not chained by '{next}', but by {known} ('chain').")))
        }
        _ => Ok(()),
    }
}

/// How a SearchParameter names a modifier.
fn stated_as(text: &str) -> &str {
    match text {
        "of-type" => "ofType",
        other if definitions().type_id(other).is_some() => "type",
        other => other,
    }
}

/// `_has:Type:ref:rest`.
fn has(
    (kind, name): (TypeId, &str),
    rest: &str,
    options: &QueryOptions,
    links: &mut Links,
    next: impl Fn(TypeId, &str, &mut Links) -> Result<Criterion, Fault>,
) -> Result<Criterion, Fault> {
    let mut parts = rest.splitn(3, ':');
    let (Some(source), Some(code), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong(format!("'{name}' is incomplete; expected _has:Type:reference:parameter.")));
    };
    let source = type_id(name, source)?;
    in_records(name, source)?;
    let param = searchable(source, code, options)?;
    if param.kind != ParamKind::Reference || !may_target(param, kind) {
        let (of, to) = (definitions().type_name(source), definitions().type_name(kind));
        return Err(wrong(format!("'{code}' of {of} in '{name}' does not refer to {to}.")));
    }
    links.add(name)?;
    let inner = next(source, rest, links)?;
    Ok(Criterion::Has { source, param: param.id, of: kind, inner: Box::new(inner) })
}

/// `head.rest`, where head may name the type of the target.
fn chain(
    (kind, name): (TypeId, &str),
    (head, rest): (&str, &str),
    options: &QueryOptions,
    links: &mut Links,
    next: impl Fn(TypeId, &str, &mut Links) -> Result<Criterion, Fault>,
) -> Result<Criterion, Fault> {
    let (code, only) = match head.split_once(':') {
        Some((code, of)) => (code, Some(type_id(name, of)?)),
        None => (head, None),
    };
    let (mut roads, mut faults) = (Vec::new(), Vec::new());
    let (param, targets) = targets((kind, name), code, only, options)?;
    may_chain(param, rest)?;
    for target in targets {
        match next(target, rest, links) {
            Ok(inner) => {
                links.add(name)?;
                roads.push(vec![Criterion::Chain { param: param.id, target, inner: Box::new(inner) }]);
            }
            // Too costly, or not to be searched by yet: without this type something would be left out.
            Err(Fault::Wrong(error)) if error.kind != Kind::Invalid => return Err(Fault::Wrong(error)),
            // A type that the rest does not fit has no matches; it is a fault only if it fits none.
            Err(fault) => faults.push(fault),
        }
    }
    settled(roads, faults)
}

/// The reference of a chain, and the types that it leads to.
pub(super) fn targets(
    (kind, name): (TypeId, &str),
    code: &str,
    only: Option<TypeId>,
    options: &QueryOptions,
) -> Result<(&'static Param, Vec<TypeId>), Fault> {
    let param = searchable(kind, code, options)?;
    if param.kind != ParamKind::Reference {
        return Err(wrong(format!("'{code}' in '{name}' is no reference, so nothing can be chained to it.")));
    }
    if let Some(of) = only.filter(|of| !may_target(param, *of)) {
        let (of, may) = (definitions().type_name(of), target_names(param, None));
        return Err(wrong(format!("'{code}' in '{name}' does not refer to {of}, but to {may}.")));
    }
    if let Some(of) = only {
        in_records(name, of)?;
    }
    let mut targets = only.map_or_else(|| param.targets.clone(), |of| vec![of]);
    targets.retain(|of| in_records(name, *of).is_ok());
    if targets.is_empty() {
        let text = format!("'{code}' in '{name}' may refer to any type: say which, as in '{code}:Patient.name'.");
        return Err(wrong(text));
    }
    Ok((param, targets))
}

/// At least one road, or what is wrong with all of them.
pub(super) fn settled(roads: Vec<Vec<Criterion>>, mut faults: Vec<Fault>) -> Result<Criterion, Fault> {
    if roads.is_empty() {
        // A type that knows the parameter says best what is wrong.
        let known = faults.iter().position(|fault| matches!(fault, Fault::Wrong(_))).unwrap_or(0);
        return Err(faults.swap_remove(known));
    }
    Ok(any(roads))
}

impl Links {
    pub(super) fn add(&mut self, name: &str) -> Result<(), Fault> {
        self.count += 1;
        if self.count > limits::LINKS {
            let text = format!(
                "'{name}' needs more than {} inner searches: name the types of the references (as in subject:Patient.name).",
                limits::LINKS
            );
            return Err(Fault::Wrong(Error::new(Kind::TooCostly, text)));
        }
        Ok(())
    }
}

/// Refuses what would look for AuditEvents from elsewhere, and find none: the trail is searched by its own means.
pub(super) fn in_records(name: &str, of: TypeId) -> Result<(), Fault> {
    match definitions().type_name(of) {
        "AuditEvent" => {
            let text =
                format!("'{name}' goes by AuditEvents, which are searched on their own: AuditEvent?entity=Patient/1.");
            Err(Fault::Unknown(Error::unsupported(text)))
        }
        _ => Ok(()),
    }
}

/// A resource type that the query names.
pub(super) fn type_id(name: &str, of: &str) -> Result<TypeId, Fault> {
    definitions().type_id(of).ok_or_else(|| wrong(format!("'{of}' in '{name}' is no resource type.")))
}
