//! Search parameters that the site defines: kept sealed beside the records, changed together with the SearchParameter
//! that defines them. Every change begins a new epoch. A writer compares inside its transaction the epoch that it sealed
//! under with the one that stands, so that no version lacks the values of a parameter whose job has gone past its row.
//! See `docs/adr/0016-search-parameters-of-a-site.md`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::Store;
use super::apply::Refusal;
use super::db::{Conn, Fault, Param, Row};
use super::premise::LOCKS;
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::{ParamId, TypeId, definitions};
use crate::mapping::{self, Treatment};
use crate::search::Customs;
use crate::search::custom::{DEFINED_MAX, Defined, Definition, Standing};
use crate::vault::SystemKey;

/// Counts the epochs.
const EPOCH: &str = "search-parameter-epoch";
/// Gives the numbers.
const NUMBERS: &str = "search-parameter";
/// The advisory lock that writers share and a change takes alone.
const EPOCH_LOCK: i64 = LOCKS | 1 << 16;

pub(super) const INDEXING: i64 = 0;
const READY: i64 = 1;
pub(super) const ENDING: i64 = 2;

/// Where a job is: type and row that were gone through last.
pub type Cursor = (i64, i64);

/// One change of the parameters, inside the transaction of a write.
#[derive(Clone)]
pub enum Change {
    Begin {
        n: i64,
        state: i64,
        sealed: Vec<u8>,
    },
    End {
        n: i64,
    },
    /// Rows were gone through; None in `to`: they were the last.
    Advance {
        n: i64,
        state: i64,
        from: Cursor,
        to: Option<Cursor>,
        rows: i64,
        total: i64,
    },
}

impl Change {
    /// Whether what is written or searched afterwards is another set of parameters.
    pub fn begins_epoch(&self) -> bool {
        !matches!(self, Change::Advance { to: Some(_), .. })
    }

    pub async fn apply(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let done = match self {
            Change::Begin { n, state, sealed } => {
                let sql = "insert into search_parameter (n, state, sealed, rtype, rid, done, total) \
                           values ($1, $2, $3, 0, 0, 0, -1) on conflict do nothing";
                conn.run(sql, vec![Param::Int(*n), Param::Int(*state), Param::Bytes(sealed.clone())]).await?
            }
            Change::End { n } => {
                let sql = "update search_parameter set state = $2, rtype = 0, rid = 0, done = 0, total = -1 \
                           where n = $1 and state <> $2";
                conn.run(sql, vec![Param::Int(*n), Param::Int(ENDING)]).await?
            }
            Change::Advance { n, state, from, to: Some(to), rows, total } => {
                let sql = "update search_parameter set rtype = $5, rid = $6, done = done + $7, total = $8 \
                           where n = $1 and state = $2 and rtype = $3 and rid = $4";
                let all = [*n, *state, from.0, from.1, to.0, to.1, *rows, *total];
                conn.run(sql, all.map(Param::Int).to_vec()).await?
            }
            Change::Advance { n, state, from, to: None, .. } => {
                let params = [*n, *state, from.0, from.1].map(Param::Int).to_vec();
                let here = "where n = $1 and state = $2 and rtype = $3 and rid = $4";
                let sql = match *state {
                    ENDING => format!("delete from search_parameter {here}"),
                    _ => format!("update search_parameter set state = {READY} {here}"),
                };
                conn.run(&sql, params).await?
            }
        };
        if done != 1 {
            return Err(Refusal::Conflict(stale()));
        }
        if self.begins_epoch() {
            let sql = "insert into counter (name, n) values ($1, 1) on conflict (name) do update set n = counter.n + 1";
            conn.run(sql, vec![Param::Text(EPOCH.to_owned())]).await?;
        }
        Ok(())
    }
}

/// What was sealed, or found, under another set of parameters: to be done again.
pub fn stale() -> Error {
    Error::new(Kind::Conflict, "The search parameters of this server changed at the same time. Try again.")
}

