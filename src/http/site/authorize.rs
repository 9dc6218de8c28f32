//! The way of an authorization request through the browser: asked, logged in, patient and encounter chosen, decided.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use minijinja::{Value, context};

use super::view::Page;
use super::{Visit, origin_of, picker, words};
use crate::error::{Error, Kind, Result};
use crate::oauth::authorize::{Next, Ready, Stop};
use crate::oauth::consent::{self, Choice, Item};
use crate::oauth::login::Live;

fn stopped(visit: &Visit<'_>, stop: Stop) -> Result<Response<Body>> {
    match stop {
        Stop::Page(text) => Ok(visit.error(StatusCode::BAD_REQUEST, text)),
        Stop::Redirect(url) => Ok(visit.redirect(StatusCode::FOUND, &url, None)),
        Stop::Failed(error) => Err(error),
    }
}

fn gone() -> Error {
    Error::invalid("This request is over, or took too long. Go back to the app and begin again.")
}

/// Takes the request of an app, in a query or a form. The page that follows is fetched by GET in either case, so that
/// the browser sends its cookie.
pub(super) async fn begin(visit: &Visit<'_>) -> Result<Response<Body>> {
    match visit.oauth().ask(&visit.form, visit.facts()).await {
        Ok(asked) => Ok(visit.see_other(&format!("/oauth/continue?request={}", asked.id), None)),
        Err(stop) => stopped(visit, stop),
    }
}

/// Shows what is due.
pub(super) async fn go_on(visit: &Visit<'_>) -> Result<Response<Body>> {
    let live = visit.live().await?;
    let asked = visit.oauth().asked(visit.value("request")).await?.ok_or_else(gone)?;
    let id = asked.id.clone();
    let next = match visit.oauth().next(asked, live.as_ref()).await {
        Ok(next) => next,
        Err(stop) => return stopped(visit, stop),
    };
    match (next, live) {
        (Next::Patient, Some(live)) => patients(visit, &live, &id).await,
        (Next::Encounter(patient), Some(live)) => {
            let found = picker::encounters(visit, &live, &patient).await?;
            let rows: Vec<Value> = found.rows.iter().map(picker::encounter).collect();
            Ok(visit.show(Page::new("encounter.html", context! { request => id, rows })))
        }
        (Next::Consent(ready), Some(live)) => consent(visit, &live, *ready).await,
        (_, live) => {
            // Somebody who is logged in already and comes here has to prove themselves again.
            let again = if live.is_some_and(|live| live.is_in()) { "&again=1" } else { "" };
            Ok(visit.see_other(&format!("/login?request={id}{again}"), None))
        }
    }
}

async fn patients(visit: &Visit<'_>, live: &Live, request: &str) -> Result<Response<Body>> {
    let text = visit.value("q");
    let (rows, more, fault) = match picker::patients(visit, live, text).await {
        Ok(found) => (found.rows.iter().map(picker::patient).collect(), found.more, String::new()),
        Err(error) if matches!(error.kind, Kind::Invalid | Kind::TooCostly | Kind::Forbidden | Kind::Unsupported) => {
            let fault = error.issues.first().map(|issue| issue.diagnostics.to_string()).unwrap_or_default();
            (Vec::<Value>::new(), false, fault)
        }
        Err(error) => return Err(error),
    };
    let action = "/oauth/continue";
    let page = context! { request, action, pick => "/oauth/patient", q => text, rows, more, fault, app => "" };
    Ok(visit.show(Page::new("patient.html", page)))
}

