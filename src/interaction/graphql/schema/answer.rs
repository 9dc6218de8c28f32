//! Answers `__schema` and `__type`: the selections are read into a plan once, and what they ask of is made and written as
//! text piece by piece. The whole schema has tens of thousands of arguments: as a tree it would take many times as much.

use std::borrow::Cow;
use std::collections::HashMap;

use super::meta::{self, DIRECTIVES, Directive, Member, Object};
use super::{Argument, Field, Named, Ref, scalar};
use crate::error::{Error, Kind};
use crate::interaction::graphql::Fault;
use crate::interaction::graphql::document::{self, Selection, What};

/// Bytes that the answers of one query may have. The whole schema as tools ask for it is about a third of it.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// What is asked of one object, fields of one name together.
struct Plan<'q> {
    steps: Vec<Step<'q>>,
}

struct Step<'q> {
    key: &'q str,
    ask: Ask<'q>,
}

enum Ask<'q> {
    TypeName(&'static str),
    Member(&'static Member, Option<Plan<'q>>),
}

/// Something of the schema that has fields.
enum Thing {
    Schema,
    Type(Ref),
    Field(Field),
    Argument(Argument),
    Value(&'static str),
    Directive(&'static Directive),
}

/// Whether the field (`__schema`, `__type`) asks for what there is.
///
/// # Errors
/// `Kind::Invalid` with the place of the first fault.
pub fn check(field: &document::Field) -> Result<(), Fault> {
    plan_of(&[field]).map(drop)
}

/// The answers to what a query asks of the schema, by their names in the answer, each as JSON.
///
/// # Errors
/// As [`check`]; `Kind::TooCostly` beyond the limit.
pub fn answers(selections: &[Selection]) -> Result<HashMap<String, Vec<u8>>, Fault> {
    let mut asked: Vec<(&str, Vec<&document::Field>)> = Vec::new();
    gather(selections, &mut asked);
    let mut answers = HashMap::new();
    let mut left = BYTES_MAX;
    for (key, fields) in asked {
        let plan = plan_of(&fields)?;
        let mut writer = Writer { out: Vec::new(), most: left };
        match fields.first().map(|field| &field.what) {
            Some(What::Introspection { name: Some(name) }) => {
                writer.maybe(&plan, Named::find(name).map(|of| Thing::Type(Ref { wraps: "", of })))?;
            }
            _ => writer.thing(&plan, &Thing::Schema)?,
        }
        left = left.saturating_sub(writer.out.len());
        answers.insert(key.to_owned(), writer.out);
    }
    Ok(answers)
}

/// Those at the root, by their keys.
fn gather<'q>(selections: &'q [Selection], into: &mut Vec<(&'q str, Vec<&'q document::Field>)>) {
    for selection in selections {
        match selection {
            Selection::Field(field) if matches!(field.what, What::Introspection { .. }) => {
                match into.iter_mut().find(|(key, _)| *key == field.key) {
                    Some((_, fields)) => fields.push(field),
                    None => into.push((&field.key, vec![field])),
                }
            }
            Selection::Field(_) => {}
            Selection::On { selections, .. } => gather(selections, into),
        }
    }
}

fn plan_of<'q>(fields: &[&'q document::Field]) -> Result<Plan<'q>, Fault> {
    let named = matches!(fields.first().map(|field| &field.what), Some(What::Introspection { name: Some(_) }));
    let object = meta::object(if named { meta::TYPE } else { meta::SCHEMA });
    let object = object.ok_or_else(|| Error::internal("a type of introspection that is not there"))?;
    fields.iter().try_for_each(|field| plain(field))?;
    plan(&fields.iter().map(|field| field.selections.as_slice()).collect::<Vec<_>>(), object)
}

