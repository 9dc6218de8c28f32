//! Candidates and scores together, over synthetic patients of whom many were entered twice, with the mistakes that
//! people make at a desk.

use serde_json::{Value as Json, json};

use super::roads;
use crate::domain::likeness::{Grade, Likeness, grade};
use crate::search::testing::{indexed, kind, options};
use crate::search::values::Values;
use crate::search::{Criterion, Matcher, View, capsule};

/// Patients, and how many of them were entered a second time.
const PEOPLE: usize = 300;
const TWICE: usize = 200;

const FAMILIES: [&str; 24] = [
    "Abramson",
    "Becker",
    "Castillo",
    "Delgado",
    "Eriksson",
    "Fitzgerald",
    "Garcia Lopez",
    "Hoffmann",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "O'Connor",
    "Petrov",
    "Quintero",
    "Rossi",
    "Schneider",
    "Takahashi",
    "Underwood",
    "Vasquez",
    "Weber",
    "Zimmermann",
];
const GIVEN: [&str; 20] = [
    "Anna",
    "Bruno",
    "Clara",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Irene",
    "Jonas",
    "Katharina",
    "Leon",
    "Maria",
    "Nils",
    "Olivia",
    "Paul",
    "Rosa",
    "Stefan",
    "Teresa",
    "Victor",
];
const CITIES: [&str; 6] = ["Springfield", "Riverton", "Lakeside", "Hillview", "Brookdale", "Fairmont"];

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn person(dice: &mut Dice, n: usize) -> Json {
    json!({
        "resourceType": "Patient", "id": format!("p{n}"),
        "identifier": [{"system": "http://ids", "value": format!("{}", 100_000 + n * 7)}],
        "name": [{"family": dice.pick(&FAMILIES), "given": [dice.pick(&GIVEN)]}],
        "gender": if dice.chance(50) { "male" } else { "female" },
        "birthDate": format!("{}-{:02}-{:02}", 1930 + dice.below(90), 1 + dice.below(12), 1 + dice.below(28)),
        "telecom": [{"system": "phone", "value": format!("555-{:07}", dice.below(10_000_000))}],
        "address": [{"city": dice.pick(&CITIES), "postalCode": format!("{:05}", 10_000 + dice.below(400))}]
    })
}

/// One letter left out, doubled or exchanged with the next.
fn typo(dice: &mut Dice, text: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let at = dice.below(letters.len() - 1);
    match dice.below(3) {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, letters[at]),
        _ => letters.swap(at, at + 1),
    }
    letters.into_iter().collect()
}

/// The same person, entered again: without the number, with one mistake or two, and some things left out or changed.
fn again(dice: &mut Dice, person: &Json) -> Json {
    let mut copy = person.clone();
    let members = copy.as_object_mut().expect("an object");
    members.shift_remove("identifier");
    for _ in 0..1 + dice.below(2) {
        let name = &mut copy["name"][0];
        match dice.below(7) {
            0 => name["family"] = json!(typo(dice, person["name"][0]["family"].as_str().expect("a name"))),
            1 => name["given"][0] = json!(typo(dice, person["name"][0]["given"][0].as_str().expect("a name"))),
            2 => {
                let birth = person["birthDate"].as_str().expect("a date");
                let (year, month, day) = (&birth[..4], &birth[5..7], &birth[8..]);
                let legal = day.parse::<u8>().is_ok_and(|day| day <= 12);
                copy["birthDate"] = json!(if legal {
                    format!("{year}-{day}-{month}")
                } else {
                    format!("{year}-{month}-0{}", &day[1..]).replace("-00", "-01")
                });
            }
            3 => copy["telecom"][0]["value"] = json!(format!("555-{:07}", dice.below(10_000_000))),
            4 => {
                copy["address"][0] =
                    json!({"city": dice.pick(&CITIES), "postalCode": format!("{:05}", 20_000 + dice.below(400))})
            }
            5 => drop(copy.as_object_mut().expect("an object").shift_remove("telecom")),
            _ => copy["gender"] = json!("unknown"),
        }
    }
    copy
}

