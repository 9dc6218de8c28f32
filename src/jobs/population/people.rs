//! Households and the people in them: Patient, Coverage and, for children, the RelatedPerson who answers for them.

use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::json;

use super::dice::Dice;
use super::staff::Clinic;
use super::tables::{ALLERGIES, CITIES, INSURERS, ORIGINS, Origin, STREETS};
use super::{Node, Plan, SNOMED, concept, reference, visits};

/// People at one address, adults first.
pub struct Household {
    pub members: Vec<Person>,
    address: Node,
    insurer: usize,
    group: u64,
}

pub struct Person {
    pub id: String,
    pub given: &'static str,
    middle: Option<&'static str>,
    pub family: &'static str,
    born_as: Option<&'static str>,
    pub female: bool,
    pub birth: Date,
    pub died: Option<Date>,
    origin: &'static Origin,
    /// Position among the household's adults' children; None: an adult.
    child: bool,
}

impl Person {
    pub fn name(&self) -> String {
        format!("{} {}", self.given, self.family)
    }

    /// Completed years at `day`.
    pub fn age(&self, day: Date) -> i64 {
        let had_birthday = (day.month(), day.day()) >= (self.birth.month(), self.birth.day());
        i64::from(day.year()) - i64::from(self.birth.year()) - i64::from(!had_birthday)
    }
}

impl Household {
    pub fn new(plan: &Plan, number: u64) -> Household {
        let mut dice = Dice::new(plan.seed, &[2, number]);
        let origin = dice.pick(ORIGINS);
        let family = *dice.pick(origin.family);
        let head_age = *dice.pick(&[22, 27, 31, 34, 36, 38, 41, 44, 47, 52, 57, 61, 66, 70, 74, 79, 84, 90]);
        let size = *dice.pick(&[1, 1, 1, 2, 2, 2, 3, 4, 4, 5]);
        let children = if (27..=52).contains(&head_age) { (size - 2).max(0) } else { 0 };
        let mut members = vec![person(&mut dice, plan.today, origin, family, head_age)];
        if size > 1 {
            let other = if dice.chance(70) { origin } else { dice.pick(ORIGINS) };
            let born_as = *dice.pick(other.family);
            let takes_name = dice.chance(60);
            let age = head_age + dice.between(-5, 5);
            let name = if takes_name { family } else { born_as };
            let mut partner = person(&mut dice, plan.today, other, name, age.max(20));
            partner.born_as = (takes_name && born_as != family).then_some(born_as);
            members.push(partner);
        }
        for _ in 0..children {
            let age = dice.between(0, (head_age - 22).min(17));
            let mut child = person(&mut dice, plan.today, origin, family, age);
            child.child = true;
            members.push(child);
        }
        let (city, state, zip) = *dice.pick(CITIES);
        let mut line = vec![format!("{} {}", dice.between(1, 980), dice.pick(STREETS))];
        if dice.chance(25) {
            line.push(format!("Apt {}", dice.between(1, 40)));
        }
        let address = json!({"use": "home", "type": "both", "line": line, "city": city, "state": state,
                             "postalCode": format!("{zip}{:02}", dice.between(1, 99)), "country": "US"});
        Household { members, address, insurer: dice.below(INSURERS.len() as u64) as usize, group: dice.below(9000) }
    }

    /// Everything about one member: `patient` is the patient's number in the whole population.
    pub fn resources(&self, plan: &Plan, clinic: &Clinic, member: usize, patient: usize) -> Vec<Node> {
        let mut dice = Dice::new(plan.seed, &[3, patient as u64]);
        let person = &self.members[member];
        let mut out = vec![self.patient(&mut dice, clinic, member, patient), self.coverage(&mut dice, clinic, member)];
        if person.child {
            out.push(self.guardian(&mut dice, person));
        }
        if dice.chance(22) {
            out.push(allergy(&mut dice, person, plan.today));
        }
        out.extend(visits::care(&mut dice, plan, clinic, person, patient));
        out
    }

