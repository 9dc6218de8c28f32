//! Puts one change into a transaction: conditions, business rules, version and stamp. Used by single requests and by
//! transactions alike.

use zeroize::Zeroizing;

use super::patch::{Bases, Patched};
use super::references::{self, Refers};
use crate::access::{Create, Delete, Grant, Read, Update};
use crate::audit::What;
use crate::domain::{self, Rules};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::patch::Patch;
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::{Conditions, Done, Scene, VersionOf, is_audit};
use crate::mapping::sections;
use crate::search::Values;
use crate::search::custom;
use crate::search::values::content_digest;
use crate::store::tx::Current;
use crate::store::{Draft, Tx};

/// One change, checked and authorized.
pub(in crate::interaction) enum Change {
    /// `id` is given by the server.
    Create {
        grant: Grant<Create>,
        resource: Ready,
        id: String,
    },
    Update {
        grant: Grant<Update>,
        resource: Ready,
        id: String,
        conditions: Conditions,
        /// A condition matched nothing: the resource must not be there.
        fresh: bool,
    },
    Patch {
        grant: Grant<Update>,
        /// Where the caller may also read: only then the outcome may tell of what it did not send.
        reads: Option<Grant<Read>>,
        kind: TypeId,
        id: String,
        patch: Patch,
        conditions: Conditions,
    },
    Delete {
        grant: Grant<Delete>,
        kind: TypeId,
        id: String,
        conditions: Conditions,
    },
}

/// A checked resource that waits for its turn.
pub(in crate::interaction) enum Ready {
    Tree(Resource),
    /// Its text, as one of very many: a tree takes several times as much memory.
    Text(TypeId, Zeroizing<Vec<u8>>),
}

impl Ready {
    pub fn of(resource: Resource, is_small: bool) -> Ready {
        match is_small {
            true => Ready::Tree(resource),
            false => {
                let mut text = json::write(resource.node());
                text.shrink_to_fit();
                Ready::Text(resource.kind(), Zeroizing::new(text))
            }
        }
    }

    fn kind(&self) -> TypeId {
        match self {
            Ready::Tree(resource) => resource.kind(),
            Ready::Text(kind, _) => *kind,
        }
    }

    /// As [`custom::is_composite`].
    pub fn is_composite(&self) -> bool {
        definitions().type_name(self.kind()) == "SearchParameter"
            && self.open().is_ok_and(|resource| custom::is_composite(&resource))
    }

    fn open(&self) -> Result<Resource> {
        match self {
            Ready::Tree(resource) => Ok(resource.clone()),
            Ready::Text(_, text) => Resource::stored(json::parse(text)?),
        }
    }
}

impl From<Resource> for Ready {
    fn from(resource: Resource) -> Ready {
        Ready::Tree(resource)
    }
}

/// A change that lies in the transaction.
pub(in crate::interaction) struct Staged {
    pub done: Done,
    pub version: Option<VersionOf>,
    /// As it will be stored; None for a deletion, and for what the caller may not read.
    pub resource: Option<Resource>,
    /// False when nothing is to be written (deleted before, or never there).
    pub writes: bool,
    /// How many resources it is about: a conditional delete may have several.
    pub count: usize,
    /// What the resource refers to, where that is checked.
    pub(super) refers: Vec<Refers>,
}

impl Staged {
    /// The outcome of one request: that of its change, or of several deletions.
    pub fn together(mut all: Vec<Staged>) -> Staged {
        match all.len() {
            1 => all.remove(0),
            count => {
                let writes = all.iter().any(|staged| staged.writes);
                Staged { done: Done::NoContent, version: None, resource: None, writes, count, refers: Vec::new() }
            }
        }
    }
}

/// Checks the structure and that the type is that of the address.
///
/// # Errors
/// `Kind::Invalid` with the place of each fault.
pub(in crate::interaction) fn checked(kind: TypeId, body: Node) -> Result<Resource> {
    checked_at(kind, body, definitions().type_name(kind))
}

