//! Blind terms of a stored resource, and how one value becomes terms: the query side (`narrow`) uses the same.

use std::collections::BTreeMap;

use super::values::{Header, Value, Values};
use super::{sound, text};
use crate::fhir::reference::Reference;
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};
use crate::mapping::{self, BlindForm, Treatment};
use crate::vault::{Pk, TermPlace, Vault};

pub use super::narrow::{Narrow, Patients, narrow};

/// What a term was made of. The number goes into the term, with the version of the folding: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    /// `system|code`
    CodeInSystem = 1,
    /// `code`, whatever its system
    Code = 2,
    /// `|code`
    CodeWithoutSystem = 3,
    /// First characters of a word.
    Prefix = 4,
    Word = 5,
    /// A whole uri or reference.
    Whole = 6,
    /// A patient of a row that belongs to several.
    Compartment = 7,
    /// A resource that is referred to where no parameter tells.
    Link = 8,
    /// First letters of a phonetic code.
    Sound = 9,
}

/// Lengths of the prefixes of a word that get a term: every length of a usual name, so that a whole name narrows to
/// those who have it.
const PREFIXES: [usize; 16] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32];

/// Words of one text that get terms: a query that is longer is narrowed by its first words.
const WORDS_MAX: usize = 8;

/// The references of compartments that point elsewhere than to a Patient are few: one partition.
pub(super) const COMPARTMENT_PARTITIONS: u8 = 1;

/// One term before it is keyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    pub form: Form,
    pub text: String,
}

impl Raw {
    fn new(form: Form, text: impl Into<String>) -> Raw {
        Raw { form, text: text.into() }
    }

    pub(super) fn key(&self, kind: TypeId, param: ParamId, partition: u8, vault: &Vault) -> i64 {
        let form = text::SCHEME << 4 | self.form as u8;
        vault.term(&TermPlace { rtype: kind.0, param: param.0, form, partition }, &[self.text.as_bytes()])
    }

    /// A code: `system` None is any, Some(None) none. Codes are folded; whether case counts is for the matcher.
    pub(super) fn code(system: Option<Option<&str>>, code: &str) -> Raw {
        let code = text::fold_code(code);
        match system {
            None => Raw::new(Form::Code, code),
            Some(None) => Raw::new(Form::CodeWithoutSystem, code),
            Some(Some(system)) => Raw::new(Form::CodeInSystem, format!("{system}\0{code}")),
        }
    }

    pub(super) fn whole(text: impl Into<String>) -> Raw {
        Raw::new(Form::Whole, text)
    }

    /// Of the first letters of a phonetic code.
    pub(super) fn sound(class: &str) -> Raw {
        Raw::new(Form::Sound, class)
    }

    pub(super) fn local(kind: TypeId, id: &str) -> Raw {
        Raw::whole(format!("{}/{id}", definitions().type_name(kind)))
    }

    /// What a text that starts with `folded` must have: its words whole, the last one as far as there is a prefix for
    /// it (`whole`: the last one too).
    pub(super) fn words(folded: &str, whole: bool) -> Vec<Raw> {
        let words: Vec<&str> = folded.split(' ').filter(|word| !word.is_empty()).collect();
        let last = words.len().saturating_sub(1);
        let terms = words.iter().take(WORDS_MAX).enumerate().filter_map(|(at, word)| match whole || at < last {
            true => Some(Raw::new(Form::Word, *word)),
            false => prefixes(word).last().map(|prefix| Raw::new(Form::Prefix, prefix)),
        });
        terms.collect()
    }
}

/// The prefixes of a word that get a term, shortest first.
fn prefixes(word: &str) -> impl Iterator<Item = &str> {
    let mut ends = word.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let mut taken = 0;
    PREFIXES.into_iter().map_while(move |length| {
        let end = ends.nth(length - taken - 1)?;
        taken = length;
        word.get(..end)
    })
}

