//! The search values of one resource, by parameter, computed with the official expressions. Must not know queries.

mod digest;
mod extract;
mod implicit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::error::{Error, Result};
use crate::fhir::date::Range;
use crate::fhir::reference::{self, Reference};
use crate::fhir::{ParamId, Resource, TypeId, definitions, literal};
use crate::mapping::{self, Treatment};
use crate::search::{Customs, terms};
use crate::vault::Pk;
use crate::world::Instant;

/// What every capsule carries beside search values. `_id` and `_lastUpdated` are answered from here.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub struct Header {
    pub kind: TypeId,
    /// FHIR logical id.
    pub id: String,
    pub version: u32,
    pub last_updated: Instant,
    /// Logical ids of the patients whose compartment this belongs to (for a Patient: itself alone), sorted, distinct.
    pub patients: Vec<String>,
    /// On a Patient: the surrogate of the patient's clinical rows.
    pub clinical: Option<Pk>,
    /// SHA-256 of the content without meta.versionId and meta.lastUpdated: two versions of the same say the same.
    pub digest: [u8; 32],
}

/// A system and a code, either of which may be absent.
pub type Coding = (Option<String>, Option<String>);

/// One indexed value.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub enum Value {
    /// A code: compared without regard to case. `text` is what `:text` looks at (display, CodeableConcept.text).
    Token {
        system: Option<String>,
        code: Option<String>,
        text: Option<String>,
    },
    /// An Identifier: compared as written. `text` is Identifier.type.text, `types` its type codings for `:of-type`.
    Identifier {
        system: Option<String>,
        value: Option<String>,
        text: Option<String>,
        types: Vec<Coding>,
    },
    /// One string as written; every part of a name or address is one.
    Text(String),
    Date(Range),
    /// A number (both ends the same) or a Range (infinite where open); both ends included.
    Number {
        lo: f64,
        hi: f64,
    },
    /// As `Number`, in the unit given; a comparator (`<5`) leaves one end infinite.
    Quantity {
        lo: f64,
        hi: f64,
        system: Option<String>,
        code: Option<String>,
        unit: Option<String>,
    },
    /// A Reference or canonical. `identifier` is Reference.identifier (system, value).
    Reference {
        to: Option<Reference>,
        identifier: Option<Coding>,
    },
    Uri(String),
    /// One element the composite is based on: the values of each component, in the order of the definition.
    Composite(Vec<Vec<Value>>),
}

/// Everything a search can ask of one resource.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub struct Values {
    pub header: Header,
    /// Without `_id` and `_lastUpdated` (see [`Header`]); parameters without a value are absent.
    pub params: BTreeMap<ParamId, Vec<Value>>,
    /// Resources of this server that it refers to and no blind term of a parameter tells of (see `terms::referring`):
    /// they get a term of their own, by which the deletion of their target finds them. Sorted, distinct.
    pub links: Vec<(TypeId, String)>,
}

/// The digest that [`Header::digest`] would hold for this content, whether it is stamped or not.
pub fn content_digest(root: &crate::fhir::json::Node) -> [u8; 32] {
    digest::content(root)
}

/// Computes every search value of a stamped resource. `base` is the server's own base URL. `header.clinical` is
/// left None. Values of parameters whose treatment is `Refused` are left out.
///
/// # Errors
/// `Kind::Invalid` with a FHIRPath when a value cannot be read (a date that is none).
pub fn values(resource: &Resource, version: u32, at: Instant, base: &str) -> Result<Values> {
    let kind = resource.kind();
    let id = resource.id().ok_or_else(|| Error::internal("a resource without an id is to be indexed"))?.to_owned();
    let mut params = BTreeMap::new();
    for param in definitions().params(kind) {
        let refused = matches!(mapping::treatment(kind, param.id), Treatment::Refused { .. });
        if refused || [Common::get().id, Common::get().last_updated].contains(&param.id) {
            continue;
        }
        let found = extract::of_param(param, kind, resource.node(), base)
            .map_err(|error| error.at(param.text(kind).unwrap_or_default()))?;
        if !found.is_empty() {
            params.insert(param.id, found);
        }
    }
    let patients = patients(resource, &id, &params, base);
    let digest = digest::content(resource.node());
    let header = Header { kind, id, version, last_updated: at, patients, clinical: None, digest };
    let links = links(resource, &header, &params, base);
    Ok(Values { header, params, links })
}

/// An AuditEvent tells of the past: it holds nothing back.
fn links(
    resource: &Resource,
    header: &Header,
    params: &BTreeMap<ParamId, Vec<Value>>,
    base: &str,
) -> Vec<(TypeId, String)> {
    let mut found = BTreeSet::new();
    if resource.type_name() != "AuditEvent" {
        literal::visit(resource.node(), &mut |literal| {
            if let Reference::Local { kind, id, .. } = reference::parse(literal.text, base) {
                found.insert((kind, id));
            }
        });
    }
    let told = |(kind, id): &(TypeId, String)| terms::tells(header, params, *kind, id);
    found.into_iter().filter(|link| !told(link)).collect()
}

impl Values {
    /// Puts the values of the site's own parameters in the place of those that are there. An expression that cannot be
    /// evaluated on this resource gives none: a parameter must not stand in the way of a write.
    pub fn set_custom(&mut self, resource: &Resource, customs: &Customs, base: &str) {
        let kind = resource.kind();
        self.params.retain(|id, _| !id.is_custom());
        for param in customs.indexed(kind) {
            if matches!(mapping::treatment(kind, param.id), Treatment::Refused { .. }) {
                continue;
            }
            match extract::of_param(param, kind, resource.node(), base) {
                Ok(found) if found.is_empty() => {}
                Ok(found) => drop(self.params.insert(param.id, found)),
                Err(_) => metrics::counter!("phial_search_parameter_faults_total").increment(1),
            }
        }
    }
}

/// A Patient is its own; other resources are of every Patient on this server that a reference of the compartment
/// names, or the member that the mapping names for a type that has no such parameter.
fn patients(resource: &Resource, id: &str, params: &BTreeMap<ParamId, Vec<Value>>, base: &str) -> Vec<String> {
    let kind = resource.kind();
    let patient = definitions().type_id("Patient");
    if Some(kind) == patient {
        return vec![id.to_owned()];
    }
    let values = mapping::compartment(kind).iter().filter_map(|param| params.get(param)).flatten();
    let named = values.filter_map(|value| match value {
        Value::Reference { to: Some(Reference::Local { kind: to, id, .. }), .. } if Some(*to) == patient => Some(id),
        _ => None,
    });
    let mut distinct: BTreeSet<String> = named.cloned().collect();
    let member = mapping::mapping(kind).patient.as_ref().and_then(|name| resource.node().get(name)?.get("reference"));
    if let Some(text) = member.and_then(|node| node.as_str())
        && let Reference::Local { kind: to, id, .. } = reference::parse(text, base)
        && Some(to) == patient
    {
        distinct.insert(id);
    }
    distinct.into_iter().collect()
}

/// Parameters that are answered from the header.
#[derive(Clone, Copy)]
pub(super) struct Common {
    pub id: ParamId,
    pub last_updated: ParamId,
}

impl Common {
    pub(super) fn get() -> Common {
        static COMMON: LazyLock<Common> = LazyLock::new(|| {
            let param = |code: &str| {
                let any = definitions().types().first().copied()?;
                definitions().param(any, code).map(|param| param.id)
            };
            Common {
                id: param("_id").expect("the fact tables have _id"),
                last_updated: param("_lastUpdated").expect("the fact tables have _lastUpdated"),
            }
        });
        *COMMON
    }
}