/// The same for a resource within a Bundle, at `place`.
pub(in crate::interaction) fn checked_at(kind: TypeId, body: Node, place: &str) -> Result<Resource> {
    let expected = definitions().type_name(kind);
    if body.get("resourceType").and_then(Node::as_str) != Some(expected) {
        let text = format!("The address asks for a {expected}, but resourceType is another or absent.");
        return Err(Error::invalid(text).at(format!("{place}.resourceType")));
    }
    Resource::check_at(body, place)
}

/// Checks that the resource of an update carries the id of its address.
///
/// # Errors
/// `Kind::Invalid` naming `Type.id`.
pub(in crate::interaction) fn same_id(resource: &Resource, id: &str) -> Result<()> {
    let place = format!("{}.id", resource.type_name());
    let legal = (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    match resource.id() {
        _ if !legal => {
            Err(Error::invalid("An id has 1 to 64 letters, digits, hyphens and points; that of the address has not."))
        }
        Some(own) if own == id => Ok(()),
        Some(_) => Err(Error::invalid("The id of the resource is not the id of the address.").at(place)),
        None => Err(Error::invalid("The resource of an update must carry the id of the address.").at(place)),
    }
}

impl Change {
    pub fn what(&self) -> What {
        match self {
            Change::Create { .. } => What::Create,
            Change::Update { .. } => What::Update,
            Change::Patch { .. } => What::Patch,
            Change::Delete { .. } => What::Delete,
        }
    }

    /// Type and logical id of what is changed.
    pub fn target(&self) -> (TypeId, &str) {
        match self {
            Change::Create { resource, id, .. } => (resource.kind(), id),
            Change::Update { resource, id, .. } => (resource.kind(), id),
            Change::Patch { kind, id, .. } | Change::Delete { kind, id, .. } => (*kind, id),
        }
    }

    /// Puts the change into the transaction. `bases` holds the content of what is patched.
    ///
    /// # Errors
    /// Whatever stands against it: nothing of the transaction may be kept then.
    pub async fn stage(&self, scene: Scene<'_>, tx: &mut Tx, bases: &Bases) -> Result<Staged> {
        match self {
            Change::Create { grant, resource, id } => {
                let put = Put { id, current: None };
                put.into(scene, tx, grant, resource.open()?).await
            }
            Change::Update { grant, resource, id, conditions, fresh } => {
                let current = tx.current(grant, id).await?;
                let values = current.as_ref().filter(|current| !current.deleted).and_then(|it| it.values.as_ref());
                if let Some(values) = values.filter(|_| creates_once(scene, conditions)) {
                    return Ok(unchanged(resource.kind(), id, values));
                }
                check_conditions(conditions, current.as_ref())?;
                appends_only(resource.kind(), current.is_some())?;
                if *fresh && values.is_some() {
                    let text = "The condition matches no resource, but the id of the resource that was sent is in use.";
                    return Err(Error::with_issues(Kind::Conflict, vec![Issue::error("duplicate", text)]));
                }
                let put = Put { id, current: current.as_ref() };
                put.into(scene, tx, grant, resource.open()?).await
            }
            Change::Patch { grant, reads, kind, id, patch, conditions } => {
                let patched = Patched { grant, reads: reads.as_ref(), id, patch, conditions };
                patched.stage(scene, tx, bases.get(*kind, id)?).await
            }
            Change::Delete { grant, kind, id, conditions } => {
                appends_only(*kind, true)?;
                let current = match tx.current(grant, id).await {
                    // Outside the caller's rows is the same as never there.
                    Err(error) if error.kind == Kind::NotFound => None,
                    other => other?,
                };
                check_conditions(conditions, current.as_ref())?;
                remove(scene, tx, grant, (*kind, id), current).await
            }
        }
    }
}

/// An import creates once: to a second run, whatever is there already is as it should be.
fn creates_once(scene: Scene<'_>, conditions: &Conditions) -> bool {
    scene.facts.unchanged_ok && conditions.only_new()
}

/// AuditEvents are added, never changed.
pub(super) fn appends_only(kind: TypeId, exists: bool) -> Result<()> {
    if exists && is_audit(kind) {
        return Err(Error::new(Kind::Method, "An AuditEvent can be neither changed nor deleted."));
    }
    Ok(())
}

pub(super) fn check_conditions(conditions: &Conditions, current: Option<&Current>) -> Result<()> {
    let standing = current.filter(|current| !current.deleted);
    let refused = |text: String| Err(Error::new(Kind::Precondition, text));
    match (conditions.if_match()?, standing.map(|current| current.version)) {
        (Some(wanted), Some(version)) if !wanted.holds(version) => {
            return refused(format!("If-Match names another version than the current one, which is {version}."));
        }
        (Some(_), None) => return refused("If-Match was sent, but there is no current version.".to_owned()),
        _ => {}
    }
    match standing.map(|current| current.version).filter(|version| conditions.excludes(*version)) {
        Some(_) if conditions.only_new() => refused("If-None-Match: * was sent, but the resource is there.".to_owned()),
        Some(version) => refused(format!("If-None-Match names version {version}, which is the current one.")),
        None => Ok(()),
    }
}

/// In the place of a number that would be drawn: more digits than any that is given.
const NOBODYS: u64 = u64::MAX;

/// A new version on its way into the transaction.
pub(super) struct Put<'a> {
    pub id: &'a str,
    pub current: Option<&'a Current>,
}

