//! Who plays in a demonstration besides its backend service: a user of every role and a client of every kind, in
//! `demo.json` with all that is needed to be them.

use serde_json::json;
use zeroize::Zeroizing;

use super::credentials::{self, NewClient};
use super::population::Plan;
use crate::access::Role;
use crate::app::App;
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::oauth::{By, ClientKind, NewUser, totp};

/// What the sample app may be granted.
const SAMPLE_SCOPES: &str = "launch launch/patient openid fhirUser patient/Patient.r patient/Observation.rs \
                             patient/Condition.rs patient/Appointment.rs";
const SAMPLE_NAME: &str = "Patient summary";
/// What the clients for tests may be granted.
const TEST_SCOPES: &str = "launch launch/patient launch/encounter openid fhirUser profile offline_access online_access \
                           patient/*.cruds user/*.cruds";
/// At the first is nobody: tests read the code off the redirect. The others are where conformance tools run.
const TEST_REDIRECTS: [&str; 5] = [
    "https://client.example/callback",
    "http://127.0.0.1:4567/custom/smart/redirect",
    "http://127.0.0.1:4567/custom/smart_stu2/redirect",
    "http://127.0.0.1:4567/custom/smart_stu2_2/redirect",
    "http://127.0.0.1:8000/callback",
];
const TEST_LAUNCH: &str = "http://127.0.0.1:4567/custom/smart/launch";

/// The people of the population that users are tied to.
struct Records {
    practitioner: String,
    patient: String,
    guardian: Option<String>,
}

/// A practitioner, a grown-up patient of theirs, and who answers for a child.
fn records(plan: &Plan) -> Result<Records> {
    let (mut practitioners, mut patient, mut guardian) = (Vec::new(), None, None);
    for bundle in plan.bundles() {
        for entry in bundle["entry"].as_array().into_iter().flatten() {
            let one = &entry["resource"];
            let id = || format!("{}/{}", one["resourceType"].as_str().unwrap_or(""), one["id"].as_str().unwrap_or(""));
            match one["resourceType"].as_str() {
                Some("Practitioner") => practitioners.push(id()),
                Some("Patient") if patient.is_none() => {
                    // Whoever was born before 2000 is grown up whenever the demonstration is made.
                    let grown_up = one["birthDate"].as_str().is_some_and(|born| born < "2000");
                    let general = one["generalPractitioner"][0]["reference"].as_str();
                    if let Some(general) = general.filter(|_| grown_up && one["deceasedDateTime"].is_null()) {
                        patient = Some((id(), general.to_owned()));
                    }
                }
                Some("RelatedPerson") if guardian.is_none() => guardian = Some(id()),
                _ => {}
            }
        }
        if patient.is_some() && guardian.is_some() {
            break;
        }
    }
    let (patient, practitioner) = patient.ok_or_else(|| Error::internal("a population without a grown-up patient"))?;
    if !practitioners.contains(&practitioner) {
        return Err(Error::internal("a population whose patient has no practitioner"));
    }
    Ok(Records { practitioner, patient, guardian })
}

/// The users as `demo.json` describes them, or new ones. Nothing is registered yet: the file is written first, so that an
/// interrupted start leaves no user behind whose password nobody knows.
pub fn users(described: &Node, plan: &Plan) -> Result<Vec<Node>> {
    if let Some(known) = described["users"].as_array().filter(|users| !users.is_empty()) {
        return Ok(known.clone());
    }
    let records = records(plan)?;
    let practitioner = Some(records.practitioner);
    let parts = [
        ("provider", Role::Provider, practitioner),
        ("nurse", Role::Nurse, None),
        ("receptionist", Role::Receptionist, None),
        ("staff", Role::Staff, None),
        ("admin", Role::Admin, None),
        ("patient", Role::Patient, Some(records.patient)),
        ("guardian", Role::Guardian, records.guardian),
    ];
    // In a small population there may be no child, and so nobody who answers for one.
    let parts = parts.into_iter().filter(|(_, role, record)| role.is_staff() || record.is_some());
    let described = parts.map(|(username, role, record)| {
        let mut user = json!({
            "username": username,
            "password": *random_password(),
            "role": role.name(),
        });
        if let Some(record) = record {
            user["fhirUser"] = json!(record);
        }
        if role.is_staff() {
            user["totp_secret"] = json!(totp::base32(&totp::secret()));
        }
        user
    });
    Ok(described.collect())
}

