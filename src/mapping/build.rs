//! From the files and the definitions to the mappings, checking each against the other: an element or parameter that
//! does not exist, or that a file forgets, is an error that names file and key.

use std::collections::HashMap;

use super::file::{self, DefaultFile, ElementRule, ParamRule, TableRule, TreatmentName, TypeFile};
use super::rules::{Facts, facts};
use super::{BlindForm, Element, Field, Items, Mapping, Moves, Numbering, Path, Section, Stored, Table, Treatment};
use crate::fhir::definitions::Param;
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};

/// Partitions a blind parameter may have at most.
const PARTITIONS_MAX: u8 = 64;

/// Every type's mapping.
pub(super) fn load() -> Result<Vec<Mapping>, String> {
    load_from(file::TYPES, file::DEFAULT)
}

pub(super) fn load_from(types: &[(&str, &str)], (default_name, default): (&str, &str)) -> Result<Vec<Mapping>, String> {
    let default: DefaultFile = file::read(default_name, default)?;
    let mut own = HashMap::new();
    for (name, text) in types {
        let read: TypeFile = file::read(name, text)?;
        let kind = definitions().type_id(&read.kind).ok_or_else(|| format!("{name}: type: no type {}", read.kind))?;
        if own.insert(kind, (*name, read)).is_some() {
            return Err(format!("{name}: type: it has a file already"));
        }
    }
    check_default(default_name, &default)?;
    let of = |kind: &TypeId| match own.get(kind) {
        Some((name, read)) => mapped(name, *kind, read, &default),
        None => by_default(default_name, *kind, &default),
    };
    definitions().types().iter().map(of).collect()
}

fn check_default(name: &str, default: &DefaultFile) -> Result<(), String> {
    let of_rules = default.rules.iter().filter_map(|rule| rule.types.as_ref());
    for kind in default.types.iter().map(|rule| &rule.names).chain(of_rules).flatten() {
        definitions().type_id(kind).ok_or_else(|| format!("{name}: types: no type {kind}"))?;
    }
    let exists = |code: &String| {
        definitions().types().iter().any(|of| definitions().param(*of, code).is_some())
            || (code.starts_with('_') && definitions().types().is_empty())
    };
    let named = default.rules.iter().filter_map(|rule| rule.names.as_ref()).flatten();
    for code in named.chain(&default.year).chain(&default.compartment_too) {
        if !exists(code) {
            return Err(format!("{name}: no type has a search parameter {code}"));
        }
    }
    Ok(())
}

/// What the making of one type's mapping needs at hand.
pub(super) struct Making<'a> {
    /// File, for messages.
    file: &'a str,
    kind: TypeId,
    compartment: Vec<ParamId>,
}

impl<'a> Making<'a> {
    pub(super) fn new(file: &'a str, kind: TypeId, default: &DefaultFile) -> Making<'a> {
        Making { file, kind, compartment: compartment(kind, default) }
    }

    fn fault(&self, key: &str, what: impl std::fmt::Display) -> String {
        format!("{} ({}): {key}: {what}", self.file, definitions().type_name(self.kind))
    }

    fn param(&self, key: &str, code: &str) -> Result<&'static Param, String> {
        definitions().param(self.kind, code).ok_or_else(|| self.fault(key, format!("no search parameter {code}")))
    }

