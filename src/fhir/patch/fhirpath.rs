//! FHIRPath Patch: operations in a Parameters resource, their places as FHIRPath.

use serde_json::Map;

use super::tree::{self, Place, Step};
use super::{OPERATIONS_MAX, too_many, unfit};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::definitions::{Child, Shape, definitions};
use crate::fhir::json::Node;
use crate::fhir::path::{Expr, Item};
use crate::fhir::resource::Resource;

/// A FHIRPath Patch that was read.
#[derive(Clone)]
pub struct FhirPathPatch(Vec<Operation>);

#[derive(Clone)]
struct Operation {
    /// As sent.
    path: String,
    action: Action,
    /// In the Parameters.
    place: String,
}

#[derive(Clone)]
enum Action {
    Add { name: String, value: Content },
    Insert { index: usize, value: Content },
    Delete,
    Replace { value: Content },
    Move { source: usize, destination: usize },
}

/// The content of an element.
#[derive(Clone)]
enum Content {
    /// `value[x]`: the type as in its name (`CodeableConcept`, `String`), value and sibling.
    Typed {
        kind: String,
        value: Node,
        extra: Option<Node>,
    },
    /// The children of an element that has no type of its own (`Patient.contact`).
    Parts(Vec<(String, Content)>),
    Resource(Node),
}

/// The parts of one operation as they come.
#[derive(Default)]
struct Parts {
    kind: Option<String>,
    path: Option<String>,
    name: Option<String>,
    value: Option<Content>,
    index: Option<usize>,
    source: Option<usize>,
    destination: Option<usize>,
}

/// What of the tree an operation works on.
struct Holder {
    path: Vec<Step>,
    shape: &'static Shape,
}

/// An element made ready for its place.
struct Ready {
    key: String,
    child: &'static Child,
    value: Node,
    extra: Option<Node>,
}

fn at(place: &str, text: impl Into<String>) -> Error {
    Error::invalid(text.into()).at(place)
}

fn items<'n>(node: &'n Node, name: &str) -> &'n [Node] {
    node.get(name).and_then(Node::as_array).map_or(&[], Vec::as_slice)
}

impl FhirPathPatch {
    pub(super) fn read(parameters: Node) -> Result<FhirPathPatch> {
        if parameters.get("resourceType").and_then(Node::as_str) != Some("Parameters") {
            return Err(at("Parameters", "A FHIRPath Patch is a Parameters resource."));
        }
        let resource = Resource::check(parameters)?;
        let list = items(resource.node(), "parameter");
        if list.len() > OPERATIONS_MAX {
            return Err(too_many());
        }
        list.iter().enumerate().map(|(n, node)| Operation::read(node, n)).collect::<Result<_>>().map(FhirPathPatch)
    }

    pub(super) fn asks(&self) -> bool {
        self.0.iter().any(|operation| {
            let step = |c: char| c.is_ascii_alphanumeric() || "._[]".contains(c);
            !operation.path.chars().all(step)
        })
    }

    pub(super) fn apply(&self, resource: &mut Node) -> Result<()> {
        self.0.iter().try_for_each(|operation| operation.apply(resource))
    }
}

impl Operation {
    fn read(node: &Node, n: usize) -> Result<Operation> {
        let place = format!("Parameters.parameter[{n}]");
        if node.get("name").and_then(Node::as_str) != Some("operation") {
            return Err(at(&place, "Each parameter of a FHIRPath Patch is named `operation`."));
        }
        let mut parts = Parts::default();
        for (m, part) in items(node, "part").iter().enumerate() {
            parts.read(part, &format!("{place}.part[{m}]"))?;
        }
        let missing = |name: &str| {
            let issue = Issue::error("required", format!("This operation needs a part named `{name}`.")).at(&place);
            Error::with_issues(Kind::Invalid, vec![issue])
        };
        let kind = parts.kind.ok_or_else(|| missing("type"))?;
        let path = parts.path.ok_or_else(|| missing("path"))?;
        let value = parts.value.ok_or_else(|| missing("value"));
        let action = match kind.as_str() {
            "add" => Action::Add { name: parts.name.ok_or_else(|| missing("name"))?, value: value? },
            "insert" => Action::Insert { index: parts.index.ok_or_else(|| missing("index"))?, value: value? },
            "delete" => Action::Delete,
            "replace" => Action::Replace { value: value? },
            "move" => Action::Move {
                source: parts.source.ok_or_else(|| missing("source"))?,
                destination: parts.destination.ok_or_else(|| missing("destination"))?,
            },
            _ => return Err(at(&place, "The type is add, insert, delete, replace or move.")),
        };
        Ok(Operation { path, action, place })
    }

