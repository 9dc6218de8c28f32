//! The decision: [`authorize`] is the only maker of a [`Grant`].

use std::marker::PhantomData;
use std::sync::Arc;

use super::caller::{Caller, Rule};
use super::person::Person;
use super::policy::{Cell, owned, policy};
use super::reach::{self, Reach, Ways};
use super::scope::Context;
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::mapping::Section;
use crate::search::mask::Mask;
use crate::search::query::{Criterion, Query};

/// An operation a grant can be for.
pub trait Op {
    /// The SMART v2 letter: `c r u d s`.
    const LETTER: char;
    /// Whether it changes what is stored.
    const WRITES: bool = matches!(Self::LETTER, 'c' | 'u' | 'd');
}

pub struct Create;
/// Read, vread and instance history.
pub struct Read;
/// Update and patch, update-as-create included.
pub struct Update;
pub struct Delete;
/// Search, and history of a type.
pub struct Search;

impl Op for Create {
    const LETTER: char = 'c';
}
impl Op for Read {
    const LETTER: char = 'r';
}
impl Op for Update {
    const LETTER: char = 'u';
}
impl Op for Delete {
    const LETTER: char = 'd';
}
impl Op for Search {
    const LETTER: char = 's';
}

/// Which rows: applied wherever rows are made, before any limit. There is no default.
#[derive(Clone)]
pub enum Rows {
    All,
    /// Rows that satisfy at least one of these lists of criteria as a whole.
    /// Without any list: no row at all.
    AnyOf(Vec<Vec<Criterion>>),
}

impl Rows {
    /// Rows that one of the lists lets through; an empty list lets through all.
    fn any_of(lists: Vec<Vec<Criterion>>) -> Rows {
        if lists.iter().any(Vec::is_empty) { Rows::All } else { Rows::AnyOf(lists) }
    }
}

/// Which sections of a resource may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections(u16);

impl Sections {
    pub fn all() -> Self {
        Sections(u16::MAX)
    }

    pub fn of(sections: &[Section]) -> Self {
        Sections(sections.iter().fold(0, |all, section| all | 1 << *section as u16))
    }

    pub fn allows(self, section: Section) -> bool {
        self.0 & (1 << section as u16) != 0
    }
}

/// Proof that the caller may do `O` on the type, with the rows and sections it covers.
///
/// Only [`authorize`] makes one:
///
/// ```
/// use phial::access::{Caller, Grant, Read, authorize};
/// fn honest(caller: &Caller, kind: phial::fhir::TypeId) -> phial::error::Result<Grant<Read>> {
///     authorize::<Read>(caller, kind)
/// }
/// ```
/// ```compile_fail,E0451
/// use phial::access::{Grant, Read, Rows, Sections};
/// fn forge(kind: phial::fhir::TypeId) -> Grant<Read> {
///     Grant { kind, rows: Rows::All, sections: Sections::all(), _op: std::marker::PhantomData }
/// }
/// ```
/// A grant for one operation is none for another:
///
/// ```compile_fail,E0308
/// use phial::access::{Grant, Read, Update};
/// fn widen(grant: Grant<Read>) -> Grant<Update> {
///     grant
/// }
/// ```
pub struct Grant<O: Op> {
    kind: TypeId,
    rows: Rows,
    sections: Sections,
    _op: PhantomData<O>,
}

impl<O: Op> Grant<O> {
    pub fn kind(&self) -> TypeId {
        self.kind
    }

    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn sections(&self) -> Sections {
        self.sections
    }

    /// What searches may not look at; None: all of it is open.
    pub fn mask(&self) -> Option<Arc<Mask>> {
        if self.sections == Sections::all() {
            return None;
        }
        Mask::of(self.kind, |section| self.sections.allows(section))
    }
}

/// Decides. A client that acts for itself has what its scopes say; a person what the policy gives the role, of what the
/// person reaches, as far as the scopes go. Scopes are a union: one without a filter gives every row within reach,
/// filters stand side by side.
///
/// # Errors
/// `Kind::Forbidden` when no scope covers the operation on the type, or the role does not allow it.
pub fn authorize<O: Op>(caller: &Caller, kind: TypeId) -> Result<Grant<O>> {
    let covers = |rule: &&Rule| rule.letters.has(O::LETTER) && rule.kind.is_none_or(|only| only == kind);
    let mut rules = caller.rules().iter().filter(covers).peekable();
    if rules.peek().is_none() {
        return Err(forbidden(O::LETTER, &[kind]));
    }
    let Some(person) = caller.person() else {
        let lists = rules.map(|rule| rule.criteria.clone().unwrap_or_default()).collect();
        return Ok(Grant { kind, rows: Rows::any_of(lists), sections: Sections::all(), _op: PhantomData });
    };
    let Some(cell) = policy().cell(person.role, kind, O::LETTER) else {
        let (role, name) = (person.role.name(), definitions().type_name(kind));
        let text = format!("The role {role} does not allow '{}' on {name}.", O::LETTER);
        return Err(Error::new(Kind::Forbidden, text));
    };
    let reach = caller.reach().ok_or_else(|| Error::internal("the reach of a person was not looked up"))?;
    let lists = rules.flat_map(|rule| within(rule, cell, person, reach, kind, O::WRITES)).collect();
    Ok(Grant { kind, rows: Rows::any_of(lists), sections: cell.sections, _op: PhantomData })
}

