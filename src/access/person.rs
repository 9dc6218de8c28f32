//! Who the person behind a token is: role, record, and the patient of the launch. FHIR ids are PHI, so nothing here
//! can be printed.

use serde::{Deserialize, Serialize};

/// What somebody is to the provider. Decided by an administrator, never by the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    Admin,
    Provider,
    Nurse,
    Receptionist,
    Staff,
    Patient,
    Guardian,
}

impl Role {
    pub const ALL: [Role; 7] =
        [Role::Admin, Role::Provider, Role::Nurse, Role::Receptionist, Role::Staff, Role::Patient, Role::Guardian];

    pub fn name(self) -> &'static str {
        match self {
            Role::Admin => "ADMIN",
            Role::Provider => "PROVIDER",
            Role::Nurse => "NURSE",
            Role::Receptionist => "RECEPTIONIST",
            Role::Staff => "STAFF",
            Role::Patient => "PATIENT",
            Role::Guardian => "GUARDIAN",
        }
    }

    /// The role of this name, in any case.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name().eq_ignore_ascii_case(name))
    }

    /// Users of the provider, in contrast to patients and those who answer for them.
    pub fn is_staff(self) -> bool {
        !matches!(self, Role::Patient | Role::Guardian)
    }
}

/// The person a token is about. None of it is the client's to choose.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    pub role: Role,
    /// The person's own record, relative: `Practitioner/1`, `Patient/2`, `RelatedPerson/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fhir_user: Option<String>,
    /// Logical id of the patient in context of the launch: what `patient/` scopes are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// Logical id of the encounter in context of the launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encounter: Option<String>,
    /// The authorization this token was given under; revoking that ends the token.
    pub authorization: String,
    /// The purpose of use of an emergency token (break-glass), such as `ETREAT`: it opens the record of `patient`, and of
    /// nobody else, whatever the care relation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<String>,
}
