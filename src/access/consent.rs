//! FHIR Consent: what a patient forbids of what the policy would allow. A directive only ever narrows. What it says about
//! persons, purposes and times is decided when it is read; what it says about types, actions and single rows becomes a
//! condition on rows. No IO here.
//!
//! The base is the consent's policy rule (`OPTOUT`: deny, else what the server's own policy says), each provision an
//! exception to what stands around it, and among several that fit a row a denial wins. What cannot be judged here (a
//! data period, a class that is no resource type) makes a denial wider and a permission void.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use zeroize::Zeroizing;

use super::person::Role;
use super::reach::holds;
use crate::fhir::json::{self, Node};
use crate::fhir::reference::{self, Reference};
use crate::fhir::{TypeId, definitions};
use crate::search::query::{Criterion, Forbids, Query, QueryOptions};
use crate::world::Instant;

/// Types of resources as `provision.class` names them.
const TYPES: &str = "http://hl7.org/fhir/resource-types";
/// Provisions within provisions that are followed.
const DEPTH_MAX: usize = 8;

/// One active privacy consent: its patients, and what it says. No Debug: it is PHI.
pub struct Kept {
    pub patients: Vec<String>,
    /// JSON.
    pub text: Zeroizing<Vec<u8>>,
}

/// The active privacy consents of everybody as they stood at one epoch, by patient.
#[derive(Default)]
pub struct Book {
    by_patient: HashMap<String, Vec<Arc<Kept>>>,
}

impl Book {
    pub fn of(consents: Vec<Kept>) -> Book {
        let mut by_patient: HashMap<String, Vec<Arc<Kept>>> = HashMap::new();
        for consent in consents.into_iter().map(Arc::new) {
            for patient in &consent.patients {
                by_patient.entry(patient.clone()).or_default().push(consent.clone());
            }
        }
        Book { by_patient }
    }

    /// How many patients have something to say.
    pub fn patients(&self) -> usize {
        self.by_patient.len()
    }
}

/// The newest book of this process, with the epoch of the store that it was read at. Whoever uses it looks at the epoch
/// first: any change of any consent has another.
#[derive(Default)]
pub struct Shelf {
    book: RwLock<Option<(u64, Arc<Book>)>>,
    /// Held by who reads it anew.
    pub reading: tokio::sync::Mutex<()>,
}

impl Shelf {
    pub fn at(&self, epoch: u64) -> Option<Arc<Book>> {
        let kept = self.book.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(of, _)| *of == epoch).map(|(_, book)| book.clone())
    }

    pub fn keep(&self, epoch: u64, book: Arc<Book>) {
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Some((epoch, book));
    }
}

/// What consents say to one recipient, read when a patient is met.
pub struct Directives {
    book: Arc<Book>,
    to: Recipient,
    read: Mutex<HashMap<String, Arc<[Directive]>>>,
}

impl Directives {
    /// None: nobody has anything to say.
    pub fn of(book: Arc<Book>, to: Recipient) -> Option<Directives> {
        (book.patients() > 0).then(|| Directives { book, to, read: Mutex::default() })
    }

    fn by(&self, patient: &str) -> Arc<[Directive]> {
        let Some(consents) = self.book.by_patient.get(patient) else { return Arc::default() };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(patient) {
            return known.clone();
        }
        // What this server stored can be read; if it could not, it would forbid everything.
        let directive = |consent: &Arc<Kept>| match json::parse(&consent.text) {
            Ok(node) => Directive::read(&node, &self.to),
            Err(_) => Some(Directive { deny: true, provisions: Vec::new() }),
        };
        let directives: Arc<[Directive]> = consents.iter().filter_map(directive).collect();
        read.insert(patient.to_owned(), directives.clone());
        directives
    }
}

/// What consents forbid of rows of one type.
pub struct Forbidden {
    directives: Arc<Directives>,
    kind: TypeId,
    writes: bool,
    lists: Mutex<HashMap<String, Arc<[Vec<Criterion>]>>>,
}

impl Forbidden {
    pub fn of(directives: Arc<Directives>, kind: TypeId, writes: bool) -> Forbidden {
        Forbidden { directives, kind, writes, lists: Mutex::default() }
    }
}

