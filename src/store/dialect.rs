//! The whole difference between the two databases as far as records are concerned: PostgreSQL keeps the blind terms
//! of a row in an array with a GIN index, SQLite in a posting table.

use super::db::{Db, Param, placeholder_list};

/// SQLite: `{}` are (term, rid) pairs.
pub const POSTINGS_INSERT: &str = "insert into posting (term, rid) values {} on conflict do nothing";
pub const POSTINGS_DELETE: &str = "delete from posting where (term, rid) in (values {})";

/// Text and values of a condition under construction; every value is bound.
pub struct Condition {
    postgres: bool,
    pub sql: String,
    pub params: Vec<Param>,
}

impl Condition {
    /// Starts with a fixed text and its values.
    pub fn new(db: &Db, sql: &str, params: Vec<Param>) -> Condition {
        Condition { postgres: db.is_postgres(), sql: sql.to_owned(), params }
    }

    /// `and column in (...)`.
    pub fn and_in(&mut self, column: &str, values: Vec<Param>) {
        let list = placeholder_list(values.len(), self.params.len());
        self.sql.push_str(&format!(" and {column} in ({list})"));
        self.params.extend(values);
    }

    /// `and column in (...)` for numbers: one array on PostgreSQL.
    pub fn and_any(&mut self, column: &str, values: &[i64]) {
        self.sql.push_str(" and ");
        self.any(column, values);
    }

    /// The row has at least one of these terms.
    pub fn and_terms(&mut self, terms: &[i64]) {
        self.sql.push_str(" and ");
        self.terms(terms);
    }

    /// The row belongs to one of these compartments, or has one of these terms (rows of several patients).
    pub fn and_compartment(&mut self, pks: &[i64], terms: &[i64]) {
        self.sql.push_str(" and (");
        self.any("r.pk", pks);
        self.sql.push_str(" or ");
        self.terms(terms);
        self.sql.push(')');
    }

    /// Rows without a year always stay.
    pub fn and_years(&mut self, from: i16, to: i16) {
        let at = self.params.len();
        self.sql.push_str(&format!(" and (r.yr is null or r.yr between ${} and ${})", at + 1, at + 2));
        self.params.extend([Param::Int(from.into()), Param::Int(to.into())]);
    }

    /// The name of the next placeholder, for a value that is bound now.
    pub fn bind(&mut self, value: Param) -> String {
        self.params.push(value);
        format!("${}", self.params.len())
    }

    fn any(&mut self, column: &str, values: &[i64]) {
        if self.postgres {
            let name = self.bind(Param::Ints(values.to_vec()));
            self.sql.push_str(&format!("{column} = any({name})"));
        } else {
            let list = placeholder_list(values.len(), self.params.len());
            self.sql.push_str(&format!("{column} in ({list})"));
            self.params.extend(values.iter().map(|value| Param::Int(*value)));
        }
    }

    fn terms(&mut self, terms: &[i64]) {
        if self.postgres {
            let name = self.bind(Param::Ints(terms.to_vec()));
            // One term: containment has the better estimate.
            let operator = if terms.len() == 1 { "@>" } else { "&&" };
            self.sql.push_str(&format!("r.terms {operator} {name}"));
        } else {
            let list = placeholder_list(terms.len(), self.params.len());
            self.sql.push_str(&format!("r.rid in (select rid from posting where term in ({list}))"));
            self.params.extend(terms.iter().map(|term| Param::Int(*term)));
        }
    }
}
