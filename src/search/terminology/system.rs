//! A stored CodeSystem: its concepts, what is above and below them, and the filters that value sets use.

use std::collections::HashMap;

use super::CONCEPTS_MAX;
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::search::text;

pub(super) struct System<'a> {
    url: &'a str,
    hierarchy: Option<&'a str>,
    concepts: Vec<&'a Node>,
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
    places: HashMap<String, usize>,
}

impl<'a> System<'a> {
    /// # Errors
    /// `Kind::Unsupported` when the resource does not list all its concepts; `Kind::TooCostly` when they are too many.
    pub fn read(asked: &str, node: &'a Node) -> Result<System<'a>> {
        let member = |name: &str| node.get(name).and_then(Node::as_str);
        let content = member("content").unwrap_or("unknown");
        if content != "complete" {
            let text =
                format!("The CodeSystem {asked} is stored with the content '{content}': not all its codes are here.");
            return Err(Error::unsupported(text));
        }
        let mut system = System {
            url: member("url").unwrap_or_default(),
            hierarchy: member("hierarchyMeaning"),
            concepts: Vec::new(),
            parents: Vec::new(),
            children: Vec::new(),
            places: HashMap::new(),
        };
        system.collect(asked, node)?;
        system.link();
        Ok(system)
    }

    /// Every concept, those nested in others too.
    fn collect(&mut self, asked: &str, node: &'a Node) -> Result<()> {
        let mut open: Vec<(&'a Node, Option<usize>)> = items(node, "concept").map(|concept| (concept, None)).collect();
        while let Some((concept, parent)) = open.pop() {
            let Some(code) = concept.get("code").and_then(Node::as_str) else { continue };
            let at = self.concepts.len();
            if at >= CONCEPTS_MAX {
                let text = format!("The CodeSystem {asked} has more than {CONCEPTS_MAX} concepts.");
                return Err(Error::new(Kind::TooCostly, text));
            }
            self.concepts.push(concept);
            self.parents.push(parent.into_iter().collect());
            self.children.push(Vec::new());
            self.places.insert(text::fold_code(code).into_owned(), at);
            open.extend(items(concept, "concept").map(|child| (child, Some(at))));
        }
        Ok(())
    }

    /// Parents and children that are said by properties.
    fn link(&mut self) {
        for at in 0..self.concepts.len() {
            for (property, value) in properties(self.concepts[at]) {
                let other = self.find(&value);
                match (property, other) {
                    ("parent" | "subsumedBy", Some(parent)) => self.parents[at].push(parent),
                    ("child", Some(child)) => self.parents[child].push(at),
                    _ => {}
                }
            }
        }
        for at in 0..self.concepts.len() {
            self.parents[at].sort_unstable();
            self.parents[at].dedup();
            for parent in self.parents[at].clone() {
                self.children[parent].push(at);
            }
        }
    }

    pub fn url(&self) -> &'a str {
        self.url
    }

    pub fn len(&self) -> usize {
        self.concepts.len()
    }

    pub fn code(&self, at: usize) -> &'a str {
        self.concepts[at].get("code").and_then(Node::as_str).unwrap_or_default()
    }

    pub fn find(&self, code: &str) -> Option<usize> {
        self.places.get(text::fold_code(code).as_ref()).copied()
    }

    /// Whether what stands above a concept subsumes it.
    ///
    /// # Errors
    /// `Kind::Unsupported` when the hierarchy means something else (parts, groups).
    pub fn is_a(&self) -> Result<()> {
        match self.hierarchy {
            None | Some("is-a") => Ok(()),
            Some(other) => {
                let text = format!("The hierarchy of the CodeSystem {} is '{other}', not 'is-a'.", self.url);
                Err(Error::unsupported(text))
            }
        }
    }

    /// A concept and all below it.
    pub fn below(&self, at: usize) -> Vec<usize> {
        self.walk(at, &self.children)
    }

