//! JSON and XML, both ways, on every kind of interaction: what is sent in one form is had in the other, the reply is in
//! the form that was asked for, errors included, and what cannot be had is refused with the right status.

use serde_json::{Value, json};

use crate::harness::xml::{Token, tokens};
use crate::harness::{Client, Data, Engine, Reply, Request};

const JSON: &str = "application/fhir+json";
const XML: &str = "application/fhir+xml";

/// A resource with everything that is easily lost, in both forms.
fn patient(id: &str) -> (Value, String) {
    let div = "<div xmlns=\"http://www.w3.org/1999/xhtml\"> a\n <b>b</b>  &lt;&#160;é<br/> </div>";
    let node = json!({
        "resourceType": "Patient", "id": id,
        "text": {"status": "generated", "div": div},
        "contained": [{"resourceType": "Practitioner", "id": "c", "active": true}],
        "extension": [{"url": "http://example.org/d", "valueDecimal": 1}],
        "name": [{"family": "Negotia \"tion\" & <Co>", "given": ["Anna", null],
                  "_given": [null, {"extension": [{"url": "http://example.org/g", "valueCode": "masked"}]}]}],
        "birthDate": "1974-12",
        "_birthDate": {"extension": [{"url": "http://example.org/t", "valueDateTime": "1974-12-25T14:35:45-05:00"}]},
        "deceasedBoolean": false,
        "generalPractitioner": [{"reference": "#c"}]
    });
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Patient xmlns=\"http://hl7.org/fhir\"><!-- by hand -->\n  \
         <id value=\"{id}\"/><text><status value=\"generated\"/>{div}</text>\
         <contained><Practitioner><id value=\"c\"/><active value=\"true\"/></Practitioner></contained>\
         <extension url=\"http://example.org/d\"><valueDecimal value=\"1\"/></extension>\
         <name><family value=\"Negotia &quot;tion&quot; &amp; &lt;Co&gt;\"/><given value=\"Anna\"/>\
         <given><extension url=\"http://example.org/g\"><valueCode value=\"masked\"/></extension></given></name>\
         <birthDate value=\"1974-12\"><extension url=\"http://example.org/t\">\
         <valueDateTime value=\"1974-12-25T14:35:45-05:00\"/></extension></birthDate>\
         <deceasedBoolean value=\"false\"/><generalPractitioner><reference value=\"#c\"/></generalPractitioner></Patient>"
    );
    (node, xml)
}

fn send(client: &Client, method: &str, path: &str, body: Option<(&str, &[u8])>, accept: &str) -> Reply {
    let mut headers = vec![("Accept", accept)];
    headers.extend(body.map(|(kind, _)| ("Content-Type", kind)));
    client.send(&Request { method, path, body: body.map(|(_, bytes)| bytes), headers }).expect("an answer")
}

/// What was sent: without what the server adds.
fn sent_part(mut node: Value) -> Value {
    let object = node.as_object_mut().expect("a resource");
    object.remove("meta");
    object.remove("identifier");
    node
}

/// The children of the root that were sent, as tokens.
fn sent_tokens(document: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let (mut depth, mut left_out) = (0, false);
    for token in tokens(document) {
        match &token {
            Token::Open(name, _) => {
                depth += 1;
                left_out |= depth == 2 && (name == "meta" || name == "identifier");
            }
            Token::Close(_) => depth -= 1,
            Token::Text(_) => {}
        }
        if !left_out {
            out.push(token);
        }
        left_out &= depth > 1;
    }
    out
}

fn assert_form(reply: &Reply, form: &str, what: &str) {
    let kind = reply.header("content-type").unwrap_or_default();
    assert!(kind.starts_with(form), "{what}: {kind}");
    let begins = reply.body.first().copied();
    assert_eq!(begins, Some(if form == JSON { b'{' } else { b'<' }), "{what}: {:.200}", reply.text());
}

/// Media type and body of what is sent.
type Sent = (&'static str, Vec<u8>);

#[test]
fn what_is_sent_in_one_form_is_had_in_the_other() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let client = &server.client;
    for (id, form) in [("from-json", JSON), ("from-xml", XML)] {
        let (node, xml) = patient(id);
        let body = if form == JSON { node.to_string().into_bytes() } else { xml.clone().into_bytes() };
        let path = format!("/fhir/Patient/{id}");
        for accept in [JSON, XML] {
            let put = send(client, "PUT", &path, Some((form, &body)), accept);
            assert!(matches!(put.status, 200 | 201), "{id}: {} {}", put.status, put.text());
            assert_form(&put, accept, "update");
        }
        for path in [path.clone(), format!("{path}/_history/1")] {
            let got = send(client, "GET", &path, None, JSON);
            assert_eq!(got.status, 200, "{}", got.text());
            assert_form(&got, JSON, &path);
            assert_eq!(sent_part(got.json()), node, "{path}");
            let got = send(client, "GET", &path, None, XML);
            assert_form(&got, XML, &path);
            assert_eq!(sent_tokens(&got.text()), sent_tokens(&xml), "{path}");
        }
    }
}

