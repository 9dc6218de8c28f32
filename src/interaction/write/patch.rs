//! Patches: the content of what is to be patched is opened on record, patched, and written like an update based on
//! exactly that version.

use std::collections::HashMap;

use super::stage::{Change, Put, Staged, appends_only, check_conditions};
use crate::access::{Grant, Read, Update, authorize};
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::patch::Patch;
use crate::fhir::{Resource, TypeId};
use crate::interaction::{Conditions, Scene, read};
use crate::store::{Found, Tx};

/// Content from this size on is patched on a thread of its own.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// What is to be patched, opened.
#[derive(Default)]
pub(in crate::interaction) struct Bases(HashMap<(TypeId, String), Base>);

pub(super) enum Base {
    Open { version: u32, content: Vec<u8> },
    Deleted { version: u32 },
    Absent,
}

/// One patch with what it needs.
pub(super) struct Patched<'a> {
    pub grant: &'a Grant<Update>,
    pub reads: Option<&'a Grant<Read>>,
    pub id: &'a str,
    pub patch: &'a Patch,
    pub conditions: &'a Conditions,
}

/// The permissions of a patch: to change, and where there is one to read all of what is changed.
///
/// # Errors
/// `Kind::Forbidden` without the first, and for who may not see every section of the type: an operation could bring to
/// light what lies there, and what is withheld would be lost. `Kind::Method` where nothing is ever changed.
pub(in crate::interaction) fn grants(scene: Scene<'_>, kind: TypeId) -> Result<(Grant<Update>, Option<Grant<Read>>)> {
    let grant = authorize::<Update>(scene.caller, kind)?;
    appends_only(kind, true)?;
    if grant.mask().is_some() {
        return Err(Error::new(Kind::Forbidden, "Who may not see all of such a resource can update, not patch it."));
    }
    let reads = authorize::<Read>(scene.caller, kind).ok().filter(|grant| grant.mask().is_none());
    Ok((grant, reads))
}

impl Bases {
    /// Opens the content of everything that is patched, with one record. A patch whose If-Match does not hold opens
    /// nothing.
    ///
    /// # Errors
    /// `Kind::Audit` when the record could not be made.
    pub async fn open(scene: Scene<'_>, changes: impl Iterator<Item = &Change>) -> Result<Bases> {
        let mut bases = HashMap::new();
        let (mut sealed, mut only) = (Vec::new(), None);
        for change in changes {
            let Change::Patch { grant, kind, id, conditions, .. } = change else { continue };
            let base = match scene.app.store.find_for_patch(grant, id).await? {
                Found::Current(found) => {
                    let version = found.header().version;
                    if conditions.if_match()?.is_none_or(|wanted| wanted.holds(version)) {
                        sealed.push(found);
                        only = Some(*kind);
                    }
                    Base::Open { version, content: Vec::new() }
                }
                Found::Deleted { version } => Base::Deleted { version },
                Found::Absent => Base::Absent,
            };
            bases.insert((*kind, id.clone()), base);
        }
        if sealed.is_empty() {
            return Ok(Bases(bases));
        }
        let event = scene.event(What::Read, only.filter(|_| sealed.len() == 1));
        for released in scene.app.trail.disclose(event, sealed).await? {
            let base = Base::Open { version: released.version(), content: released.bytes().to_vec() };
            bases.insert((released.kind(), released.id().to_owned()), base);
        }
        Ok(Bases(bases))
    }

    pub(super) fn get(&self, kind: TypeId, id: &str) -> Result<&Base> {
        let found = self.0.get(&(kind, id.to_owned()));
        found.ok_or_else(|| Error::internal("a patch whose base was not opened"))
    }
}

impl Patched<'_> {
    pub(super) async fn stage(&self, scene: Scene<'_>, tx: &mut Tx, base: &Base) -> Result<Staged> {
        let (base_version, content) = match base {
            Base::Open { version, content } => (*version, content),
            Base::Deleted { version } => {
                check_conditions(self.conditions, None)?;
                return Err(read::gone(*version));
            }
            Base::Absent => {
                check_conditions(self.conditions, None)?;
                return Err(Error::not_found());
            }
        };
        let current = tx.current(self.grant, self.id).await?;
        check_conditions(self.conditions, current.as_ref())?;
        let current = current.filter(|current| !current.deleted && current.version == base_version);
        let current = current.ok_or_else(super::conflict)?;
        let reads = match self.reads {
            Some(grant) => self.sees(tx, grant).await?.then_some(grant),
            None => None,
        };
        if reads.is_none() && self.patch.asks() {
            let text = "The patch asks about the content (a test, a filter), which needs the permission to read it.";
            return Err(Error::new(Kind::Forbidden, text));
        }
        let resource = self.applied(content).await?;
        let put = Put { id: self.id, current: Some(&current) };
        let mut staged = put.into(scene, tx, self.grant, resource).await?;
        if !reads.is_some_and(|grant| tx.covers(grant, self.id).unwrap_or(false)) {
            staged.resource = None;
        }
        Ok(staged)
    }

    async fn sees(&self, tx: &mut Tx, grant: &Grant<Read>) -> Result<bool> {
        match tx.current(grant, self.id).await {
            Ok(current) => Ok(current.is_some()),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn applied(&self, content: &[u8]) -> Result<Resource> {
        if content.len() <= INLINE_BYTES_MAX {
            return checked(self.patch, content);
        }
        let (patch, content) = (self.patch.clone(), content.to_vec());
        tokio::task::spawn_blocking(move || checked(&patch, &content)).await.map_err(Error::internal)?
    }
}

/// # Errors
/// `Kind::Invalid` when the outcome is no valid resource, or another one.
fn checked(patch: &Patch, content: &[u8]) -> Result<Resource> {
    let before = json::parse(content)?;
    let (kind, id) = (before.get("resourceType").cloned(), before.get("id").cloned());
    let after = patch.apply(before)?;
    for (name, expected) in [("resourceType", &kind), ("id", &id)] {
        if after.get(name) != expected.as_ref() {
            let kind = kind.as_ref().and_then(Node::as_str).unwrap_or_default();
            let place = format!("{kind}.{name}");
            return Err(Error::invalid(format!("A patch cannot change the {name} of a resource.")).at(place));
        }
    }
    Resource::check(after)
}