    fn treatment(
        &self,
        key: &str,
        param: &Param,
        name: TreatmentName,
        form: Option<BlindForm>,
        partitions: Option<u8>,
        reason: Option<&String>,
    ) -> Result<Treatment, String> {
        let fault = |what: &str| Err(self.fault(key, format!("{}: {what}", param.code)));
        let of_compartment = self.compartment.contains(&param.id);
        match (name, form, partitions, reason) {
            (TreatmentName::Blind, Some(form), Some(partitions @ 1..=PARTITIONS_MAX), None) => {
                let kinds: &[ParamKind] = match form {
                    BlindForm::Token => &[ParamKind::Token],
                    BlindForm::Prefix => &[ParamKind::String],
                    BlindForm::Sound => &[ParamKind::Phonetic],
                    BlindForm::Whole => &[ParamKind::Reference, ParamKind::Uri, ParamKind::Token],
                };
                if !kinds.contains(&param.kind) {
                    return fault(&format!("this form does not fit a {} parameter", param.kind.name()));
                }
                if of_compartment {
                    return fault("it says whose compartment a resource is in: its treatment is `compartment`");
                }
                Ok(Treatment::Blind { form, partitions })
            }
            (TreatmentName::Blind, ..) => fault("`blind` needs `form` and `partitions` (1 to 64) and no `reason`"),
            (TreatmentName::Compartment, None, None, None) if of_compartment => Ok(Treatment::Compartment),
            (TreatmentName::Compartment, ..) => fault("it does not say whose compartment a resource is in"),
            (TreatmentName::Capsule, None, None, None) => Ok(Treatment::Capsule),
            (TreatmentName::Refused, None, None, Some(reason)) => Ok(Treatment::Refused { reason: reason.clone() }),
            (TreatmentName::Refused, ..) => fault("`refused` needs a `reason`"),
            (TreatmentName::Capsule, ..) => fault("`capsule` takes neither `form` nor `partitions` nor `reason`"),
        }
    }

    /// By the first rule of `default.toml` that fits.
    pub(super) fn by_rule(&self, param: &Param, default: &DefaultFile) -> Result<Treatment, String> {
        let facts = facts(self.kind, param);
        let compartment = self.compartment.contains(&param.id);
        let rule = default.rules.iter().find(|rule| rule.fits(self.kind, param, &facts, compartment));
        let rule = rule.ok_or_else(|| self.fault("rules", format!("none fits {}", param.code)))?;
        self.treatment("rules", param, rule.treatment, rule.form, rule.partitions, rule.reason.as_ref())
    }

    fn treatments(&self, own: &[ParamRule], default: &DefaultFile) -> Result<HashMap<ParamId, Treatment>, String> {
        let mut treatments = HashMap::new();
        for rule in own {
            for code in &rule.names {
                let param = self.param("params", code)?;
                let form = (rule.form, rule.partitions, rule.reason.as_ref());
                let treatment = self.treatment("params", param, rule.treatment, form.0, form.1, form.2)?;
                if treatments.insert(param.id, treatment).is_some() {
                    return Err(self.fault("params", format!("{code} is treated twice")));
                }
            }
        }
        for param in definitions().params(self.kind) {
            if treatments.contains_key(&param.id) {
                continue;
            }
            if !own.is_empty() && !param.code.starts_with('_') {
                return Err(self.fault("params", format!("{} is not mentioned", param.code)));
            }
            treatments.insert(param.id, self.by_rule(param, default)?);
        }
        Ok(treatments)
    }

    fn elements(&self, rules: &[ElementRule], base: Section, common: &[ElementRule]) -> Result<Vec<Element>, String> {
        let shape = definitions().resource_shape(self.kind).ok_or_else(|| self.fault("type", "has no elements"))?;
        let has = |name: &str| shape.elements.iter().find(|element| element.name == name);
        let mut elements = Vec::new();
        for rule in rules {
            let element = has(&rule.name).ok_or_else(|| self.fault("elements", format!("no element {}", rule.name)))?;
            if rule.items.is_some() && (element.types != ["Identifier"] || element.max == Some(1)) {
                return Err(self.fault("elements", format!("{}: `items` needs a list of identifiers", rule.name)));
            }
            if elements.iter().any(|e: &Element| e.name == rule.name && e.items.is_none()) {
                return Err(self.fault("elements", format!("{}: a rule before it takes all of it", rule.name)));
            }
            elements.push(make_element(rule, base));
        }
        for rule in common {
            if has(&rule.name).is_some() && !elements.iter().any(|e| e.name == rule.name) {
                elements.push(make_element(rule, base));
            }
        }
        for element in shape.elements {
            if !rules.is_empty() && !elements.iter().any(|e| e.name == element.name && e.items.is_none()) {
                return Err(self.fault("elements", format!("{} is not mentioned", element.name)));
            }
        }
        Ok(elements)
    }

