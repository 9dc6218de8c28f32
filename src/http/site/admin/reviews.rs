//! Emergency accesses: those that wait to be reviewed, and one of them with all that was done under it.

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::super::words;
use super::{Desk, ROWS, Said};
use crate::error::{Error, Result};
use crate::interaction::reviews::{self, Access};
use crate::oauth::reviews::{Finding, Review};

fn finding(of: Finding) -> &'static str {
    match of {
        Finding::Justified => "justified",
        Finding::NotJustified => "not justified",
        Finding::FollowUp => "to be followed up",
    }
}

fn row(of: &Review) -> Value {
    context! {
        id => of.task.clone(),
        username => of.username.clone(),
        role => of.role.clone(),
        record => of.fhir_user.clone(),
        purpose => words::purpose(&of.purpose),
        app => of.client_id.clone(),
        made => words::time(of.made),
        until => words::time(of.until),
        closed => of.closed.as_ref().map(|closed| {
            context! { finding => finding(closed.finding), by => closed.by.clone(), at => words::time(closed.at) }
        }),
    }
}

fn access(of: &Access) -> Value {
    let at = of.at.get(11..19).unwrap_or(&of.at);
    context! { at, what => words::access(&of.what), things => of.things.clone(), refused => of.refused }
}

pub(super) async fn list(desk: &Desk<'_, '_>) -> Result<Response<Body>> {
    let closed = desk.visit.value("of") == "closed";
    let page = reviews::list(&desk.visit.server.app, &desk.by, closed, &desk.after(), ROWS).await?;
    let rows: Vec<Value> = page.reviews.iter().map(|review| row(review)).collect();
    let total = if closed { page.closed } else { page.open };
    let values = context! { rows, closed, open_count => page.open, closed_count => page.closed };
    let pager = desk.keyset(Some(total), page.next, &[("of", if closed { "closed" } else { "" })]);
    desk.show("admin-reviews.html", Said::default(), context! { ..values, ..pager })
}

pub(super) async fn one(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let visit = desk.visit;
    let shown = reviews::show(&visit.server.app, &desk.by, visit.value("id")).await?;
    let chosen = Finding::parse(visit.value("finding"));
    let findings: Vec<Value> = Finding::ALL
        .iter()
        .map(|one| context! { name => one.name(), words => finding(*one), chosen => Some(*one) == chosen })
        .collect();
    let about = shown.about.map(|about| {
        context! {
            patient => about.patient, name => about.name, born => about.born, reason => about.reason, note => about.note,
        }
    });
    let kept = if said.fault.is_empty() { "" } else { visit.value("note") };
    let values = context! {
        review => row(&shown.review),
        about,
        accesses => shown.accesses.iter().map(access).collect::<Vec<_>>(),
        more => shown.more,
        findings,
        note => kept,
        own => shown.review.user == desk.live.user.id,
    };
    desk.show("admin-review.html", said, values)
}

pub(super) async fn close(desk: &Desk<'_, '_>) -> Result<Said> {
    let visit = desk.visit;
    let finding = Finding::parse(visit.value("finding"));
    let finding = finding.ok_or_else(|| Error::invalid("Say what the review has found."))?;
    reviews::close(&visit.server.app, &desk.by, visit.value("id"), finding, visit.value("note")).await?;
    Ok(Said::done("The review is closed, and its finding is on record."))
}