    fn unfit(&self, text: &str) -> Error {
        unfit(format!("{} ({}): {text}.", self.place, self.path), None)
    }

    fn apply(&self, resource: &mut Node) -> Result<()> {
        match &self.action {
            Action::Add { name, value } => self.add(resource, name, value),
            Action::Insert { index, value } => {
                let (holder, name) = self.list(resource)?;
                let ready = self.ready(holder.shape, &name, value)?;
                let members = self.members(resource, &holder.path)?;
                if *index > tree::length(members, &ready.key) {
                    return Err(self.unfit("the list has no such place"));
                }
                tree::insert(members, &ready.key, *index, ready.value, ready.extra).ok_or_else(|| self.lost())
            }
            Action::Delete => match self.places(resource)?.as_slice() {
                [] => Ok(()),
                [Some(place)] => {
                    let members = self.members(resource, &place.parent)?;
                    match place.index {
                        Some(index) => tree::remove(members, &place.key, index).map(drop).ok_or_else(|| self.lost()),
                        None => {
                            tree::unset(members, &place.key);
                            Ok(())
                        }
                    }
                }
                [None] => Err(self.unfit("the resource itself is not deleted by a patch")),
                _ => Err(self.unfit("the path gives several elements; one can be deleted at a time")),
            },
            Action::Replace { value } => self.replace(resource, value),
            Action::Move { source, destination } => {
                let (holder, name) = self.list(resource)?;
                let members = self.members(resource, &holder.path)?;
                let length = tree::length(members, &name);
                if *source >= length || *destination >= length {
                    return Err(self.unfit("the list has no such place"));
                }
                let (value, extra) = tree::remove(members, &name, *source).ok_or_else(|| self.lost())?;
                tree::insert(members, &name, *destination, value, extra).ok_or_else(|| self.lost())
            }
        }
    }

    fn add(&self, resource: &mut Node, name: &str, value: &Content) -> Result<()> {
        let holder = self.holder(resource, &self.path)?;
        let ready = self.ready(holder.shape, name, value)?;
        let members = self.members(resource, &holder.path)?;
        if tree::repeats(ready.child) {
            let end = tree::length(members, &ready.key);
            return tree::insert(members, &ready.key, end, ready.value, ready.extra).ok_or_else(|| self.lost());
        }
        let same = |key: &String| {
            let bare = key.strip_prefix('_').unwrap_or(key);
            holder.shape.child(bare).is_some_and(|child| std::ptr::eq(child.element, ready.child.element))
        };
        if members.keys().any(same) {
            return Err(self.unfit("the element is there already: replace it"));
        }
        tree::set(members, None, &ready.key, ready.value, ready.extra);
        Ok(())
    }

    fn replace(&self, resource: &mut Node, value: &Content) -> Result<()> {
        let place = match <[Option<Place>; 1]>::try_from(self.places(resource)?) {
            Ok([Some(place)]) => place,
            Ok([None]) => return Err(self.unfit("the resource itself is replaced by an update, not by a patch")),
            Err(places) if places.is_empty() => return Err(self.unfit("there is nothing to be replaced")),
            Err(_) => return Err(self.unfit("the path gives several elements")),
        };
        let holder = self.shape_at(resource, &place.parent)?;
        let name = place.child.element.name;
        let ready = self.ready(holder, name, value)?;
        let members = self.members(resource, &place.parent)?;
        match place.index {
            Some(index) => {
                tree::remove(members, &place.key, index).ok_or_else(|| self.lost())?;
                tree::insert(members, &place.key, index, ready.value, ready.extra).ok_or_else(|| self.lost())
            }
            None => {
                tree::set(members, Some(&place.key), &ready.key, ready.value, ready.extra);
                Ok(())
            }
        }
    }

