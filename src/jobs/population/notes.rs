//! Documents: DocumentReference with the text inline, or with a Binary that holds text or a one-page PDF.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::dice::Dice;
use super::people::Person;
use super::staff::Clinic;
use super::tables::Problem;
use super::visits::Visit;
use super::{LOINC, Node, concept};

/// LOINC code and display of the kinds of document.
const KINDS: &[(&str, &str)] = &[
    ("11506-3", "Progress note"),
    ("34133-9", "Summary of episode note"),
    ("57133-1", "Referral note"),
    ("11502-2", "Laboratory report"),
];

/// A DocumentReference, behind the Binary it refers to, if it does.
pub fn document(dice: &mut Dice, clinic: &Clinic, person: &Person, visit: &Visit, begun: &[&Problem]) -> Vec<Node> {
    let (code, display) = *dice.pick(KINDS);
    let text = note(person, visit, display, begun);
    let (content_type, body, inline) = match dice.below(4) {
        0 | 1 => ("text/plain; charset=utf-8", text.into_bytes(), true),
        2 => ("text/plain; charset=utf-8", text.into_bytes(), false),
        _ => ("application/pdf", pdf(&text), false),
    };
    let mut attachment = json!({"contentType": content_type, "language": "en-US"});
    let mut out = Vec::new();
    if inline {
        attachment["data"] = json!(STANDARD.encode(&body));
    } else {
        let id = dice.uuid();
        attachment["url"] = json!(format!("Binary/{id}"));
        out.push(json!({
            "resourceType": "Binary", "id": id, "contentType": content_type,
            "securityContext": {"reference": visit.patient["reference"]},
            "data": STANDARD.encode(&body),
        }));
    }
    attachment["size"] = json!(body.len());
    // `Attachment.hash` is defined as SHA-1; it guards against accidents only.
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &body);
    attachment["hash"] = json!(STANDARD.encode(hash.as_ref()));
    attachment["title"] = json!(format!("{display}, {}", visit.day));
    attachment["creation"] = json!(visit.end);
    out.push(json!({
        "resourceType": "DocumentReference", "id": dice.uuid(), "status": "current", "docStatus": "final",
        "type": concept(LOINC, code, display),
        "category": [concept("http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
                             "clinical-note", "Clinical Note")],
        "subject": visit.patient,
        "date": visit.end,
        "author": [visit.practitioner],
        "custodian": {"reference": format!("Organization/{}", clinic.organization)},
        "content": [{"attachment": attachment,
                     "format": {"system": "urn:ietf:bcp:13", "code": content_type.split(';').next()}}],
        "context": {"encounter": [{"reference": visit.encounter}],
                    "period": {"start": visit.start, "end": visit.end}},
    }));
    out
}

fn note(person: &Person, visit: &Visit, kind: &str, begun: &[&Problem]) -> String {
    let mut lines = vec![
        format!("{kind} of {}", visit.day),
        format!("Patient: {}, age {}", person.name(), person.age(visit.day)),
        format!("Seen by: {}", visit.practitioner["display"].as_str().unwrap_or_default()),
        String::new(),
    ];
    if begun.is_empty() {
        lines.push("Routine check-up. No new complaints. Examination without findings.".into());
    }
    for problem in begun {
        lines.push(format!("Assessment: {} (ICD-10-CM {}).", problem.display, problem.icd10));
        lines.push(match problem.chronic {
            true => "Plan: laboratory control in three months, medication reviewed with the patient.".into(),
            false => "Plan: symptomatic treatment; return if not better within ten days.".into(),
        });
    }
    lines.push(String::new());
    lines.push("This note is synthetic.".into());
    lines.join("\n")
}

/// A valid one-page PDF of the text; characters that the standard font has not become `?`.
fn pdf(text: &str) -> Vec<u8> {
    let mut page = String::from("BT /F1 11 Tf 14 TL 56 780 Td\n");
    for line in text.lines() {
        let safe: String = line.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        page += &format!("({}) Tj T*\n", safe.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)"));
    }
    page += "ET";
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{page}\nendstream", page.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut out = String::from("%PDF-1.4\n");
    let mut offsets = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out += &format!("{} 0 obj\n{object}\nendobj\n", number + 1);
    }
    let table = out.len();
    out += &format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for offset in offsets {
        out += &format!("{offset:010} 00000 n \n");
    }
    out += &format!("trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1);
    out.into_bytes()
}
