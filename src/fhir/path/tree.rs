//! Functions that walk the tree or ask about it: children, extensions, references, types, the clock.

use super::eval::{Machine, Scope, boolean, fault, single};
use super::ops::{Func, Op};
use super::strings::single_text;
use super::temporal::Temporal;
use super::types::Ty;
use super::value::{Items, Val};
use crate::error::Result;
use crate::fhir::json::Node;

impl<'a> Machine<'a, '_> {
    /// None: the function is none of these.
    pub fn tree_function(
        &self,
        func: Func,
        input: &[Val<'a>],
        args: &[Op],
        scope: &Scope<'_, 'a>,
    ) -> Result<Option<Items<'a>>> {
        Ok(Some(match func {
            Func::Children => {
                let mut out = Items::new();
                for item in input {
                    self.children(item, &mut out)?;
                }
                out
            }
            Func::Descendants => {
                let mut out = Items::new();
                for item in input {
                    self.descend(item, &mut out)?;
                }
                out
            }
            Func::Extension | Func::HasExtension => {
                let url = self.value(&args[0], scope)?;
                let Some(url) = single_text(&url)? else { return Ok(Some(Items::new())) };
                let found = self.extensions(input, url)?;
                if func == Func::Extension { found } else { boolean(Some(!found.is_empty())) }
            }
            Func::HasValue => match single(input)? {
                Some(item) => boolean(Some(has_value(item))),
                None => boolean(Some(false)),
            },
            Func::GetValue => single(input)?.filter(|item| has_value(item)).cloned().into_iter().collect(),
            Func::Resolve => {
                let mut out = Items::new();
                for item in input {
                    out.extend(self.resolve(item)?);
                }
                out
            }
            Func::Type => input.iter().map(type_of).collect(),
            Func::ConformsTo => {
                let Some(item) = single(input)? else { return Ok(Some(Items::new())) };
                let profile = self.value(&args[0], scope)?;
                let Some(profile) = single_text(&profile)? else { return Ok(Some(Items::new())) };
                boolean(Some(conforms(item, profile)?))
            }
            Func::Now | Func::Today | Func::TimeOfDay => vec![self.clock(func)?],
            _ => return Ok(None),
        }))
    }

    fn children(&self, item: &Val<'a>, out: &mut Items<'a>) -> Result<()> {
        let Val::Node { node, sibling, ty } = item else { return Ok(()) };
        let Some(object) = node.as_object().or_else(|| sibling.and_then(Node::as_object)) else { return Ok(()) };
        self.spend(object.len())?;
        let mut push = |item: Val<'a>| {
            out.push(item);
            Ok(())
        };
        for (key, value) in object {
            let (name, bare) = match key.strip_prefix('_') {
                Some(name) if object.contains_key(name) => continue,
                Some(name) => (name, None),
                None => (key.as_str(), Some(value)),
            };
            if name == "resourceType" && ty.is_resource_or_unknown() {
                continue;
            }
            let kind = ty.member_type(name).unwrap_or(Ty::UNKNOWN);
            let sibling = if bare.is_none() { Some(value) } else { object.get(&format!("_{name}")) };
            self.each(bare, sibling, kind, &mut push)?;
        }
        Ok(())
    }

    /// All below, each before its own children.
    fn descend(&self, item: &Val<'a>, out: &mut Items<'a>) -> Result<()> {
        // A stack of its own: a tree is as deep as its sender likes.
        let mut open = Items::new();
        self.children(item, &mut open)?;
        open.reverse();
        while let Some(item) = open.pop() {
            let from = open.len();
            self.children(&item, &mut open)?;
            open[from..].reverse();
            out.push(item);
        }
        Ok(())
    }

    fn extensions(&self, input: &[Val<'a>], url: &str) -> Result<Items<'a>> {
        let ty = Ty::named("Extension").unwrap_or(Ty::UNKNOWN);
        let mut out = Items::new();
        for item in input {
            let Val::Node { node, sibling, .. } = item else { continue };
            let holder = node.as_object().or_else(|| sibling.and_then(Node::as_object));
            let all = holder.and_then(|object| object.get("extension")).and_then(Node::as_array);
            for node in all.into_iter().flatten() {
                self.spend(1)?;
                if node.get("url").and_then(Node::as_str) == Some(url) {
                    out.push(Val::Node { node, sibling: None, ty });
                }
            }
        }
        Ok(out)
    }

    /// What a reference points to.
    pub fn resolve(&self, item: &Val<'a>) -> Result<Option<Val<'a>>> {
        let Val::Node { node, .. } = item else {
            return Ok(None);
        };
        let node: &'a Node = node;
        let (text, named) = match node {
            Node::String(text) => (Some(text.as_str()), None),
            Node::Object(object) => {
                let text = |key: &str| object.get(key).and_then(Node::as_str);
                (text("reference"), text("type"))
            }
            _ => return Ok(None),
        };
        let resource: &'a Node = self.env.resource;
        if let Some(id) = text.and_then(|text| text.strip_prefix('#')) {
            let contained = resource.get("contained").and_then(Node::as_array).into_iter().flatten();
            let found = contained.into_iter().find(|c| c.get("id").and_then(Node::as_str) == Some(id));
            return Ok(if id.is_empty() { Some(Val::root(resource)) } else { found.map(Val::root) });
        }
        if let (Some(text), Some(entries)) = (text, resource.get("entry").and_then(Node::as_array)) {
            self.spend(entries.len())?;
            let full = |entry: &&'a Node| entry.get("fullUrl").and_then(Node::as_str) == Some(text);
            if let Some(found) = entries.iter().find(full).and_then(|entry| entry.get("resource")) {
                return Ok(Some(Val::root(found)));
            }
        }
        let ty = text.and_then(target_type).or_else(|| named.and_then(Ty::named).filter(|ty| ty.is_resource()));
        Ok(ty.map(|ty| Val::Target { reference: node, ty }))
    }

    fn clock(&self, func: Func) -> Result<Val<'a>> {
        let now = self.env.now.ok_or_else(|| fault("there is no clock for this expression"))?;
        let now = Temporal::instant(now.0).ok_or_else(|| fault("the clock is beyond the calendar"))?;
        Ok(match func {
            Func::Now => Val::temporal(now),
            Func::Today => Val::temporal(now.to_date()),
            _ => Val::temporal(now.to_time().unwrap_or(now)),
        })
    }
}

/// The type in `Patient/1`, `http://server/Patient/1/_history/2`, `Patient?identifier=1`.
fn target_type(reference: &str) -> Option<Ty> {
    let before = |text: &'_ str, mark: char| text.find(mark).unwrap_or(text.len());
    let reference = &reference[..before(reference, '#')];
    let conditional = reference.contains('?');
    let path = &reference[..before(reference, '?')];
    let path = path.find("/_history/").map_or(path, |at| &path[..at]);
    let mut parts = path.rsplit('/');
    let name = if conditional { parts.next() } else { parts.nth(1) };
    name.and_then(Ty::named).filter(|ty| ty.is_resource())
}

fn has_value(item: &Val) -> bool {
    match item {
        Val::Node { node, ty, .. } => match node {
            Node::Null | Node::Array(_) | Node::Object(_) => false,
            _ => ty.is_primitive() || *ty == Ty::UNKNOWN,
        },
        Val::Target { .. } | Val::Type(..) => false,
        _ => true,
    }
}

fn type_of<'a>(item: &Val<'a>) -> Val<'a> {
    match item.system_name() {
        Some(name) => Val::Type("System", name),
        None => Val::Type("FHIR", item.ty().name().unwrap_or("Element")),
    }
}

/// Conformance to the definition of a type; profiles proper are the validator's.
fn conforms(item: &Val, profile: &str) -> Result<bool> {
    let name = profile.strip_prefix("http://hl7.org/fhir/StructureDefinition/");
    let wanted = name.and_then(Ty::named).ok_or_else(|| fault("a profile that is not known here"))?;
    Ok(item.ty().is_a(wanted))
}
