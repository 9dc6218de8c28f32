//! One pass over the selections with what is known so far: gives the answer, or what must be fetched before there is
//! one. A pass changes nothing and is made again when more is known, so it has no order of its own to keep.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Fault;
use super::check::{Checker, Group, repeats};
use super::document::{Field, Filter, Search, Selection, Slice, What};
use super::memo::{Address, Asked, FieldError, Held, Hits, Memo, Road, Start, Want};
use super::output::{Status, Target};
use super::types::Type;
use crate::error::{Error, Kind};
use crate::fhir::json::Node;
use crate::fhir::path::{Env, Expr, Item};
use crate::fhir::reference::{self, Reference};
use crate::fhir::{TypeId, definitions};
use crate::interaction::form;
use crate::world::Instant;

/// Values in one answer, objects counted.
const VALUES_MAX: usize = 100_000;
/// FHIRPath evaluations of one pass.
const EVALUATIONS_MAX: usize = 20_000;
/// Errors of fields that are told.
const ERRORS_MAX: usize = 100;

/// Where a selection stands.
enum Place<'m> {
    Query,
    Element {
        /// The resource it is in, for contained ones.
        root: &'m Node,
        node: &'m Node,
        kind: Type,
        /// Of a stored resource itself.
        own: bool,
    },
    /// A resource whose content is not open yet: only its name is known.
    Ahead(&'m Address),
    Connection(&'m Hits),
    Edge(&'m Hits, &'m Address),
}

enum Val<'m> {
    Null,
    Scalar(Cow<'m, Node>),
    Object(Place<'m>),
}

struct Values<'m> {
    list: bool,
    /// Shown even when there are none.
    always: bool,
    items: Vec<Val<'m>>,
}

pub struct Pass<'m, 'c> {
    memo: &'m Memo,
    checker: &'c mut Checker,
    base: &'m str,
    now: Instant,
    pub wants: Vec<Want>,
    wanted: HashSet<String>,
    pub errors: Vec<FieldError>,
    path: Vec<Node>,
    values: usize,
    evaluations: usize,
}

impl<'m, 'c> Pass<'m, 'c> {
    pub fn new(memo: &'m Memo, checker: &'c mut Checker, base: &'m str, now: Instant) -> Self {
        Pass {
            memo,
            checker,
            base,
            now,
            wants: Vec::new(),
            wanted: HashSet::new(),
            errors: Vec::new(),
            path: Vec::new(),
            values: 0,
            evaluations: 0,
        }
    }

    /// The answer as far as it is known; None when the resource the query starts at is not there.
    ///
    /// # Errors
    /// Those that end the whole query: limits, `@singleton` of several, FHIRPath.
    pub fn answer(&mut self, start: &'m Start, selections: &'m [Selection]) -> Result<Option<Node>, Fault> {
        let place = match start {
            Start::System => Place::Query,
            Start::Resource(address) => match self.resource(address, true) {
                Known::Absent => return Ok(None),
                Known::Awaited => Place::Ahead(address),
                Known::Place(place) => place,
            },
        };
        self.object(&place, &[selections]).map(Some)
    }

    fn object(&mut self, place: &Place<'m>, sets: &[&'m [Selection]]) -> Result<Node, Fault> {
        let mut target = Target::default();
        self.fields(place, sets, &mut target, false, "")?;
        target.into_node()
    }

    fn fields(
        &mut self,
        place: &Place<'m>,
        sets: &[&'m [Selection]],
        target: &mut Target,
        flat: bool,
        suffix: &str,
    ) -> Result<(), Fault> {
        let Some(kind) = place.kind() else { return Ok(()) };
        for group in self.checker.groups(sets, kind)? {
            self.path.push(Node::from(group.key));
            self.group(place, &group, target, flat, suffix)?;
            self.path.pop();
        }
        Ok(())
    }

    /// `flat`: the target is that of a flattened list, so whatever is put there repeats.
    fn group(
        &mut self,
        place: &Place<'m>,
        group: &Group<'m>,
        target: &mut Target,
        flat: bool,
        suffix: &str,
    ) -> Result<(), Fault> {
        let Some(field) = group.fields.first() else { return Ok(()) };
        let sets: Vec<&'m [Selection]> = group.fields.iter().map(|field| field.selections.as_slice()).collect();
        let Values { list, always, items } = self.values(place, field).map_err(|fault| fault.at(field.at))?;
        let status = match (field.singleton, field.first) {
            (true, _) => Status::Singleton,
            (false, true) if !flat => Status::One,
            (false, true) => Status::List,
            (false, false) if list || flat => Status::List,
            (false, false) => Status::One,
        };
        if items.is_empty() && always && !field.flatten {
            target.slot(format!("{}{suffix}", group.key), status, field.at);
        }
        let most = if field.first { 1 } else { usize::MAX };
        let counted = list && !field.first;
        for (n, value) in items.into_iter().enumerate().take(most) {
            self.values += 1;
            if self.values > VALUES_MAX {
                let text = format!("The answer would hold more than {VALUES_MAX} values. Select less of it.");
                return Err(Error::new(Kind::TooCostly, text).into());
            }
            let own = match &field.slice {
                None => String::new(),
                Some(Slice::Index) => format!(".{n}"),
                Some(Slice::Path(path)) => {
                    format!(".{}", self.slice(path, &value).map_err(|fault| fault.at(field.at))?)
                }
            };
            let suffix = format!("{suffix}{own}");
            if counted {
                self.path.push(Node::from(n));
            }
            let node = match value {
                Val::Object(place) if field.flatten => {
                    self.fields(&place, &sets, target, flat || counted, &suffix)?;
                    None
                }
                Val::Object(place) => Some(self.object(&place, &sets)?),
                Val::Scalar(node) => Some(node.into_owned()),
                Val::Null if flat || field.first || field.flatten => None,
                Val::Null => Some(Node::Null),
            };
            if counted {
                self.path.pop();
            }
            if let Some(node) = node {
                target.slot(format!("{}{suffix}", group.key), status, field.at).values.push(node);
            }
        }
        Ok(())
    }

    fn values(&mut self, place: &Place<'m>, field: &'m Field) -> Result<Values<'m>, Fault> {
        if let What::TypeName = field.what {
            let name = place.kind().map(Type::name).unwrap_or_default();
            return Ok(Values::one(Val::Scalar(Cow::Owned(Node::from(name)))));
        }
        if let What::Introspection { .. } = field.what {
            // Its place: what is asked of the schema is answered apart, as text.
            return Ok(Values::one(Val::Null));
        }
        if let What::Search { kind, search, connection } = &field.what {
            return Ok(self.search(place, field, *kind, search, *connection));
        }
        match place {
            Place::Query => Ok(self.lookup(field)),
            Place::Ahead(_) => Ok(Values::none()),
            Place::Connection(hits) => Ok(connection(hits, field)),
            Place::Edge(_, address) => Ok(match field.name.as_str() {
                "resource" => self.row(address).map_or_else(Values::none, |place| Values::one(Val::Object(place))),
                "mode" => Values::one(Val::Scalar(Cow::Owned(Node::from("match")))),
                // What a search decides is a match or none: there is no score to tell.
                _ => Values::none(),
            }),
            Place::Element { root, node, kind, .. } => self.element(root, node, *kind, field),
        }
    }

    fn element(&mut self, root: &'m Node, node: &'m Node, kind: Type, field: &'m Field) -> Result<Values<'m>, Fault> {
        let Type::Element(shape, _) = kind else { return Ok(Values::none()) };
        if shape.path == "Reference"
            && let What::Resource { optional, only, .. } = &field.what
        {
            return Ok(self.reference(root, node, field, *optional, only));
        }
        let (name, sibling) = match field.name.strip_prefix('_') {
            Some(name) => (name, true),
            None => (field.name.as_str(), false),
        };
        let Some(value) = node.get(&field.name) else { return Ok(Values::none()) };
        let Some(child) = shape.child(name) else { return Ok(Values::one(Val::Scalar(Cow::Borrowed(value)))) };
        let of = match sibling {
            true => Type::sibling(),
            false => Type::of_child(child),
        };
        let made = |value: &'m Node| {
            let own = |value: &'m Node| {
                let name = value.get("resourceType").and_then(Node::as_str)?;
                Type::of_resource(definitions().type_id(name)?)
            };
            match (value, child.primitive.is_some() && !sibling) {
                (Node::Null, _) => Some(Val::Null),
                (_, true) => Some(Val::Scalar(Cow::Borrowed(value))),
                (_, false) => {
                    let kind = of.or_else(|| own(value))?;
                    // Contained resources are found in the resource they are in, entries of a Bundle in themselves.
                    let root = if of.is_none() && name != "contained" { value } else { root };
                    Some(Val::Object(Place::Element { root, node: value, kind, own: false }))
                }
            }
        };
        let items: Vec<&'m Node> = match value {
            Node::Array(items) => items.iter().collect(),
            value => vec![value],
        };
        let list = repeats(child);
        let items = match &field.what {
            What::Element(filter) if !filter.is_empty() => self.filtered(root, items, child.kind, of, filter)?,
            _ => items,
        };
        Ok(Values { list, always: false, items: items.into_iter().filter_map(made).collect() })
    }

    fn filtered(
        &mut self,
        root: &'m Node,
        items: Vec<&'m Node>,
        named: &'static str,
        of: Option<Type>,
        filter: &Filter,
    ) -> Result<Vec<&'m Node>, Fault> {
        let kind = match of {
            Some(Type::Element(shape, _)) => shape.path,
            _ => named,
        };
        let mut kept = Vec::new();
        for item in items {
            let equal = filter.equals.iter().all(|(name, wanted)| match item.get(name) {
                Some(Node::String(text)) => text == wanted,
                Some(Node::Array(values)) => values.iter().any(|value| value.as_str() == Some(wanted)),
                Some(Node::Bool(value)) => wanted == if *value { "true" } else { "false" },
                Some(Node::Number(number)) => number.as_str() == wanted,
                _ => false,
            });
            let mut holds = equal;
            for path in &filter.fhirpath {
                holds = holds && {
                    self.evaluated()?;
                    path.holds(&Env::of(root).at(self.now), &Item::at(item, kind))?
                };
            }
            if holds {
                kept.push(item);
            }
        }
        Ok(kept.into_iter().skip(filter.offset).take(filter.count.unwrap_or(usize::MAX)).collect())
    }

    fn evaluated(&mut self) -> Result<(), Fault> {
        self.evaluations += 1;
        match self.evaluations > EVALUATIONS_MAX {
            true => {
                let text = format!("The query evaluates FHIRPath more than {EVALUATIONS_MAX} times.");
                Err(Error::new(Kind::TooCostly, text).into())
            }
            false => Ok(()),
        }
    }

    /// What `@slice` says of a value.
    fn slice(&mut self, path: &Expr, value: &Val<'m>) -> Result<String, Fault> {
        self.evaluated()?;
        let Val::Object(Place::Element { root, node, kind, .. }) = value else { return Ok(String::new()) };
        let Type::Element(shape, _) = kind else { return Ok(String::new()) };
        let found = path.eval_in(&Env::of(root).at(self.now), &Item::at(node, shape.path))?;
        Ok(found.first().map_or_else(String::new, |item| match item.node.as_ref() {
            Node::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }

    fn lookup(&mut self, field: &'m Field) -> Values<'m> {
        let What::Lookup { kind, id } = &field.what else { return Values::none() };
        let address = Address { road: Road::Read, kind: *kind, id: id.clone(), version: None };
        match self.resource(&address, true) {
            Known::Place(place) => Values::one(Val::Object(place)),
            Known::Awaited => Values::none(),
            Known::Absent => {
                self.fault(field, "No such resource, or not one you may see.", "not-found");
                Values::one(Val::Null)
            }
        }
    }

    /// What a reference points to.
    fn reference(
        &mut self,
        root: &'m Node,
        node: &'m Node,
        field: &'m Field,
        optional: bool,
        only: &[TypeId],
    ) -> Values<'m> {
        let text = node.get("reference").and_then(Node::as_str).unwrap_or_default();
        let wanted = |kind: TypeId| only.is_empty() || only.contains(&kind);
        let found = match reference::parse(text, self.base) {
            Reference::Fragment(id) => match contained(root, &id) {
                Some((kind, _)) if !wanted(kind) => return Values::none(),
                Some((kind, node)) => Type::of_resource(kind)
                    .map_or(Known::Absent, |kind| Known::Place(Place::Element { root, node, kind, own: false })),
                None => Known::Absent,
            },
            Reference::Local { kind, .. } if !wanted(kind) => return Values::none(),
            Reference::Local { kind, id, version } => match version.map(|version| version.parse()).transpose() {
                Ok(version) => self.resource(&Address { road: Road::Read, kind, id, version }, false),
                Err(_) => Known::Absent,
            },
            _ => Known::Absent,
        };
        match found {
            Known::Place(place) => Values::one(Val::Object(place)),
            Known::Awaited => Values::none(),
            Known::Absent if optional => Values::none(),
            Known::Absent => {
                self.fault(field, "The reference leads to nothing that can be shown.", "not-found");
                Values::one(Val::Null)
            }
        }
    }

    fn fault(&mut self, field: &Field, text: &'static str, code: &'static str) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError { text, code, at: field.at, path: self.path.clone() });
        }
    }

    fn search(
        &mut self,
        place: &Place<'m>,
        field: &'m Field,
        kind: TypeId,
        search: &'m Search,
        connection: bool,
    ) -> Values<'m> {
        let to = match place {
            Place::Ahead(address) => Some((address.kind, address.id.as_str())),
            Place::Element { node, kind, own: true, .. } => kind.resource().zip(node.get("id").and_then(Node::as_str)),
            Place::Query => None,
            _ => return Values::none(),
        };
        let tie = search.reference.clone().zip(to).map(|(code, (kind, id))| {
            let to = format!("{}/{id}", definitions().type_name(kind));
            (code, to)
        });
        let key = format!(
            "{}?{}&{:?}&{}&{:?}&{:?}&{connection}",
            kind.0,
            form::encode(&search.pairs),
            search.count,
            search.offset,
            search.cursor,
            tie
        );
        if let Some(hits) = self.memo.searches.get(&key) {
            if connection {
                return Values::one(Val::Object(Place::Connection(hits)));
            }
            let rows = hits.rows.iter().filter_map(|address| self.row(address));
            return Values { list: true, always: true, items: rows.map(Val::Object).collect() };
        }
        if self.wanted.insert(key.clone()) {
            self.wants.push(Want::Search(Box::new(Asked {
                key,
                kind,
                pairs: search.pairs.clone(),
                tie,
                count: search.count,
                offset: search.offset,
                cursor: search.cursor.clone(),
                connection,
                counted: connection && field.selects("count"),
                at: field.at,
            })));
        }
        Values::none()
    }

    /// A hit of a search.
    fn row(&self, address: &'m Address) -> Option<Place<'m>> {
        match self.memo.resources.get(address)? {
            Held::Absent => None,
            Held::Sealed => Some(Place::Ahead(address)),
            Held::Open(node) => whole(node, address.kind),
        }
    }

    fn resource(&mut self, address: &Address, asked: bool) -> Known<'m> {
        match self.memo.resources.get_key_value(address) {
            Some((_, Held::Absent)) => Known::Absent,
            Some((address, Held::Sealed)) => Known::Place(Place::Ahead(address)),
            Some((_, Held::Open(node))) => whole(node, address.kind).map_or(Known::Absent, Known::Place),
            None => {
                let key = format!("{}/{}/{:?} {asked}", address.kind.0, address.id, address.version);
                if self.wanted.insert(key) {
                    self.wants.push(Want::Read { address: address.clone(), asked });
                }
                Known::Awaited
            }
        }
    }
}