    /// Where the items of the path stand; None: the resource itself.
    fn places(&self, resource: &Node) -> Result<Vec<Option<Place>>> {
        self.places_of(resource, &self.path)
    }

    fn places_of(&self, resource: &Node, path: &str) -> Result<Vec<Option<Place>>> {
        let expr = Expr::parse(path).map_err(|error| error.at(&self.place))?;
        let found = expr.eval(resource).map_err(|error| error.at(&self.place))?;
        found.iter().map(|item| self.place(resource, item)).collect()
    }

    fn place(&self, resource: &Node, item: &Item<'_>) -> Result<Option<Place>> {
        let node = item.borrowed().filter(|node| !node.is_null()).or(item.sibling);
        let node = node.ok_or_else(|| self.unfit("the path gives a value that is no element of the resource"))?;
        if std::ptr::eq(node, resource) {
            return Ok(None);
        }
        let place = tree::find(resource, node);
        place.map(Some).ok_or_else(|| self.unfit("the path gives what is no element of the resource"))
    }

    /// The one element of a path, as something that holds others.
    fn holder(&self, resource: &mut Node, path: &str) -> Result<Holder> {
        let mut places = self.places_of(resource, path)?;
        let place = match (places.pop(), places.is_empty()) {
            (Some(place), true) => place,
            (None, _) => return Err(self.unfit("there is nothing to which it could be added")),
            _ => return Err(self.unfit("the path gives several elements")),
        };
        let path = match place {
            None => Vec::new(),
            Some(place) if place.child.primitive.is_some() => {
                tree::sibling_path(resource, &place).ok_or_else(|| self.lost())?
            }
            Some(place) => {
                let mut path = place.parent;
                path.push(Step::Key(place.key));
                path.extend(place.index.map(Step::Index));
                path
            }
        };
        let shape = self.shape_at(resource, &path)?;
        Ok(Holder { path, shape })
    }

    /// `Patient.name[0].given`: the element that holds the list, and the list's name.
    fn list(&self, resource: &mut Node) -> Result<(Holder, String)> {
        let (head, name) = self.path.rsplit_once('.').unwrap_or(("$this", &self.path));
        let name = name.trim_matches('`');
        let holder = self.holder(resource, head)?;
        let child = holder.shape.child(name).filter(|child| tree::repeats(child));
        child
            .ok_or_else(|| self.unfit("the path must name a list: an element that repeats, without index or filter"))?;
        Ok((holder, name.to_owned()))
    }

