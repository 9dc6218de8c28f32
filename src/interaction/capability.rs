//! The CapabilityStatement: made from the address table, the definitions and the mappings, so that it says what works
//! and nothing else.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use serde_json::json;

use super::across::COMPARTMENTS;
use super::operations::{OPERATIONS, Operation};
use super::route::{self, ROUTES, URL_BYTES_MAX, Verb};
use super::{Answer, Pairs, Scene, Shape, is_audit};
use crate::app::config::References;
use crate::app::{App, Config};
use crate::audit::What;
use crate::error::{Error, Result};
use crate::fhir::definitions::{Limits, Param};
use crate::fhir::json::{self, Node};
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::mapping::{Treatment, treatment};
use crate::search::Customs;
use crate::search::query::limits;

/// As it was asked for: `mode`, and what shapes a read.
///
/// # Errors
/// `Kind::Unsupported` for other modes than `full`, `Kind::Invalid` for other parameters unless `lenient`.
pub async fn asked(app: &App, mut query: Pairs, lenient: bool) -> Result<Arc<Node>> {
    for (_, mode) in query.extract_if(.., |(name, _)| name == "mode") {
        if mode != "full" {
            return Err(Error::unsupported("Of the modes of metadata only 'full' is supported."));
        }
    }
    let shape = Shape::from_pairs(definitions().type_id("CapabilityStatement"), &query, lenient)?;
    let statement = stated(app).await;
    Ok(match shape {
        Shape::Full => statement,
        _ => Arc::new(json::parse(&shape.cut(&json::write(&statement))?)?),
    })
}

/// The same as an entry of a Bundle has it; unlike the bare address, it goes on record as all entries do.
pub(super) async fn answer(scene: Scene<'_>, query: Pairs) -> Result<Answer> {
    let statement = asked(scene.app, query, scene.facts.prefer.lenient).await?;
    scene.app.trail.record(scene.event(What::Capabilities, None)).await?;
    Ok(Answer::made(Arc::unwrap_or_clone(statement)))
}

/// What works now: it is put together once for each epoch of the site's search parameters.
async fn stated(app: &App) -> Arc<Node> {
    // Without its database the server still says what it is.
    let customs = app.store.customs_now().await.unwrap_or_else(|_| app.store.customs());
    let last = app.stated.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((_, stated)) = last.filter(|(epoch, _)| *epoch == customs.epoch) {
        return stated;
    }
    let statement = statement(&app.config, &app.started.to_fhir());
    let stated = Arc::new(with_customs(&statement, &customs).into_owned());
    *app.stated.write().unwrap_or_else(PoisonError::into_inner) = Some((customs.epoch, stated.clone()));
    stated
}

/// Builds it. `date` is when this server started, as a FHIR instant.
fn statement(config: &Config, date: &str) -> Node {
    let mut statement = base_statement(config, date);
    if let Some(operations) = operations(config, |operation| operation.levels.system) {
        statement["rest"][0]["operation"] = operations;
    }
    statement
}

/// The same with those search parameters of the site that can be searched by now.
fn with_customs<'a>(statement: &'a Node, customs: &Customs) -> Cow<'a, Node> {
    if !definitions().types().iter().any(|kind| customs.ready(*kind).next().is_some()) {
        return Cow::Borrowed(statement);
    }
    let mut whole = statement.clone();
    let resources = whole.pointer_mut("/rest/0/resource").and_then(Node::as_array_mut);
    for resource in resources.into_iter().flatten() {
        let Some(kind) = resource.get("type").and_then(Node::as_str).and_then(|name| definitions().type_id(name))
        else {
            continue;
        };
        let works = |kind: TypeId, param: &Param| !matches!(treatment(kind, param.id), Treatment::Refused { .. });
        for param in customs.ready(kind).filter(|param| works(kind, param)) {
            push(resource, "searchParam", search_param(param));
            if param.kind == ParamKind::Reference {
                push(resource, "searchInclude", json!(format!("{}:{}", definitions().type_name(kind), param.code)));
            }
        }
        for source in definitions().types() {
            let refers = |param: &&'static Param| param.kind == ParamKind::Reference && param.targets.contains(&kind);
            for param in customs.ready(*source).filter(refers).filter(|param| works(*source, param)) {
                push(
                    resource,
                    "searchRevInclude",
                    json!(format!("{}:{}", definitions().type_name(*source), param.code)),
                );
            }
        }
    }
    Cow::Owned(whole)
}

fn push(resource: &mut Node, member: &str, item: Node) {
    match resource.get_mut(member).and_then(Node::as_array_mut) {
        Some(list) => list.push(item),
        None => resource[member] = json!([item]),
    }
}