fn plan<'q>(sets: &[&'q [Selection]], object: &'static Object) -> Result<Plan<'q>, Fault> {
    let mut groups: Vec<(&'q str, Vec<&'q document::Field>)> = Vec::new();
    let mut left: Vec<&'q Selection> = sets.iter().rev().flat_map(|set| set.iter().rev()).collect();
    while let Some(selection) = left.pop() {
        match selection {
            Selection::On { kind, selections } if kind.as_deref().is_none_or(|kind| kind == object.name) => {
                left.extend(selections.iter().rev());
            }
            Selection::On { kind, .. } => {
                let kind = kind.as_deref().unwrap_or_default();
                return Err(Fault::invalid(format!("A fragment on {kind} can never apply to {}.", object.name)));
            }
            Selection::Field(field) => match groups.iter_mut().find(|(key, _)| *key == field.key) {
                Some((key, fields)) => {
                    if fields.first().is_some_and(|first| first.said != field.said) {
                        let text = format!("Two fields are answered as '{key}' and differ: give one an alias.");
                        return Err(Fault::invalid(text).at(field.at));
                    }
                    fields.push(field);
                }
                None => groups.push((&field.key, vec![field])),
            },
        }
    }
    if groups.is_empty() {
        return Err(Fault::invalid(format!("Of {} fields must be selected.", object.name)));
    }
    let steps = groups.into_iter().map(|(key, fields)| Ok(Step { key, ask: ask(&fields, object)? }));
    Ok(Plan { steps: steps.collect::<Result<_, Fault>>()? })
}

fn ask<'q>(fields: &[&'q document::Field], object: &'static Object) -> Result<Ask<'q>, Fault> {
    let Some(field) = fields.first() else { return Err(Error::internal("a group without fields").into()) };
    let unknown = || {
        let text = format!("{} has no field '{}' with these arguments.", object.name, field.name);
        Err(Fault::invalid(text).at(field.at))
    };
    plain(field)?;
    if let What::TypeName = field.what {
        return Ok(Ask::TypeName(object.name));
    }
    let What::Element(filter) = &field.what else { return unknown() };
    let Some(member) = object.fields.iter().find(|member| member.name == field.name) else { return unknown() };
    // Nothing is deprecated, so it makes no difference.
    let told = |(name, value): &(String, String)| {
        member.deprecable && name == "includeDeprecated" && matches!(value.as_str(), "true" | "false")
    };
    if !filter.equals.iter().all(told) || !filter.fhirpath.is_empty() || filter.count.is_some() || filter.offset > 0 {
        return unknown();
    }
    let inner = match meta::object(member.of) {
        None if fields.iter().any(|field| !field.selections.is_empty()) => {
            let text = format!("'{}' is a simple value: nothing can be selected of it.", field.name);
            return Err(Fault::invalid(text).at(field.at));
        }
        None => None,
        Some(of) => {
            let sets: Vec<&[Selection]> = fields.iter().map(|field| field.selections.as_slice()).collect();
            Some(plan(&sets, of).map_err(|fault| fault.at(field.at))?)
        }
    };
    Ok(Ask::Member(member, inner))
}

/// The directives that shape an answer are for data.
fn plain(field: &document::Field) -> Result<(), Fault> {
    match field.flatten || field.first || field.singleton || field.slice.is_some() {
        true => Err(Fault::invalid("Answers about the schema cannot be shaped by directives.").at(field.at)),
        false => Ok(()),
    }
}

struct Writer {
    out: Vec<u8>,
    most: usize,
}

