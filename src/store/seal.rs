//! Turns the drafts of a transaction into sealed rows, in one batch: surrogates, keys, sections, capsules, blind
//! terms, domain rows. After this nothing readable is left of them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::future::try_join_all;
use zeroize::Zeroizing;

use super::apply::{DOMAIN_TABLES, DomainSealed, RecordRow, VersionRow, WriteSet};
use super::compartment::{Home, Surrogates};
use super::past::Line;
use super::sealed::{Mark, Spot};
use super::tx::{Basis, WrittenHash};
use super::{Store, cores};
use crate::domain::DomainRow;
use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};
use crate::mapping::{Section, mapping};
use crate::search::values::Header;
use crate::search::{Values, View, capsule, terms};
use crate::vault::{Keys, Pk, Rid, Vault};
use crate::world::Instant;

/// One draft: a new version, or (without content) a deletion.
pub(super) struct Prepared {
    pub header: Header,
    pub content: Option<Content>,
}

pub(super) struct Content {
    /// Its sections, as bytes.
    pub parts: Vec<(Section, Zeroizing<Vec<u8>>)>,
    pub values: Kept,
    pub domain: Vec<DomainRow>,
    pub claims: Vec<(&'static str, String)>,
}

/// Search values that wait to be sealed.
pub(super) enum Kept {
    Values(Box<Values>),
    /// As a capsule holds them: among very many drafts, since that takes a fifth of the memory.
    Packed(Zeroizing<Vec<u8>>),
}

impl Kept {
    pub fn of(values: Values, packed: bool) -> Kept {
        if !packed {
            return Kept::Values(Box::new(values));
        }
        let mut bytes = capsule::encode(&values);
        bytes.shrink_to_fit();
        Kept::Packed(Zeroizing::new(bytes))
    }

    /// # Errors
    /// None: the bytes were made here.
    pub fn open(&self) -> Result<Cow<'_, Values>> {
        match self {
            Kept::Values(values) => Ok(Cow::Borrowed(values)),
            Kept::Packed(bytes) => View::new(bytes)?.to_values().map(Cow::Owned),
        }
    }

    fn take(self) -> Result<Values> {
        match self {
            Kept::Values(values) => Ok(*values),
            Kept::Packed(bytes) => View::new(&bytes)?.to_values(),
        }
    }
}

impl Content {
    /// Blind tokens of what must be unique.
    pub fn claimed(&self, vault: &Vault) -> Vec<[u8; 16]> {
        let claims = self.claims.iter().chain(self.domain.iter().flat_map(|row| &row.unique));
        let mut tokens: Vec<[u8; 16]> = claims.map(|(domain, value)| vault.token(domain, value.as_bytes())).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }
}

/// A draft with everything needed to seal it, on any thread.
struct Order {
    draft: Prepared,
    rid: Rid,
    keys: Arc<Keys>,
    /// The newest of its resource in this transaction: the one the record and the domain row show.
    last: bool,
}

/// A sealed draft.
struct Made {
    version: VersionRow,
    at: Instant,
    hash: WrittenHash,
    /// For the last version of a resource.
    shown: Option<Shown>,
}