fn base_statement(config: &Config, date: &str) -> Node {
    let resources: Vec<Node> = definitions().types().iter().filter_map(|kind| resource(*kind, config)).collect();
    let mut statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "publisher": "Phial",
        "kind": "instance",
        "software": {"name": "Phial", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": "Phial FHIR server", "url": config.base_url},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "application/fhir+xml", "json", "xml"],
        "patchFormat": ["application/json-patch+json", "application/fhir+json", "application/fhir+xml"],
        "rest": [{
            "mode": "server",
            "documentation": stated_limits(config),
            "security": security(config),
            "resource": resources,
            "interaction": system_interactions(),
            "searchParam": system_params(),
            "compartment": COMPARTMENTS.map(|name| {
                format!("http://hl7.org/fhir/CompartmentDefinition/{}", name.to_ascii_lowercase())
            }),
        }],
    });
    if let Some((system, value)) = &config.contact.0 {
        statement["contact"] = json!([{"telecom": [{"system": system, "value": value}]}]);
    }
    if !config.documentation_url.0.is_empty() {
        statement["description"] = json!(format!("Documentation: {}", config.documentation_url.0));
    }
    statement
}

fn stated_limits(config: &Config) -> String {
    format!(
        "Limits: request body {} bytes (before and after decompression), {} levels of nesting, {} bytes of address, {} \
         entries in a bundle, {} entries on a page (default {}), {} parameters in a query, {} rows looked through by one \
         search, {} seconds for a request; page links work for {} seconds and only for the client they were made for. \
         Request and response bodies may be gzip or zstd. Prefer: handling=strict is the default, handling=lenient \
         leaves out unknown parameters and says so. Reads and searches inside a transaction are performed after its \
         writes are committed, and each has its own status. Histories of types and of the server are in the order of \
         commits. Prefer: respond-async is taken for searches and Bundles; answers wait {} seconds. AuditEvents can be added, never changed or deleted: their history is the list of them, and that of the server leaves them out.",
        config.body_bytes_max.get(),
        json::MAX_DEPTH,
        URL_BYTES_MAX,
        config.bundle_entries_max.get(),
        config.page_size_max.get(),
        config.page_size.get(),
        limits::PAIRS,
        config.candidates_max.get(),
        config.request_timeout_s.get(),
        config.cursor_lifetime_s.get(),
        config.async_lifetime_s.get(),
    )
}

fn security(config: &Config) -> Node {
    let at = config.endpoints();
    let addresses = [
        ("authorize", at.authorize),
        ("token", at.token),
        ("introspect", at.introspect),
        ("revoke", at.revoke),
        ("manage", at.manage),
    ];
    let addresses = addresses.into_iter().chain(at.register.map(|register| ("register", register)));
    let addresses: Vec<Node> = addresses.map(|(name, url)| json!({"url": name, "valueUri": url})).collect();
    json!({
        "extension": [{
            "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
            "extension": addresses,
        }],
        "cors": !config.cors_origins.is_empty(),
        "service": [{
            "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                "code": "SMART-on-FHIR",
                "display": "SMART-on-FHIR",
            }],
            "text": "SMART App Launch 2.2 (standalone and EHR launch, OpenID Connect) and SMART Backend Services; addresses \
                     and capabilities are in .well-known/smart-configuration",
        }],
    })
}

fn system_interactions() -> Vec<Node> {
    let verbs =
        ROUTES.iter().filter(|route| matches!(route.verb, Verb::Bundle | Verb::HistorySystem | Verb::SearchSystem));
    let mut seen = HashSet::new();
    let codes = verbs.flat_map(|route| route.verb.codes()).filter(|code| seen.insert(**code));
    codes.map(|code| json!({"code": code})).collect()
}

/// What every search takes, whatever the types.
fn system_params() -> Vec<Node> {
    let common = definitions().types().first().into_iter().flat_map(|kind| searchable(*kind));
    let common = common.filter(|param| param.bases.is_empty()).map(search_param);
    let others = [
        ("_type", "Searches of the server and of compartments: types, separated by commas."),
        ("_list", "The id of a List: what it refers to."),
        ("_has", "_has:Type:reference:parameter, also in one another."),
    ];
    let others = others.map(|(name, text)| json!({"name": name, "type": "special", "documentation": text}));
    common.chain(others).collect()
}

/// Verbs of one type, in the order of the table, each once.
fn type_interactions(name: &str) -> Vec<Node> {
    let mut seen = HashSet::new();
    ROUTES
        .iter()
        .filter(|route| route.pattern.starts_with("{type}") && route::defined(route.verb, name))
        .flat_map(|route| route.verb.codes())
        .filter(|code| seen.insert(**code))
        .map(|code| json!({"code": code}))
        .collect()
}