/// Scores of the patients that a search would find, by number.
fn found(asked: &Json, known: &[(Values, Vec<u8>)]) -> Vec<(usize, f64)> {
    let patient = kind("Patient");
    let values = indexed(&asked.to_string());
    let roads = roads(&values, patient, &options()).expect("something to be found by");
    let matcher = Matcher::new(vec![Criterion::AnyOf(roads)]).expect("resolved");
    let likeness =
        Likeness::of(patient, |param| values.params.get(&param).cloned().unwrap_or_default()).expect("known");
    let mut found = Vec::new();
    for (n, (_, bytes)) in known.iter().enumerate() {
        let view = View::new(bytes).expect("a capsule");
        if matcher.matches(&view).expect("decodes") {
            found.push((n, likeness.score(|param| view.param(param)).expect("a score")));
        }
    }
    found
}

#[test]
fn duplicates_are_found_and_others_are_not() {
    let mut dice = Dice(20_260_131);
    let people: Vec<Json> = (0..PEOPLE).map(|n| person(&mut dice, n)).collect();
    let known: Vec<(Values, Vec<u8>)> = people
        .iter()
        .map(|person| {
            let values = indexed(&person.to_string());
            let bytes = capsule::encode(&values);
            (values, bytes)
        })
        .collect();
    let (mut right, mut wrong, mut certain_right, mut certain_wrong, mut best) = (0, 0, 0, 0, 0);
    for (n, person) in people.iter().enumerate().take(TWICE) {
        let scores = found(&again(&mut dice, person), &known);
        let top = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| *at);
        best += usize::from(top == Some(n));
        for (at, score) in scores {
            match (grade(score), at == n) {
                (Some(Grade::Certain), true) => (right, certain_right) = (right + 1, certain_right + 1),
                (Some(Grade::Certain), false) => (wrong, certain_wrong) = (wrong + 1, certain_wrong + 1),
                (Some(Grade::Probable), true) => right += 1,
                (Some(Grade::Probable), false) => wrong += 1,
                _ => {}
            }
        }
    }
    // Nobody who was never entered is taken for somebody.
    let strangers = (0..100).map(|n| {
        let mut stranger = person(&mut dice, 5_000 + n);
        stranger.as_object_mut().expect("an object").shift_remove("identifier");
        found(&stranger, &known).into_iter().filter(|(_, score)| grade(*score) >= Some(Grade::Probable)).count()
    });
    let strangers: usize = strangers.sum();
    let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    let (precision, recall) = (percent(right, right + wrong), percent(right, TWICE));
    println!(
        "$match over {PEOPLE} patients, {TWICE} entered twice: probable or better: precision {precision:.1} %, recall {recall:.1} %; \
         certain: precision {:.1} %, recall {:.1} %; best of all: {:.1} %; strangers taken for somebody: {strangers} of 100",
        percent(certain_right, certain_right + certain_wrong),
        percent(certain_right, TWICE),
        percent(best, TWICE),
    );
    assert!(precision >= 98.0 && recall >= 90.0, "precision {precision:.1}, recall {recall:.1}");
    assert_eq!(certain_wrong, 0, "a certain match is nobody else");
    assert!(percent(certain_right, TWICE) >= 50.0 && percent(best, TWICE) >= 95.0 && strangers == 0);
}

#[test]
fn something_to_be_found_by_is_needed() {
    let of = |text: &str| roads(&indexed(text), kind("Patient"), &options()).map(|roads| roads.len());
    assert!(of(r#"{"resourceType":"Patient","gender":"male","birthDate":"1980-01-01"}"#).is_err());
    let whole = r#"{"resourceType":"Patient","birthDate":"1980-01-01","name":[{"family":"Blum","given":["Karl"]}],
        "identifier":[{"system":"s|,","value":"1"}],"telecom":[{"system":"email","value":"k@blum"}],"address":[{"postalCode":"1"}]}"#;
    assert_eq!(of(whole).ok(), Some(5));
}
