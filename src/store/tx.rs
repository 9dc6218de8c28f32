//! A write under way: a buffer of drafts with what they were based on. Applied in one database transaction together
//! with its audit entry; if what it was based on has changed, nothing of it is kept and it says Conflict.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::apply::{self, Chunks, Pledge, WriteSet};
use super::custom;
use super::db::{Param, placeholder_list};
use super::lane::Work;
use super::read::{State, Stored, values_within};
use super::refer::{Orphaning, Target};
use super::seal::{self, Content, Kept, Prepared};
use super::{AuditRow, Premise, Receipt, Store};
use crate::access::{Grant, Op};
use crate::domain::DomainRow;
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::{Resource, TypeId};
use crate::mapping::sections;
use crate::search::custom::{Definition, Known};
use crate::search::values::{self, Header};
use crate::search::{Customs, Values, View};
use crate::vault::{Pk, Rid};
use crate::world::Instant;

/// Drafts of one transaction whose search values are kept ready to use; those of further ones are packed. Tests meet
/// both.
const UNPACKED_MAX: usize = if cfg!(test) { 1 } else { 512 };
/// Values looked for in one statement.
const CLAIMS_MAX: usize = 256;

/// What is there now, as a write sees it (the transaction's own earlier drafts included).
pub struct Current {
    pub version: u32,
    pub deleted: bool,
    /// Search values of the current version (None when deleted).
    pub values: Option<Values>,
}

/// One resource to be written.
pub struct Draft {
    pub resource: Resource,
    /// New version number: current + 1, or 1.
    pub version: u32,
    pub at: Instant,
    pub domain: Vec<DomainRow>,
    /// Further things that must be unique in the whole server: (domain, value). Like those of the domain row they are
    /// held until the next version of this resource.
    pub claims: Vec<(&'static str, String)>,
}

/// One version that a transaction writes, for its audit entry.
#[derive(Clone)]
pub struct WrittenHash {
    pub rid: Rid,
    pub kind: TypeId,
    pub id: String,
    pub version: u32,
    pub deleted: bool,
    /// Logical ids of its patients.
    pub patients: Vec<String>,
    /// Over head and sealed sections as they are stored in `record_version`.
    pub sha256: [u8; 32],
}

/// The row a draft replaces, as the database had it when it was looked at.
pub(super) struct Basis {
    pub rid: Rid,
    pub pk: Pk,
    pub version: u32,
    pub terms: Vec<i64>,
    /// Of the version that stands there, deleted or not.
    pub header: Header,
    pub deleted: bool,
    pub values: Option<Values>,
}

/// An open write. Only `audit` commits it.
pub struct Tx {
    pub(super) store: Store,
    /// What was looked at: None where nothing exists.
    seen: HashMap<(TypeId, String), Option<Basis>>,
    /// In the order they were put; several of one resource follow each other in version.
    pub(super) drafts: Vec<Prepared>,
    /// The newest draft of each resource.
    pub(super) newest: HashMap<(TypeId, String), usize>,
    premises: Vec<Premise>,
    /// What the new versions are indexed by.
    customs: Arc<Customs>,
    /// What SearchParameters define with this write, by logical id.
    defined: HashMap<String, Option<Definition>>,
    pledge: Option<Pledge>,
    pub(super) targets: Vec<Target>,
    pub(super) orphaning: Vec<Orphaning>,
}

/// A transaction whose drafts are sealed: its hashes are known, and nothing in it can change. Committing it is for
/// `audit` alone, together with the entry:
///
/// ```
/// async fn seal(tx: phial::store::Tx) -> phial::error::Result<usize> {
///     Ok(tx.seal().await?.written().len())
/// }
/// ```
/// ```compile_fail,E0624
/// async fn commit(tx: phial::store::SealedTx, row: phial::store::AuditRow) {
///     let _ = tx.commit(row).await;
/// }
/// ```
pub struct SealedTx {
    store: Store,
    set: WriteSet,
    written: Vec<WrittenHash>,
}

impl Tx {
    pub(super) fn new(store: Store) -> Tx {
        let customs = store.customs();
        let (seen, newest, defined) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (drafts, premises, targets, orphaning) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Tx { store, seen, drafts, newest, premises, customs, defined, pledge: None, targets, orphaning }
    }

    /// The write rests on this too: if it has changed at commit, that shows as Conflict.
    pub fn rests_on(&mut self, premises: Vec<Premise>) {
        self.premises.extend(premises);
    }

    /// The write is kept only if this value still stands, and changes it.
    pub fn pledges(&mut self, pledge: Option<Pledge>) {
        self.pledge = pledge;
    }