/// The terms of one value under a form; none when the form does not fit its kind.
fn raw(form: BlindForm, value: &Value, out: &mut Vec<Raw>) {
    match (form, value) {
        (BlindForm::Token, Value::Token { system, code: Some(code), .. })
        | (BlindForm::Token, Value::Identifier { system, value: Some(code), .. }) => {
            out.push(Raw::code(None, code));
            out.push(Raw::code(Some(system.as_deref()), code));
        }
        (BlindForm::Prefix, Value::Text(text)) => {
            for word in text::fold(text).split(' ').filter(|word| !word.is_empty()).take(WORDS_MAX) {
                out.push(Raw::new(Form::Word, word));
                out.extend(prefixes(word).map(|prefix| Raw::new(Form::Prefix, prefix)));
            }
        }
        (BlindForm::Sound, Value::Text(codes)) => out.extend(sound::classes(codes).map(Raw::sound)),
        (BlindForm::Whole, Value::Uri(uri)) => out.push(Raw::whole(uri)),
        (BlindForm::Whole, Value::Reference { to: Some(to), .. }) => match to {
            Reference::Local { kind, id, .. } => out.push(Raw::local(*kind, id)),
            Reference::Absolute { url } => {
                // A query without a version finds every version of a canonical.
                out.push(Raw::whole(url));
                out.extend(url.split_once('|').map(|(plain, _)| Raw::whole(plain)));
            }
            Reference::Urn(text) | Reference::Other(text) => out.push(Raw::whole(text)),
            Reference::Fragment(_) | Reference::Conditional { .. } => {}
        },
        _ => {}
    }
}

/// The terms of a resource, sorted, distinct. `pk` fixes the partitions. A resource of several patients also gets
/// one compartment term per patient.
pub fn terms(values: &Values, pk: Pk, vault: &Vault) -> Vec<i64> {
    let kind = values.header.kind;
    let patient = definitions().type_id("Patient");
    let mut out = Vec::new();
    let mut raws = Vec::new();
    for (param, of) in &values.params {
        let (form, partitions) = match mapping::treatment(kind, *param) {
            Treatment::Blind { form, partitions } => (*form, *partitions),
            Treatment::Compartment => (BlindForm::Whole, COMPARTMENT_PARTITIONS),
            Treatment::Capsule | Treatment::Refused { .. } => continue,
        };
        let compartment = matches!(mapping::treatment(kind, *param), Treatment::Compartment);
        for value in of {
            let own = matches!(value, Value::Reference { to: Some(Reference::Local { kind, .. }), .. } if Some(*kind) == patient);
            // The patients of a compartment are found by their surrogate.
            if !(compartment && own) {
                raw(form, value, &mut raws);
            }
        }
        let partition = vault.partition(pk, partitions);
        out.extend(raws.drain(..).map(|raw| raw.key(kind, *param, partition, vault)));
    }
    for (param, of) in &values.params {
        components(kind, *param, of, |part, form, partitions, value| {
            raw(form, value, &mut raws);
            let partition = vault.partition(pk, partitions);
            out.extend(raws.drain(..).map(|raw| raw.key(kind, part, partition, vault)));
        });
    }
    if values.header.patients.len() > 1 {
        out.extend(values.header.patients.iter().map(|patient| compartment_term(kind, patient, vault)));
    }
    out.extend(values.links.iter().map(|(to, id)| link_term(kind, *to, id, vault)));
    out.sort_unstable();
    out.dedup();
    out
}

/// The components of composite values that have terms: those of the component's own parameter. They mostly are there
/// already; that all of them are is what searches by the composite go by.
fn components(kind: TypeId, param: ParamId, of: &[Value], mut each: impl FnMut(ParamId, BlindForm, u8, &Value)) {
    let parts = composite_parts(kind, param);
    for value in of {
        let Value::Composite(groups) = value else { continue };
        for (group, part) in groups.iter().zip(&parts) {
            let Some((part, form, partitions)) = part else { continue };
            group.iter().for_each(|value| each(*part, *form, *partitions, value));
        }
    }
}

/// For each component of a composite parameter, the parameter that has all its values, and terms of them; None: there is
/// none on this type.
pub(super) fn composite_parts(kind: TypeId, param: ParamId) -> Vec<Option<(ParamId, BlindForm, u8)>> {
    let components = definitions().param_by_id(param).map_or(&[][..], |param| &param.components);
    let part = |part: ParamId| match mapping::treatment(kind, part) {
        Treatment::Blind { form, partitions } => Some((part, *form, *partitions)),
        _ => None,
    };
    components.iter().map(|component| component.told_by(kind).and_then(part)).collect()
}

/// The compartment term by which a row of several patients is found for one of them.
pub fn compartment_term(kind: TypeId, patient: &str, vault: &Vault) -> i64 {
    Raw::new(Form::Compartment, patient).key(kind, ParamId(0), 0, vault)
}

fn link_term(kind: TypeId, to: TypeId, id: &str, vault: &Vault) -> i64 {
    Raw { form: Form::Link, ..Raw::local(to, id) }.key(kind, ParamId(0), 0, vault)
}