/// The epoch that stands, and stands to the end of the transaction unless it is changed by it (`alone`). The lock is
/// taken in a statement of its own: the one that reads must not see what was there before the lock.
pub async fn lock_epoch(conn: &mut Conn, alone: bool) -> Result<i64, Fault> {
    if matches!(conn, Conn::Postgres(_)) {
        let sql = match alone {
            true => "select pg_advisory_xact_lock($1)",
            false => "select pg_advisory_xact_lock_shared($1)",
        };
        conn.rows(sql, vec![Param::Int(EPOCH_LOCK)]).await?;
    }
    epoch_of(&conn.rows(EPOCH_NOW, vec![Param::Text(EPOCH.to_owned())]).await?)
}

const EPOCH_NOW: &str = "select n from counter where name = $1";

fn epoch_of(rows: &[Row]) -> Result<i64, Fault> {
    rows.first().map_or(Ok(0), |row| row.int(0))
}

fn place(n: i64) -> Vec<u8> {
    [b"search-parameter:".as_slice(), &n.to_be_bytes()].concat()
}

/// The state in which a parameter begins: where no type of it may be indexed there is nothing to go through.
fn first_state(definition: &Definition, id: ParamId) -> Result<i64> {
    let param = definition.param(id)?.ok_or_else(|| Error::internal("a parameter without its number"))?;
    let refused = |of: &TypeId| matches!(mapping::treatment(*of, id), Treatment::Refused { .. });
    Ok(if param.bases.iter().all(refused) { READY } else { INDEXING })
}

