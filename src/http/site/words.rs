//! Words for people: what a resource type or a scope is called on a page.

/// Types whose name says too little to people who do not know FHIR.
const NAMES: &[(&str, &str)] = &[
    ("AllergyIntolerance", "Allergies"),
    ("Appointment", "Appointments"),
    ("Binary", "Attached files"),
    ("CarePlan", "Care plans"),
    ("CareTeam", "Care teams"),
    ("Condition", "Diagnoses and problems"),
    ("Coverage", "Insurance"),
    ("Device", "Devices"),
    ("DiagnosticReport", "Reports"),
    ("DocumentReference", "Documents and notes"),
    ("Encounter", "Visits"),
    ("Goal", "Goals"),
    ("Immunization", "Vaccinations"),
    ("Location", "Places"),
    ("Medication", "Medications"),
    ("MedicationDispense", "Medications handed out"),
    ("MedicationRequest", "Prescriptions"),
    ("MedicationStatement", "Medications taken"),
    ("Observation", "Measurements and results"),
    ("Organization", "Organizations"),
    ("Patient", "Personal data (name, birth date, contact)"),
    ("Practitioner", "Clinicians"),
    ("PractitionerRole", "Clinicians' roles"),
    ("Procedure", "Procedures"),
    ("Provenance", "Origin of records"),
    ("QuestionnaireResponse", "Answers to questionnaires"),
    ("RelatedPerson", "Related persons"),
    ("ServiceRequest", "Orders"),
    ("Specimen", "Specimens"),
];

/// What a type is called; its own name where there is no better one.
pub(super) fn kind(name: &str) -> &str {
    NAMES.iter().find(|(own, _)| *own == name).map_or(name, |(_, words)| words)
}

/// "read, search and change".
pub(super) fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// What a purpose of use is called.
pub(super) fn purpose(code: &str) -> String {
    match code {
        "ETREAT" => "emergency treatment".to_owned(),
        "BTG" => "break the glass".to_owned(),
        other => other.to_owned(),
    }
}

/// What an interaction of the audit trail is called.
pub(super) fn access(what: &str) -> &str {
    match what {
        "read" | "vread" => "read",
        "search-type" | "search-system" => "found by a search",
        "history-instance" | "history-type" | "history-system" => "history read",
        "create" => "created",
        "update" | "patch" => "changed",
        "delete" => "deleted",
        "operation" => "read by an operation",
        "token-issued" => "token given",
        other => other,
    }
}

/// A time of the log of a person's own: `2026-01-31 08:15 UTC`.
pub(super) fn time(ms: i64) -> String {
    let text = crate::world::Instant(ms).to_fhir();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

/// What a browser calls itself, as people know it: `Firefox on Windows`. Its own words are long, and lie for history's sake:
/// the order of these lists is what tells them apart.
pub(super) fn browser(agent: &str) -> String {
    const BROWSERS: &[(&str, &str)] = &[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("FxiOS/", "Firefox"),
        ("Firefox/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("HeadlessChrome/", "Chrome without a window"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: &[(&str, &str)] = &[
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "Mac"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let of = |list: &[(&str, &'static str)]| list.iter().find(|(sign, _)| agent.contains(sign)).map(|(_, name)| *name);
    match (of(BROWSERS), of(SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "Unknown browser".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        let webkit = "AppleWebKit/537.36 (KHTML, like Gecko)";
        for (agent, name) in [
            (
                format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/131.0.0.0 Safari/537.36"),
                "Chrome on Windows",
            ),
            (
                format!("Mozilla/5.0 (Windows NT 10.0) {webkit} Chrome/131.0.0.0 Safari/537.36 Edg/131.0"),
                "Edge on Windows",
            ),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0".into(), "Firefox on Linux"),
            (
                format!("Mozilla/5.0 (Linux; Android 14) {webkit} Chrome/131.0 Mobile Safari/537.36"),
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Mobile Safari/604.1".into(),
                "Safari on iPhone",
            ),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17.5 Safari/605.1.15".into(), "Safari on Mac"),
            ("curl/8.5.0".into(), "curl"),
            ("something".into(), "Unknown browser"),
            (String::new(), "Unknown browser"),
        ] {
            assert_eq!(browser(&agent), name);
        }
    }
}