impl Writer {
    fn thing(&mut self, plan: &Plan<'_>, thing: &Thing) -> Result<(), Fault> {
        if self.out.len() > self.most {
            let text = format!("The answer would have more than {BYTES_MAX} bytes. Ask for less of the schema.");
            return Err(Error::new(Kind::TooCostly, text).into());
        }
        self.out.push(b'{');
        for (n, step) in plan.steps.iter().enumerate() {
            if n > 0 {
                self.out.push(b',');
            }
            self.text(step.key);
            self.out.push(b':');
            match &step.ask {
                Ask::TypeName(name) => self.text(name),
                Ask::Member(member, None) => self.leaf(thing, member.name),
                Ask::Member(member, Some(plan)) => self.inner(plan, thing, member.name)?,
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn maybe(&mut self, plan: &Plan<'_>, thing: Option<Thing>) -> Result<(), Fault> {
        match thing {
            Some(thing) => self.thing(plan, &thing),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    fn list(&mut self, plan: &Plan<'_>, things: Option<impl Iterator<Item = Thing>>) -> Result<(), Fault> {
        let Some(things) = things else {
            self.null();
            return Ok(());
        };
        self.out.push(b'[');
        for (n, thing) in things.enumerate() {
            if n > 0 {
                self.out.push(b',');
            }
            self.thing(plan, &thing)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn inner(&mut self, plan: &Plan<'_>, thing: &Thing, member: &str) -> Result<(), Fault> {
        let none = || None::<std::iter::Empty<Thing>>;
        let named = |of: Named| Thing::Type(Ref { wraps: "", of });
        match (thing, member) {
            (Thing::Schema, "types") => self.list(plan, Some(Named::all().map(named))),
            (Thing::Schema, "queryType") => self.thing(plan, &named(Named::Query)),
            (Thing::Schema, "directives") => self.list(plan, Some(DIRECTIVES.iter().map(Thing::Directive))),
            (Thing::Type(Ref { wraps: "", of }), "fields") => {
                self.list(plan, of.fields().map(|fields| fields.into_iter().map(Thing::Field)))
            }
            (Thing::Type(Ref { wraps: "", of }), "interfaces") => {
                self.list(plan, of.interfaces().map(|all| all.into_iter().map(named)))
            }
            (Thing::Type(Ref { wraps: "", of }), "possibleTypes") => {
                self.list(plan, of.possible().map(|all| all.into_iter().map(named)))
            }
            (Thing::Type(Ref { wraps: "", of: Named::Enum(of) }), "enumValues") => {
                self.list(plan, Some(of.values.iter().copied().map(Thing::Value)))
            }
            (Thing::Type(of), "ofType") => {
                let inner = of.wraps.get(1..).map(|wraps| Thing::Type(Ref { wraps, of: of.of }));
                self.maybe(plan, inner)
            }
            (Thing::Type(_), "fields" | "interfaces" | "possibleTypes" | "enumValues" | "inputFields") => {
                self.list(plan, none())
            }
            (Thing::Field(field), "type") => self.thing(plan, &Thing::Type(field.of)),
            (Thing::Field(field), "args") => {
                self.list(plan, Some(field.takes.arguments().into_iter().map(Thing::Argument)))
            }
            (Thing::Argument(argument), "type") => self.thing(plan, &Thing::Type(argument.of)),
            (Thing::Directive(directive), "args") => {
                let argument = directive.argument.map(|(name, of)| Argument {
                    name: Cow::Borrowed(name),
                    about: None,
                    of: Ref { wraps: "!", ..scalar(of) },
                });
                self.list(plan, Some(argument.into_iter().map(Thing::Argument)))
            }
            // mutationType and subscriptionType.
            _ => self.maybe(plan, None),
        }
    }

    fn leaf(&mut self, thing: &Thing, member: &str) {
        match (thing, member) {
            (Thing::Type(of), "kind") => self.text(match of.wraps.bytes().next() {
                Some(b'!') => "NON_NULL",
                Some(_) => "LIST",
                None => of.of.kind(),
            }),
            (Thing::Type(Ref { wraps: "", of }), "name") => self.text(&of.name()),
            (Thing::Field(field), "name") => self.text(&field.name),
            (Thing::Argument(argument), "name") => self.text(&argument.name),
            (Thing::Argument(Argument { about: Some(about), .. }), "description") => self.text(about),
            (Thing::Value(name), "name") => self.text(name),
            (Thing::Directive(directive), "name") => self.text(directive.name),
            (Thing::Directive(directive), "description") => self.text(directive.about),
            (Thing::Directive(directive), "locations") => {
                let quoted: Vec<String> = directive.locations.iter().map(|name| format!("\"{name}\"")).collect();
                self.out.extend_from_slice(format!("[{}]", quoted.join(",")).as_bytes());
            }
            (_, "isDeprecated" | "isRepeatable") => self.out.extend_from_slice(b"false"),
            _ => self.null(),
        }
    }

    fn text(&mut self, text: &str) {
        // Writing into memory does not fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }
}
