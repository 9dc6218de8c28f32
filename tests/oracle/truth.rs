//! The other side of the oracle: every resource in memory, every question put to each of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use phial::error::Result;
use phial::fhir::definitions::Param;
use phial::fhir::{ParamId, ParamKind, Resource, TypeId, definitions, json};
use phial::search::capsule::{View, encode};
use phial::search::matcher::sort_key;
use phial::search::query::{
    Criterion, Include, Query, QueryOptions, Summary, Take, Total, next_concepts, pending, supply, supply_concepts,
};
use phial::search::terminology::{Library, Need, Step, expand};
use phial::search::values::{Values, values};
use phial::search::{Customs, Lookup, Matcher};
use phial::world::{Instant, World};
use serde_json::Value;

/// Rounds of `:iterate` that the server states as its limit.
const ROUNDS: usize = 5;

/// A resource as stored, and its capsule.
struct Known {
    node: Value,
    capsule: Vec<u8>,
    /// Type, id and capsule of each resource that it contains.
    contained: Vec<(TypeId, String, Vec<u8>)>,
}

pub struct Truth {
    base: String,
    /// Parameters of the site.
    customs: Arc<Customs>,
    known: BTreeMap<TypeId, BTreeMap<String, Known>>,
}

/// What a query with `_contained` must give.
pub struct Inside {
    /// `Type/id` of containers and of what is contained nowhere, `Type/id#contained` of what is given alone.
    pub places: BTreeSet<String>,
    pub applied: BTreeSet<(String, String)>,
    pub count: usize,
    pub accurate: bool,
    pub counts_only: bool,
}

/// What a query must give.
pub struct Answer {
    query: Query,
    /// Ids with their sort keys.
    pub matches: Vec<(String, Vec<u8>)>,
    pub applied: Vec<(String, String)>,
    pub count: usize,
    pub accurate: bool,
    /// A total, if one is given, must be exact.
    pub exact_or_none: bool,
    pub counts_only: bool,
}

impl Truth {
    pub fn new(base: &str) -> Truth {
        Truth { base: base.to_owned(), customs: Arc::default(), known: BTreeMap::new() }
    }

    /// Takes a resource as the server gave it.
    pub fn learn(&mut self, bytes: &[u8]) {
        let resource = Resource::check(json::parse(bytes).expect("JSON")).expect("a resource");
        let at = resource.node()["meta"]["lastUpdated"].as_str().expect("stamped");
        let at = phial::fhir::date::parse(at).expect("an instant").lo;
        let version = resource.node()["meta"]["versionId"].as_str().and_then(|text| text.parse().ok());
        let capsule = self.capsule(&resource, version.expect("a number"), Instant(at));
        let id = resource.id().expect("an id").to_owned();
        let inside = resource.node()["contained"].as_array().into_iter().flatten().map(|node| {
            let one = Resource::check(node.clone()).expect("a resource");
            (one.kind(), one.id().expect("an id").to_owned(), self.capsule(&one, 1, Instant(at)))
        });
        let known = Known { contained: inside.collect(), capsule, node: serde_json::from_slice(bytes).expect("JSON") };
        self.known.entry(resource.kind()).or_default().insert(id, known);
    }

    fn capsule(&self, resource: &Resource, version: u32, at: Instant) -> Vec<u8> {
        let mut found = values(resource, version, at, &self.base).expect("indexed");
        found.set_custom(resource, &self.customs, &self.base);
        encode(&found)
    }

    /// Parameters of the site, by which everything that is known can be searched from now on.
    pub fn define(&mut self, customs: Arc<Customs>) {
        self.customs = customs;
        let known: Vec<Value> =
            self.known.values().flat_map(BTreeMap::values).map(|known| known.node.clone()).collect();
        for node in known {
            self.learn(&serde_json::to_vec(&node).expect("JSON"));
        }
    }

