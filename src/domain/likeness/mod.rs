//! How alike the demographics of two patients are, by the table in `mappings/match/demographics.toml`: points for what agrees, is
//! alike or differs, added up to a score between 0 and 1. Works on search values, so that nothing has to be opened.

mod compare;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::fhir::{ParamId, TypeId, definitions};
use crate::search::values::Value;

/// `match-grade` of R4, without `certainly-not`: what is not a match is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Possible,
    Probable,
    Certain,
}

impl Grade {
    pub fn code(self) -> &'static str {
        match self {
            Grade::Certain => "certain",
            Grade::Probable => "probable",
            Grade::Possible => "possible",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    base: f64,
    grades: Grades,
    fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grades {
    certain: f64,
    probable: f64,
    possible: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    param: String,
    compare: compare::Compare,
    agree: f64,
    disagree: f64,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../mappings/match/demographics.toml")).expect("the table is read in a unit test")
});

/// The demographics that others are compared with.
pub struct Likeness {
    /// Parameter, its place in the table and the values that are looked for.
    wanted: Vec<(ParamId, usize, Vec<Value>)>,
}

impl Likeness {
    /// `values` gives the search values of a parameter in the record that is looked for.
    ///
    /// # Errors
    /// `Kind::Internal` when the table names a parameter the type does not have.
    pub fn of(kind: TypeId, mut values: impl FnMut(ParamId) -> Vec<Value>) -> Result<Likeness> {
        let mut wanted = Vec::with_capacity(TABLE.fields.len());
        for (n, field) in TABLE.fields.iter().enumerate() {
            let param = definitions().param(kind, &field.param);
            let param =
                param.ok_or_else(|| Error::internal("mappings/match/demographics.toml names an unknown parameter"))?.id;
            let of = values(param);
            if !of.is_empty() {
                wanted.push((param, n, of));
            }
        }
        Ok(Likeness { wanted })
    }

    /// The score of another record, whose values `of` gives.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn score(&self, mut of: impl FnMut(ParamId) -> Result<Vec<Value>>) -> Result<f64> {
        let mut points = TABLE.base;
        for (param, field, wanted) in &self.wanted {
            let Field { compare, agree, disagree, .. } = &TABLE.fields[*field];
            if let Some(alike) = compare.alike(wanted, &of(*param)?) {
                points += disagree + (agree - disagree) * alike;
            }
        }
        Ok(1.0 / (1.0 + (-points).exp2()))
    }
}

/// The grade of a score; None: no match.
pub fn grade(score: f64) -> Option<Grade> {
    let Grades { certain, probable, possible } = TABLE.grades;
    let grades = [(certain, Grade::Certain), (probable, Grade::Probable), (possible, Grade::Possible)];
    grades.into_iter().find(|(least, _)| score >= *least).map(|(_, grade)| grade)
}