/// Adds the described users that are not there.
///
/// # Errors
/// What the server has against one.
pub async fn add_users(app: &App, described: &[Node]) -> Result<()> {
    for one in described {
        let text = |name: &str| one[name].as_str().map(str::to_owned);
        let username = text("username").unwrap_or_default();
        if app.oauth.users().get(&username).await?.is_some() {
            continue;
        }
        let role: Role = serde_json::from_value(one["role"].clone())
            .map_err(|e| Error::invalid(format!("demo.json: the user {username} has no role")).caused_by(e))?;
        let user = NewUser {
            username,
            role,
            fhir_user: text("fhirUser"),
            password: text("password").map(Zeroizing::new),
            totp_secret: text("totp_secret").and_then(|secret| totp::from_base32(&secret)),
            demo: true,
        };
        app.oauth.users().add(user).await?;
    }
    Ok(())
}

/// The clients for people's apps: those of `demo.json` that are registered, new ones for the rest. `sample_place` is where
/// the sample app is served, below the issuer.
///
/// # Errors
/// What the registry has against one.
pub async fn clients(app: &App, described: &Node, sample_place: &str) -> Result<Vec<Node>> {
    let known: Vec<&Node> = described["clients"].as_array().into_iter().flatten().skip(1).collect();
    let sample_uri = format!("{}{sample_place}", app.config.issuer());
    let tests = [
        ("Test app (public)", ClientKind::Public),
        ("Test app (secret)", ClientKind::ConfidentialSymmetric),
        ("Test app (key)", ClientKind::ConfidentialAsymmetric),
        ("Test EHR", ClientKind::Backend),
    ];
    let mut out = vec![sample_app(app, &known, &sample_uri).await?];
    for (name, kind) in tests {
        let before = known.iter().find(|one| one["name"] == name);
        match before {
            Some(one) if is_there(app, one).await? => out.push((*one).clone()),
            _ => out.push(add(app, test_client(name, kind)).await?),
        }
    }
    Ok(out)
}

async fn is_there(app: &App, described: &Node) -> Result<bool> {
    let id = described["client_id"].as_str().unwrap_or_default();
    Ok(app.oauth.clients().get(id).await?.is_some_and(|client| !client.disabled))
}

/// One that was registered for another address of the demonstration is disabled: its redirect URI leads nowhere now.
async fn sample_app(app: &App, known: &[&Node], uri: &str) -> Result<Node> {
    if let Some(one) = known.iter().find(|one| one["name"] == SAMPLE_NAME)
        && is_there(app, one).await?
    {
        if one["redirect_uris"][0] == uri {
            return Ok((*one).clone());
        }
        app.oauth.clients().disable(one["client_id"].as_str().unwrap_or_default()).await?;
    }
    let sample = NewClient {
        redirect_uris: vec![uri.to_owned()],
        launch_uri: Some(format!("{uri}launch.html")),
        scopes: SAMPLE_SCOPES.into(),
        ..blank(SAMPLE_NAME, ClientKind::Public)
    };
    add(app, sample).await
}

/// A client of the demonstration that may nothing yet.
pub(super) fn blank(name: &str, kind: ClientKind) -> NewClient {
    NewClient {
        client_id: None,
        name: name.into(),
        kind,
        scopes: String::new(),
        jwks: None,
        jwks_url: None,
        redirect_uris: Vec::new(),
        launch_uri: None,
        ehr: false,
        demo: true,
    }
}

fn test_client(name: &str, kind: ClientKind) -> NewClient {
    if kind == ClientKind::Backend {
        return NewClient { scopes: "system/*.rs".into(), ehr: true, ..blank(name, kind) };
    }
    NewClient {
        scopes: TEST_SCOPES.into(),
        redirect_uris: TEST_REDIRECTS.map(str::to_owned).to_vec(),
        launch_uri: Some(TEST_LAUNCH.into()),
        ..blank(name, kind)
    }
}

async fn add(app: &App, asked: NewClient) -> Result<Node> {
    let (name, launch_uri, ehr) = (asked.name.clone(), asked.launch_uri.clone(), asked.ehr);
    let mut out = credentials::add_client(app, &By::server(), asked).await?;
    if let Node::Object(members) = &mut out {
        // Stands once for all clients, beside them.
        members.shift_remove("token_url");
    }
    out["name"] = json!(name);
    if let Some(uri) = launch_uri {
        out["launch_uri"] = json!(uri);
    }
    if ehr {
        out["ehr"] = json!(true);
    }
    Ok(out)
}

/// A password that nobody chose: of all four classes, with some 120 random bits.
fn random_password() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 15]);
    crate::world::secret(&mut *bytes);
    let text = totp::base32(&*bytes);
    let (upper, lower) = text.split_at(12);
    Zeroizing::new(format!("{upper}-{}7z", lower.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::password;

    #[test]
    fn a_random_password_passes_the_rules() {
        for _ in 0..20 {
            let password = random_password();
            assert_eq!(password::check(&password, "ann"), Ok(()), "{}", *password);
        }
    }
}