struct Shown {
    yr: Option<i16>,
    capsule: Vec<u8>,
    terms: Vec<i64>,
    domain: Vec<DomainSealed>,
    claims: Vec<[u8; 16]>,
    /// Counters that must have reached a number.
    raises: Vec<(&'static str, u32)>,
}

/// Fewer drafts than this are sealed where they are, more on as many threads as the machine has cores: further ones
/// would only hold memory.
const INLINE_MAX: usize = 16;

type Key = (TypeId, String);

/// Seals all drafts.
pub(super) async fn seal(
    store: &Store,
    seen: HashMap<Key, Option<Basis>>,
    drafts: Vec<Prepared>,
) -> Result<(WriteSet, Vec<WrittenHash>)> {
    let orders = place(store, &seen, drafts).await?;
    let vault = &store.inner.vault;
    let mut made = Vec::with_capacity(orders.len());
    if orders.len() < INLINE_MAX {
        for order in orders {
            made.push(order.seal(vault)?);
        }
    } else {
        let per_task = orders.len().div_ceil(cores::count()).max(INLINE_MAX);
        let mut tasks = Vec::new();
        let mut orders = orders.into_iter();
        loop {
            let chunk: Vec<Order> = orders.by_ref().take(per_task).collect();
            if chunk.is_empty() {
                break;
            }
            let vault = vault.clone();
            tasks.push(cores::run(move || {
                chunk.into_iter().map(|order| order.seal(&vault)).collect::<Result<Vec<Made>>>()
            }));
        }
        made.extend(try_join_all(tasks).await?.into_iter().flatten());
    }
    for Made { version, at, hash, .. } in &mut made {
        version.line = Line { rid: version.rid, ver: version.ver, at: *at }.seal(hash.kind, vault).await?;
    }
    Ok(assemble(store, &seen, made))
}

/// Finds rid, surrogate and keys of every draft: compartments in one batch, keys in one batch.
async fn place(store: &Store, seen: &HashMap<Key, Option<Basis>>, drafts: Vec<Prepared>) -> Result<Vec<Order>> {
    let vault = &store.inner.vault;
    let homes: HashSet<Home> = drafts.iter().map(|draft| Home::of(&draft.header)).collect();
    let compartments = store.compartments_or_new(&Vec::from_iter(homes)).await?;

    let mut last: HashMap<Key, usize> = HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        last.insert((draft.header.kind, draft.header.id.clone()), at);
    }
    let patient = definitions().type_id("Patient");
    let mut chosen: HashMap<Key, (Rid, Pk, Vec<String>)> = HashMap::new();
    let mut placed = Vec::with_capacity(drafts.len());
    for (at, mut draft) in drafts.into_iter().enumerate() {
        let key = (draft.header.kind, draft.header.id.clone());
        let home = Home::of(&draft.header);
        let surrogates = home.token(vault).and_then(|token| compartments.get(&token)).copied();
        let before = chosen.remove(&key).or_else(|| {
            let basis = seen.get(&key)?.as_ref()?;
            Some((basis.rid, basis.pk, basis.header.patients.clone()))
        });
        let (rid, pk) = match before {
            // The surrogate stays as long as the patients do.
            Some((rid, pk, patients)) if patients == draft.header.patients => (rid, pk),
            Some((rid, ..)) => (rid, home_pk(store, &draft.header, surrogates)),
            None => (Rid(store.inner.world.surrogate()), home_pk(store, &draft.header, surrogates)),
        };
        if patient == Some(draft.header.kind) {
            draft.header.clinical = surrogates.map(|surrogates| surrogates.clinical);
        }
        chosen.insert(key.clone(), (rid, pk, draft.header.patients.clone()));
        placed.push((draft, rid, pk, last.get(&key) == Some(&at)));
    }
    let pks: Vec<Pk> = placed.iter().map(|(_, _, pk, _)| *pk).collect();
    let keys = vault.keys_or_new(&pks).await?;
    let order = |((draft, rid, _, last), keys)| Order { draft, rid, keys, last };
    Ok(placed.into_iter().zip(keys).map(order).collect())
}