#[test]
fn every_interaction_speaks_both_forms() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let client = &server.client;
    let entry = "<entry><fullUrl value=\"urn:uuid:0f0e0d0c-0b0a-4908-8706-050403020100\"/><resource><Basic>\
                 <code><text value=\"x\"/></code></Basic></resource><request><method value=\"POST\"/>\
                 <url value=\"Basic\"/></request></entry>";
    let bundle = |kind: &str| format!("<Bundle xmlns=\"http://hl7.org/fhir\"><type value=\"{kind}\"/>{entry}</Bundle>");
    let (_, xml) = patient("both");
    let form = b"family=negotia".to_vec();
    let rows: Vec<(&str, &str, Option<Sent>, u16)> = vec![
        ("PUT", "/fhir/Patient/both", Some((XML, xml.clone().into_bytes())), 201),
        ("POST", "/fhir/Patient", Some((XML, xml.into_bytes())), 201),
        ("GET", "/fhir/Patient/both", None, 200),
        ("GET", "/fhir/Patient?family=negotia", None, 200),
        ("POST", "/fhir/Patient/_search", Some(("application/x-www-form-urlencoded", form)), 200),
        ("GET", "/fhir/Patient/both/_history", None, 200),
        ("POST", "/fhir", Some((XML, bundle("batch").into_bytes())), 200),
        ("POST", "/fhir", Some((XML, bundle("transaction").into_bytes())), 200),
        ("GET", "/fhir/metadata", None, 200),
        ("GET", "/fhir/Patient/nobody", None, 404),
        ("GET", "/fhir/Patient?nonsense=1", None, 400),
        ("GET", "/fhir/NoSuchType/1", None, 404),
        ("PUT", "/fhir/Patient/both", Some((JSON, b"{\"resourceType\":\"Patient\",\"id\":\"other\"}".to_vec())), 400),
        ("DELETE", "/fhir/Patient/both", None, 0),
        ("GET", "/fhir/Patient/both", None, 410),
    ];
    for (method, path, body, status) in rows {
        for accept in [JSON, XML] {
            let body = body.as_ref().map(|(kind, bytes)| (*kind, bytes.as_slice()));
            let reply = send(client, method, path, body, accept);
            let what = format!("{method} {path} as {accept}: {} {:.300}", reply.status, reply.text());
            // The second PUT updates; a delete answers with or without an outcome.
            assert!(
                reply.status == status || matches!((method, reply.status), ("PUT" | "DELETE", 200 | 204)),
                "{what}"
            );
            if !reply.body.is_empty() {
                assert_form(&reply, accept, &what);
            }
            if status >= 400 {
                assert!(reply.text().contains("OperationOutcome"), "{what}");
            }
        }
    }
    let mut stranger = client.clone();
    stranger.token = None;
    let refused = send(&stranger, "GET", "/fhir/Patient/both", None, XML);
    assert_eq!(refused.status, 401);
    assert_form(&refused, XML, "a refusal");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let client = &server.client;
    let xml = |inner: &str| format!("<Patient xmlns=\"http://hl7.org/fhir\">\n{inner}</Patient>");
    let bomb = "<!DOCTYPE a [<!ENTITY b \"c\">]><Patient xmlns=\"http://hl7.org/fhir\"/>".to_owned();
    for (body, says, place) in [
        (xml("<name><familly value=\"x\"/></name>"), "familly", "Patient.name[0]"),
        (xml("<active value=\"yes\"/>"), "boolean", "Patient.active"),
        (xml("<birthDate value=\"1970-13-01\"/>"), "", "Patient.birthDate"),
        (xml("<gender value=\"&nope;\"/>"), "entity", "Patient.gender"),
        (bomb, "document type", ""),
        ("<Patient xmlns=\"http://hl7.org/fhir\">".to_owned(), "ends", ""),
    ] {
        let reply = send(client, "POST", "/fhir/Patient", Some((XML, body.as_bytes())), JSON);
        assert!(matches!(reply.status, 400 | 422), "{body}: {} {}", reply.status, reply.text());
        let outcome = reply.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        assert!(outcome["issue"][0]["diagnostics"].as_str().unwrap_or_default().contains(says), "{body}: {outcome}");
        if !place.is_empty() {
            assert_eq!(outcome["issue"][0]["expression"][0], place, "{body}: {outcome}");
        }
    }
    let whole = xml("");
    for (kind, accept, format, status) in [
        ("text/turtle", JSON, "", 415),
        ("application/fhir+xml; charset=iso-8859-1", JSON, "", 415),
        ("application/fhir+xml; fhirVersion=3.0", JSON, "", 415),
        (XML, "text/turtle", "", 406),
        (XML, JSON, "?_format=turtle", 406),
        ("application/fhir+xml; charset=UTF-8", JSON, "", 201),
        ("text/xml", "*/*", "", 201),
        (XML, JSON, "?_format=xml", 201),
    ] {
        let path = format!("/fhir/Patient{format}");
        let reply = send(client, "POST", &path, Some((kind, whole.as_bytes())), accept);
        assert_eq!(reply.status, status, "{kind} {accept} {format}: {}", reply.text());
        if format == "?_format=xml" {
            assert_form(&reply, XML, "_format wins over Accept");
        }
    }
}
