//! Answers as bytes. A Bundle in JSON is put together from the stored bytes of its resources, without parsing them.

use serde_json::json;

use super::negotiate::{Format, Wanted};
use super::outcome;
use crate::error::{Error, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{definitions, xml};
use crate::interaction::{Bundle, Content, Done, Entry, Mode, Response, VersionOf};

/// Writes one resource of an answer in the wanted form.
pub(super) fn content(content: &Content, wanted: Wanted) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    put_content(content, &mut out)?;
    formed(out, wanted)
}

/// Writes a Bundle in the wanted form.
pub(super) fn bundle(bundle: &Bundle, base: &str, wanted: Wanted) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(1024 * (bundle.entries.len() + 1));
    put_bundle(bundle, base, &mut out)?;
    formed(out, wanted)
}

/// Writes a Bundle that is fetched later, in whatever form is wanted then.
pub(super) fn kept(bundle: &Bundle, base: &str) -> Result<Vec<u8>> {
    self::bundle(bundle, base, Wanted::default())
}

/// Writes a tree made here (an OperationOutcome, the CapabilityStatement).
pub(super) fn node(node: &Node, wanted: Wanted) -> Result<Vec<u8>> {
    match (wanted.format, wanted.pretty) {
        (Format::Json, false) => Ok(json::write(node)),
        (Format::Json, true) => serde_json::to_vec_pretty(node).map_err(Error::internal),
        (Format::Xml, false) => xml::write(node),
        (Format::Xml, true) => xml::write(node).map(|bytes| xml::indented(&bytes)),
    }
}

fn formed(bytes: Vec<u8>, wanted: Wanted) -> Result<Vec<u8>> {
    match wanted.format {
        Format::Json if !wanted.pretty => Ok(bytes),
        _ => node(&json::parse(&bytes)?, wanted),
    }
}

fn put_content(content: &Content, out: &mut Vec<u8>) -> Result<()> {
    match content {
        Content::Released(released, shape) => out.extend_from_slice(&shape.cut(released.bytes())?),
        Content::Made(node) => out.extend_from_slice(&json::write(node)),
        Content::Outcome(issues) => out.extend_from_slice(&json::write(&outcome::outcome(issues))),
    }
    Ok(())
}

/// Members of a JSON object, written one by one.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Members<'a> {
        out.push(b'{');
        Members { out, first: true }
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn member(&mut self, name: &str, value: &Node) {
        let text = json::write(value);
        self.name(name).extend_from_slice(&text);
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

fn put_bundle(bundle: &Bundle, base: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut members = Members::open(out);
    members.member("resourceType", &json!("Bundle"));
    members.member("id", &json!(bundle.id));
    members.member("meta", &json!({"lastUpdated": bundle.at.to_fhir()}));
    members.member("type", &json!(bundle.kind.code()));
    if let Some(total) = bundle.total {
        members.member("total", &json!(total));
    }
    if !bundle.links.is_empty() {
        let links: Vec<Node> =
            bundle.links.iter().map(|(relation, url)| json!({"relation": relation, "url": url})).collect();
        members.member("link", &Node::Array(links));
    }
    if !bundle.entries.is_empty() {
        let out = members.name("entry");
        out.push(b'[');
        for (n, entry) in bundle.entries.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            put_entry(entry, base, out)?;
        }
        out.push(b']');
    }
    members.close();
    Ok(())
}

fn put_entry(entry: &Entry, base: &str, out: &mut Vec<u8>) -> Result<()> {
    let mut members = Members::open(out);
    if let Some(url) = &entry.full_url {
        members.member("fullUrl", &json!(url));
    }
    match (&entry.content, &entry.nested) {
        (Some(content), _) => put_content(content, members.name("resource"))?,
        (None, Some(nested)) => put_bundle(nested, base, members.name("resource"))?,
        (None, None) => {}
    }
    if let Some(mode) = entry.mode {
        members.member("search", &search(mode, entry.grade));
    }
    if let Some((method, url)) = &entry.request {
        members.member("request", &json!({"method": method, "url": url}));
    }
    match &entry.response {
        Some(Response::Done { done, version }) => members.member("response", &response(*done, version.as_ref(), base)),
        Some(Response::Failed(error)) => {
            let status = outcome::status(error.kind);
            let text = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
            members.member("response", &json!({"status": text, "outcome": outcome::outcome(&error.issues)}));
        }
        None => {}
    }
    members.close();
    Ok(())
}

fn search(mode: Mode, grade: Option<(f64, &'static str)>) -> Node {
    let Some((score, code)) = grade else { return json!({"mode": mode.code()}) };
    let url = "http://hl7.org/fhir/StructureDefinition/match-grade";
    json!({"extension": [{"url": url, "valueCode": code}], "mode": mode.code(), "score": score})
}

fn response(done: Done, version: Option<&VersionOf>, base: &str) -> Node {
    let mut response = json!({"status": match done {
        Done::Ok => "200 OK",
        Done::Created => "201 Created",
        Done::NoContent => "204 No Content",
        Done::NotModified => "304 Not Modified",
    }});
    if let Some(version) = version {
        if version.written {
            response["location"] = json!(location(version, base));
        }
        response["etag"] = json!(etag(version));
        response["lastModified"] = json!(version.at.to_fhir());
    }
    response
}

/// `W/"3"`.
pub(super) fn etag(version: &VersionOf) -> String {
    format!("W/\"{}\"", version.version)
}

/// `[base]/[type]/[id]/_history/[vid]`.
pub(super) fn location(version: &VersionOf, base: &str) -> String {
    format!("{base}/{}/{}/_history/{}", definitions().type_name(version.kind), version.id, version.version)
}