impl Forbids for Forbidden {
    fn forbids(&self, patient: &str) -> Arc<[Vec<Criterion>]> {
        let directives = self.directives.by(patient);
        if directives.is_empty() {
            return Arc::default();
        }
        let mut known = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lists) = known.get(patient) {
            return lists.clone();
        }
        let lists: Arc<[Vec<Criterion>]> =
            directives.iter().flat_map(|directive| directive.denied(self.kind, self.writes)).collect();
        known.insert(patient.to_owned(), lists.clone());
        lists
    }
}

/// Whom a consent is asked about.
pub struct Recipient {
    pub role: Role,
    /// Relative names that the person answers to: the own record, roles, organizations, care teams.
    pub names: HashSet<String>,
    /// Purpose of use.
    pub purpose: String,
    pub at: Instant,
    /// The server's own base URL.
    pub base: String,
}

/// What one consent says to one recipient now. No Debug: it is about a patient.
#[derive(Clone)]
struct Directive {
    deny: bool,
    provisions: Vec<Provision>,
}

/// A provision that concerns the recipient at this time and purpose.
#[derive(Clone)]
struct Provision {
    /// None: as around it.
    deny: Option<bool>,
    /// None: all types.
    kinds: Option<Vec<TypeId>>,
    /// None: all actions. Codes of `consentaction`.
    actions: Option<Vec<String>>,
    /// Codes (`system|code`) that rows must have one of.
    codes: Vec<String>,
    labels: Vec<String>,
    /// Single resources.
    data: Option<Vec<(TypeId, String)>>,
    within: Vec<Provision>,
}

impl Directive {
    /// Reads a Consent; None: it says nothing to this recipient.
    fn read(consent: &Node, to: &Recipient) -> Option<Directive> {
        let rule = codes(consent.get("policyRule"));
        // Those who answer for the patient are the patient here, unless they are named.
        let family = to.role == Role::Guardian;
        let deny = !family && rule.iter().any(|coding| coding.ends_with("|OPTOUT"));
        let root = consent.get("provision").filter(|root| !family || root.get("actor").is_some());
        let provisions: Vec<Provision> = root.into_iter().filter_map(|root| Provision::read(root, to, 0)).collect();
        (deny || !provisions.is_empty()).then_some(Directive { deny, provisions })
    }

    /// The rows of a type, of its patients, that it denies: those that meet one of the lists as a whole.
    fn denied(&self, kind: TypeId, writes: bool) -> Vec<Vec<Criterion>> {
        denied(&self.provisions, self.deny, kind, writes)
    }
}

/// Rows that are denied where `base` holds and these are the exceptions: rows that meet one of the lists as a whole.
fn denied(provisions: &[Provision], base: bool, kind: TypeId, writes: bool) -> Vec<Vec<Criterion>> {
    let mut lists = Vec::new();
    let mut excepted: Vec<Vec<Criterion>> = Vec::new();
    for provision in provisions.iter().filter(|provision| provision.concerns(kind, writes)) {
        let Some(rows) = provision.rows(kind) else { continue };
        for inner in denied(&provision.within, provision.deny.unwrap_or(base), kind, writes) {
            lists.push(rows.iter().cloned().chain(inner).collect());
        }
        excepted.push(rows);
    }
    if base && !excepted.iter().any(Vec::is_empty) {
        lists.push(if excepted.is_empty() { Vec::new() } else { vec![Criterion::NoneOf(excepted)] });
    }
    lists
}