/// The resources of a type that the caller may point to. A client that acts for itself may point to all that its scopes
/// for reading let it see, and where it has none to any: it would not be able to write at all. A person may point to
/// what the policy and the person's reach let the person read, whatever the scopes of the app, and to anything of a type
/// that belongs to nobody. What lies outside is answered as what is not there.
///
/// # Errors
/// `Kind::Internal` when the reach of a person was not looked up.
pub fn referable(caller: &Caller, kind: TypeId) -> Result<Rows> {
    let Some(person) = caller.person() else {
        return Ok(authorize::<Read>(caller, kind).map_or(Rows::All, |grant| grant.rows));
    };
    if !owned(kind) {
        return Ok(Rows::All);
    }
    let Some(cell) = policy().cell(person.role, kind, Read::LETTER) else { return Ok(Rows::AnyOf(Vec::new())) };
    let reach = caller.reach().ok_or_else(|| Error::internal("the reach of a person was not looked up"))?;
    let forbidden = reach::forbidden(reach, kind, false);
    let contexts = [Context::Patient, Context::User];
    let contexts = contexts.into_iter().filter(|context| caller.rules().iter().any(|rule| rule.context == *context));
    let mut ways: Ways = contexts.flat_map(|context| reach::ways(cell, context, person, reach, kind, false)).collect();
    ways.iter_mut().for_each(|way| way.extend(forbidden.iter().cloned()));
    Ok(Rows::any_of(ways))
}

/// The rows that one scope opens for a person: within reach, and within the scope's own filter.
fn within(rule: &Rule, cell: &Cell, person: &Person, reach: &Reach, kind: TypeId, writes: bool) -> Ways {
    let mut ways = reach::ways(cell, rule.context, person, reach, kind, writes);
    let forbidden = reach::forbidden(reach, kind, writes);
    for way in &mut ways {
        way.extend(forbidden.iter().cloned());
        way.extend(rule.criteria.iter().flatten().cloned());
    }
    ways
}

fn forbidden(letter: char, kinds: &[TypeId]) -> Error {
    let names: Vec<&str> = kinds.iter().map(|kind| definitions().type_name(*kind)).collect();
    let names = names.join(" or ");
    Error::new(Kind::Forbidden, format!("The access token has no scope with permission '{letter}' on {names}."))
}

/// The search grants of one query: its type, and every type its chains and includes touch.
pub struct Grants {
    grants: Vec<Grant<Search>>,
}

impl Grants {
    /// The grants of a query. Its type, the types it looks at by `_has` and the target of a chain must be granted. Of a
    /// chain that may lead to several types one must be: the others stay without a grant, and so without rows. Types
    /// that are only included need no grant: [`Grants::get`] gives None, and nothing of them is included.
    ///
    /// # Errors
    /// `Kind::Forbidden` naming the first type (or choice of types) that is not covered.
    pub fn of(caller: &Caller, query: &Query) -> Result<Grants> {
        let mut grants = Grants { grants: vec![authorize::<Search>(caller, query.kind)?] };
        for kind in query.kinds().into_iter().chain(query.optional_kinds()) {
            if grants.get(kind).is_none() {
                grants.grants.extend(authorize::<Search>(caller, kind).ok());
            }
        }
        match uncovered(&query.criteria, &grants) {
            Some(kinds) => Err(forbidden(Search::LETTER, &kinds)),
            None => Ok(grants),
        }
    }

    /// None: the caller has no grant for this type, and nothing of it may be shown or used.
    pub fn get(&self, kind: TypeId) -> Option<&Grant<Search>> {
        self.grants.iter().find(|grant| grant.kind == kind)
    }
}