    fn members<'n>(&self, resource: &'n mut Node, path: &[Step]) -> Result<&'n mut tree::Members> {
        tree::members(resource, path).ok_or_else(|| self.lost())
    }

    fn lost(&self) -> Error {
        self.unfit("the place cannot be changed in this way")
    }

    /// The shape of the object at the end of a path.
    fn shape_at(&self, resource: &Node, path: &[Step]) -> Result<&'static Shape> {
        let mut node = resource;
        let mut shape = tree::shape_of(resource);
        for step in path {
            let next = match step {
                Step::Key(key) => {
                    let child = shape.and_then(|shape| shape.child(key.strip_prefix('_').unwrap_or(key)));
                    shape = match key.starts_with('_') {
                        true => definitions().shape("Element"),
                        false => child.and_then(Child::shape),
                    };
                    node.get(key)
                }
                Step::Index(index) => node.get(*index),
            };
            node = next.ok_or_else(|| self.lost())?;
            if shape.is_some_and(|shape| shape.path == "Resource") && node.is_object() {
                shape = tree::shape_of(node);
            }
        }
        shape.ok_or_else(|| self.lost())
    }

    /// Content as the element of this name is to hold it.
    fn ready(&self, shape: &'static Shape, name: &str, content: &Content) -> Result<Ready> {
        let no_such = || self.unfit(&format!("{} has no element `{name}` that could hold this value", shape.path));
        let named = |key: &str| shape.child(key).filter(|child| child.element.name == name || key == name);
        let child = match content {
            Content::Typed { kind, .. } => named(name).or_else(|| named(&format!("{name}{kind}"))),
            Content::Parts(_) | Content::Resource(_) => named(name),
        };
        let child = child.ok_or_else(no_such)?;
        let (value, extra) = match content {
            Content::Typed { kind, value, extra } => {
                let fits = match child.primitive {
                    Some(_) => !value.is_object(),
                    None => {
                        value.is_object()
                            && (definitions().is_a(kind, child.kind) || definitions().is_a(child.kind, kind))
                    }
                };
                if !fits {
                    return Err(self.unfit(&format!("`{name}` is a {}, not what the value is", child.kind)));
                }
                (value.clone(), extra.clone())
            }
            Content::Resource(resource) if child.kind == "Resource" => (resource.clone(), None),
            Content::Parts(parts) => {
                let inner = child.shape().filter(|inner| inner.path != "Resource").ok_or_else(no_such)?;
                (self.parts(inner, parts)?, None)
            }
            Content::Resource(_) => return Err(no_such()),
        };
        Ok(Ready { key: child.name.to_owned(), child, value, extra })
    }

    fn parts(&self, shape: &'static Shape, parts: &[(String, Content)]) -> Result<Node> {
        let mut members = Map::new();
        for (name, content) in parts {
            let ready = self.ready(shape, name, content)?;
            if tree::repeats(ready.child) {
                let end = tree::length(&members, &ready.key);
                tree::insert(&mut members, &ready.key, end, ready.value, ready.extra).ok_or_else(|| self.lost())?;
            } else if members.contains_key(&ready.key) {
                return Err(self.unfit(&format!("`{name}` is given twice and may come once")));
            } else {
                tree::set(&mut members, None, &ready.key, ready.value, ready.extra);
            }
        }
        Ok(Node::Object(members))
    }
}

impl Parts {
    fn read(&mut self, part: &Node, place: &str) -> Result<()> {
        let text = || match Content::read(part, place)? {
            Content::Typed { value: Node::String(text), .. } => Ok(text),
            _ => Err(at(place, "A text is expected here.")),
        };
        let number = || match Content::read(part, place)? {
            Content::Typed { value: Node::Number(number), .. } => {
                let number = number.as_str().parse::<usize>();
                number.map_err(|_| at(place, "A whole number from 0 is expected here."))
            }
            _ => Err(at(place, "A whole number is expected here.")),
        };
        let again = match part.get("name").and_then(Node::as_str).unwrap_or_default() {
            "type" => self.kind.replace(text()?).is_some(),
            "path" => self.path.replace(text()?).is_some(),
            "name" => self.name.replace(text()?).is_some(),
            "value" => self.value.replace(Content::read(part, place)?).is_some(),
            "index" => self.index.replace(number()?).is_some(),
            "source" => self.source.replace(number()?).is_some(),
            "destination" => self.destination.replace(number()?).is_some(),
            _ => return Err(at(place, "A FHIRPath Patch knows no part of this name.")),
        };
        match again {
            true => Err(at(place, "This part is given twice.")),
            false => Ok(()),
        }
    }
}

impl Content {
    fn read(part: &Node, place: &str) -> Result<Content> {
        if let Some(resource) = part.get("resource") {
            return Ok(Content::Resource(resource.clone()));
        }
        let inner = items(part, "part");
        if !inner.is_empty() {
            let parts = inner.iter().enumerate().map(|(n, part)| {
                let name = part.get("name").and_then(Node::as_str).unwrap_or_default().to_owned();
                Ok((name, Content::read(part, &format!("{place}.part[{n}]"))?))
            });
            return parts.collect::<Result<_>>().map(Content::Parts);
        }
        let members = part.as_object().into_iter().flatten();
        let named = |key: &String| key.strip_prefix('_').unwrap_or(key).strip_prefix("value").map(str::to_owned);
        let kind = members.filter_map(|(key, _)| named(key)).next();
        let kind = kind.ok_or_else(|| at(place, "A value is expected here: value[x], parts or a resource."))?;
        let value = part.get(format!("value{kind}")).cloned().unwrap_or(Node::Null);
        let extra = part.get(format!("_value{kind}")).cloned();
        Ok(Content::Typed { kind, value, extra })
    }
}
