//! What the claims of an identity provider make of a person: role, own record, name, and whether a second factor was
//! used. Pure.

use std::fmt;

use serde_json::{Map, Value};

use crate::access::Role;
use crate::oauth::users::check_record;

pub type Claims = Map<String, Value>;

/// Which `amr` and `acr` show that a second factor was used.
pub struct Factor {
    pub amr: Vec<String>,
    pub acr: Vec<String>,
    /// Without one, this server asks for its own; else the login is refused.
    pub here: bool,
}

/// Whoever has one of these values in this claim is this.
pub struct Rule {
    pub claim: String,
    pub values: Vec<String>,
    pub role: Role,
    pub record: Option<Record>,
}

/// Where a person's own record is named: text with `{claim}` in it.
pub struct Record(Vec<Part>);

enum Part {
    Text(String),
    Claim(String),
}

/// Who somebody is here, by the provider's claims.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped {
    pub role: Role,
    pub fhir_user: Option<String>,
}

/// Why nobody comes of the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// No rule fits.
    Role,
    /// The record that the rule names cannot be told from the claims, or does not fit the role.
    Record,
}

/// A claim by its name, or by its place when that begins with a slash (RFC 6901).
pub fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    let Some(place) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = place.split_once('/').unwrap_or((place, ""));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    if rest.is_empty() { Some(first) } else { first.pointer(&format!("/{rest}")) }
}

/// The one text of a claim.
pub fn text(claims: &Claims, name: &str) -> Option<String> {
    match claim(claims, name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Whether a claim has one of these values, or has it among several.
fn has(claims: &Claims, name: &str, values: &[String]) -> bool {
    let is = |value: &Value| match value {
        Value::String(text) => values.contains(text),
        Value::Bool(value) => values.iter().any(|one| one == if *value { "true" } else { "false" }),
        _ => false,
    };
    match claim(claims, name) {
        Some(Value::Array(several)) => several.iter().any(is),
        Some(one) => is(one),
        None => false,
    }
}

/// What counts, as administrators read it.
impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = [("amr", &self.amr), ("acr", &self.acr)];
        let shown: Vec<String> = shown
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| format!("{name} {}", values.join(" or ")))
            .collect();
        match (shown.is_empty(), self.here) {
            (true, true) => f.write_str("this server asks for its own"),
            (true, false) => f.write_str("none counts: every login is refused"),
            (false, true) => write!(f, "{}; otherwise this server asks for its own", shown.join(", or ")),
            (false, false) => write!(f, "{}; otherwise the login is refused", shown.join(", or ")),
        }
    }
}

/// The rule as administrators read it: `groups is a or b: PROVIDER, Practitioner/{npi}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.claim, self.values.join(" or "), self.role.name())?;
        match &self.record {
            Some(record) => write!(f, ", {record}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Claim(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl Record {
    /// Reads the text and checks that what comes of it can fit the role.
    pub fn parse(text: &str, role: Role) -> Result<Record, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a brace is not closed")?;
            if name.is_empty() {
                return Err("the name of a claim is expected between the braces".to_owned());
            }
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(Part::Claim(name.to_owned()));
            rest = after;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        let record = Record(parts);
        // A claim that stands alone names the whole record; nothing can be told of it before a login.
        let alone = matches!(record.0.as_slice(), [Part::Claim(_)]);
        let sample = record.made(|_| Some("1".to_owned())).unwrap_or_default();
        if !alone {
            check_record(role, Some(&sample)).map_err(|error| error.to_string())?;
        }
        Ok(record)
    }

    fn made(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Claim(name) => out.push_str(&value(name)?),
            }
        }
        Some(out)
    }
}

/// Role and record by the first rule that fits. `base` is the FHIR base URL: a record may be named with it.
pub fn mapped(claims: &Claims, rules: &[Rule], base: &str) -> Result<Mapped, Unmapped> {
    let rule = rules.iter().find(|rule| has(claims, &rule.claim, &rule.values)).ok_or(Unmapped::Role)?;
    let fhir_user = match &rule.record {
        None => None,
        Some(record) => {
            let made = record.made(|name| text(claims, name)).ok_or(Unmapped::Record)?;
            let relative = made.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'));
            Some(relative.map_or_else(|| made.clone(), str::to_owned))
        }
    };
    check_record(rule.role, fhir_user.as_deref()).map_err(|_| Unmapped::Record)?;
    Ok(Mapped { role: rule.role, fhir_user })
}