/// The types at which the first criterion without a granted road stops; None when all have one.
fn uncovered(criteria: &[Criterion], grants: &Grants) -> Option<Vec<TypeId>> {
    criteria.iter().find_map(|criterion| match criterion {
        Criterion::Chain { target: kind, inner, .. } | Criterion::Has { source: kind, inner, .. } => {
            if grants.get(*kind).is_none() {
                return Some(vec![*kind]);
            }
            uncovered(std::slice::from_ref(inner), grants)
        }
        Criterion::Masked { criteria, .. } => uncovered(criteria, grants),
        Criterion::AnyOf(roads) => {
            let stops: Option<Vec<_>> = roads.iter().map(|road| uncovered(road, grants)).collect();
            stops.filter(|stops| !stops.is_empty()).map(|stops| stops.concat())
        }
        Criterion::Hierarchy { target, .. } => grants.get(*target).is_none().then(|| vec![*target]),
        // What must not hold has to be looked at in full.
        Criterion::NoneOf(lists) => lists.iter().find_map(|list| uncovered(list, grants)),
        Criterion::Param { .. }
        | Criterion::ReferenceIn { .. }
        | Criterion::IdIn(_)
        | Criterion::PatientIn(_)
        | Criterion::PatientsWithin(_)
        | Criterion::NoPatient
        | Criterion::NotForbidden(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::QueryOptions;
    use crate::world::Instant;

    const BASE: &str = "https://phial.example/fhir";

    fn kind(name: &str) -> TypeId {
        definitions().type_id(name).expect("a type of R4")
    }

    fn caller(scopes: &str) -> Caller {
        Caller::stand_in("client", scopes, BASE)
    }

    fn query(of: &str, name: &str, value: &str) -> Query {
        let options = QueryOptions {
            lenient: false,
            base: BASE.into(),
            count_default: 20,
            count_max: 100,
            now: Instant(1_800_000_000_000),
            customs: Default::default(),
        };
        Query::parse(kind(of), &[(name.to_owned(), value.to_owned())], &options).expect("a query that can be read")
    }

    fn letters(scopes: &str, name: &str) -> String {
        let (caller, kind) = (caller(scopes), kind(name));
        let all = [
            ('c', authorize::<Create>(&caller, kind).is_ok()),
            ('r', authorize::<Read>(&caller, kind).is_ok()),
            ('u', authorize::<Update>(&caller, kind).is_ok()),
            ('d', authorize::<Delete>(&caller, kind).is_ok()),
            ('s', authorize::<Search>(&caller, kind).is_ok()),
        ];
        all.iter().filter(|(_, granted)| *granted).map(|(letter, _)| letter).collect()
    }

    #[test]
    fn scopes_open_their_letters_on_their_type_and_nothing_else() {
        for (scopes, name, granted) in [
            ("system/*.cruds", "Patient", "cruds"),
            ("system/*.*", "AuditEvent", "cruds"),
            ("system/Patient.read", "Patient", "rs"),
            ("system/Patient.write", "Patient", "cud"),
            ("system/Patient.r system/Patient.u", "Patient", "ru"),
            ("system/Patient.cruds", "Observation", ""),
            ("system/Patient.cruds", "AuditEvent", ""),
            ("user/*.cruds patient/*.cruds openid", "Patient", ""),
            ("", "Patient", ""),
        ] {
            assert_eq!(letters(scopes, name), granted, "{scopes} on {name}");
        }
        let error = authorize::<Read>(&caller("system/Patient.s"), kind("Patient")).err().unwrap();
        assert_eq!(error.kind, Kind::Forbidden);
        assert!(error.to_string().contains("'r' on Patient"), "{error}");
    }

    #[test]
    fn an_open_scope_wins_over_filters_and_filters_stand_side_by_side() {
        let rows = |scopes: &str, name: &str| authorize::<Read>(&caller(scopes), kind(name)).map(|g| g.rows().clone());
        let one = "system/Observation.rs?category=laboratory";
        let two = "system/Observation.r?category=vital-signs&status=final system/Observation.s?status=final";
        assert!(matches!(rows(&format!("{one} {two}"), "Observation"), Ok(Rows::AnyOf(lists))
            if lists.iter().map(Vec::len).collect::<Vec<_>>() == [1, 2]));
        assert!(matches!(rows(&format!("{one} system/*.r"), "Observation"), Ok(Rows::All)));
        assert!(rows(one, "Patient").is_err());
    }

    #[test]
    fn a_query_needs_a_grant_for_all_it_looks_at() {
        let of = |scopes: &str, query: &Query| Grants::of(&caller(scopes), query).map_err(|error| error.to_string());
        let chain = query("Observation", "subject:Patient.name", "x");
        assert!(of("system/Observation.rs system/Patient.s", &chain).is_ok());
        assert!(of("system/Observation.rs system/Patient.r", &chain).err().unwrap().contains("'s' on Patient"));
        assert!(of("system/Patient.rs", &chain).err().unwrap().contains("on Observation"));

        let has = query("Patient", "_has:Observation:patient:code", "x");
        assert!(of("system/Patient.rs", &has).err().unwrap().contains("on Observation"));
        assert!(of("system/Patient.rs system/Observation.s", &has).is_ok());

        let untyped = query("Observation", "subject.name", "x");
        assert!(of("system/Observation.rs system/Patient.rs", &untyped).is_ok());
        assert!(of("system/Observation.rs", &untyped).is_err());

        let include = query("Observation", "_include", "Observation:subject");
        let grants = of("system/Observation.rs", &include).ok().unwrap();
        assert!(grants.get(kind("Patient")).is_none() && grants.get(kind("Observation")).is_some());
    }
}
