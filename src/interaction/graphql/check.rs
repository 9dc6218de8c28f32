//! Selections against the definitions, before anything is looked up: fields that do not exist, arguments that do not
//! fit and searches that cannot be read are refused whatever the data. Where several types may stand (what a
//! reference points to) a field must be one of at least one of them.

use std::collections::HashMap;

use super::document::{Field, Filter, Search, Selection, What};
use super::types::{self, CONNECTION_FIELDS, Key, Type};
use super::{Fault, is_audit, schema};
use crate::error::Error;
use crate::fhir::definitions::Child;
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::search::{Query, QueryOptions};

/// Fields of one key: they are answered as one.
pub struct Group<'m> {
    pub key: &'m str,
    pub fields: Vec<&'m Field>,
}

/// Checks, and remembers what it found: a field of a fragment is looked at once for each type.
pub struct Checker {
    options: QueryOptions,
    verdicts: HashMap<(usize, Key), bool>,
}

impl Checker {
    pub fn new(options: QueryOptions) -> Checker {
        Checker { options, verdicts: HashMap::new() }
    }

    /// # Errors
    /// The first fault, with its place.
    pub fn selections(&mut self, selections: &[Selection], kind: Type) -> Result<(), Fault> {
        for selection in selections {
            match selection {
                Selection::Field(field) => self.field(field, kind)?,
                Selection::On { kind: Some(name), .. } if !kind.is(name) => {
                    let text = format!("A fragment on {name} can never apply to {}.", kind.name());
                    return Err(Fault::invalid(text));
                }
                Selection::On { selections, .. } => self.selections(selections, kind)?,
            }
        }
        self.groups(&[selections], kind).map(drop)
    }

    /// For one of several types.
    fn any_of(&mut self, selections: &[Selection], kinds: &[TypeId]) -> Result<(), Fault> {
        for selection in selections {
            match selection {
                Selection::Field(field) => {
                    let mut fault = None;
                    for kind in kinds.iter().filter_map(|kind| Type::of_resource(*kind)) {
                        match self.field(field, kind) {
                            Ok(()) => {
                                fault = None;
                                break;
                            }
                            Err(first) => fault = fault.or(Some(first)),
                        }
                    }
                    fault.map_or(Ok(()), Err)?;
                }
                Selection::On { kind, selections } => {
                    let of_kind = |of: &TypeId| match kind {
                        Some(name) => definitions().is_a(definitions().type_name(*of), name),
                        None => true,
                    };
                    let kinds: Vec<TypeId> = kinds.iter().copied().filter(of_kind).collect();
                    if kinds.is_empty() {
                        let name = kind.as_deref().unwrap_or_default();
                        return Err(Fault::invalid(format!("A fragment on {name} can never apply here.")));
                    }
                    self.any_of(selections, &kinds)?;
                }
            }
        }
        Ok(())
    }