    /// A concept and all above it.
    pub fn above(&self, at: usize) -> Vec<usize> {
        self.walk(at, &self.parents)
    }

    fn walk(&self, from: usize, next: &[Vec<usize>]) -> Vec<usize> {
        let mut seen = vec![false; self.len()];
        let (mut open, mut found) = (vec![from], Vec::new());
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                found.push(at);
                open.extend(&next[at]);
            }
        }
        found
    }

    /// Which concepts a filter of a value set keeps.
    ///
    /// # Errors
    /// `Kind::Unsupported` for an operator that is not known, `Kind::Invalid` for a code that is not there.
    pub fn filter(&self, property: &str, op: &str, value: &str) -> Result<Vec<bool>> {
        let unsupported = || {
            let text = format!("The filter '{property} {op}' on the CodeSystem {} is not supported.", self.url);
            Error::unsupported(text)
        };
        let members = |list: Vec<usize>| {
            let mut kept = vec![false; self.len()];
            list.into_iter().for_each(|at| kept[at] = true);
            kept
        };
        let place = || {
            let text = format!("The CodeSystem {} has no code '{value}', which a filter names.", self.url);
            self.find(value).ok_or_else(|| Error::invalid(text))
        };
        let inverse = |kept: Vec<bool>| kept.into_iter().map(|kept| !kept).collect::<Vec<_>>();
        let listed = || value.split(',').filter_map(|code| self.find(code.trim())).collect::<Vec<_>>();
        if matches!(op, "is-a" | "descendent-of" | "is-not-a" | "generalizes") {
            self.is_a()?;
        }
        Ok(match (property, op) {
            ("concept" | "code", "is-a") => members(self.below(place()?)),
            ("concept" | "code", "descendent-of") => {
                let at = place()?;
                members(self.below(at).into_iter().filter(|other| *other != at).collect())
            }
            ("concept" | "code", "is-not-a") => inverse(members(self.below(place()?))),
            ("concept" | "code", "generalizes") => members(self.above(place()?)),
            ("concept" | "code", "=") => members(vec![place()?]),
            ("concept" | "code", "in") => members(listed()),
            ("concept" | "code", "not-in") => inverse(members(listed())),
            ("parent", "=") => members(self.children[place()?].clone()),
            ("child", "=") => members(self.parents[place()?].clone()),
            ("concept" | "code" | "parent" | "child", _) => return Err(unsupported()),
            (_, "=") => self.having(property, |found| found == value),
            (_, "in") => self.having(property, |found| value.split(',').any(|one| one.trim() == found)),
            (_, "not-in") => inverse(self.having(property, |found| value.split(',').any(|one| one.trim() == found))),
            (_, "exists") => match value {
                "true" => self.having(property, |_| true),
                "false" => inverse(self.having(property, |_| true)),
                _ => return Err(unsupported()),
            },
            _ => return Err(unsupported()),
        })
    }

    fn having(&self, property: &str, wanted: impl Fn(&str) -> bool) -> Vec<bool> {
        let has = |concept: &&Node| properties(concept).any(|(code, value)| code == property && wanted(&value));
        self.concepts.iter().map(has).collect()
    }
}

/// The properties of a concept: code, and the value as text (of a Coding its code).
fn properties(concept: &Node) -> impl Iterator<Item = (&str, String)> {
    items(concept, "property").filter_map(|property| {
        let code = property.get("code")?.as_str()?;
        let (_, value) = property.as_object()?.iter().find(|(name, _)| name.starts_with("value"))?;
        let value = match value {
            Node::String(text) => text.clone(),
            Node::Bool(flag) => flag.to_string(),
            Node::Number(number) => number.to_string(),
            other => other.get("code")?.as_str()?.to_owned(),
        };
        Some((code, value))
    })
}

fn items<'a>(node: &'a Node, name: &str) -> impl Iterator<Item = &'a Node> + use<'a> {
    node.get(name).and_then(Node::as_array).into_iter().flatten()
}