    /// Looks at many resources in few queries, so that [`Tx::current`] finds them at once.
    pub async fn prefetch(&mut self, of: &[(TypeId, &str)]) -> Result<()> {
        let mut kinds: HashMap<TypeId, Vec<&str>> = HashMap::new();
        for (kind, id) in of {
            if !self.seen.contains_key(&(*kind, (*id).to_owned())) {
                kinds.entry(*kind).or_default().push(id);
            }
        }
        for (kind, ids) in kinds {
            let tokens: Vec<[u8; 16]> = ids.iter().map(|id| self.store.id_token(kind, id)).collect();
            let stored = self.store.stored(kind, &tokens, false).await?;
            let mut by_token: HashMap<[u8; 16], Stored> = stored.into_iter().map(|row| (row.id_token, row)).collect();
            let pks: Vec<Pk> = by_token.values().map(|row| row.pk).collect();
            // One query for all keys; each is found in the cache below.
            self.store.inner.vault.keys(&pks).await?;
            for (id, token) in ids.iter().zip(&tokens) {
                let basis = match by_token.remove(token) {
                    Some(row) => Some(self.basis(kind, id, row).await?),
                    None => None,
                };
                self.seen.entry((kind, (*id).to_owned())).or_insert(basis);
            }
        }
        Ok(())
    }

    /// The current state of a resource; remembered as what this transaction is based on. None: never existed.
    /// A resource outside the grant's rows is `Kind::NotFound`.
    pub async fn current<O: Op>(&mut self, grant: &Grant<O>, id: &str) -> Result<Option<Current>> {
        let kind = grant.kind();
        let key = (kind, id.to_owned());
        if let Some(draft) = self.newest.get(&key).and_then(|at| self.drafts.get(*at)) {
            return draft.as_current().map(Some);
        }
        self.prefetch(&[(kind, id)]).await?;
        let Some(Some(basis)) = self.seen.get(&key) else { return Ok(None) };
        let visible = match &basis.values {
            Some(values) => values_within(grant.rows(), values)?,
            None => self.store.past_within(grant.rows(), kind, basis.rid, basis.version).await?,
        };
        if !visible {
            return Err(Error::not_found());
        }
        Ok(Some(Current { version: basis.version, deleted: basis.deleted, values: basis.values.clone() }))
    }

    /// Whether the newest draft of a resource lies within the rows of a grant.
    ///
    /// # Errors
    /// `Kind::Internal` for a row filter that cannot be decided.
    pub fn covers<O: Op>(&self, grant: &Grant<O>, id: &str) -> Result<bool> {
        let draft = self.newest.get(&(grant.kind(), id.to_owned())).and_then(|at| self.drafts.get(*at));
        match draft.and_then(|draft| draft.content.as_ref()) {
            Some(content) => values_within(grant.rows(), &*content.values.open()?),
            None => Ok(false),
        }
    }

    /// Indexes and buffers; gives the resource back. It is stamped (id, version, time) already. Version 1 of an id that was
    /// not looked at must not exist: that shows as Conflict at commit.
    ///
    /// # Errors
    /// `Kind::Forbidden` when the grant's rows do not cover the new content, or it would change what lies in sections
    /// that the grant does not open; `Kind::Invalid` for a value that cannot be read, `Kind::Conflict` when the version
    /// is not the next one.
    pub async fn put<O: Op>(&mut self, grant: &Grant<O>, draft: Draft) -> Result<Resource> {
        let kind = draft.resource.kind();
        if kind != grant.kind() {
            return Err(Error::new(Kind::Forbidden, "The permission is for another type."));
        }
        let base = &self.store.inner.base;
        let mut values = values::values(&draft.resource, draft.version, draft.at, base)?;
        values.set_custom(&draft.resource, &self.customs, base);
        if custom::defines(kind) {
            let made = self.defined.values().flatten().collect();
            let definition = Definition::read(&draft.resource, &Known { customs: &self.customs, made })?;
            self.defined.insert(values.header.id.clone(), definition);
        }
        if !values_within(grant.rows(), &values)? {
            return Err(Error::new(Kind::Forbidden, "The access token does not allow writing this content."));
        }
        self.keeps_closed(grant, &draft.resource).await?;
        let header = values.header.clone();
        // As it will be sealed: a tree takes several times as much, and a transaction holds thousands.
        let mut parts = sections::split(kind, draft.resource.node());
        parts.iter_mut().for_each(|(_, bytes)| bytes.shrink_to_fit());
        let values = Kept::of(values, self.drafts.len() >= UNPACKED_MAX);
        let content = Content { parts, values, domain: draft.domain, claims: draft.claims };
        self.push(header, Some(content))?;
        Ok(draft.resource)
    }

    /// Who may not see a section must not change it: what lies there has to be in the new content as it was.
    async fn keeps_closed<O: Op>(&self, grant: &Grant<O>, new: &Resource) -> Result<()> {
        let key = (grant.kind(), new.id().unwrap_or_default().to_owned());
        let Some(Some(basis)) = self.seen.get(&key).filter(|_| grant.mask().is_some()) else { return Ok(()) };
        let Some(old) = self.store.standing(grant.kind(), basis.rid, basis.version).await? else { return Ok(()) };
        let closed = |node: &Node| {
            let mut parts = sections::split(grant.kind(), node);
            parts.retain(|(section, _)| !grant.sections().allows(*section));
            parts
        };
        match closed(&old) == closed(new.node()) {
            true => Ok(()),
            false => {
                let text = "A part of the resource that you may not see would be changed. Send a patch instead.";
                Err(Error::new(Kind::Forbidden, text))
            }
        }
    }

