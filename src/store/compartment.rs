//! Whose key seals a row. A patient has two surrogates, one for demographics and one for clinical rows, found by the
//! blind token of the patient's logical id; they exist even before the Patient resource does. A type whose resources
//! belong to no patient has one. The link from token to surrogates is sealed, so a dump does not show it.

use std::collections::HashMap;

use super::Store;
use super::apply::Chunks;
use super::db::{Param, Row, placeholder_list};
use super::small::{Sealed16, Small, SmallAnswer, select_compartments};
use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};
use crate::mapping::mapping;
use crate::search::values::Header;
use crate::vault::{Pk, SystemKey, Vault};

/// The two surrogates of a compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surrogates {
    pub demographic: Pk,
    pub clinical: Pk,
}

/// Where a resource belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// Of one patient (logical id).
    Patient(String),
    /// Of no patient: one compartment per type.
    Type(TypeId),
    /// Of several patients: a surrogate of its own, and one term per patient.
    Own,
}

const LOOKUP_MAX: usize = 256;

impl Home {
    pub fn of(header: &Header) -> Home {
        match header.patients.as_slice() {
            [] => Home::Type(header.kind),
            [patient] => Home::Patient(patient.clone()),
            _ => Home::Own,
        }
    }

    /// The blind token of its compartment; None when it has none.
    pub fn token(&self, vault: &Vault) -> Option<[u8; 16]> {
        match self {
            Home::Patient(id) => Some(vault.token("compartment", format!("Patient/{id}").as_bytes())),
            Home::Type(kind) => Some(vault.token("compartment", format!("type/{}", kind.0).as_bytes())),
            Home::Own => None,
        }
    }
}

impl Surrogates {
    /// The one under which rows of this type are sealed.
    pub fn of(self, kind: TypeId) -> Pk {
        if mapping(kind).demographic { self.demographic } else { self.clinical }
    }

    async fn seal(self, token: &[u8; 16], vault: &Vault) -> Result<Vec<u8>> {
        let mut plain = self.demographic.0.to_be_bytes().to_vec();
        plain.extend_from_slice(&self.clinical.0.to_be_bytes());
        vault.seal_system(SystemKey::Link, &aad(token), &plain).await
    }

    pub(super) async fn open(token: &[u8; 16], sealed: &[u8], vault: &Vault) -> Result<Surrogates> {
        let plain = vault.open_system(SystemKey::Link, &aad(token), sealed).await?;
        let tampered = || Error::tampered("compartment");
        let (demographic, rest) = plain.split_first_chunk::<8>().ok_or_else(tampered)?;
        let clinical: [u8; 8] = rest.try_into().map_err(|_| tampered())?;
        let pk = |bytes: [u8; 8]| Pk(i64::from_be_bytes(bytes));
        Ok(Surrogates { demographic: pk(*demographic), clinical: pk(clinical) })
    }
}

fn aad(token: &[u8; 16]) -> Vec<u8> {
    [b"compartment".as_slice(), token].concat()
}

impl Store {
    /// Whether a compartment is known to exist, without a look at the database.
    pub(super) fn knows(&self, token: &[u8; 16]) -> bool {
        self.inner.compartments.contains_key(token)
    }

    /// The surrogates of those compartments that exist.
    pub(super) async fn compartments(&self, tokens: &[[u8; 16]]) -> Result<HashMap<[u8; 16], Surrogates>> {
        let mut found = HashMap::with_capacity(tokens.len());
        let mut missing = Vec::new();
        for token in tokens {
            match self.inner.compartments.get(token) {
                Some(surrogates) => {
                    found.insert(*token, surrogates);
                }
                None => missing.push(*token),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        for chunk in Chunks::of(&missing, LOOKUP_MAX) {
            let params = chunk.iter().map(|token| Param::Bytes(token.to_vec())).collect();
            let rows = self.inner.lookups.rows(&select_compartments(chunk.len()), params).await?;
            let pair = |row: &Row| -> Result<Sealed16> { Ok((row.array(0)?, row.bytes(1)?.to_vec())) };
            let standing = rows.iter().map(pair).collect::<Result<Vec<_>>>()?;
            self.remember(standing, &mut found).await?;
        }
        Ok(found)
    }

    /// The same for these homes. A patient who stands in the records had a compartment before: where it is gone,
    /// nothing would be found of the patient, and what is written would belong to a second one.
    ///
    /// # Errors
    /// `Kind::Tampered` when one was taken away.
    pub(super) async fn compartments_of(&self, homes: &[Home]) -> Result<HashMap<[u8; 16], Surrogates>> {
        let vault = &self.inner.vault;
        let tokens: Vec<[u8; 16]> = homes.iter().filter_map(|home| home.token(vault)).collect();
        let found = self.compartments(&tokens).await?;
        let patient = definitions().type_id("Patient").ok_or_else(|| Error::internal("no Patient"))?;
        let absent = homes.iter().filter_map(|home| match (home, home.token(vault)) {
            (Home::Patient(id), Some(token)) if !found.contains_key(&token) => {
                Some((self.id_token(patient, id), token))
            }
            _ => None,
        });
        let absent: HashMap<[u8; 16], [u8; 16]> = absent.collect();
        for ids in Chunks::of(&Vec::from_iter(absent.keys().copied()), LOOKUP_MAX) {
            let list = placeholder_list(ids.len(), 1);
            let sql = format!("select id_token from record where rtype = $1 and id_token in ({list})");
            let mut params = vec![Param::Int(patient.0.into())];
            params.extend(ids.iter().map(|id| Param::Bytes(id.to_vec())));
            let standing = self.inner.lookups.rows(&sql, params).await?;
            let tokens =
                standing.iter().map(|row| Ok(absent.get(&row.array(0)?).copied())).collect::<Result<Vec<_>>>()?;
            let tokens: Vec<[u8; 16]> = tokens.into_iter().flatten().collect();
            // Both may have been made since the first look.
            if self.compartments(&tokens).await?.len() < tokens.len() {
                return Err(Error::tampered("compartment taken away"));
            }
        }
        Ok(found)
    }

    /// The same; those that are absent are made, durably, before this returns. Of several servers that make one at
    /// once all get the same.
    pub(super) async fn compartments_or_new(&self, homes: &[Home]) -> Result<HashMap<[u8; 16], Surrogates>> {
        let mut found = self.compartments_of(homes).await?;
        let tokens: Vec<[u8; 16]> = homes.iter().filter_map(|home| home.token(&self.inner.vault)).collect();
        let mut new = HashMap::new();
        for token in tokens.iter().filter(|token| !found.contains_key(*token)) {
            let surrogate = || Pk(self.inner.world.surrogate());
            let surrogates = Surrogates { demographic: surrogate(), clinical: surrogate() };
            new.insert(*token, surrogates.seal(token, &self.inner.vault).await?);
        }
        if !new.is_empty() {
            let SmallAnswer::Standing(standing) = self.small(Small::Compartments(new.into_iter().collect())).await?
            else {
                return Err(super::kv::wrong_answer());
            };
            self.remember(standing, &mut found).await?;
        }
        if tokens.iter().all(|token| found.contains_key(token)) {
            Ok(found)
        } else {
            Err(Error::internal("a compartment was not made"))
        }
    }

    async fn remember(&self, rows: Vec<Sealed16>, found: &mut HashMap<[u8; 16], Surrogates>) -> Result<()> {
        for (token, sealed) in rows {
            let surrogates = Surrogates::open(&token, &sealed, &self.inner.vault).await?;
            self.inner.compartments.insert(token, surrogates);
            found.insert(token, surrogates);
        }
        Ok(())
    }
}