/// The reference parameters of a type whose terms tell that a resource of type `to` is referred to, with the number of
/// partitions. Of the compartment's, patients are told by the surrogate of the row or by its compartment terms.
fn telling(kind: TypeId, to: TypeId) -> impl Iterator<Item = (ParamId, u8)> {
    let patient = definitions().type_id("Patient") == Some(to);
    let reaches = move |targets: &[TypeId]| targets.is_empty() || targets.contains(&to);
    let params = definitions().params(kind).iter();
    let params = params.filter(move |param| param.kind == ParamKind::Reference && reaches(&param.targets));
    params.filter_map(move |param| match mapping::treatment(kind, param.id) {
        Treatment::Blind { form: BlindForm::Whole, partitions } => Some((param.id, *partitions)),
        Treatment::Compartment if !patient => Some((param.id, COMPARTMENT_PARTITIONS)),
        _ => None,
    })
}

/// Whether a row shows, by a term or by its surrogate, that it refers to this resource.
pub(super) fn tells(header: &Header, params: &BTreeMap<ParamId, Vec<Value>>, to: TypeId, id: &str) -> bool {
    let is = |value: &Value| matches!(value, Value::Reference { to: Some(Reference::Local { kind, id: of, .. }), .. } if *kind == to && of == id);
    let of_patient =
        definitions().type_id("Patient") == Some(to) && header.patients.iter().any(|patient| patient == id);
    of_patient || telling(header.kind, to).any(|(param, _)| params.get(&param).is_some_and(|of| of.iter().any(is)))
}

/// A row that refers to the resource has one of these terms, unless it is sealed under the surrogate of the patient that
/// is referred to.
pub fn referring(to: TypeId, id: &str, vault: &Vault) -> Vec<i64> {
    let patient = definitions().type_id("Patient") == Some(to);
    let whole = Raw::local(to, id);
    let mut out = Vec::new();
    for kind in definitions().types().iter().copied() {
        for (param, partitions) in telling(kind, to) {
            out.extend((0..partitions.max(1)).map(|partition| whole.key(kind, param, partition, vault)));
        }
        out.push(link_term(kind, to, id, vault));
        if patient {
            out.push(compartment_term(kind, id, vault));
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// The year for the clear `yr` column: where the mapping has a year parameter and all its values lie in one year (UTC).
pub fn year(values: &Values) -> Option<i16> {
    let param = mapping::mapping(values.header.kind).year?;
    let mut year = None;
    for value in values.params.get(&param)? {
        let Value::Date(range) = value else { continue };
        let (first, last) = (year_of(range.lo)?, year_of(range.hi)?);
        if first != last || year.is_some_and(|year| year != first) {
            return None;
        }
        year = Some(first);
    }
    year
}

/// The year (UTC) of a moment; None for open ends and beyond the years of the calendar.
pub(super) fn year_of(ms: i64) -> Option<i16> {
    let moment = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(moment.to_zoned(jiff::tz::TimeZone::UTC).year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_prefixes_of_fixed_lengths() {
        let all = |word| prefixes(word).collect::<Vec<_>>();
        assert_eq!(all("a"), [""; 0]);
        assert_eq!(all("smith"), ["sm", "smi", "smit", "smith"]);
        let long = ["bl", "blu", "blum", "blume", "blumen", "blument", "blumenth", "blumentha", "blumenthal"];
        assert_eq!(all("blumenthal"), long);
        assert_eq!(prefixes(&"x".repeat(40)).last().map(str::len), Some(32));
        assert_eq!(all("ελλασ"), ["ελ", "ελλ", "ελλα", "ελλασ"]);
    }

    #[test]
    fn a_query_looks_for_the_longest_prefix_there_is() {
        let of =
            |folded, whole| Raw::words(folded, whole).into_iter().map(|raw| (raw.form, raw.text)).collect::<Vec<_>>();
        assert_eq!(of("smithso", false), [(Form::Prefix, "smithso".to_owned())]);
        assert_eq!(of("papadopoulosx", false), [(Form::Prefix, "papadopoulos".to_owned())]);
        assert_eq!(of("van der b", false), [(Form::Word, "van".to_owned()), (Form::Word, "der".to_owned())]);
        assert_eq!(of("van de", true), [(Form::Word, "van".to_owned()), (Form::Word, "de".to_owned())]);
        assert_eq!(of("", false), []);
    }

    #[test]
    fn years_are_those_of_utc() {
        assert_eq!(year_of(0), Some(1970));
        assert_eq!(year_of(-1), Some(1969));
        assert_eq!(year_of(i64::MIN), None);
        assert_eq!(year_of(i64::MAX), None);
    }
}