/// SHA-256 over what `record_version` holds of a version.
pub(super) fn version_hash(head: &[u8], sealed: &[u8]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(head);
    hash.update(sealed);
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

fn home_pk(store: &Store, header: &Header, surrogates: Option<Surrogates>) -> Pk {
    match surrogates {
        Some(surrogates) => surrogates.of(header.kind),
        None => Pk(store.inner.world.surrogate()),
    }
}

impl Order {
    fn seal(self, vault: &Vault) -> Result<Made> {
        let Order { draft: Prepared { header, content }, rid, keys, last } = self;
        let pk = keys.pk();
        let spot = Spot { rid, kind: header.kind, version: header.version };
        let deleted = content.is_none();
        let head = spot.seal_head(&keys, &header, deleted)?;
        let sealed = match &content {
            Some(content) => spot.seal_sections(&keys, &content.parts)?,
            None => Vec::new(),
        };
        let sha256 = version_hash(&head, &sealed);
        let shown = match (last, content) {
            (false, _) => None,
            (true, None) => Some(Shown::gone()),
            (true, Some(content)) => Some(Shown::seal(content, (spot, header.clinical), &keys, vault)?),
        };
        // Its line is sealed under a key that is not at hand here.
        let (rtype, line) = (header.kind.0, Vec::new());
        let version = VersionRow { rid, ver: header.version, pk, head, sealed, rtype, line };
        let at = header.last_updated;
        let (kind, id, patients) = (header.kind, header.id, header.patients);
        let hash = WrittenHash { rid, kind, id, version: header.version, deleted, patients, sha256 };
        Ok(Made { version, at, hash, shown })
    }
}

impl Shown {
    fn gone() -> Shown {
        Shown {
            yr: None,
            capsule: Vec::new(),
            terms: Vec::new(),
            domain: Vec::new(),
            claims: Vec::new(),
            raises: Vec::new(),
        }
    }

    /// The clinical surrogate of a patient is known only now.
    fn seal(content: Content, (spot, clinical): (Spot, Option<Pk>), keys: &Keys, vault: &Vault) -> Result<Shown> {
        let pk = keys.pk();
        let claims = content.claimed(vault);
        let mut values = content.values.take()?;
        values.header.clinical = clinical;
        let (yr, terms) = (terms::year(&values), terms::terms(&values, pk, vault));
        let capsule = spot.seal_capsule(keys, &values, Mark::of(yr.map(i64::from), &terms))?;
        let (mut domain, mut raises) = (Vec::with_capacity(content.domain.len()), Vec::new());
        for row in content.domain {
            let at = DOMAIN_TABLES.iter().position(|table| *table == row.table);
            let at = at.ok_or_else(|| Error::internal("a domain table that does not exist"))?;
            let parts = row.fields.iter().map(|(section, fields)| {
                let plain = serde_json::to_vec(fields).map_err(Error::internal)?;
                Ok((*section, Zeroizing::new(plain)))
            });
            let sealed = spot.seal_domain(keys, at, &parts.collect::<Result<Vec<_>>>()?)?;
            let table = DOMAIN_TABLES[at];
            domain.push(DomainSealed { table, rid: spot.rid, pk, ver: spot.version, sealed });
            raises.extend(row.raise);
        }
        Ok(Shown { yr, capsule, terms, domain, claims, raises })
    }
}

/// Sorts what was made into rows.
fn assemble(store: &Store, seen: &HashMap<Key, Option<Basis>>, made: Vec<Made>) -> (WriteSet, Vec<WrittenHash>) {
    let mut set = WriteSet::default();
    let mut written = Vec::with_capacity(made.len());
    for Made { version, hash, shown, .. } in made {
        if let Some(shown) = shown {
            let basis = seen.get(&(hash.kind, hash.id.clone())).and_then(Option::as_ref);
            if basis.is_some() {
                set.claims_of.push(version.rid);
                let fills = |name: &&str| mapping(hash.kind).tables.iter().any(|table| table.table == *name);
                let made = |name: &&str| shown.domain.iter().any(|row| row.table == *name);
                let gone = DOMAIN_TABLES.into_iter().filter(|name| fills(name) && !made(name));
                set.domain_gone.extend(gone.map(|table| (table, version.rid)));
            }
            set.raises.extend(shown.raises);
            set.claims.extend(shown.claims.into_iter().map(|token| (token, version.rid)));
            set.domain.extend(shown.domain);
            set.records.push(RecordRow {
                rid: version.rid,
                rtype: hash.kind.0,
                id_token: store.id_token(hash.kind, &hash.id),
                base: basis.map(|basis| basis.version),
                pk: version.pk,
                yr: shown.yr,
                ver: version.ver,
                deleted: hash.deleted,
                capsule: shown.capsule,
                terms: shown.terms,
                terms_before: basis.map(|basis| basis.terms.clone()).unwrap_or_default(),
            });
        }
        set.versions.push(version);
        written.push(hash);
    }
    (set, written)
}
