//! `phial selftest`: asks a running server what testers ask, as apps and people do, and says in words what is wrong. The
//! tests of the project run the same checks. Must not know how the server does anything: it speaks HTTP to it.

mod checks;
mod guard;
mod subject;
mod token;
mod web;

use std::path::Path;

use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;

use subject::Subject;
use web::Web;

/// What became of one check.
pub struct Finding {
    pub area: &'static str,
    pub title: &'static str,
    /// None: as it should be.
    pub fault: Option<String>,
}

pub struct Report {
    pub base: String,
    pub at: String,
    pub findings: Vec<Finding>,
}

/// Runs the authorization checks against the server that a `demo.json` describes. `authorities` is a PEM file of those
/// that its certificate may be of, in place of the public ones. `say` is told each finding.
///
/// # Errors
/// When the server cannot be tested at all.
pub fn smart(demo: Node, authorities: Option<&Path>, say: impl Fn(&Finding)) -> Result<Report> {
    let web = Web::new(authorities)?;
    let mut subject = Subject::new(demo, web).map_err(|text| Error::new(Kind::Unavailable, text))?;
    let mut findings = Vec::new();
    for check in checks::all() {
        let fault = (check.run)(&mut subject).err();
        let finding = Finding { area: check.area, title: check.title, fault };
        say(&finding);
        findings.push(finding);
    }
    Ok(Report { base: subject.base().to_owned(), at: subject.world.now().to_fhir(), findings })
}

impl Report {
    pub fn failures(&self) -> usize {
        self.findings.iter().filter(|finding| finding.fault.is_some()).count()
    }

    pub fn json(&self) -> Node {
        let checks = self.findings.iter().map(|one| {
            json!({
                "area": one.area, "check": one.title,
                "result": if one.fault.is_none() { "passed" } else { "failed" },
                "fault": one.fault,
            })
        });
        json!({
            "server": self.base, "at": self.at,
            "passed": self.findings.len() - self.failures(), "failed": self.failures(),
            "checks": checks.collect::<Vec<_>>(),
        })
    }

    /// A page that stands alone.
    pub fn html(&self) -> String {
        let rows = self.findings.iter().map(|one| {
            let (class, mark) = if one.fault.is_none() { ("good", "passed") } else { ("bad", "failed") };
            let fault = one.fault.as_deref().map_or(String::new(), |fault| format!("<br><em>{}</em>", escaped(fault)));
            format!(
                "<tr class=\"{class}\"><td>{}</td><td>{}{fault}</td><td>{mark}</td></tr>\n",
                one.area,
                escaped(one.title)
            )
        });
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>SMART checks</title><style>\
             body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
             td,th{{padding:.4rem .8rem .4rem 0;border-top:1px solid #ccc;text-align:left;vertical-align:top}}\
             .bad td:last-child,.bad em{{color:#8c1d18;font-weight:600}}</style></head><body>\n<h1>SMART checks</h1>\n\
             <p>{} at {}: {} passed, {} failed.</p>\n<table><tr><th>Area</th><th>Check</th><th>Result</th></tr>\n{}</table></body></html>\n",
            escaped(&self.base),
            self.at,
            self.findings.len() - self.failures(),
            self.failures(),
            rows.collect::<String>(),
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
