//! The clinic: organizations, locations, practitioners and who works where.

use serde_json::json;

use super::dice::Dice;
use super::tables::{CITIES, INSURERS, ORIGINS, SPECIALTIES};
use super::{Node, Plan, SNOMED, concept, reference};

/// Patients on one practitioner's panel; below the number of slots a day (`visits`), so that nobody is booked twice.
pub const PANEL_MAX: usize = 20;

pub struct Practitioner {
    pub id: String,
    pub name: String,
    resource: Node,
    role: Node,
}

pub struct Clinic {
    pub organization: String,
    pub location: String,
    pub practitioners: Vec<Practitioner>,
    places: Vec<Node>,
    /// Organization ids of the insurers, in the order of `tables::INSURERS`.
    pub insurers: Vec<String>,
}

impl Clinic {
    pub fn new(plan: &Plan) -> Clinic {
        let mut dice = Dice::new(plan.seed, &[1]);
        let (organization, location) = (dice.uuid(), dice.uuid());
        let mut places = vec![clinic_organization(&organization), clinic_location(&location, &organization)];
        let insurers: Vec<String> = INSURERS.iter().map(|_| dice.uuid()).collect();
        places.extend(insurers.iter().zip(INSURERS).map(|(id, name)| {
            json!({
                "resourceType": "Organization", "id": id, "active": true,
                "type": [concept("http://terminology.hl7.org/CodeSystem/organization-type", "pay", "Payer")],
                "name": name,
            })
        }));
        let count = plan.patients.div_ceil(PANEL_MAX).max(6);
        let practitioners = (0..count).map(|n| practitioner(&mut dice, n, &organization, &location)).collect();
        Clinic { organization, location, practitioners, places, insurers }
    }

    /// The practitioner on whose panel a patient is, and the patient's number there (below [`PANEL_MAX`]).
    pub fn panel(&self, patient: usize) -> (&Practitioner, usize) {
        let count = self.practitioners.len();
        (&self.practitioners[patient % count], patient / count)
    }

    pub fn resources(&self) -> Vec<Node> {
        let staff = self.practitioners.iter().flat_map(|one| [one.resource.clone(), one.role.clone()]);
        self.places.iter().cloned().chain(staff).collect()
    }
}

fn clinic_organization(id: &str) -> Node {
    json!({
        "resourceType": "Organization", "id": id, "active": true,
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": npi(199_000_001)}],
        "type": [concept("http://terminology.hl7.org/CodeSystem/organization-type", "prov", "Healthcare Provider")],
        "name": "Phial Demonstration Clinic",
        "alias": ["Clinique de démonstration"],
        "telecom": [{"system": "phone", "value": "+1 802 555 0100", "use": "work"}],
        "address": [{"use": "work", "line": ["1 Harbor View Drive"], "city": "Burlington", "state": "VT",
                     "postalCode": "05401", "country": "US"}],
    })
}

fn clinic_location(id: &str, organization: &str) -> Node {
    json!({
        "resourceType": "Location", "id": id, "status": "active", "name": "Examination rooms, first floor",
        "mode": "instance",
        "managingOrganization": {"reference": format!("Organization/{organization}")},
        "position": {"longitude": -73.2121, "latitude": 44.4759},
    })
}

fn practitioner(dice: &mut Dice, number: usize, organization: &str, location: &str) -> Practitioner {
    let origin = dice.pick(ORIGINS);
    let female = dice.chance(55);
    let given = *dice.pick(if female { origin.female } else { origin.male });
    let family = *dice.pick(origin.family);
    let id = dice.uuid();
    let (snomed, speciality, nucc, taxonomy) = *dice.pick(SPECIALTIES);
    let (city, state, zip) = *dice.pick(CITIES);
    let name = format!("Dr. {given} {family}");
    let mut resource = json!({
        "resourceType": "Practitioner", "id": id,
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": npi(100_000_000 + number as u64)}],
        "active": true,
        "name": [{"use": "official", "text": name, "family": family, "given": [given], "prefix": ["Dr."],
                  "suffix": ["MD"]}],
        "telecom": [
            {"system": "phone", "value": format!("+1 802 555 01{:02}", dice.below(100)), "use": "work"},
            {"system": "email", "value": format!("clinician{number}@clinic.example"), "use": "work"},
        ],
        "address": [{"use": "work", "line": ["1 Harbor View Drive"], "city": city, "state": state,
                     "postalCode": format!("{zip}01"), "country": "US"}],
        "gender": if female { "female" } else { "male" },
        "qualification": [{"code": concept("http://terminology.hl7.org/CodeSystem/v2-0360|2.7", "MD",
                                           "Doctor of Medicine")}],
    });
    if let Some((tag, display)) = origin.language {
        resource["communication"] = json!([concept("urn:ietf:bcp:47", tag, display)]);
    }
    let role = json!({
        "resourceType": "PractitionerRole", "id": dice.uuid(), "active": true,
        "practitioner": reference(&format!("Practitioner/{id}"), &name),
        "organization": reference(&format!("Organization/{organization}"), "Phial Demonstration Clinic"),
        "code": [concept("http://nucc.org/provider-taxonomy", nucc, taxonomy)],
        "specialty": [concept(SNOMED, snomed, speciality)],
        "location": [{"reference": format!("Location/{location}")}],
        "availableTime": [{"daysOfWeek": ["mon", "tue", "wed", "thu", "fri"],
                           "availableStartTime": "08:00:00", "availableEndTime": "16:00:00"}],
    });
    Practitioner { id, name, resource, role }
}

/// A number of the form of an NPI: nine digits and the Luhn check digit over them behind the prefix 80840.
fn npi(nine: u64) -> String {
    let digits = format!("80840{nine:09}");
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0') * if place % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    format!("{nine:09}{}", (10 - sum % 10) % 10)
}

#[cfg(test)]
mod tests {
    use super::npi;

    #[test]
    fn the_check_digit_of_an_npi_is_that_of_the_published_example() {
        // The example of the NPI check digit specification: 123456789 has check digit 3.
        assert_eq!(npi(123_456_789), "1234567893");
    }
}
