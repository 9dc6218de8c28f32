//! What of a patient is to be erased, and what is done about rows whose keys are destroyed. Destroying the keys, which is
//! what erases, is the vault's. Nothing is opened here but the heads of versions that may belong to several patients.

use std::collections::{HashMap, HashSet};

use super::Store;
use super::apply::Chunks;
use super::compartment::{Home, Surrogates};
use super::db::{Param, placeholder_list};
use super::sealed::Spot;
use super::small::{Small, SmallAnswer};
use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};
use crate::vault::{Keys, Pk, Rid};

/// Rows read, or emptied, in one go.
const CHUNK: usize = 1_000;
const LOOKUP_MAX: usize = 256;

/// Whose keys have to go for nothing of a patient to be left. No Debug: logical ids are PHI.
pub struct Erasing {
    /// Surrogates of the patient alone: demographic and clinical. Empty: nothing is of the patient alone.
    pub own: Vec<Pk>,
    /// Resources (`Appointment/1`) that some version of names other patients too, with the surrogate of that version.
    pub shared: Vec<(String, Pk)>,
    /// Resources of the patient alone.
    pub resources: u64,
}

impl Store {
    /// Finds what belongs to a patient, in any version.
    ///
    /// # Errors
    /// `Kind::Tampered` when what is stored does not verify.
    pub async fn erasing(&self, patient: &str) -> Result<Erasing> {
        let surrogates = self.compartments_of(&[Home::Patient(patient.to_owned())]).await?.into_values().next();
        let own = surrogates.map_or(Vec::new(), |own| vec![own.demographic, own.clinical]);
        let mut resources = 0;
        for pk in &own {
            let sql = "select count(*) from record where pk = $1";
            let rows = self.inner.readers.rows(sql, vec![Param::Int(pk.0)]).await?;
            resources += rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0);
        }
        let shared = self.shared_with(patient).await?;
        Ok(Erasing { own, shared, resources: u64::try_from(resources).unwrap_or(0) })
    }

    /// Versions that belong to several patients have a surrogate of their own, which no compartment knows.
    async fn shared_with(&self, patient: &str) -> Result<Vec<(String, Pk)>> {
        let known = self.all_surrogates().await?;
        let (mut shared, mut after) = (HashMap::new(), (0i64, 0i64));
        loop {
            let sql = "select v.rid, v.ver, v.pk, v.head, r.rtype from record_version v join record r on r.rid = v.rid \
                       where v.ver > 0 and (v.rid > $1 or (v.rid = $1 and v.ver > $2)) order by v.rid, v.ver limit $3";
            let params = vec![Param::Int(after.0), Param::Int(after.1), Param::Int(CHUNK as i64)];
            let rows = self.inner.readers.rows(sql, params).await?;
            let Some(last) = rows.last() else { break };
            after = (last.int(0)?, last.int(1)?);
            for row in &rows {
                let pk = Pk(row.int(2)?);
                if known.contains(&pk) {
                    continue;
                }
                let Some(keys) = self.keys(pk).await? else { continue };
                let kind = u16::try_from(row.int(4)?).map(TypeId).map_err(Error::internal)?;
                let spot = Spot { rid: Rid(row.int(0)?), kind, version: row.small(1)? };
                if let Some(name) = named(&spot, &keys, row.bytes(3)?, patient)? {
                    shared.insert(pk, name);
                }
            }
        }
        let mut shared: Vec<(String, Pk)> = shared.into_iter().map(|(pk, name)| (name, pk)).collect();
        shared.sort_unstable();
        Ok(shared)
    }

    async fn all_surrogates(&self) -> Result<HashSet<Pk>> {
        let (mut known, mut after) = (HashSet::new(), Vec::new());
        loop {
            let sql = "select token, sealed from compartment where token > $1 order by token limit $2";
            let params = vec![Param::Bytes(after.clone()), Param::Int(CHUNK as i64)];
            let rows = self.inner.readers.rows(sql, params).await?;
            let Some(last) = rows.last() else { return Ok(known) };
            after = last.bytes(0)?.to_vec();
            for row in &rows {
                let surrogates = Surrogates::open(&row.array(0)?, row.bytes(1)?, &self.inner.vault).await?;
                known.extend([surrogates.demographic, surrogates.clinical]);
            }
        }
    }

    /// Takes the rows of these surrogates, whose keys are destroyed, out of everything that searches go by: terms, years,
    /// unique values, domain rows. What is left is ciphertext without a key, which the audit trail still knows. Gives
    /// how many resources there were.
    pub async fn forget(&self, pks: &[Pk]) -> Result<u64> {
        let mut forgotten = 0;
        for chunk in Chunks::of(pks, LOOKUP_MAX) {
            // Most often there is none left: every start asks.
            let list = placeholder_list(chunk.len(), 0);
            let sql = format!("select distinct pk from record where pk in ({list}) and deleted = 0");
            let left = self.inner.readers.rows(&sql, chunk.iter().map(|pk| Param::Int(pk.0)).collect()).await?;
            for row in &left {
                forgotten += self.forget_one(Pk(row.int(0)?)).await?;
            }
        }
        Ok(forgotten)
    }

    async fn forget_one(&self, pk: Pk) -> Result<u64> {
        let mut forgotten = 0;
        loop {
            let SmallAnswer::Touched(rows) = self.small(Small::Forget { pk }).await? else {
                return Err(super::kv::wrong_answer());
            };
            forgotten += rows;
            if rows == 0 {
                return Ok(forgotten);
            }
        }
    }
}

/// The name of the resource when the version belongs to this patient.
fn named(spot: &Spot, keys: &Keys, head: &[u8], patient: &str) -> Result<Option<String>> {
    let (header, _) = spot.open_head(keys, head)?;
    let about = header.patients.iter().any(|id| id == patient);
    Ok(about.then(|| format!("{}/{}", definitions().type_name(spot.kind), header.id)))
}