    fn patient(&self, dice: &mut Dice, clinic: &Clinic, member: usize, number: usize) -> Node {
        let person = &self.members[member];
        let (practitioner, _) = clinic.panel(number);
        let gender = if dice.chance(2) { "other" } else { gender(person.female) };
        let mut patient = json!({
            "resourceType": "Patient", "id": person.id,
            "meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST",
                                   "display": "test health data"}]},
            "text": narrative(&format!("{}, born {}", person.name(), person.birth)),
            "extension": [{"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex",
                           "valueCode": if person.female { "F" } else { "M" }}],
            "identifier": [
                {"use": "official", "type": concept(IDENTIFIER_TYPE, "SS", "Social Security number"),
                 "system": "http://hl7.org/fhir/sid/us-ssn", "value": ssn(number)},
                {"use": "secondary", "type": concept(IDENTIFIER_TYPE, "MB", "Member Number"),
                 "system": "https://insurance.example/member", "value": self.member_id(member)},
            ],
            "active": person.died.is_none(),
            "name": person.names(),
            "telecom": self.telecom(dice, person),
            "gender": gender,
            "birthDate": person.birth.to_string(),
        });
        if person.child {
            let time = format!("{}T{:02}:{:02}:00-05:00", person.birth, dice.below(24), dice.below(60));
            patient["_birthDate"] = json!({"extension": [
                {"url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime", "valueDateTime": time}]});
        }
        if let Some(day) = person.died {
            patient["deceasedDateTime"] = json!(day.to_string());
        }
        patient["address"] = json!([self.address]);
        if !person.child {
            patient["maritalStatus"] = marital(self.members.len() > 1, dice);
        }
        if let Some(contact) = self.contact(member) {
            patient["contact"] = json!([contact]);
        }
        patient["communication"] = person.languages(dice);
        patient["generalPractitioner"] =
            json!([reference(&format!("Practitioner/{}", practitioner.id), &practitioner.name)]);
        patient["managingOrganization"] = json!({"reference": format!("Organization/{}", clinic.organization)});
        patient
    }

    fn telecom(&self, dice: &mut Dice, person: &Person) -> Node {
        let area = *dice.pick(&[802, 603, 207, 413, 401, 860, 518]);
        let mut telecom = vec![json!({"system": "phone", "use": if person.child { "home" } else { "mobile" },
                                      "rank": 1, "value": format!("+1 {area} 555 01{:02}", dice.below(100))})];
        if !person.child && dice.chance(80) {
            let host = *dice.pick(&["example.com", "example.net", "example.org"]);
            let local = ascii(&format!("{}.{}", person.given, person.family));
            telecom.push(json!({"system": "email", "use": "home", "value": format!("{local}{}@{host}", person.birth.year() % 100)}));
        }
        Node::Array(telecom)
    }

    /// Who to call: for a child a parent, for a partner the other one.
    fn contact(&self, member: usize) -> Option<Node> {
        let other = self.members.get(usize::from(member == 0)).filter(|_| self.members.len() > 1)?;
        let (code, display) = match (self.members[member].child, other.female) {
            (true, true) => ("MTH", "mother"),
            (true, false) => ("FTH", "father"),
            (false, _) => ("SPS", "spouse"),
        };
        Some(json!({
            "relationship": [concept("http://terminology.hl7.org/CodeSystem/v3-RoleCode", code, display)],
            "name": {"family": other.family, "given": [other.given]},
            "telecom": [{"system": "phone", "value": format!("+1 802 555 01{:02}", self.group % 100)}],
            "gender": gender(other.female),
        }))
    }

    fn member_id(&self, member: usize) -> String {
        let letters: String = INSURERS[self.insurer].split(' ').filter_map(|word| word.chars().next()).collect();
        format!("{letters}{:04}{:05}-{:02}", self.group, self.members[0].birth.day_of_year(), member + 1)
    }

    fn coverage(&self, dice: &mut Dice, clinic: &Clinic, member: usize) -> Node {
        let person = &self.members[member];
        let relationship = match (member, person.child) {
            (0, _) => "self",
            (_, true) => "child",
            (_, false) => "spouse",
        };
        json!({
            "resourceType": "Coverage", "id": dice.uuid(), "status": "active",
            "subscriber": reference(&format!("Patient/{}", self.members[0].id), &self.members[0].name()),
            "subscriberId": self.member_id(0),
            "beneficiary": reference(&format!("Patient/{}", person.id), &person.name()),
            "relationship": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/subscriber-relationship",
                                         "code": relationship}]},
            "period": {"start": format!("{}-01-01", 2018 + dice.below(7))},
            "payor": [reference(&format!("Organization/{}", clinic.insurers[self.insurer]), INSURERS[self.insurer])],
            "class": [{"type": concept("http://terminology.hl7.org/CodeSystem/coverage-class", "group", "Group"),
                       "value": format!("{:04}", self.group)}],
        })
    }

    fn guardian(&self, dice: &mut Dice, child: &Person) -> Node {
        let parent = &self.members[0];
        let (code, display) = if parent.female { ("MTH", "mother") } else { ("FTH", "father") };
        json!({
            "resourceType": "RelatedPerson", "id": dice.uuid(), "active": true,
            "patient": reference(&format!("Patient/{}", child.id), &child.name()),
            "relationship": [concept("http://terminology.hl7.org/CodeSystem/v3-RoleCode", "GUARD", "guardian"),
                             concept("http://terminology.hl7.org/CodeSystem/v3-RoleCode", code, display)],
            "name": [{"use": "official", "family": parent.family, "given": [parent.given]}],
            "telecom": [{"system": "phone", "value": format!("+1 802 555 01{:02}", self.group % 100)}],
            "gender": gender(parent.female),
            "birthDate": parent.birth.to_string(),
            "address": [self.address],
        })
    }
}