impl Factor {
    /// Whether the token says that a second factor was used.
    pub fn is_shown(&self, claims: &Claims) -> bool {
        has(claims, "amr", &self.amr) || has(claims, "acr", &self.acr)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BASE: &str = "https://phial.example/fhir";

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    fn rule(claim: &str, values: &[&str], role: Role, record: &str) -> Rule {
        Rule {
            claim: claim.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            role,
            record: (!record.is_empty()).then(|| Record::parse(record, role).unwrap()),
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = [
            rule("cognito:groups", &["heads", "admins"], Role::Admin, ""),
            rule("/realm_access/roles", &["doctor"], Role::Provider, "Practitioner/{npi}"),
            rule("https://clinic.example/portal", &["true"], Role::Patient, "{fhirUser}"),
            rule("role", &["desk"], Role::Receptionist, ""),
        ];
        let ok = |role, record: Option<&str>| Ok(Mapped { role, fhir_user: record.map(str::to_owned) });
        for (value, expected) in [
            (json!({"cognito:groups": ["x", "admins"]}), ok(Role::Admin, None)),
            (json!({"cognito:groups": "heads", "role": "desk"}), ok(Role::Admin, None)),
            (json!({"realm_access": {"roles": ["doctor"]}, "npi": "77"}), ok(Role::Provider, Some("Practitioner/77"))),
            (json!({"realm_access": {"roles": ["doctor"]}, "npi": 77}), ok(Role::Provider, Some("Practitioner/77"))),
            (json!({"realm_access": {"roles": ["doctor"]}}), Err(Unmapped::Record)),
            (json!({"realm_access": {"roles": ["doctor"]}, "npi": "7/../8"}), Err(Unmapped::Record)),
            (json!({"realm_access": {"roles": ["doctor"]}, "npi": ["7"]}), Err(Unmapped::Record)),
            (json!({"realm_access": {"roles": ["Doctor"]}, "npi": "7"}), Err(Unmapped::Role)),
            (
                json!({"https://clinic.example/portal": true, "fhirUser": "https://phial.example/fhir/Patient/a"}),
                ok(Role::Patient, Some("Patient/a")),
            ),
            (
                json!({"https://clinic.example/portal": true, "fhirUser": "https://other.example/fhir/Patient/a"}),
                Err(Unmapped::Record),
            ),
            (json!({"https://clinic.example/portal": true, "fhirUser": "Practitioner/a"}), Err(Unmapped::Record)),
            (json!({"role": ["desk"]}), ok(Role::Receptionist, None)),
            (json!({"role": {"desk": true}}), Err(Unmapped::Role)),
            (json!({}), Err(Unmapped::Role)),
        ] {
            assert_eq!(mapped(&claims(value.clone()), &rules, BASE), expected, "{value}");
        }
    }

    #[test]
    fn records_must_fit_their_role() {
        for (text, role, good) in [
            ("Practitioner/{npi}", Role::Nurse, true),
            ("{fhirUser}", Role::Patient, true),
            ("Patient/{id}", Role::Patient, true),
            ("Patient/{id}", Role::Nurse, false),
            ("Practitioner/{id", Role::Nurse, false),
            ("Practitioner/{}", Role::Nurse, false),
            ("", Role::Nurse, false),
        ] {
            assert_eq!(Record::parse(text, role).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_second_factor_is_shown_by_amr_or_acr() {
        let factor = Factor { amr: vec!["mfa".into(), "otp".into()], acr: vec!["gold".into()], here: false };
        for (value, shown) in [
            (json!({"amr": ["pwd", "otp"]}), true),
            (json!({"amr": "mfa"}), true),
            (json!({"acr": "gold"}), true),
            (json!({"amr": ["pwd"], "acr": "silver"}), false),
            (json!({"amr": []}), false),
            (json!({}), false),
        ] {
            assert_eq!(factor.is_shown(&claims(value.clone())), shown, "{value}");
        }
        let none = Factor { amr: vec![], acr: vec![], here: true };
        assert!(!none.is_shown(&claims(json!({"amr": ["mfa"], "acr": "gold"}))));
    }
}