    /// The fields that a place of this type answers, in order, those of one key together.
    ///
    /// # Errors
    /// `Kind::Invalid` when fields of one key differ.
    pub fn groups<'m>(&mut self, sets: &[&'m [Selection]], kind: Type) -> Result<Vec<Group<'m>>, Fault> {
        let mut groups: Vec<Group<'m>> = Vec::new();
        let mut places: HashMap<&'m str, usize> = HashMap::new();
        let mut left: Vec<&'m Selection> = sets.iter().rev().flat_map(|set| set.iter().rev()).collect();
        while let Some(selection) = left.pop() {
            let field = match selection {
                Selection::Field(field) => field,
                Selection::On { kind: on, selections } => {
                    if on.as_deref().is_none_or(|on| kind.is(on)) {
                        left.extend(selections.iter().rev());
                    }
                    continue;
                }
            };
            if self.field(field, kind).is_err() {
                continue;
            }
            let at = *places.entry(&field.key).or_insert_with(|| {
                groups.push(Group { key: &field.key, fields: Vec::new() });
                groups.len() - 1
            });
            let fields = &mut groups[at].fields;
            if fields.first().is_some_and(|first| first.said != field.said) {
                let text = format!("Two fields are answered as '{}' and differ: give one an alias.", field.key);
                return Err(Fault::invalid(text).at(field.at));
            }
            fields.push(field);
        }
        Ok(groups)
    }

    fn field(&mut self, field: &Field, kind: Type) -> Result<(), Fault> {
        let key = (field.number, kind.key());
        match self.verdicts.get(&key) {
            Some(true) => return Ok(()),
            Some(false) => return Err(unknown(field, kind)),
            None => {}
        }
        let verdict = self.judge(field, kind).map_err(|fault| fault.at(field.at));
        self.verdicts.insert(key, verdict.is_ok());
        verdict
    }

    fn judge(&mut self, field: &Field, kind: Type) -> Result<(), Fault> {
        match (kind, &field.what) {
            (_, What::TypeName) => leaf(field),
            (Type::Query, What::Introspection { .. }) => schema::check(field),
            (_, What::Introspection { .. }) => {
                let text = "The schema is told at the root of a query of the system: [base]/$graphql.";
                Err(Fault::invalid(text))
            }
            (Type::Query, What::Lookup { kind: of, .. }) => {
                readable(*of)?;
                self.inner(field, Type::of_resource(*of))
            }
            (_, What::Search { kind: of, search, connection }) => {
                self.search(kind, *of, search)?;
                self.inner(field, if *connection { Some(Type::Connection(*of)) } else { Type::of_resource(*of) })
            }
            (Type::Connection(of), What::Element(filter)) if filter.is_empty() => match field.name.as_str() {
                "edges" => self.inner(field, Some(Type::Edge(of))),
                name if CONNECTION_FIELDS.contains(&name) => leaf(field),
                _ => Err(unknown(field, kind)),
            },
            (Type::Edge(of), What::Resource { bare: true, .. }) => self.inner(field, Type::of_resource(of)),
            (Type::Edge(_), What::Element(filter)) if filter.is_empty() => match field.name.as_str() {
                "mode" | "score" => leaf(field),
                _ => Err(unknown(field, kind)),
            },
            (Type::Element(shape, targets), What::Resource { only, .. }) if shape.path == "Reference" => {
                let mut kinds = types::targets(targets);
                if !only.is_empty() {
                    kinds.retain(|kind| only.contains(kind));
                }
                some(field)?;
                // A type that the element never refers to leaves nothing to check against.
                if kinds.is_empty() {
                    self.any_of(&field.selections, only)
                } else {
                    self.any_of(&field.selections, &kinds)
                }
            }
            (Type::Element(shape, _), What::Element(filter)) => match field.name.strip_prefix('_') {
                Some(name) => match shape.child(name) {
                    Some(child) if child.primitive.is_some() && filter.is_empty() => self.inner(field, Type::sibling()),
                    _ => Err(unknown(field, kind)),
                },
                None => self.element(field, kind, filter),
            },
            (Type::Element(..), What::Resource { bare: true, .. }) => self.element(field, kind, &Filter::default()),
            _ => Err(unknown(field, kind)),
        }
    }

    fn element(&mut self, field: &Field, kind: Type, filter: &Filter) -> Result<(), Fault> {
        let Type::Element(shape, _) = kind else { return Err(unknown(field, kind)) };
        if field.name == "resourceType" && kind.resource().is_some() && filter.is_empty() {
            return leaf(field);
        }
        let Some(child) = shape.child(&field.name) else { return Err(unknown(field, kind)) };
        if !repeats(child) && !filter.is_empty() {
            return Err(Fault::invalid(format!("'{}' is no list: it takes no arguments.", field.name)));
        }
        for (name, _) in &filter.equals {
            let known = child.shape().and_then(|shape| shape.child(name));
            if known.is_none_or(|known| known.primitive.is_none()) {
                return Err(Fault::invalid(format!("'{}' has no simple element '{name}' to filter by.", field.name)));
            }
        }
        match (child.primitive, Type::of_child(child)) {
            (Some(_), _) => leaf(field),
            (None, Some(of)) => self.inner(field, Some(of)),
            (None, None) => {
                some(field)?;
                self.any_of(&field.selections, definitions().types())
            }
        }
    }

    fn inner(&mut self, field: &Field, kind: Option<Type>) -> Result<(), Fault> {
        some(field)?;
        let kind = kind.ok_or_else(|| Error::internal("a type without elements"))?;
        self.selections(&field.selections, kind)
    }

    fn search(&self, place: Type, of: TypeId, search: &Search) -> Result<(), Fault> {
        readable(of)?;
        let name = definitions().type_name(of);
        match (&search.reference, place.resource(), place) {
            (None, _, Type::Query) => {}
            (Some(_), _, Type::Query) => {
                return Err(Fault::invalid("'_reference' has no meaning at the root of a query of the system."));
            }
            (Some(code), Some(to), _) => {
                let param = definitions().param(of, code).filter(|param| param.kind == ParamKind::Reference);
                if param.is_none_or(|param| !param.targets.is_empty() && !param.targets.contains(&to)) {
                    let to = definitions().type_name(to);
                    let text = format!("'{code}' is no parameter by which {name} refers to {to}.");
                    return Err(Fault::invalid(text));
                }
            }
            (None, Some(_), _) => {
                return Err(Fault::invalid("A search on a resource needs '_reference': how it is referred to."));
            }
            _ => return Err(Fault::invalid(format!("{} has no searches.", place.name()))),
        }
        Query::parse(of, &search.pairs, &self.options)?;
        Ok(())
    }
}

/// AuditEvents lie in the trail, which GraphQL does not reach.
fn readable(kind: TypeId) -> Result<(), Fault> {
    match is_audit(kind) {
        true => Err(Error::unsupported("AuditEvents are not reached by GraphQL: read and search them as such.").into()),
        false => Ok(()),
    }
}

fn leaf(field: &Field) -> Result<(), Fault> {
    match (field.selections.is_empty(), field.flatten) {
        (true, false) => Ok(()),
        (true, true) => Err(Fault::invalid(format!("'{}' is a simple value: it cannot be flattened.", field.name))),
        _ => Err(Fault::invalid(format!("'{}' is a simple value: nothing can be selected of it.", field.name))),
    }
}

fn some(field: &Field) -> Result<(), Fault> {
    match field.selections.is_empty() {
        true => Err(Fault::invalid(format!("Of '{}' fields must be selected.", field.name))),
        false => Ok(()),
    }
}

fn unknown(field: &Field, kind: Type) -> Fault {
    Fault::invalid(format!("{} has no field '{}' with these arguments.", kind.name(), field.name)).at(field.at)
}

/// Whether an element repeats.
pub fn repeats(child: &Child) -> bool {
    child.element.max != Some(1)
}