/// Operations as a CapabilityStatement lists them; None where there is none.
fn operations(config: &Config, defined: impl Fn(&Operation) -> bool) -> Option<Node> {
    let listed = OPERATIONS.iter().filter(|operation| defined(operation));
    let entry = |operation: &Operation| json!({"name": operation.name, "definition": operation.canonical(&config.base_url), "documentation": operation.about});
    let entries: Vec<Node> = listed.map(entry).collect();
    (!entries.is_empty()).then(|| entries.into())
}

fn resource(kind: TypeId, config: &Config) -> Option<Node> {
    let name = definitions().type_name(kind);
    let interactions = type_interactions(name);
    if interactions.is_empty() {
        return None;
    }
    let params: Vec<&Param> = searchable(kind).collect();
    let references = |kind: TypeId| searchable(kind).filter(|param| param.kind == ParamKind::Reference);
    // AuditEvents are searched on their own: nothing is included with them, nor they with anything.
    let includes = references(kind).filter(|_| !is_audit(kind)).map(|param| format!("{name}:{}", param.code));
    let includes: Vec<String> = includes.collect();
    let rev_includes: Vec<String> = definitions()
        .types()
        .iter()
        .filter(|source| !is_audit(kind) && !is_audit(**source))
        .flat_map(|source| references(*source).map(move |param| (*source, param)))
        .filter(|(_, param)| param.targets.contains(&kind))
        .map(|(source, param)| format!("{}:{}", definitions().type_name(source), param.code))
        .collect();
    let mut resource = json!({
        "type": name,
        "profile": format!("http://hl7.org/fhir/StructureDefinition/{name}"),
        "interaction": interactions,
        "versioning": "versioned-update",
        "readHistory": true,
        "updateCreate": true,
        "conditionalCreate": true,
        "conditionalRead": "full-support",
        "conditionalUpdate": !is_audit(kind),
        "conditionalDelete": conditional_delete(name, config),
        "referencePolicy": reference_policy(name, config),
    });
    for (member, list) in [("searchInclude", includes), ("searchRevInclude", rev_includes)] {
        if !list.is_empty() {
            resource[member] = json!(list);
        }
    }
    resource["searchParam"] = params.iter().map(|param| search_param(param)).collect();
    if let Some(operations) = operations(config, |operation| operation.on(name)) {
        resource["operation"] = operations;
    }
    Some(resource)
}

/// The parameters by which a type can be searched.
fn searchable(kind: TypeId) -> impl Iterator<Item = &'static Param> {
    let refused = move |param: &&&'static Param| matches!(treatment(kind, param.id), Treatment::Refused { .. });
    definitions().params(kind).iter().filter(move |param| !refused(param)).copied()
}

/// References to other servers and by identifier are taken everywhere. AuditEvents may be about what is gone.
fn reference_policy(name: &str, config: &Config) -> Vec<&'static str> {
    let mut policy = vec!["literal", "logical"];
    if config.references == References::Reject && name != "AuditEvent" {
        policy.push("enforced");
    }
    policy
}

fn conditional_delete(name: &str, config: &Config) -> &'static str {
    match config.conditional_delete_max.get() {
        _ if !route::defined(Verb::Delete, name) => "not-supported",
        1 => "single",
        _ => "multiple",
    }
}

fn search_param(param: &Param) -> Node {
    let mut stated = json!({"name": param.code, "definition": param.url, "type": param.kind.code()});
    let sound = (param.kind == ParamKind::Phonetic).then(|| SOUND.to_owned());
    let text: Vec<String> = sound.into_iter().chain(stated_use(&param.limits)).collect();
    if !text.is_empty() {
        stated["documentation"] = text.join(" ").into();
    }
    stated
}

const SOUND: &str = "Names that sound alike: every word by its Double Metaphone codes. Of modifiers it takes :missing.";

/// What the definition of a parameter leaves of what its kind allows; None: all of it.
fn stated_use(limits: &Limits) -> Option<String> {
    let list =
        |name: &str, codes: &Option<Vec<String>>| codes.as_ref().map(|codes| format!("{name}: {}", codes.join(", ")));
    let once = limits.once.then(|| "only once in a query".to_owned());
    let one = limits.one_value.then(|| "one value, none joined by commas".to_owned());
    let all = [
        list("modifiers", &limits.modifiers),
        list("comparators", &limits.comparators),
        list("chained by", &limits.chains),
        one,
        once,
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("By its definition: {}.", all.join("; ")))
}