    /// What the file says of an element must be what its parameters do to it.
    fn check_stored(
        &self,
        elements: &[Element],
        treatments: &HashMap<ParamId, Treatment>,
        year: Option<ParamId>,
    ) -> Result<(), String> {
        let mut reached: HashMap<String, Stored> = HashMap::new();
        for param in definitions().params(self.kind).iter().filter(|param| param.kind != ParamKind::Composite) {
            let stored = match treatments.get(&param.id) {
                _ if Some(param.id) == year => Stored::Clear,
                Some(Treatment::Blind { .. } | Treatment::Compartment) => Stored::Blind,
                Some(Treatment::Capsule) => Stored::Capsule,
                Some(Treatment::Refused { .. }) | None => continue,
            };
            let Facts { members, .. } = facts(self.kind, param);
            for member in members {
                let most = reached.entry(member).or_insert(stored);
                *most = stored.max(*most);
            }
        }
        for element in elements {
            let is = reached.get(&element.name).copied().unwrap_or(Stored::Sealed);
            if element.stored != is {
                let what =
                    format!("{}: it says {:?}, its search parameters make it {is:?}", element.name, element.stored);
                return Err(self.fault("elements", what));
            }
        }
        Ok(())
    }

    fn year(&self, codes: &[String], must: bool) -> Result<Option<ParamId>, String> {
        for code in codes {
            match definitions().param(self.kind, code) {
                Some(param) if param.kind == ParamKind::Date => return Ok(Some(param.id)),
                _ if must => return Err(self.fault("year", format!("no date parameter {code}"))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// A domain table's rule; notes at the elements which fields they fill.
    fn table(&self, rule: &TableRule, elements: &mut [Element]) -> Result<Table, String> {
        let path = |text: &String| Path { text: text.clone(), expr: Default::default() };
        let mut fields = Vec::with_capacity(rule.fields.len());
        for (name, field) in &rule.fields {
            let first = field.path.split(['.', '[', ' ']).next().unwrap_or_default();
            let mut sections = Vec::new();
            for element in elements.iter_mut().filter(|element| element.name == first) {
                element.fields.push(format!("{}.{name}", rule.table));
                sections.push(element.section);
            }
            sections.dedup();
            let section = match (field.section, sections.as_slice()) {
                (_, []) => return Err(self.fault("domain", format!("{name}: no element {first}"))),
                (Some(section), all) if all.contains(&section) => section,
                (None, [section]) => *section,
                _ => return Err(self.fault("domain", format!("{name}: `section` must be one of those of {first}"))),
            };
            fields.push(Field {
                name: name.clone(),
                section,
                path: path(&field.path),
                many: field.many,
                codes: field.codes.clone().into_iter().collect(),
            });
        }
        Ok(Table {
            table: rule.table.clone(),
            when: rule.when.as_ref().map(path),
            set: rule.set.clone().into_iter().collect(),
            fields,
        })
    }
}

fn make_element(rule: &ElementRule, base: Section) -> Element {
    Element {
        name: rule.name.clone(),
        items: rule.items.as_ref().map(|items| Items { codes: items.codes.clone(), systems: items.systems.clone() }),
        classes: rule.class.clone(),
        section: rule.section.unwrap_or(base),
        stored: rule.stored,
        fields: Vec::new(),
    }
}

fn mapped(name: &str, kind: TypeId, read: &TypeFile, default: &DefaultFile) -> Result<Mapping, String> {
    let making = Making::new(name, kind, default);
    let treatments = making.treatments(&read.params, default)?;
    let mut elements = making.elements(&read.elements, read.section, &default.elements)?;
    let year = making.year(read.year.as_slice(), true)?;
    if read.demographic && year.is_some() {
        return Err(making.fault("year", "a demographic type has no year: it could be a year of birth"));
    }
    making.check_stored(&elements, &treatments, year)?;
    let tables =
        read.domain.iter().map(|rule| making.table(rule, &mut elements)).collect::<Result<Vec<Table>, String>>()?;
    let number = match &read.number {
        None => None,
        Some(rule) => Some(Numbering {
            element: rule.element.clone(),
            type_system: rule.type_system.clone(),
            type_code: rule.type_code.clone(),
            prefix: rule.prefix.clone(),
            width: rule.width,
            param: making.param("number", &rule.param)?.id,
            counter: rule.counter.clone(),
        }),
    };
    let moves = match &read.moves {
        None => None,
        Some(rule) => {
            let codes = definitions().child(&read.kind, &rule.element).and_then(|child| child.codes).unwrap_or(&[]);
            for code in codes {
                rule.legal.get(*code).ok_or_else(|| making.fault("moves", format!("{code} is not mentioned")))?;
            }
            let mentioned = rule.legal.iter().flat_map(|(from, to)| std::iter::once(from).chain(to));
            for code in mentioned {
                if !codes.contains(&code.as_str()) {
                    return Err(making.fault("moves", format!("{} has no code {code}", rule.element)));
                }
            }
            Some(Moves {
                element: rule.element.clone(),
                param: making.param("moves", &rule.param)?.id,
                legal: rule.legal.clone().into_iter().collect(),
            })
        }
    };
    if let Some(name) = &read.patient
        && definitions()
            .child(&read.kind, name)
            .is_none_or(|child| child.kind != "Reference" || child.element.max != Some(1))
    {
        return Err(making.fault("patient", "the name of a single Reference of the resource is expected"));
    }
    let compartment = making.compartment;
    Ok(Mapping {
        kind,
        own_file: true,
        patient: read.patient.clone(),
        section: read.section,
        elements,
        tables,
        year,
        demographic: read.demographic,
        compartment,
        number,
        moves,
        treatments,
    })
}

fn by_default(name: &str, kind: TypeId, default: &DefaultFile) -> Result<Mapping, String> {
    let making = Making::new(name, kind, default);
    let own = default.types.iter().find(|rule| rule.names.iter().any(|of| of == definitions().type_name(kind)));
    let demographic = own.is_some_and(|rule| rule.demographic);
    let section = own.map_or(default.section, |rule| rule.section);
    let treatments = making.treatments(&[], default)?;
    let elements = making.elements(&[], section, &default.elements)?;
    let year = if demographic { None } else { making.year(&default.year, false)? };
    let compartment = making.compartment;
    Ok(Mapping {
        kind,
        own_file: false,
        patient: None,
        section,
        elements,
        tables: Vec::new(),
        year,
        demographic,
        compartment,
        number: None,
        moves: None,
        treatments,
    })
}

/// The reference parameters whose Patient targets say whose compartment a resource of this type is in.
fn compartment(kind: TypeId, default: &DefaultFile) -> Vec<ParamId> {
    let listed = definitions().compartment("Patient", kind).unwrap_or(&[]);
    // `_id`: the type is the patient; its links to other patients make it no part of theirs.
    if listed.contains(&"_id") {
        return Vec::new();
    }
    let patient = definitions().type_id("Patient");
    let belongs = |param: &&&'static Param| {
        param.kind == ParamKind::Reference
            && (listed.contains(&param.code)
                || (default.compartment_too.iter().any(|code| code == param.code)
                    && patient.is_some_and(|patient| param.targets.contains(&patient))))
    };
    definitions().params(kind).iter().filter(belongs).map(|param| param.id).collect()
}