const IDENTIFIER_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";

fn person(dice: &mut Dice, today: Date, origin: &'static Origin, family: &'static str, age: i64) -> Person {
    let female = dice.chance(51);
    let given = if female { origin.female } else { origin.male };
    let days = age * 365 + age / 4 + dice.between(1, 360);
    let birth = today.saturating_sub(days.days());
    let died = (age > 74 && dice.chance(15)).then(|| today.saturating_sub(dice.between(30, 900).days()));
    let (first, second) = (*dice.pick(given), *dice.pick(given));
    Person {
        id: dice.uuid(),
        given: first,
        middle: (second != first && dice.chance(40)).then_some(second),
        family,
        born_as: None,
        female,
        birth,
        died,
        origin,
        child: false,
    }
}

impl Person {
    fn names(&self) -> Node {
        let given: Vec<&str> = std::iter::once(self.given).chain(self.middle).collect();
        let official = json!({"use": "official", "text": self.name(), "family": self.family, "given": given});
        match self.born_as {
            Some(maiden) => json!([official, {"use": "maiden", "family": maiden, "given": [self.given]}]),
            None => json!([official]),
        }
    }

    fn languages(&self, dice: &mut Dice) -> Node {
        let english = json!({"language": concept("urn:ietf:bcp:47", "en", "English")});
        match self.origin.language {
            Some((tag, display)) if dice.chance(60) => {
                json!([{"language": concept("urn:ietf:bcp:47", tag, display), "preferred": true}, english])
            }
            _ => json!([english]),
        }
    }
}

fn gender(female: bool) -> &'static str {
    if female { "female" } else { "male" }
}

fn marital(partnered: bool, dice: &mut Dice) -> Node {
    let (code, display) = match partnered {
        true => ("M", "Married"),
        false => *dice.pick(&[("S", "Never Married"), ("D", "Divorced"), ("W", "Widowed")]),
    };
    concept("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", code, display)
}

/// A number in the form of an SSN from the 9xx range, which is never issued as one (nor, with this middle group, as
/// a taxpayer number).
fn ssn(patient: usize) -> String {
    format!("9{:02}-{:02}-{:04}", patient / 490_000 % 100, patient / 10_000 % 49 + 1, patient % 10_000)
}

/// Generated narrative of one line.
fn narrative(line: &str) -> Node {
    json!({"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>{line}</p></div>")})
}

/// Lower case ASCII letters and dots of a name, for a mail address.
fn ascii(name: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    name.nfd().filter(|c| c.is_ascii_alphabetic() || *c == '.').collect::<String>().to_ascii_lowercase()
}

fn allergy(dice: &mut Dice, person: &Person, today: Date) -> Node {
    let (code, display, category, reaction, manifestation) = *dice.pick(ALLERGIES);
    json!({
        "resourceType": "AllergyIntolerance", "id": dice.uuid(),
        "clinicalStatus": concept("http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active", "Active"),
        "verificationStatus": concept("http://terminology.hl7.org/CodeSystem/allergyintolerance-verification", "confirmed",
                                      "Confirmed"),
        "type": "allergy", "category": [category],
        "criticality": *dice.pick(&["low", "high", "unable-to-assess"]),
        "code": concept(SNOMED, code, display),
        "patient": reference(&format!("Patient/{}", person.id), &person.name()),
        "recordedDate": today.saturating_sub(dice.between(10, 200).days()).to_string(),
        "reaction": [{"manifestation": [concept(SNOMED, reaction, manifestation)],
                      "severity": *dice.pick(&["mild", "moderate", "severe"])}],
    })
}
