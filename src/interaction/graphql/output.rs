//! An object of the answer while it is put together: with `@flatten` several elements write into one.

use std::collections::HashMap;

use super::Fault;
use super::document::Pos;
use crate::fhir::json::Node;

/// Whether a name of the answer holds a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Status {
    One,
    List,
    Singleton,
}

pub struct Slot {
    key: String,
    status: Status,
    pub values: Vec<Node>,
    at: Pos,
}

/// An object of the answer under construction.
#[derive(Default)]
pub struct Target {
    slots: Vec<Slot>,
    places: HashMap<String, usize>,
}

impl Target {
    /// The place of a name; made, with this status, where there is none.
    pub fn slot(&mut self, key: String, status: Status, at: Pos) -> &mut Slot {
        let slots = &mut self.slots;
        let place = *self.places.entry(key.clone()).or_insert_with(|| {
            slots.push(Slot { key, status, values: Vec::new(), at });
            slots.len() - 1
        });
        &mut slots[place]
    }

    /// # Errors
    /// `Kind::Invalid` for several values of what was to be one.
    pub fn into_node(self) -> Result<Node, Fault> {
        let mut members = serde_json::Map::with_capacity(self.slots.len());
        for mut slot in self.slots {
            let single = slot.values.len() == 1;
            let value = match slot.status {
                Status::One | Status::Singleton if single => slot.values.pop().unwrap_or_default(),
                Status::Singleton if !slot.values.is_empty() => {
                    let text = format!("'{}' has several values and is marked @singleton.", slot.key);
                    return Err(Fault::invalid(text).at(slot.at));
                }
                _ => Node::Array(slot.values),
            };
            members.insert(slot.key, value);
        }
        Ok(Node::Object(members))
    }
}
