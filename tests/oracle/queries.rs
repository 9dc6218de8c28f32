//! Random queries, made of values that are there, of their variations, and of some that are not.

use phial::fhir::definitions::Param;
use phial::fhir::reference::Reference;
use phial::fhir::{ParamKind, TypeId, definitions};
use phial::mapping::{self, Treatment};
use phial::search::values::{Value, Values};
use phial::world::Instant;

use super::Pairs;
use super::population::{CODE_SYSTEM, FAMILIES, GIVENS, value_set_url};
use super::random::Random;
use super::truth::Truth;

const UCUM: &str = "http://unitsofmeasure.org";
const PREFIXES: [&str; 10] = ["", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"];

/// A type and a query that is valid for it.
pub fn make(random: &mut Random, truth: &Truth) -> (&'static str, Pairs) {
    if random.chance(4) {
        return inside(random, truth);
    }
    let kinds = truth.kinds();
    let kind = *random.pick(&kinds);
    let mut pairs = Pairs::new();
    for _ in 0..[0, 1, 1, 1, 2, 2, 3][random.below(7)] {
        pairs.extend(criterion(random, truth, kind, 0));
    }
    results(random, truth, kind, &mut pairs);
    (definitions().type_name(kind), pairs)
}

/// A search with `_contained`, for a type of which something is contained.
fn inside(random: &mut Random, truth: &Truth) -> (&'static str, Pairs) {
    let all: Vec<(TypeId, Vec<Values>)> = truth.contained().into_iter().collect();
    let (kind, values) = random.pick(&all);
    let mut pairs = vec![("_contained".to_owned(), (*random.pick(&["true", "both"])).to_owned())];
    if random.chance(60) {
        pairs.push(("_containedType".to_owned(), (*random.pick(&["container", "contained"])).to_owned()));
    }
    for _ in 0..[0, 1, 1, 1, 2][random.below(5)] {
        pairs.extend(match random.below(4) {
            0 => criterion(random, truth, *kind, 0),
            _ => of_values(random, truth, *kind, values),
        });
    }
    if random.chance(70) {
        pairs.push(("_count".to_owned(), [2, 7, 20, 100][random.below(4)].to_string()));
    }
    match random.below(5) {
        0 => pairs.push(("_total".to_owned(), "accurate".to_owned())),
        1 => pairs.push(("_summary".to_owned(), "count".to_owned())),
        _ => {}
    }
    (definitions().type_name(*kind), pairs)
}

pub fn show(kind: &str, pairs: &Pairs) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{kind}?{}", pairs.join("&"))
}

/// `application/x-www-form-urlencoded`, also good for a url.
pub fn encode(pairs: &Pairs) -> String {
    let one = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", one(name), one(value))).collect();
    pairs.join("&")
}

pub fn decode(query: &str) -> Pairs {
    let one = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.bytes());
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => {
                    let hex: Vec<u8> = rest.by_ref().take(2).collect();
                    let hex = std::str::from_utf8(&hex).expect("hex digits");
                    bytes.push(u8::from_str_radix(hex, 16).expect("hex digits"));
                }
                b'+' => bytes.push(b' '),
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).expect("UTF-8")
    };
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(name, value)| (one(name), one(value)))
        .collect()
}

fn searchable(truth: &Truth, kind: TypeId) -> Vec<&'static Param> {
    let known = |param: &&Param| {
        param.kind != ParamKind::Special
            && param.text(kind).is_some()
            && !matches!(mapping::treatment(kind, param.id), Treatment::Refused { .. })
    };
    truth.params(kind).into_iter().filter(known).collect()
}

fn criterion(random: &mut Random, truth: &Truth, kind: TypeId, depth: usize) -> Option<(String, String)> {
    match random.below(16) {
        12 => filter(random, truth, kind),
        13 => set_of_codes(random, truth, kind),
        14 => hierarchy(random, truth, kind),
        15 => special(random, kind, depth),
        0 | 1 if depth < 2 => chain(random, truth, kind, depth),
        2 if depth < 2 => has(random, truth, kind, depth),
        3 => missing(random, truth, kind),
        _ => of_value(random, truth, kind),
    }
}