impl Provision {
    /// None: it does not concern the recipient, or is a permission that cannot be judged.
    fn read(node: &Node, to: &Recipient, depth: usize) -> Option<Provision> {
        let deny = match node.get("type").and_then(Node::as_str) {
            Some("permit") => Some(false),
            Some(_) => Some(true),
            None => None,
        };
        let purposes = list(node, "purpose");
        let for_purpose = |coding: &&Node| coding.get("code").and_then(Node::as_str) == Some(&to.purpose);
        if !holds(node.get("period"), to.at)
            || !(list(node, "actor").is_empty() || list(node, "actor").iter().any(|actor| names(actor, to)))
            || !(purposes.is_empty() || purposes.iter().any(|coding| for_purpose(&coding)))
        {
            return None;
        }
        let mut unjudged = node.get("dataPeriod").is_some() || depth >= DEPTH_MAX;
        let mut kinds = Vec::new();
        for class in list(node, "class") {
            let system = class.get("system").and_then(Node::as_str);
            let kind = class.get("code").and_then(Node::as_str).and_then(|code| definitions().type_id(code));
            match kind.filter(|_| system.is_none_or(|system| system == TYPES)) {
                Some(kind) => kinds.push(kind),
                None => unjudged = true,
            }
        }
        let mut data = Vec::new();
        for one in list(node, "data") {
            let reference = one.pointer("/reference/reference").and_then(Node::as_str).unwrap_or_default();
            match reference::parse(reference, &to.base) {
                Reference::Local { kind, id, .. } if one.get("meaning").is_some_and(|of| of == "instance") => {
                    data.push((kind, id));
                }
                _ => unjudged = true,
            }
        }
        if unjudged && deny == Some(false) {
            return None;
        }
        let inner = list(node, "provision").iter().filter(|_| depth < DEPTH_MAX);
        let within = inner.filter_map(|inner| Provision::read(inner, to, depth + 1)).collect();
        let actions: Vec<String> = list(node, "action").iter().flat_map(|action| codes(Some(action))).collect();
        let code_of = |coding: String| coding.rsplit('|').next().unwrap_or_default().to_owned();
        Some(Provision {
            deny,
            kinds: (!kinds.is_empty() && !unjudged).then_some(kinds),
            actions: (!actions.is_empty()).then(|| actions.into_iter().map(code_of).collect()),
            codes: list(node, "code").iter().flat_map(|code| codes(Some(code))).collect(),
            labels: list(node, "securityLabel").iter().filter_map(coding).collect(),
            data: (!data.is_empty() && !unjudged).then_some(data),
            within,
        })
    }

    fn concerns(&self, kind: TypeId, writes: bool) -> bool {
        let actions: &[&str] = if writes { &["collect", "correct"] } else { &["access", "use", "disclose"] };
        let acts = self.actions.as_ref().is_none_or(|of| of.iter().any(|action| actions.contains(&action.as_str())));
        acts && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// What a row of the type must be like for the provision to fit; None: no row of it can.
    fn rows(&self, kind: TypeId) -> Option<Vec<Criterion>> {
        let mut rows = Vec::new();
        if let Some(data) = &self.data {
            let ids: HashSet<String> = data.iter().filter(|(of, _)| *of == kind).map(|(_, id)| id.clone()).collect();
            if ids.is_empty() {
                return None;
            }
            rows.push(Criterion::IdIn(ids));
        }
        if !self.codes.is_empty() {
            let known = ["code", "vaccine-code"].into_iter().find(|code| definitions().param(kind, code).is_some());
            rows.extend(tokens(kind, known?, &self.codes)?);
        }
        if !self.labels.is_empty() {
            rows.extend(tokens(kind, "_security", &self.labels)?);
        }
        Some(rows)
    }
}

/// One of these codes, as a search would say it.
fn tokens(kind: TypeId, param: &str, codes: &[String]) -> Option<Vec<Criterion>> {
    let options = QueryOptions {
        lenient: false,
        base: String::new(),
        count_default: 1,
        count_max: 1,
        now: Instant(0),
        customs: Default::default(),
    };
    let pairs = [(param.to_owned(), codes.join(","))];
    Query::parse(kind, &pairs, &options).ok().map(|query| query.criteria)
}

/// Whether an actor is the recipient: by reference or, where it has none, by role.
fn names(actor: &Node, to: &Recipient) -> bool {
    match actor.pointer("/reference/reference").and_then(Node::as_str) {
        Some(text) => match reference::parse(text, &to.base) {
            Reference::Local { kind, id, .. } => to.names.contains(&format!("{}/{id}", definitions().type_name(kind))),
            _ => false,
        },
        None => codes(actor.get("role")).iter().any(|coding| coding.rsplit('|').next() == Some(to.role.name())),
    }
}

fn list<'a>(node: &'a Node, name: &str) -> &'a [Node] {
    node.get(name).and_then(Node::as_array).map_or(&[], Vec::as_slice)
}

/// The codings of a CodeableConcept as `system|code`.
fn codes(concept: Option<&Node>) -> Vec<String> {
    concept.map_or(Vec::new(), |concept| list(concept, "coding").iter().filter_map(coding).collect())
}

/// `system|code`, as a search writes it.
fn coding(node: &Node) -> Option<String> {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,").replace('|', "\\|").replace('$', "\\$");
    let code = escaped(node.get("code").and_then(Node::as_str)?);
    let system = node.get("system").and_then(Node::as_str).map(escaped);
    Some(system.map_or(code.clone(), |system| format!("{system}|{code}")))
}