impl Put<'_> {
    pub(super) async fn into<O: crate::access::Op>(
        self,
        scene: Scene<'_>,
        tx: &mut Tx,
        grant: &Grant<O>,
        mut resource: Resource,
    ) -> Result<Staged> {
        let kind = resource.kind();
        let standing = self.current.filter(|current| !current.deleted);
        let values = standing.and_then(|current| current.values.as_ref());
        let mrn_system = &scene.app.config.mrn_system;
        let mrn_next = match domain::needs_number(&resource, values, mrn_system) {
            Some(_) if scene.facts.trial => Some(NOBODYS),
            Some(counter) => Some(scene.app.store.next_number(counter).await?),
            None => None,
        };
        let rules = Rules { mrn_system, mrn_next };
        let rows = domain::apply(&mut resource, values, &rules)?;
        if let Some(values) = values.filter(|_| scene.facts.unchanged_ok)
            && values.header.digest == content_digest(resource.node())
        {
            return Ok(unchanged(kind, self.id, values));
        }
        references::defined(scene, &resource)?;
        let refers = references::of(scene, &resource);
        let version = self.current.map_or(1, |current| current.version + 1);
        let at = scene.app.world.now();
        resource.stamp(self.id, version, at);
        let draft = Draft { resource, version, at, domain: rows, claims: Vec::new() };
        let resource = tx.put(grant, draft).await?;
        let of = VersionOf { kind, id: self.id.to_owned(), version, at, written: true };
        let done = if standing.is_some() { Done::Ok } else { Done::Created };
        // A patch knows more than its caller may see.
        let open = |section| grant.sections().allows(section);
        let shown = match grant.mask() {
            Some(_) => Resource::stored(sections::cut(kind, resource.node(), open)?)?,
            None => resource,
        };
        Ok(Staged { done, version: Some(of), resource: Some(shown), writes: true, count: 1, refers })
    }
}

/// The current version stands: its content is what was to be written.
fn unchanged(kind: TypeId, id: &str, values: &Values) -> Staged {
    let header = &values.header;
    let version =
        VersionOf { kind, id: id.to_owned(), version: header.version, at: header.last_updated, written: false };
    Staged { done: Done::Ok, version: Some(version), resource: None, writes: false, count: 1, refers: Vec::new() }
}

async fn remove(
    scene: Scene<'_>,
    tx: &mut Tx,
    grant: &Grant<Delete>,
    (kind, id): (TypeId, &str),
    current: Option<Current>,
) -> Result<Staged> {
    let standing = current.filter(|current| !current.deleted);
    let Some(current) = standing else {
        return Ok(Staged {
            done: Done::NoContent,
            version: None,
            resource: None,
            writes: false,
            count: 1,
            refers: Vec::new(),
        });
    };
    let version = current.version + 1;
    let at = scene.app.world.now();
    tx.delete(grant, kind, id, version, at).await?;
    let of = VersionOf { kind, id: id.to_owned(), version, at, written: false };
    Ok(Staged { done: Done::NoContent, version: Some(of), resource: None, writes: true, count: 1, refers: Vec::new() })
}