    /// What can be searched by, the parameters of the site included.
    pub fn params(&self, kind: TypeId) -> Vec<&'static Param> {
        definitions().params(kind).iter().copied().chain(self.customs.ready(kind)).collect()
    }

    pub fn is_contained(&self, container: &str, id: &str, resource: &Value) -> bool {
        let Some((of, own)) = container.split_once('/') else { return false };
        let kind = definitions().type_id(of);
        let known = kind.and_then(|kind| self.known.get(&kind)).and_then(|all| all.get(own));
        let mut all = known.and_then(|known| known.node["contained"].as_array()).into_iter().flatten();
        all.any(|one| one["id"] == id && one == resource)
    }

    /// The types of which something is contained in others, and values of these.
    pub fn contained(&self) -> BTreeMap<TypeId, Vec<Values>> {
        let mut found: BTreeMap<TypeId, Vec<Values>> = BTreeMap::new();
        for (kind, _, capsule) in self.known.values().flat_map(BTreeMap::values).flat_map(|known| &known.contained) {
            found
                .entry(*kind)
                .or_default()
                .push(View::new(capsule).and_then(|view| view.to_values()).expect("decodes"));
        }
        found
    }

    pub fn forget(&mut self, address: &str) {
        let (of, id) = address.split_once('/').expect("Type/id");
        self.known.get_mut(&definitions().type_id(of).expect(of)).expect("known").remove(id).expect("known");
    }

    pub fn is_stored(&self, address: &str, resource: &Value) -> bool {
        let Some((of, id)) = address.split_once('/') else { return false };
        let kind = definitions().type_id(of);
        let known = kind.and_then(|kind| self.known.get(&kind)).and_then(|all| all.get(id));
        known.is_some_and(|known| known.node == *resource)
    }

    pub fn kinds(&self) -> Vec<TypeId> {
        self.known.keys().copied().collect()
    }

    /// The values of every resource of a type, for queries to be made of.
    pub fn values(&self, kind: TypeId) -> Vec<Values> {
        let all = self.known.get(&kind).into_iter().flatten();
        all.map(|(_, known)| View::new(&known.capsule).and_then(|view| view.to_values()).expect("decodes")).collect()
    }

    /// Understood, and its inner searches done.
    fn query(&self, kind: &str, pairs: &[(String, String)]) -> Result<Query> {
        let options = QueryOptions {
            lenient: false,
            base: self.base.clone(),
            count_default: 50,
            count_max: 1_000,
            now: World::real().now(),
            customs: Lookup::new(self.customs.clone()),
        };
        let mut query = Query::parse(definitions().type_id(kind).expect("a type"), pairs, &options)?;
        self.expand(&mut query.criteria)?;
        self.resolve(&mut query.criteria)?;
        Ok(query)
    }

    /// Of a query with `_contained`.
    pub fn inside(&self, kind: &str, pairs: &[(String, String)]) -> Result<Inside> {
        let (named, rest): (Vec<_>, Vec<_>) =
            pairs.iter().cloned().partition(|(name, _)| name.starts_with("_contained"));
        let says = |value: &str| named.iter().any(|(_, said)| said == value);
        let query = self.query(kind, &rest)?;
        let matcher = Matcher::new(query.criteria.clone())?;
        let mut places = BTreeSet::new();
        for (of, all) in &self.known {
            for (id, known) in all {
                let place = format!("{}/{id}", definitions().type_name(*of));
                if says("both") && *of == query.kind && matcher.matches(&View::new(&known.capsule)?)? {
                    places.insert(place.clone());
                }
                for (_, inner, capsule) in known.contained.iter().filter(|(of, ..)| *of == query.kind) {
                    if matcher.matches(&View::new(capsule)?)? {
                        places.insert(if says("contained") { format!("{place}#{inner}") } else { place.clone() });
                    }
                }
            }
        }
        Ok(Inside {
            places,
            applied: named.into_iter().chain(query.applied).collect(),
            count: query.count,
            accurate: query.total == Total::Accurate || query.summary == Summary::Count,
            counts_only: query.summary == Summary::Count,
        })
    }

    pub fn answer(&self, kind: &str, pairs: &[(String, String)]) -> Result<Answer> {
        let query = self.query(kind, pairs)?;
        let kind = query.kind;
        let matches =
            self.matching(kind, &query.criteria, |view| Ok((view.id().to_owned(), sort_key(view, &query.sort)?.0)))?;
        Ok(Answer {
            matches,
            applied: query.applied.clone(),
            count: query.count,
            accurate: query.total == Total::Accurate || query.summary == Summary::Count,
            exact_or_none: query.total != Total::Estimate,
            counts_only: query.summary == Summary::Count,
            query,
        })
    }

    /// Looks at every resource of the type.
    fn matching<T>(
        &self,
        kind: TypeId,
        criteria: &[Criterion],
        take: impl Fn(&View<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let matcher = Matcher::new(criteria.to_vec())?;
        let mut found = Vec::new();
        for known in self.known.get(&kind).into_iter().flatten().map(|(_, known)| known) {
            let view = View::new(&known.capsule)?;
            if matcher.matches(&view)? {
                found.push(take(&view)?);
            }
        }
        Ok(found)
    }

    /// Sets of codes, from the ValueSets and CodeSystems that are known.
    fn expand(&self, criteria: &mut [Criterion]) -> Result<()> {
        let mut library = Library::default();
        while let Some(concepts) = next_concepts(criteria).cloned() {
            let codes = loop {
                match expand(&concepts, &library)? {
                    Step::Done(codes) => break codes,
                    Step::Needs(need) => {
                        let (Need::ValueSet(url) | Need::CodeSystem(url)) = &need;
                        let all = self.known.values().flat_map(BTreeMap::values);
                        let node = all.map(|known| &known.node).find(|node| node["url"] == url.as_str()).cloned();
                        library.put(need, node);
                    }
                }
            };
            supply_concepts(criteria, &concepts, &Arc::new(codes));
        }
        Ok(())
    }

    fn resolve(&self, criteria: &mut [Criterion]) -> Result<()> {
        while let Some(inner) = pending(criteria) {
            let ids: Vec<Vec<String>> = match inner.take {
                Take::Id => self.matching(inner.kind, std::slice::from_ref(inner.criterion), |view| view.names())?,
                Take::References { param, of } => {
                    self.matching(inner.kind, std::slice::from_ref(inner.criterion), |view| view.named(param, of))?
                }
            };
            supply(criteria, ids.into_iter().flatten().collect::<HashSet<String>>());
        }
        Ok(())
    }

    /// Addresses of what is included with these matches.
    pub fn included(&self, answer: &Answer, matches: &[String]) -> BTreeSet<String> {
        let query = &answer.query;
        let mut seen: BTreeSet<(TypeId, String)> = matches.iter().map(|id| (query.kind, id.clone())).collect();
        let mut last = seen.clone();
        let mut all = BTreeSet::new();
        for round in 0..=ROUNDS {
            let mut next = BTreeSet::new();
            for include in query.includes.iter().filter(|include| round == 0 || include.iterate) {
                next.extend(self.targets(include, &last));
            }
            for include in query.revincludes.iter().filter(|include| round == 0 || include.iterate) {
                next.extend(self.sources(include, &last));
            }
            last = next.into_iter().filter(|one| seen.insert(one.clone())).collect();
            all.extend(last.iter().map(|(kind, id)| format!("{}/{id}", definitions().type_name(*kind))));
        }
        all
    }

    fn view(&self, kind: TypeId, id: &str) -> Option<View<'_>> {
        Some(View::new(&self.known.get(&kind)?.get(id)?.capsule).expect("a capsule"))
    }

    fn targets(&self, include: &Include, from: &BTreeSet<(TypeId, String)>) -> Vec<(TypeId, String)> {
        let mut found = Vec::new();
        for (kind, id) in from.iter().filter(|(kind, _)| *kind == include.source) {
            let Some(view) = self.view(*kind, id) else { continue };
            for target in self.known.keys().filter(|target| include.target.is_none_or(|only| only == **target)) {
                let named = references(include.source, include.param).flat_map(|param| {
                    let names = view.named(param.id, *target).expect("decodes");
                    // A canonical counts where its type is one that the parameter refers to.
                    names.into_iter().filter(|name| !name.contains(':') || param.targets.contains(target))
                });
                let named: HashSet<String> = named.collect();
                found.extend(self.having(*target, &named));
            }
        }
        found
    }

    /// The resources of a type that are called by one of these names.
    fn having(&self, kind: TypeId, names: &HashSet<String>) -> Vec<(TypeId, String)> {
        let all = self.known.get(&kind).into_iter().flatten();
        let called = |view: View<'_>| view.names().expect("decodes").iter().any(|name| names.contains(name));
        all.filter(|(_, known)| called(View::new(&known.capsule).expect("a capsule")))
            .map(|(id, _)| (kind, id.clone()))
            .collect()
    }

    fn sources(&self, include: &Include, to: &BTreeSet<(TypeId, String)>) -> Vec<(TypeId, String)> {
        let mut names: BTreeMap<TypeId, HashSet<String>> = BTreeMap::new();
        for (kind, id) in to.iter().filter(|(kind, _)| include.target.is_none_or(|only| only == *kind)) {
            names.entry(*kind).or_default().extend(self.view(*kind, id).expect("known").names().expect("decodes"));
        }
        let all = self.known.get(&include.source).into_iter().flatten();
        let refers = |id: &str| {
            let view = self.view(include.source, id).expect("known");
            names.iter().any(|(kind, names)| {
                references(include.source, include.param)
                    .any(|param| view.named(param.id, *kind).expect("decodes").iter().any(|name| names.contains(name)))
            })
        };
        all.filter(|(id, _)| refers(id)).map(|(id, _)| (include.source, id.clone())).collect()
    }
}

/// The reference parameters that an include goes by.
fn references(source: TypeId, only: Option<ParamId>) -> impl Iterator<Item = &'static Param> {
    // `*` stands for those of the standard.
    let named = only.and_then(|id| definitions().param_by_id(id)).into_iter();
    let standard = definitions().params(source).iter().copied().filter(move |_| only.is_none());
    named.chain(standard).filter(|param| param.kind == ParamKind::Reference)
}