    /// Buffers a deletion (a version without content).
    ///
    /// # Errors
    /// `Kind::NotFound` when there is nothing to delete, `Kind::Conflict` when the version is not the next one.
    pub async fn delete<O: Op>(
        &mut self,
        grant: &Grant<O>,
        kind: TypeId,
        id: &str,
        version: u32,
        at: Instant,
    ) -> Result<()> {
        if kind != grant.kind() {
            return Err(Error::new(Kind::Forbidden, "The permission is for another type."));
        }
        match self.current(grant, id).await? {
            Some(current) if !current.deleted => {}
            _ => return Err(Error::not_found()),
        }
        let key = (kind, id.to_owned());
        let mut header = match self.newest.get(&key).and_then(|at| self.drafts.get(*at)) {
            Some(draft) => draft.header.clone(),
            None => match self.seen.get(&key) {
                Some(Some(basis)) => basis.header.clone(),
                _ => return Err(Error::not_found()),
            },
        };
        header.version = version;
        header.last_updated = at;
        if custom::defines(kind) {
            self.defined.insert(id.to_owned(), None);
        }
        self.push(header, None)
    }

    /// The Conflict that the writer would find if this were committed now: a value that must be unique and belongs to
    /// another resource. For who only asks.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn taken(&self) -> Result<Option<Error>> {
        for draft in &self.drafts {
            let Some(content) = &draft.content else { continue };
            let key = (draft.header.kind, draft.header.id.clone());
            let own = self.seen.get(&key).and_then(Option::as_ref).map(|basis| basis.rid.0);
            for tokens in Chunks::of(&content.claimed(&self.store.inner.vault), CLAIMS_MAX) {
                let list = placeholder_list(tokens.len(), 0);
                let sql = format!("select rid from claim where token in ({list})");
                let tokens = tokens.iter().map(|token| Param::Bytes(token.to_vec())).collect();
                for row in self.store.inner.readers.rows(&sql, tokens).await? {
                    if Some(row.int(0)?) != own {
                        return Ok(Some(apply::taken()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Seals everything in one batch; the drafts cannot change any more.
    pub async fn seal(self) -> Result<SealedTx> {
        let Tx { store, seen, drafts, premises, customs, defined, pledge, targets, orphaning, .. } = self;
        let (set, written) = seal::seal(&store, seen, drafts).await?;
        let mut set = WriteSet { premises, pledge, targets, orphaning, ..set };
        (set.epoch, set.terms_may_move) = (customs.epoch, customs.is_working());
        if !defined.is_empty() {
            set.parameters = store.custom_changes(&customs, defined).await?;
        }
        Ok(SealedTx { store, set, written })
    }

    fn push(&mut self, header: Header, content: Option<Content>) -> Result<()> {
        let key = (header.kind, header.id.clone());
        let stands = match self.newest.get(&key).and_then(|at| self.drafts.get(*at)) {
            Some(draft) => draft.header.version,
            None => self.seen.get(&key).and_then(Option::as_ref).map_or(0, |basis| basis.version),
        };
        if stands.checked_add(1) != Some(header.version) {
            return Err(Error::new(Kind::Conflict, "The resource has another version now; read it and try again."));
        }
        self.newest.insert(key, self.drafts.len());
        self.drafts.push(Prepared { header, content });
        Ok(())
    }

    async fn basis(&self, kind: TypeId, id: &str, row: Stored) -> Result<Basis> {
        let (header, values) = match self.store.state_of(&row, kind, id).await? {
            State::Live(plain) => {
                let values = View::new(&plain)?.to_values()?;
                (values.header.clone(), Some(values))
            }
            State::Deleted(header) => (header, None),
            State::Erased => {
                return Err(Error::new(Kind::Gone, "The resource was erased; its id cannot be used again."));
            }
        };
        let (deleted, version) = (row.deleted, row.ver);
        Ok(Basis { rid: row.rid, pk: row.pk, version, terms: row.terms, header, deleted, values })
    }
}

impl Prepared {
    fn as_current(&self) -> Result<Current> {
        let open = |content: &Content| content.values.open().map(Cow::into_owned);
        let values = self.content.as_ref().map(open).transpose()?;
        Ok(Current { version: self.header.version, deleted: values.is_none(), values })
    }
}

impl SealedTx {
    /// What it writes, in the order it was put.
    pub fn written(&self) -> &[WrittenHash] {
        &self.written
    }

    /// Applies everything with the audit entry in one durable transaction. Called by `audit` alone. The receipt
    /// covers what the entry covers and everything written.
    ///
    /// # Errors
    /// `Kind::Conflict` when a version it was based on has changed or something unique is taken (issue code
    /// `duplicate`): nothing is kept.
    pub(crate) async fn commit(self, row: AuditRow) -> Result<Receipt> {
        let defines = self.set.begins_epoch();
        let done = self.store.receipt(Work::Write(Box::new(self.set), row)).await;
        // What is done again, or comes next, goes by the parameters there are now.
        if defines || done.as_ref().is_err_and(|error| error.kind == Kind::Conflict) {
            self.store.customs_again().await;
        }
        done
    }
}
