//! A launch page that stands in for an EHR: pick an app and a patient, and the app opens with them in context.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use minijinja::{Value, context};

use super::view::Page;
use super::{Visit, origin_of, picker};
use crate::error::{Error, Kind, Result};
use crate::oauth::authorization::Context;
use crate::oauth::form::escaped;
use crate::oauth::launch::Launch;
use crate::oauth::login::Live;

async fn staff(visit: &Visit<'_>) -> Result<Option<Live>> {
    let live = visit.live().await?.filter(Live::is_in);
    if live.as_ref().is_some_and(|live| !live.user.role.is_staff()) {
        return Err(Error::new(Kind::Forbidden, "Apps are launched from here by users of the provider."));
    }
    Ok(live)
}

/// Apps that can be launched, and the patient they are launched with.
pub(super) async fn show(visit: &Visit<'_>) -> Result<Response<Body>> {
    let Some(live) = staff(visit).await? else { return Ok(visit.see_other("/login?to=launch", None)) };
    let patient = visit.value("patient");
    if patient.is_empty() {
        let text = visit.value("q");
        let found = picker::patients(visit, &live, text).await?;
        let rows: Vec<Value> = found.rows.iter().map(picker::patient).collect();
        let page = context! {
            request => "", action => "/launch", pick => "", q => text, rows, more => found.more, fault => "", app => "",
        };
        return Ok(visit.show(Page::new("patient.html", page)));
    }
    let nobody = || Error::new(Kind::NotFound, "There is no such record that you may see.");
    let node = picker::read(visit, &live, "Patient", patient).await?.ok_or_else(nobody)?;
    let encounters = picker::encounters(visit, &live, patient).await;
    let encounters: Vec<Value> =
        encounters.map(|found| found.rows.iter().map(picker::encounter).collect()).unwrap_or_default();
    let clients = visit.oauth().clients().list().await?;
    let (mut apps, mut origins) = (Vec::new(), Vec::new());
    for client in clients.iter().filter(|client| !client.disabled) {
        if let Some(uri) = &client.launch_uri {
            apps.push(context! { id => client.client_id.clone(), name => client.name.clone(), at => origin_of(uri) });
            origins.push(origin_of(uri));
        }
    }
    origins.sort();
    origins.dedup();
    let page = context! { patient => picker::patient(&node), encounters, apps };
    let page = Page::new("launch.html", page).leads_to(origins);
    Ok(visit.show(page))
}

/// Opens the app with a handle for the context.
pub(super) async fn start(visit: &Visit<'_>) -> Result<Response<Body>> {
    let Some(live) = staff(visit).await? else { return Ok(visit.see_other("/login?to=launch", None)) };
    let (patient, encounter) = (visit.value("patient"), visit.value("encounter"));
    let nobody = || Error::new(Kind::NotFound, "There is no such record that you may see.");
    picker::read(visit, &live, "Patient", patient).await?.ok_or_else(nobody)?;
    if !encounter.is_empty() {
        let node = picker::read(visit, &live, "Encounter", encounter).await?.ok_or_else(nobody)?;
        if picker::patient_of(&node) != Some(patient) {
            return Err(nobody());
        }
    }
    let client = visit.oauth().clients().get(visit.value("app")).await?.filter(|client| !client.disabled);
    let uri = client.as_ref().and_then(|client| client.launch_uri.clone());
    let (Some(client), Some(uri)) = (client, uri) else {
        return Err(Error::invalid("This app cannot be launched from here."));
    };
    let launch = Launch {
        context: Context {
            patient: Some(patient.to_owned()),
            encounter: Some(encounter.to_owned()).filter(|id| !id.is_empty()),
            intent: None,
            need_patient_banner: Some(true),
            ehr: true,
            fhir_context: Vec::new(),
        },
        client_id: Some(client.client_id),
        username: Some(live.user.username.clone()),
    };
    let who = visit.oauth().session_caller(&live)?.who().clone();
    let handle = visit.oauth().launch(launch, who, visit.facts()).await?;
    let sign = if uri.contains('?') { '&' } else { '?' };
    let base = &visit.server.app.config.base_url;
    let url = format!("{uri}{sign}iss={}&launch={}", escaped(base), escaped(&handle));
    Ok(visit.redirect(StatusCode::SEE_OTHER, &url, None))
}
