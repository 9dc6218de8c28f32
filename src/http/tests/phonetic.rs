//! Names that sound alike, on both databases: what is found, what is refused, and what narrows in the database.

use serde_json::{Value, json};

use super::parameters::{both, clean, define, defined, finish, ids};
use super::{Persona, observation};
use crate::interaction::form;

fn named(of: &str, id: &str, family: &str, given: &[&str]) -> Value {
    let mut made =
        json!({"resourceType": of, "id": id, "name": [{"family": family, "given": given, "prefix": ["Doctor"]}]});
    if of == "RelatedPerson" {
        made["patient"] = json!({"reference": "Patient/smith"});
    }
    made
}

async fn people(backend: &Persona<'_>) {
    let nameless = json!({"resourceType": "Patient", "id": "nameless", "name": [{"prefix": ["Doctor"]}]});
    let spoken =
        json!({"resourceType": "Patient", "id": "spoken", "name": [{"text": "Chris Meier"}, {"family": "Jones"}]});
    let mut of_ward = named("Patient", "ward", "Okonkwo", &[]);
    of_ward["managingOrganization"] = json!({"reference": "Organization/mayo"});
    for resource in [
        json!({"resourceType": "Organization", "id": "mayo", "name": "Mayo Clinic"}),
        json!({"resourceType": "InsurancePlan", "id": "plan", "name": "Keyser"}),
        named("Patient", "smith", "Smith", &["John"]),
        named("Patient", "schmidt", "Schmidt", &["Peter"]),
        named("Patient", "obrien", "O'Brien", &["Catherine"]),
        named("Patient", "christina", "Müller", &["Christina"]),
        named("Patient", "christopher", "van Dyke", &["Christopher"]),
        spoken,
        nameless,
        of_ward,
        named("Practitioner", "smyth", "Smyth", &[]),
        named("Person", "schmitt", "Schmitt", &[]),
        named("RelatedPerson", "smithe", "Smithe", &[]),
        observation("seen", "smith", "1"),
    ] {
        let address = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        let reply = backend.put(&address, &resource).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

/// Type, query, what it finds.
const FOUND: &[(&str, &str, &str)] = &[
    ("Patient", "phonetic=Smyth", "schmidt smith"),
    ("Patient", "phonetic=SMYTHE,katherine", "obrien schmidt smith"),
    ("Patient", "phonetic=Smyth&phonetic=jon", "smith"),
    ("Patient", "phonetic=Jon Smyth", "smith"),
    ("Patient", "phonetic=Peter Jones", ""),
    // All words are of one name.
    ("Patient", "phonetic=Meyer Jones", ""),
    ("Patient", "phonetic=Kris Meyer", "spoken"),
    ("Patient", "phonetic=Obryan", "obrien"),
    ("Patient", "phonetic=Mueler", "christina"),
    // The class of both narrows, the whole code decides.
    ("Patient", "phonetic=Kristina", "christina"),
    ("Patient", "phonetic=Kristofer", "christopher"),
    ("Patient", "phonetic=Vandike", "christopher"),
    // What stands before a name is none.
    ("Patient", "phonetic=doctor", ""),
    ("Patient", "phonetic:missing=true", "nameless"),
    ("Patient", "phonetic:missing=false&phonetic=obrien", "obrien"),
    ("Practitioner", "phonetic=Smith", "smyth"),
    ("Person", "phonetic=Smith", "schmitt"),
    ("RelatedPerson", "phonetic=Smith", "smithe"),
    ("Organization", "phonetic=mayoh", "mayo"),
    ("Organization", "phonetic=klinik", "mayo"),
    ("InsurancePlan", "phonetic=Kaiser", "plan"),
    ("Observation", "subject:Patient.phonetic=Smyth", "seen"),
    ("Observation", "patient.phonetic=Meyer", ""),
    ("Patient", "organization.phonetic=Maio", "ward"),
    ("Organization", "_has:Patient:organization:phonetic=Okonqwo", "mayo"),
    ("Patient", "_has:RelatedPerson:patient:phonetic=Smyth", "smith"),
    ("Patient", "_filter=phonetic eq Smyth", "schmidt smith"),
    ("Patient", "_filter=phonetic eq \"Jon Smyth\"", "smith"),
    ("Patient", "_filter=phonetic pr false", "nameless"),
    ("Patient", "_filter=phonetic ne Meier and not(phonetic ne Jones)", ""),
    ("Patient", "_filter=phonetic eq Meier and phonetic ne Meier", "spoken"),
];

const REFUSED: &[(&str, &str)] = &[
    ("phonetic:exact=Smith", "takes :missing"),
    ("phonetic:contains=Smith", "takes :missing"),
    ("phonetic:text=Smith", "takes :missing"),
    ("phonetic=--", "letter or digit"),
    ("_sort=phonetic", "family"),
    ("_sort=-phonetic", "family"),
    ("_filter=phonetic co Smi", "does not apply"),
    ("_filter=phonetic sw Smi", "does not apply"),
    ("_filter=phonetic ew Smi", "does not apply"),
];

async fn refused(backend: &Persona<'_>, query: &str, says: &str) {
    let pairs = query.split_once('=').map(|(name, value)| [(name.to_owned(), value.to_owned())]).unwrap();
    let reply = backend.get(&format!("Patient?{}", form::encode(&pairs))).await;
    assert!(reply.status == 400 && reply.text().contains(says), "{query}: {} {}", reply.status, reply.text());
}

#[tokio::test]
async fn names_are_found_by_their_sound() {
    for app in both().await {
        let backend = app.persona("system/*.cruds").await;
        people(&backend).await;
        for (of, query, expected) in FOUND {
            assert_eq!(ids(&backend, of, query).await.join(" "), *expected, "{of}?{query}");
        }
        for (query, says) in REFUSED {
            refused(&backend, query, says).await;
        }
        let renamed = named("Patient", "smith", "Jones", &["John"]);
        assert_eq!(backend.put("Patient/smith", &renamed).await.status, 200);
        assert_eq!(ids(&backend, "Patient", "phonetic=Smyth").await, ["schmidt"]);
        assert_eq!(ids(&backend, "Patient", "phonetic=Joans").await, ["smith", "spoken"]);
        clean(&app).await;
    }
}

/// Terms narrow among patients; of others the capsules alone decide.
#[tokio::test]
async fn explanations_say_what_narrows() {
    let [app, _] = both().await;
    let backend = app.persona("system/*.cruds").await;
    people(&backend).await;
    for (of, query, narrowed, candidates) in [
        ("Patient", "phonetic=Smyth", "terms", 2),
        // Christopher has a term of Christina too, and so has Chris Meier.
        ("Patient", "phonetic=Kristina", "terms", 3),
        ("Patient", "phonetic:missing=true", "nothing", 8),
        ("Practitioner", "phonetic=Smith", "nothing", 1),
    ] {
        let explained = backend.get(&format!("{of}/$explain?{query}")).await.json();
        let parts = explained["parameter"].as_array().unwrap().iter().find(|one| one["name"] == "plan").unwrap();
        let part = |name: &str| parts["part"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        assert_eq!(part("narrowedBy")["valueCode"], narrowed, "{query}: {explained}");
        assert_eq!(part("candidates")["valueUnsignedInt"], candidates, "{query}: {explained}");
    }
    let statement = backend.get("metadata").await.json();
    let of = statement["rest"][0]["resource"].as_array().unwrap().iter().find(|one| one["type"] == "Patient").unwrap();
    let stated = of["searchParam"].as_array().unwrap().iter().find(|one| one["name"] == "phonetic").unwrap();
    assert_eq!(stated["type"], "string");
    assert!(stated["documentation"].as_str().unwrap().contains("Double Metaphone"), "{stated}");
}

/// A parameter of the site whose use is phonetic does the same.
#[tokio::test]
async fn a_site_may_compare_by_sound_too() {
    for app in both().await {
        let backend = app.persona("system/*.cruds").await;
        people(&backend).await;
        let mut heard = defined("heard", "Patient", "string", "Patient.name.given");
        heard["xpathUsage"] = json!("phonetic");
        heard["modifier"] = json!(["missing"]);
        define(&backend, &heard).await;
        finish(&app).await;
        for (query, expected) in [
            ("heard=Jon", "smith"),
            ("heard=Smyth", ""),
            ("heard:missing=true", "nameless spoken ward"),
            ("_filter=heard eq Kathryn", "obrien"),
        ] {
            assert_eq!(ids(&backend, "Patient", query).await.join(" "), expected, "{query}");
        }
        for query in ["heard:exact=John", "_sort=heard", "_filter=heard co Jo"] {
            refused(&backend, query, "heard").await;
        }
        let mut exact = defined("exactly", "Patient", "string", "Patient.name.given");
        exact["xpathUsage"] = json!("phonetic");
        exact["modifier"] = json!(["exact"]);
        let mut date = defined("day", "Patient", "date", "Patient.birthDate");
        date["xpathUsage"] = json!("phonetic");
        // The standard's name, and its expression, but not its meaning.
        let plain = defined("phonetic", "Patient", "string", "Patient.name");
        for (parameter, place) in [
            (&exact, "SearchParameter.modifier[0]"),
            (&date, "SearchParameter.xpathUsage"),
            (&plain, "SearchParameter.code"),
        ] {
            let reply = backend.post("SearchParameter", parameter).await;
            assert!(reply.status == 422 && reply.text().contains(place), "{place}: {}", reply.text());
        }
        clean(&app).await;
    }
}