impl Store {
    /// The parameters of the site as this server knows them.
    pub fn customs(&self) -> Arc<Customs> {
        self.inner.customs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same as they are in the database now.
    ///
    /// # Errors
    /// `Kind::Internal` for a parameter that this version cannot follow.
    pub async fn customs_now(&self) -> Result<Arc<Customs>> {
        let known = self.customs();
        let epoch = self.epoch().await?;
        if epoch == known.epoch && !known.is_working() {
            return Ok(known);
        }
        // What is read after the epoch may be newer than it, never older.
        let fresh = Arc::new(Customs { epoch, all: self.defined(&known).await? });
        let mut stands = self.inner.customs.write().unwrap_or_else(PoisonError::into_inner);
        if stands.epoch <= epoch {
            *stands = fresh;
        }
        Ok(stands.clone())
    }

    /// Reads them for the first time, whatever the epoch.
    pub(super) async fn customs_at_start(&self) -> Result<()> {
        let fresh = Customs { epoch: self.epoch().await?, all: self.defined(&Customs::default()).await? };
        *self.inner.customs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }

    /// After a commit: what fails here shows again at the next write, which is refused until it works.
    pub(super) async fn customs_again(&self) {
        if let Err(error) = self.customs_now().await {
            tracing::warn!(kind = ?error.kind, "the search parameters of the site could not be read again");
        }
    }

    /// What a search by parameters of the site found is right only if their epoch is still what it was.
    ///
    /// # Errors
    /// `Kind::Unavailable`: to be tried again.
    pub(super) async fn in_epoch(&self, epoch: Option<i64>) -> Result<()> {
        match epoch {
            Some(epoch) if self.epoch().await? != epoch => {
                let text = "The search parameters of this server changed during the search. Try again.";
                Err(Error::new(Kind::Unavailable, text))
            }
            _ => Ok(()),
        }
    }

    async fn epoch(&self) -> Result<i64> {
        Ok(epoch_of(&self.inner.lookups.rows(EPOCH_NOW, vec![Param::Text(EPOCH.to_owned())]).await?)?)
    }

    /// What a number means never changes: only those that are not known yet are opened.
    async fn defined(&self, known: &Customs) -> Result<Vec<Defined>> {
        let known: HashMap<i64, &Defined> = known.all.iter().map(|one| (stored(one.param.id), one)).collect();
        let sql = "select n, state, sealed, done, total from search_parameter order by n";
        let mut all = Vec::new();
        for row in self.inner.lookups.rows(sql, Vec::new()).await? {
            let n = row.int(0)?;
            let (definition, param) = match known.get(&n) {
                Some(known) => (known.definition.clone(), known.param),
                None => {
                    let opened = self.inner.vault.open_system(SystemKey::Secret, &place(n), row.bytes(2)?).await;
                    let plain = opened.map_err(|error| error.of_tampered("search parameter of the site"))?;
                    let definition: Definition = serde_json::from_slice(&plain).map_err(Error::internal)?;
                    let param = definition.param(number(n)?)?;
                    let other = || Error::internal("the number of a search parameter stands for another");
                    (definition, param.ok_or_else(other)?)
                }
            };
            let total = row.int(4)?.max(0).cast_unsigned();
            let done = row.int(3)?.max(0).cast_unsigned().min(total);
            let standing = match row.int(1)? {
                INDEXING => Standing::Indexing { done, total },
                READY => Standing::Ready,
                _ => Standing::Ending { done, total },
            };
            all.push(Defined { definition, param, standing });
        }
        Ok(all)
    }

    /// What the SearchParameters of a write change. `defined`: by logical id, what each defines now; None: nothing.
    ///
    /// # Errors
    /// `Kind::BusinessRule` for a name that another one has, and when there are too many.
    pub(super) async fn custom_changes(
        &self,
        customs: &Customs,
        defined: HashMap<String, Option<Definition>>,
    ) -> Result<Vec<Change>> {
        let live = |one: &&Defined| !matches!(one.standing, Standing::Ending { .. });
        let mut changes = Vec::new();
        let mut standing: Vec<&Definition> = Vec::new();
        for one in customs.all.iter().filter(live) {
            match defined.get(&one.definition.resource) {
                Some(new) if new.as_ref() != Some(&one.definition) => {
                    changes.push(Change::End { n: stored(one.param.id) })
                }
                _ => standing.push(&one.definition),
            }
        }
        let known = standing.len();
        let mut new: Vec<&Definition> = defined.values().flatten().filter(|new| !standing.contains(new)).collect();
        new.sort_by(|a, b| a.resource.cmp(&b.resource));
        for definition in new {
            if let Some(other) = standing.iter().find(|other| other.collides(definition)) {
                let text = format!("SearchParameter/{} defines '{}' for the same type.", other.resource, other.code);
                return Err(refused(text));
            }
            standing.push(definition);
        }
        if standing.len() > DEFINED_MAX && standing.len() > known {
            return Err(refused(format!("A server takes at most {DEFINED_MAX} search parameters of its own.")));
        }
        for definition in &standing[known..] {
            changes.push(self.beginning(definition).await?);
        }
        Ok(changes)
    }

    async fn beginning(&self, definition: &Definition) -> Result<Change> {
        loop {
            let n = self.next_number(NUMBERS).await?;
            let id =
                ParamId::custom(n).ok_or_else(|| refused("The numbers of search parameters are used up.".into()))?;
            // One process can have several databases (in tests): then a number may be taken.
            if definition.param(id)?.is_none() {
                continue;
            }
            let n = stored(id);
            let plain = serde_json::to_vec(definition).map_err(Error::internal)?;
            let sealed = self.inner.vault.seal_system(SystemKey::Secret, &place(n), &plain).await?;
            return Ok(Change::Begin { n, state: first_state(definition, id)?, sealed });
        }
    }
}

fn refused(text: String) -> Error {
    Error::with_issues(Kind::BusinessRule, vec![Issue::error("business-rule", text).at("SearchParameter.code")])
}

/// How a number lies in the database.
pub(super) fn stored(id: ParamId) -> i64 {
    i64::from(id.0)
}

fn number(n: i64) -> Result<ParamId> {
    let id = u16::try_from(n).map(ParamId).ok().filter(|id| id.is_custom());
    id.ok_or_else(|| Error::tampered("number of a search parameter"))
}

/// Whether resources of this type define search parameters.
pub(super) fn defines(kind: TypeId) -> bool {
    definitions().type_name(kind) == "SearchParameter"
}