enum Known<'m> {
    Absent,
    Awaited,
    Place(Place<'m>),
}

impl Place<'_> {
    fn kind(&self) -> Option<Type> {
        match self {
            Place::Query => Some(Type::Query),
            Place::Element { kind, .. } => Some(*kind),
            Place::Ahead(address) => Type::of_resource(address.kind),
            Place::Connection(hits) => Some(Type::Connection(hits.kind)),
            Place::Edge(hits, _) => Some(Type::Edge(hits.kind)),
        }
    }
}

impl<'m> Values<'m> {
    fn none() -> Self {
        Values { list: false, always: false, items: Vec::new() }
    }

    fn one(value: Val<'m>) -> Self {
        Values { list: false, always: false, items: vec![value] }
    }
}

fn whole(node: &Node, kind: TypeId) -> Option<Place<'_>> {
    Type::of_resource(kind).map(|kind| Place::Element { root: node, node, kind, own: true })
}

fn connection<'m>(hits: &'m Hits, field: &Field) -> Values<'m> {
    let text = |text: &Option<String>| text.clone().map(Node::from);
    let value = match field.name.as_str() {
        "edges" => {
            let edges = hits.rows.iter().map(|address| Val::Object(Place::Edge(hits, address)));
            return Values { list: true, always: true, items: edges.collect() };
        }
        "count" => hits.total.map(Node::from),
        "offset" => Some(Node::from(hits.offset)),
        "pagesize" => Some(Node::from(hits.count)),
        "first" => text(&hits.links.first),
        "previous" => text(&hits.links.previous),
        "next" => text(&hits.links.next),
        "last" => text(&hits.links.last),
        _ => None,
    };
    value.map_or_else(Values::none, |value| Values::one(Val::Scalar(Cow::Owned(value))))
}

/// A contained resource by its id; the empty one is the resource itself.
fn contained<'m>(root: &'m Node, id: &str) -> Option<(TypeId, &'m Node)> {
    let found = match id {
        "" => root,
        id => {
            let contained = root.get("contained")?.as_array()?;
            contained.iter().find(|node| node.get("id").and_then(Node::as_str) == Some(id))?
        }
    };
    let kind = definitions().type_id(found.get("resourceType")?.as_str()?)?;
    Some((kind, found))
}
