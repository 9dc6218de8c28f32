//! `ValueSet.compose`: what is included, less what is excluded; a stored expansion where the compose cannot be followed.

use super::{CODES_MAX, Codes, DEPTH_MAX, Library, Need, Stop, code_system, invalid, limited, of_definitions};
use crate::error::{Error, Kind};
use crate::fhir::json::Node;

pub(super) fn value_set(url: &str, library: &Library, depth: usize) -> Result<Codes, Stop> {
    if depth > DEPTH_MAX {
        let text = format!("The ValueSet {url} refers to value sets more than {DEPTH_MAX} deep, or to itself.");
        return Err(Error::new(Kind::TooCostly, text).into());
    }
    let Some(node) = library.get(&Need::ValueSet(url.to_owned()))? else {
        let known = of_definitions(url);
        return Ok(known.ok_or_else(|| invalid(format!("The ValueSet {url} is not stored on this server.")))?);
    };
    let composed = match node.get("compose") {
        Some(compose) => composed(url, compose, library, depth),
        None => Err(Error::unsupported(format!("The ValueSet {url} has no compose and no whole expansion.")).into()),
    };
    match composed {
        Err(Stop::Fault(error)) => {
            // What was expanded elsewhere stands in for what cannot be expanded here.
            expansion(node).map_or(Err(Stop::Fault(error)), |codes| limited(codes, url))
        }
        other => other,
    }
}

fn composed(url: &str, compose: &Node, library: &Library, depth: usize) -> Result<Codes, Stop> {
    let mut all = Codes::default();
    for include in list(compose, "include") {
        all.add_all(&component(url, include, library, depth)?);
        if all.len() > CODES_MAX {
            return limited(all, url);
        }
    }
    for exclude in list(compose, "exclude") {
        let gone = component(url, exclude, library, depth)?;
        all.keep(|system, code| !gone.has(system, code));
    }
    Ok(all)
}

/// One include or exclude: codes of a system (all, listed, or those that every filter finds) that are in every value
/// set named.
fn component(url: &str, part: &Node, library: &Library, depth: usize) -> Result<Codes, Stop> {
    let mut codes = match part.get("system").and_then(Node::as_str) {
        Some(system) => Some(of_system(url, system, part, library)?),
        None => None,
    };
    for set in list(part, "valueSet").filter_map(Node::as_str) {
        let set = value_set(set, library, depth + 1)?;
        codes = Some(match codes {
            None => set,
            Some(mut codes) => {
                codes.keep(|system, code| set.has(system, code));
                codes
            }
        });
    }
    codes.ok_or_else(|| {
        Error::unsupported(format!("The ValueSet {url} includes something that names no system and no value set."))
            .into()
    })
}

fn of_system(url: &str, system: &str, part: &Node, library: &Library) -> Result<Codes, Stop> {
    let mut codes = Codes::default();
    let mut listed = list(part, "concept").filter_map(|concept| concept.get("code")?.as_str()).peekable();
    if listed.peek().is_some() {
        listed.for_each(|code| codes.add(system, code));
        return limited(codes, url);
    }
    let asked = match part.get("version").and_then(Node::as_str) {
        Some(version) => format!("{system}|{version}"),
        None => system.to_owned(),
    };
    let stored = code_system(&asked, library)?;
    let mut kept: Vec<usize> = (0..stored.len()).collect();
    for filter in list(part, "filter") {
        let text = |name: &str| filter.get(name).and_then(Node::as_str).unwrap_or_default();
        let wanted = stored.filter(text("property"), text("op"), text("value"))?;
        kept.retain(|at| wanted[*at]);
    }
    for at in kept {
        codes.add(system, stored.code(at));
        if codes.len() > CODES_MAX {
            return limited(codes, url);
        }
    }
    Ok(codes)
}

/// A stored expansion, if it is whole.
fn expansion(node: &Node) -> Option<Codes> {
    let expansion = node.get("expansion")?;
    let (mut codes, mut seen) = (Codes::default(), 0u64);
    let mut open: Vec<&Node> = list(expansion, "contains").collect();
    while let Some(item) = open.pop() {
        seen += 1;
        open.extend(list(item, "contains"));
        let flag = |name: &str| item.get(name).and_then(Node::as_bool) == Some(true);
        let text = |name: &str| item.get(name).and_then(Node::as_str);
        if let (Some(system), Some(code), false) = (text("system"), text("code"), flag("abstract")) {
            codes.add(system, code);
        }
    }
    let whole = expansion.get("total").and_then(Node::as_u64).is_none_or(|total| total <= seen);
    (whole && seen > 0 && expansion.get("offset").and_then(Node::as_u64).unwrap_or(0) == 0).then_some(codes)
}

fn list<'a>(node: &'a Node, name: &str) -> impl Iterator<Item = &'a Node> + use<'a> {
    node.get(name).and_then(Node::as_array).into_iter().flatten()
}
