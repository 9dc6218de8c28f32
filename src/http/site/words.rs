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

/// A time of the log of a person's own: `2026-01-31 08:15 UTC`.
pub(super) fn time(ms: i64) -> String {
    let text = crate::world::Instant(ms).to_fhir();
    format!("{} {} UTC", &text[..10], &text[11..16])
}