/// Takes what the person has picked, if they may see it.
pub(super) async fn choose(visit: &Visit<'_>, is_patient: bool) -> Result<Response<Body>> {
    let live = visit.live().await?.filter(Live::is_in).ok_or_else(gone)?;
    let (request, id) = (visit.value("request"), visit.value("id"));
    let asked = visit.oauth().asked(request).await?.ok_or_else(gone)?;
    let nobody = || Error::new(Kind::NotFound, "There is no such record that you may see.");
    let chosen = if is_patient {
        picker::read(visit, &live, "Patient", id).await?.ok_or_else(nobody)?;
        visit.oauth().choose(request, &live, Some(id.to_owned()), None).await?
    } else {
        let encounter = picker::read(visit, &live, "Encounter", id).await?.ok_or_else(nobody)?;
        let patient = match visit.oauth().next(asked, Some(&live)).await {
            Ok(Next::Encounter(patient)) => patient,
            Ok(_) => return Err(gone()),
            Err(stop) => return stopped(visit, stop),
        };
        if !patient.is_empty() && picker::patient_of(&encounter) != Some(&patient) {
            return Err(nobody());
        }
        visit.oauth().choose(request, &live, None, Some(id.to_owned())).await?
    };
    chosen.ok_or_else(gone)?;
    Ok(visit.see_other(&format!("/oauth/continue?request={request}"), None))
}

/// The patient of the launch as the page shows them. The person must be allowed to see patient and encounter,
/// wherever the context comes from.
async fn in_context(visit: &Visit<'_>, live: &Live, ready: &Ready) -> Result<Value> {
    let hidden = || Error::new(Kind::Forbidden, "The patient of this launch is not one whose record you may see.");
    let mut shown = Value::from(());
    if let Some(patient) = &ready.context.patient {
        let node = picker::read(visit, live, "Patient", patient).await?.ok_or_else(hidden)?;
        shown = picker::patient(&node);
    }
    if let Some(encounter) = &ready.context.encounter {
        let node = picker::read(visit, live, "Encounter", encounter).await?.ok_or_else(hidden)?;
        let fits = ready.context.patient.as_deref().is_none_or(|patient| picker::patient_of(&node) == Some(patient));
        if !fits {
            return Err(Error::invalid("The encounter of this launch is not one of its patient."));
        }
    }
    Ok(shown)
}

fn item(item: &Item) -> Value {
    let parts: Vec<Value> = item
        .parts
        .iter()
        .enumerate()
        .map(|(number, part)| context! { number, label => words::kind(&part.label) })
        .collect();
    context! {
        number => item.number,
        name => item.kind.map_or("All records", words::kind),
        may => words::list(&item.may),
        changes => item.may.iter().any(|word| matches!(*word, "create" | "change" | "delete")),
        about => item.about,
        filter => item.filter.clone(),
        parts,
    }
}

async fn consent(visit: &Visit<'_>, live: &Live, ready: Ready) -> Result<Response<Body>> {
    let patient = in_context(visit, live, &ready).await?;
    let items: Vec<Value> = consent::items(&ready.scopes).iter().map(item).collect();
    let names: Vec<&str> = ready.scopes.0.iter().map(|scope| scope.text()).collect();
    let origin = origin_of(&ready.asked.redirect_uri);
    let page = context! {
        request => ready.asked.id,
        app => ready.client.name,
        origin => origin.clone(),
        username => live.user.username.clone(),
        patient,
        items,
        identity => names.contains(&"fhirUser") || names.contains(&"profile"),
        offline => names.contains(&"offline_access"),
        online => names.contains(&"online_access"),
        refused => ready.asked.refused,
    };
    Ok(visit.show(Page::new("consent.html", page).leads_to(vec![origin])))
}

/// Takes the person's word.
pub(super) async fn decide(visit: &Visit<'_>) -> Result<Response<Body>> {
    let live = visit.live().await?.filter(Live::is_in).ok_or_else(gone)?;
    let asked = visit.oauth().asked(visit.value("request")).await?.ok_or_else(gone)?;
    if visit.value("decision") != "allow" {
        let url = visit.oauth().deny(&asked, &live, visit.facts()).await?;
        return Ok(visit.redirect(StatusCode::FOUND, &url, None));
    }
    let ready = match visit.oauth().next(asked, Some(&live)).await {
        Ok(Next::Consent(ready)) => *ready,
        Ok(_) => return Err(gone()),
        Err(stop) => return stopped(visit, stop),
    };
    in_context(visit, &live, &ready).await?;
    match visit.oauth().approve(ready, &Choice::read(&visit.form), &live, visit.facts()).await {
        Ok(url) => Ok(visit.redirect(StatusCode::FOUND, &url, None)),
        Err(stop) => stopped(visit, stop),
    }
}
