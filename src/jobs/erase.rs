//! Erasing a patient: the keys of everything that belongs to the patient are destroyed, and with them all copies of it
//! in every backup of the database. The audit trail stays: it says that somebody was seen, and now, erased.

use crate::app::App;
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::oauth::By;
use crate::vault::Pk;

/// What would be erased. No Debug: it is PHI.
pub struct Plan {
    patient: String,
    keys: Vec<Pk>,
    /// Resources of the patient alone.
    pub resources: u64,
    /// Those that belong to other patients too: `Appointment/1`.
    pub shared: Vec<String>,
    /// Names of users whose own record this is.
    pub users: Vec<String>,
}

/// Looks at what belongs to a patient.
///
/// # Errors
/// `Kind::NotFound` when nothing here ever named this patient.
pub async fn plan(app: &App, patient: &str) -> Result<Plan> {
    let erasing = app.store.erasing(patient).await?;
    if erasing.own.is_empty() && erasing.shared.is_empty() {
        return Err(Error::new(Kind::NotFound, "nothing here was ever about this patient"));
    }
    let record = format!("Patient/{patient}");
    let users = app.oauth.users().of_record(&record).await?;
    let mut keys = erasing.own;
    keys.extend(erasing.shared.iter().map(|(_, pk)| *pk));
    let mut shared: Vec<String> = erasing.shared.into_iter().map(|(name, _)| name).collect();
    shared.dedup();
    Ok(Plan { patient: patient.to_owned(), keys, resources: erasing.resources, shared, users })
}

/// Erases what the plan says; what belongs to others too only if `shared`. On record before the first key is gone; what
/// was begun can be begun again.
///
/// # Errors
/// `Kind::BusinessRule` when something belongs to others too, `Kind::Audit` when it could not be put on record: nothing is
/// erased then.
pub async fn erase(app: &App, by: &By, plan: &Plan, shared: bool) -> Result<()> {
    if !plan.shared.is_empty() && !shared {
        let text = "some resources belong to other patients too: take this patient out of them, or erase them for all";
        return Err(Error::new(Kind::BusinessRule, text));
    }
    let facts = [
        ("resources", plan.resources.to_string()),
        ("shared", plan.shared.len().to_string()),
        ("users", plan.users.len().to_string()),
    ];
    let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut event = by.event(app.world.now(), What::PatientErased, facts);
    event.patients.push(plan.patient.clone());
    app.trail.record(event).await?;
    for username in &plan.users {
        app.oauth.users().by(by).disable(username).await?;
    }
    app.oauth.end_authorizations_about(&plan.patient).await?;
    for pk in &plan.keys {
        app.vault.destroy(*pk).await?;
    }
    clear(app).await.map(drop)
}

/// Clears rows whose keys are destroyed: those of an erasure that was broken off, or of a database that was restored
/// from before one. Gives how many there were.
pub async fn clear(app: &App) -> Result<u64> {
    app.store.forget(&app.vault.destroyed().await?).await
}