/// Tests of parameters that are there, joined and negated at random.
fn filter(random: &mut Random, truth: &Truth, kind: TypeId) -> Option<(String, String)> {
    let mut tests = Vec::new();
    for _ in 0..1 + random.below(3) {
        let all = truth.values(kind);
        let from = random.pick(&all);
        let params: Vec<_> = from.params.keys().copied().collect();
        if params.is_empty() {
            return None;
        }
        let id = *random.pick(&params);
        let param = searchable(truth, kind).into_iter().find(|param| param.id == id)?;
        tests.push(test(random, param, from.params.get(&id)?.first()?)?);
    }
    let mut whole = tests.pop()?;
    for test in tests {
        let word = random.pick::<&str>(&["and", "or"]);
        whole = match random.below(3) {
            0 => format!("{whole} {word} {test}"),
            1 => format!("({whole} {word} {test})"),
            _ => format!("{test} {word} not({whole})"),
        };
    }
    Some(("_filter".into(), whole))
}

fn test(random: &mut Random, param: &Param, value: &Value) -> Option<String> {
    let quoted = |text: &str| serde_json::to_string(text).ok();
    let code = param.code;
    if param.kind == ParamKind::Phonetic {
        if random.below(6) == 0 {
            return Some(format!("{code} pr {}", random.chance(50)));
        }
        let op = random.pick::<&str>(&["eq", "ne"]);
        return Some(format!("{code} {op} {}", quoted(&sound(random))?));
    }
    Some(match value {
        _ if random.below(6) == 0 && param.kind != ParamKind::Composite => format!("{code} pr {}", random.chance(50)),
        Value::Text(text) if text.chars().any(char::is_alphanumeric) => {
            let op = random.pick::<&str>(&["eq", "ne", "co", "sw", "ew"]);
            format!("{code} {op} {}", quoted(&part(random, text, *op == "eq" || *op == "ew"))?)
        }
        Value::Token { system, code: Some(found), .. } | Value::Identifier { system, value: Some(found), .. } => {
            let op = random.pick::<&str>(&["eq", "ne"]);
            format!("{code} {op} {}", quoted(&token(random, system.as_deref(), found))?)
        }
        Value::Date(range) if range.lo != i64::MIN => {
            let day = Instant(range.lo).to_fhir();
            let op = random.pick::<&str>(&["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "po"]);
            format!("{code} {op} {}", &day[..*random.pick(&[4, 7, 10])])
        }
        Value::Quantity { lo, .. } if lo.is_finite() => {
            format!("{code} {} {lo}", random.pick::<&str>(&["eq", "gt", "lt", "ge", "le"]))
        }
        Value::Reference { to: Some(Reference::Local { kind, id, .. }), .. } => {
            let op = random.pick::<&str>(&["eq", "ne", "re"]);
            format!("{code} {op} {}/{id}", definitions().type_name(*kind))
        }
        Value::Uri(uri) => {
            format!("{code} {} {}", random.pick::<&str>(&["eq", "ne", "co", "sw", "ew"]), quoted(uri)?)
        }
        _ => return None,
    })
}

/// `:in`, `:not-in`, `:above`, `:below` on codes.
fn set_of_codes(random: &mut Random, truth: &Truth, kind: TypeId) -> Option<(String, String)> {
    let tokens: Vec<_> = searchable(truth, kind).into_iter().filter(|param| param.kind == ParamKind::Token).collect();
    let usual: Vec<_> = tokens.iter().filter(|param| param.code.contains("code")).collect();
    let code = if usual.is_empty() || random.chance(20) { random.pick(&tokens).code } else { random.pick(&usual).code };
    let value = match random.below(2) {
        0 => {
            return Some((
                format!("{code}:{}", random.pick::<&str>(&["in", "not-in"])),
                value_set_url(random.below(2)),
            ));
        }
        _ => format!("{CODE_SYSTEM}|{}", random.pick::<&str>(&["blood", "hb", "WBC", "other"])),
    };
    Some((format!("{code}:{}", random.pick::<&str>(&["above", "below"])), value))
}

/// `:above` and `:below` on references, literal and canonical.
fn hierarchy(random: &mut Random, truth: &Truth, kind: TypeId) -> Option<(String, String)> {
    let (of, code, value) = match random.below(4) {
        0 => ("Organization", "partof", format!("Organization/organization{}", random.below(5))),
        1 => ("Patient", "organization", format!("organization{}", random.below(5))),
        2 => ("Location", "partof", format!("location{}", random.below(8))),
        _ => (
            "QuestionnaireResponse",
            "questionnaire",
            format!("http://example.org/forms/{}|{}", random.below(2), random.pick::<&str>(&["1", "1.2", "1.2.3"])),
        ),
    };
    let name = format!("{code}:{}", random.pick::<&str>(&["above", "below"]));
    (definitions().type_name(kind) == of && !truth.values(kind).is_empty()).then_some((name, value))
}

/// `near`, and chains through canonical references.
fn special(random: &mut Random, kind: TypeId, depth: usize) -> Option<(String, String)> {
    match definitions().type_name(kind) {
        "Location" => {
            let (lat, long) = (47.0 + random.below(9) as f64 / 10.0, 8.0 + random.below(9) as f64 / 10.0);
            Some((
                "near".into(),
                format!("{lat}|{long}|{}|{}", random.below(60), random.pick::<&str>(&["km", "m", ""])),
            ))
        }
        "QuestionnaireResponse" if depth < 2 => {
            Some(("questionnaire.title".into(), format!("Form {}", random.below(6))))
        }
        "Questionnaire" if depth < 2 => {
            Some(("_has:QuestionnaireResponse:questionnaire:_id".into(), format!("response{}", random.below(12))))
        }
        _ => None,
    }
}

fn missing(random: &mut Random, truth: &Truth, kind: TypeId) -> Option<(String, String)> {
    let params = searchable(truth, kind);
    let param = random.pick(&params);
    let said = random.chance(50).to_string();
    (param.kind != ParamKind::Composite).then(|| (format!("{}:missing", param.code), said))
}

/// `reference:Type.rest=...`, with or without the type.
fn chain(random: &mut Random, truth: &Truth, kind: TypeId, depth: usize) -> Option<(String, String)> {
    let there = truth.kinds();
    let references: Vec<_> =
        searchable(truth, kind).into_iter().filter(|param| param.kind == ParamKind::Reference).collect();
    if references.is_empty() {
        return None;
    }
    let param = random.pick(&references);
    let targets: Vec<TypeId> = param.targets.iter().copied().filter(|target| there.contains(target)).collect();
    if targets.is_empty() {
        return None;
    }
    let target = *random.pick(&targets);
    let (name, value) = criterion(random, truth, target, depth + 1)?;
    let open = param.targets.len() < 10 && random.chance(30);
    let typed = if open { String::new() } else { format!(":{}", definitions().type_name(target)) };
    Some((format!("{}{typed}.{name}", param.code), value))
}

fn has(random: &mut Random, truth: &Truth, kind: TypeId, depth: usize) -> Option<(String, String)> {
    let mut roads = Vec::new();
    for source in truth.kinds() {
        let refers = |param: &&Param| param.kind == ParamKind::Reference && param.targets.contains(&kind);
        roads.extend(searchable(truth, source).into_iter().filter(refers).map(|param| (source, param.code)));
    }
    if roads.is_empty() {
        return None;
    }
    let (source, code) = *random.pick(&roads);
    let (name, value) = criterion(random, truth, source, depth + 1)?;
    Some((format!("_has:{}:{code}:{name}", definitions().type_name(source)), value))
}

/// A parameter of a resource that is there, with its value or one near it.
fn of_value(random: &mut Random, truth: &Truth, kind: TypeId) -> Option<(String, String)> {
    of_values(random, truth, kind, &truth.values(kind))
}

fn of_values(random: &mut Random, truth: &Truth, kind: TypeId, all: &[Values]) -> Option<(String, String)> {
    if all.is_empty() {
        return None;
    }
    let from = random.pick(all);
    match random.below(14) {
        0 => return Some(("_id".into(), format!("{},nobody", from.header.id))),
        1 => return Some(("_lastUpdated".into(), date(random, from.header.last_updated.0))),
        _ => {}
    }
    let params: Vec<_> = from.params.keys().collect();
    if params.is_empty() {
        return None;
    }
    // Those of the site are few: they are asked for more often.
    let own: Vec<_> = params.iter().copied().filter(|id| id.is_custom()).collect();
    let id = if own.is_empty() || random.chance(60) { **random.pick(&params) } else { **random.pick(&own) };
    let param = definitions()
        .param_by_id(id)
        .filter(|param| searchable(truth, kind).iter().any(|known| known.id == param.id))?;
    let mut values = Vec::new();
    let mut modifier = "";
    for n in 0..[1, 1, 1, 2, 3][random.below(5)] {
        let other = if n == 0 { from } else { random.pick(all) };
        let Some(of) = other.params.get(&id) else { continue };
        let value = random.pick(of);
        if param.kind == ParamKind::Phonetic {
            values.push(escape(&sound(random)));
            continue;
        }
        if n == 0 {
            modifier = modifier_for(random, value);
        }
        values.extend(text(random, value, modifier));
    }
    let (values, code) = (values.join(","), param.code);
    let name = if modifier.is_empty() { code.to_owned() } else { format!("{code}:{modifier}") };
    (!values.is_empty()).then_some((name, values))
}

fn modifier_for(random: &mut Random, value: &Value) -> &'static str {
    let none = random.chance(60);
    match value {
        _ if none => "",
        Value::Token { .. } => random.pick::<&str>(&["not", "text"]),
        Value::Identifier { types, .. } if !types.is_empty() => "of-type",
        Value::Identifier { .. } => "not",
        Value::Text(_) => random.pick::<&str>(&["exact", "contains"]),
        Value::Reference { identifier: Some(_), .. } => "identifier",
        Value::Reference { to: Some(Reference::Local { kind, .. }), .. } => definitions().type_name(*kind),
        Value::Uri(uri) if uri.contains("://") => random.pick::<&str>(&["above", "below"]),
        _ => "",
    }
}

/// Names as they are and as they may be heard, some of them in part, two together now and then.
fn sound(random: &mut Random) -> String {
    const HEARD: [&str; 14] = [
        "Miller",
        "Mooler",
        "Ludenshite",
        "Vandenberg",
        "van",
        "Ohara",
        "Ost",
        "Lukas",
        "Strasse",
        "Eve",
        "Maryjane",
        "Jane Mary",
        "Hose",
        "Zoey",
    ];
    let name = |random: &mut Random| match random.below(3) {
        0 => *random.pick(&FAMILIES),
        1 => *random.pick(&GIVENS),
        _ => *random.pick(&HEARD),
    };
    match random.below(5) {
        0 => format!("{} {}", name(random), name(random)),
        1 => name(random).to_uppercase(),
        _ => name(random).to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('|', "\\|").replace('$', "\\$")
}

/// Something between `from` and the end of a text, cut at letters.
fn part(random: &mut Random, text: &str, whole: bool) -> String {
    let letters: Vec<char> = text.chars().collect();
    if whole || letters.is_empty() {
        return text.to_owned();
    }
    let end = 1 + random.below(letters.len());
    letters[..end].iter().collect()
}

/// A query value that may find the value; None: there is no way to ask for it.
fn text(random: &mut Random, value: &Value, modifier: &str) -> Option<String> {
    let asked = match value {
        Value::Token { text, .. } | Value::Identifier { text, .. } if modifier == "text" => {
            escape(&part(random, text.as_deref()?, false))
        }
        Value::Identifier { value, types, .. } if modifier == "of-type" => {
            let (system, code) = types.first()?;
            [system.as_deref()?, code.as_deref()?, value.as_deref()?].map(escape).join("|")
        }
        Value::Token { system, code, .. } | Value::Identifier { system, value: code, .. } => {
            token(random, system.as_deref(), code.as_deref()?)
        }
        Value::Text(text) => {
            let whole = modifier == "exact" && random.chance(80);
            let part = part(random, text, whole);
            let cased = if random.chance(30) { part.to_uppercase() } else { part };
            let something = cased.chars().any(char::is_alphanumeric);
            something.then(|| escape(&cased))?
        }
        Value::Date(range) => date(random, if range.lo == i64::MIN { range.hi } else { range.lo }),
        Value::Number { lo, .. } => format!("{}{lo}", random.pick(&PREFIXES)),
        Value::Quantity { lo, hi, system, code, unit } => {
            let number = if lo.is_finite() { *lo } else { *hi };
            quantity(random, number, system.as_deref(), code.as_deref(), unit.as_deref())
        }
        Value::Reference { identifier: Some((system, value)), .. } if modifier == "identifier" => {
            token(random, system.as_deref(), value.as_deref()?)
        }
        Value::Reference { to, .. } => match to.as_ref()? {
            Reference::Local { kind, id, .. } => {
                let name = definitions().type_name(*kind);
                match random.below(2) {
                    _ if !modifier.is_empty() && modifier != name => return None,
                    0 => id.clone(),
                    _ => format!("{name}/{id}"),
                }
            }
            Reference::Absolute { url } if modifier.is_empty() => escape(url),
            Reference::Urn(urn) if modifier.is_empty() => escape(urn),
            _ => return None,
        },
        // The modifier was chosen for another value: of these there is nothing above and below.
        Value::Uri(uri) if !modifier.is_empty() && !uri.contains("://") => return None,
        Value::Uri(uri) => match modifier {
            "above" => format!("{}/more", escape(uri)),
            "below" => {
                let parent = uri.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| parent.contains("://"));
                escape(parent.unwrap_or(uri))
            }
            _ => escape(uri),
        },
        Value::Composite(parts) => {
            let one = |random: &mut Random, values: &Vec<Value>| text(random, values.first()?, "");
            let parts: Option<Vec<String>> = parts.iter().map(|values| one(random, values)).collect();
            parts?.join("$")
        }
    };
    Some(asked)
}

fn token(random: &mut Random, system: Option<&str>, code: &str) -> String {
    let (code, other) = (escape(code), random.below(8));
    match (system, other) {
        (_, 0) => code,
        (_, 1) => code.to_uppercase(),
        (_, 2) => format!("|{code}"),
        (Some(system), 3) => format!("{}|", escape(system)),
        (_, 4) => format!("http://example.org/other|{code}"),
        (Some(system), _) => format!("{}|{code}", escape(system)),
        (None, _) => code,
    }
}

/// A date at some precision, some days off now and then.
fn date(random: &mut Random, at: i64) -> String {
    let shift = [0, 0, 0, -86_400_000, 86_400_000, 40 * 86_400_000][random.below(6)];
    let at = if at == i64::MAX || at == i64::MIN { 1_356_998_400_000 } else { at };
    let full = Instant(at.saturating_add(shift)).to_fhir();
    let end = *random.pick(&[4, 7, 10, 10, 16, 19, 23]);
    let zone = if end > 10 { "Z" } else { "" };
    let prefix = if random.chance(10) { "ap" } else { random.pick(&PREFIXES) };
    format!("{prefix}{}{zone}", &full[..end])
}

fn quantity(random: &mut Random, number: f64, system: Option<&str>, code: Option<&str>, unit: Option<&str>) -> String {
    let prefix = if random.chance(10) { "ap" } else { random.pick(&PREFIXES) };
    match (random.below(5), system, code.or(unit)) {
        (0, ..) | (_, _, None) => format!("{prefix}{number}"),
        (1, _, Some(unit)) => format!("{prefix}{number}||{}", escape(unit)),
        (2, Some(UCUM), Some("mg")) => format!("{prefix}{}|{UCUM}|g", number / 1000.0),
        (3, Some(UCUM), Some("g")) => format!("{prefix}{}|{UCUM}|mg", number * 1000.0),
        (_, Some(system), Some(unit)) => format!("{prefix}{number}|{}|{}", escape(system), escape(unit)),
        (_, None, Some(unit)) => format!("{prefix}{number}||{}", escape(unit)),
    }
}

/// Sorting, paging, totals, includes.
fn results(random: &mut Random, truth: &Truth, kind: TypeId, pairs: &mut Pairs) {
    let mut add = |name: &str, value: String| pairs.push((name.to_owned(), value));
    let params = searchable(truth, kind);
    if random.chance(50) {
        let keys: Vec<_> =
            params.iter().filter(|param| !matches!(param.kind, ParamKind::Composite | ParamKind::Phonetic)).collect();
        let first = random.pick(&keys).code;
        let second = random.pick(&keys).code;
        let sign = |random: &mut Random| if random.chance(50) { "-" } else { "" };
        let mut sort = format!("{}{first}", sign(random));
        if random.chance(50) && second != first {
            sort = format!("{sort},{}{second}", sign(random));
        }
        add("_sort", sort);
    }
    if random.chance(70) {
        add("_count", [1, 3, 7, 20, 20, 100][random.below(6)].to_string());
    }
    match random.below(6) {
        0 | 1 => add("_total", "accurate".into()),
        2 => add("_total", "none".into()),
        3 => add("_total", "estimate".into()),
        _ => {}
    }
    if random.chance(5) {
        add("_summary", "count".into());
        return;
    }
    let name = definitions().type_name(kind);
    if random.chance(25) {
        let references: Vec<_> = params.iter().filter(|param| param.kind == ParamKind::Reference).collect();
        let code = if references.is_empty() || random.chance(20) { "*" } else { random.pick(&references).code };
        let iterate = if random.chance(30) { ":iterate" } else { "" };
        add(&format!("_include{iterate}"), format!("{name}:{code}"));
        if random.chance(30) {
            add("_include:iterate", "Patient:organization".into());
            add("_include:iterate", "Organization:partof".into());
        }
    }
    if random.chance(20) {
        let of = match name {
            "Patient" => *random.pick(&[
                "Observation:subject",
                "Condition:patient",
                "RelatedPerson:patient",
                "Provenance:target",
            ]),
            "Encounter" => "Observation:encounter",
            "Questionnaire" => "QuestionnaireResponse:questionnaire",
            "Organization" | "Location" => "*",
            "Practitioner" => "Patient:general-practitioner",
            "Observation" => *random.pick(&["Provenance:target", "Observation:has-member"]),
            _ => return,
        };
        add("_revinclude", of.into());
    }
}
