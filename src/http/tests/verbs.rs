//! The verbs on single resources through the real router.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Reply, TestApp, patient};

#[tokio::test]
async fn a_resource_lives_from_create_to_delete() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let sent = json!({
        "resourceType": "Observation", "id": "mine", "status": "final",
        "_status": {"extension": [{"url": "http://a.example/why", "valueDecimal": 1.00}]},
        "code": {"text": "pulse"}, "contained": [{"resourceType": "Device", "id": "d"}],
        "valueQuantity": {"value": 72.0, "unit": "/min"}
    });
    let created = backend.post("Observation", &sent).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_str().expect("an id").to_owned();
    assert_ne!(id, "mine", "the server gives the id");
    let location = format!("http://phial.test/fhir/Observation/{id}/_history/1");
    assert_eq!((created.header("location"), created.header("etag")), (location.as_str(), "W/\"1\""));
    assert_eq!(created.header("last-modified"), "Sat, 31 Jan 2026 08:15:30 GMT");

    let address = format!("Observation/{id}");
    let read = backend.get(&address).await;
    assert_eq!((read.status, read.header("etag")), (200, "W/\"1\""));
    assert_eq!(read.header("content-type"), "application/fhir+json; charset=utf-8");
    let mut expected = sent.clone();
    expected["id"] = json!(id);
    expected["meta"] = json!({"versionId": "1", "lastUpdated": "2026-01-31T08:15:30.000Z"});
    assert_eq!(read.json(), expected);
    assert!(read.text().contains("\"value\":72.0"), "decimals stay as written");

    app.pass(5);
    expected["status"] = json!("amended");
    let updated = backend.put(&address, &expected).await;
    assert_eq!((updated.status, updated.header("etag")), (200, "W/\"2\""));
    assert_eq!(updated.json()["meta"]["lastUpdated"], "2026-01-31T08:15:35.000Z");
    assert_eq!(backend.get(&format!("{address}/_history/1")).await.json()["status"], "final");

    assert_eq!(backend.delete(&address).await.status, 204);
    assert_eq!(backend.delete(&address).await.status, 204, "again: nothing to do");
    assert_eq!(backend.get(&address).await.status, 410);
    assert_eq!(backend.get(&format!("{address}/_history/3")).await.status, 410);
    assert_eq!(backend.get(&format!("{address}/_history/2")).await.json()["status"], "amended");
    assert_eq!(backend.get(&format!("{address}/_history/4")).await.status, 404);
    assert_eq!(backend.get("Observation/never").await.status, 404);

    let history = backend.get(&format!("{address}/_history?_count=2")).await;
    assert_eq!(history.json()["total"], 3);
    let lines = |reply: &Reply| -> Vec<(String, String)> {
        let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
        let line = |entry: &serde_json::Value| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            (text(&entry["request"]["method"]), text(&entry["response"]["etag"]))
        };
        entries.iter().map(line).collect()
    };
    let line = |method: &str, etag: &str| (method.to_owned(), etag.to_owned());
    assert_eq!(lines(&history), [line("DELETE", "W/\"3\""), line("PUT", "W/\"2\"")]);
    let rest = backend.get(&history.link("next").expect("a second page")).await;
    assert_eq!(lines(&rest), [line("PUT", "W/\"1\"")]);
    assert_eq!(rest.link("next"), None);

    let again = backend.put(&address, &expected).await;
    assert_eq!((again.status, again.header("etag")), (201, "W/\"4\""), "a deleted resource can come back");
}

#[tokio::test]
async fn updates_check_the_id_and_the_version() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let created = backend.put("Patient/p1", &patient("p1", "One")).await;
    assert_eq!((created.status, created.header("etag")), (201, "W/\"1\""));
    for (resource, place) in [
        (patient("p2", "Two"), "Patient.id"),
        (json!({"resourceType": "Patient"}), "Patient.id"),
        (json!({"resourceType": "Group", "id": "p1"}), "Patient.resourceType"),
    ] {
        let reply = backend.put("Patient/p1", &resource).await;
        assert_eq!((reply.status, reply.places()), (400, vec![place.to_owned()]));
    }
    let put = |if_match: &'static str, id: &'static str| {
        let headers = [("content-type", "application/fhir+json"), ("if-match", if_match)];
        let backend = &backend;
        async move {
            let body = patient(id, "Next").to_string();
            backend.call("PUT", &format!("Patient/{id}"), &headers, body).await.status
        }
    };
    assert_eq!(put("W/\"7\"", "p1").await, 412);
    assert_eq!(put("W/\"1\"", "new").await, 412, "nothing is there to match");
    assert_eq!(put("soon", "p1").await, 400);
    assert_eq!(put("W/\"1\"", "p1").await, 200);
    assert_eq!(put("W/\"1\"", "p1").await, 412);
    let deleted = backend.call("DELETE", "Patient/p1", &[("if-match", "W/\"1\"")], "").await;
    assert_eq!(deleted.status, 412);
}

#[tokio::test]
async fn any_version_and_none_are_conditions_of_every_write() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let body = |id: &str| patient(id, "Any").to_string();
    let added = || json!([{"op": "add", "path": "/active", "value": true}]).to_string();
    const JSON: &str = "application/fhir+json";
    const PATCH: &str = "application/json-patch+json";
    const MATCH: (&str, &str) = ("if-match", "*");
    const NONE: (&str, &str) = ("if-none-match", "*");
    let tagged = ("if-none-match", "W/\"9\", W/\"2\"");
    for (method, id, kind, condition, sent, status) in [
        ("PUT", "p1", JSON, MATCH, body("p1"), 412),
        ("PATCH", "p1", PATCH, MATCH, added(), 412),
        ("DELETE", "p1", JSON, MATCH, String::new(), 412),
        ("PUT", "p1", JSON, NONE, body("p1"), 201),
        ("PUT", "p1", JSON, NONE, body("p1"), 412),
        ("PATCH", "p1", PATCH, NONE, added(), 412),
        ("DELETE", "p1", JSON, NONE, String::new(), 412),
        ("PUT", "p1", JSON, tagged, body("p1"), 200),
        ("PUT", "p1", JSON, tagged, body("p1"), 412),
        ("PUT", "p1", JSON, MATCH, body("p1"), 200),
        ("PATCH", "p1", PATCH, MATCH, added(), 200),
        (
            "POST",
            "p1/$meta-add",
            JSON,
            MATCH,
            json!({"resourceType": "Parameters", "parameter": [
            {"name": "meta", "valueMeta": {"tag": [{"code": "a"}]}}]})
            .to_string(),
            200,
        ),
        ("DELETE", "p1", JSON, MATCH, String::new(), 204),
        ("PUT", "p1", JSON, MATCH, body("p1"), 412),
        ("PUT", "p1", JSON, NONE, body("p1"), 201),
    ] {
        let headers = [("content-type", kind), condition];
        let reply = backend.call(method, &format!("Patient/{id}"), &headers, sent).await;
        assert_eq!(reply.status, status, "{method} {id} {condition:?}: {}", reply.text());
    }
    for (member, status) in [("ifMatch", "200 OK"), ("ifNoneMatch", "412 Precondition Failed")] {
        let mut entry = json!({"request": {"method": "PUT", "url": "Patient/p1"}, "resource": patient("p1", "In")});
        entry["request"][member] = json!("*");
        let reply = backend.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": [entry]})).await;
        let said = reply.json()["entry"][0]["response"]["status"].as_str().unwrap_or_default().to_owned();
        assert_eq!(said, status, "{member}: {}", reply.text());
    }
}

#[tokio::test]
async fn concurrent_updates_each_make_a_version_and_if_match_lets_one_through() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let resource = patient("p1", "One");
    assert_eq!(backend.put("Patient/p1", &resource).await.status, 201);
    let replies = join_all((0..4).map(|_| backend.put("Patient/p1", &resource))).await;
    let mut versions: Vec<&str> = replies.iter().map(|reply| reply.header("etag")).collect();
    versions.sort_unstable();
    assert_eq!(versions, ["W/\"2\"", "W/\"3\"", "W/\"4\"", "W/\"5\""]);
    let headers = [("content-type", "application/fhir+json"), ("if-match", "W/\"5\"")];
    let body = resource.to_string();
    let replies = join_all((0..4).map(|_| backend.call("PUT", "Patient/p1", &headers, body.clone()))).await;
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412]);
}

#[tokio::test]
async fn concurrent_conditional_creates_make_one_resource() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let organization = json!({"resourceType": "Organization", "identifier": [{"system": "http://a", "value": "1"}]});
    let headers = [("content-type", "application/fhir+json"), ("if-none-exist", "identifier=http://a|1")];
    let create = || backend.call("POST", "Organization", &headers, organization.to_string());
    let replies = join_all((0..4).map(|_| create())).await;
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    assert_eq!(backend.get("Organization?identifier=http://a|1").await.ids().len(), 1);
    let ambiguous = json!({"resourceType": "Organization", "identifier": [{"system": "http://a", "value": "1"}]});
    backend.post("Organization", &ambiguous).await;
    assert_eq!(create().await.status, 412, "two match");
    let headers = [("content-type", "application/fhir+json"), ("if-none-exist", "")];
    assert_eq!(backend.call("POST", "Organization", &headers, organization.to_string()).await.status, 400);
}

#[tokio::test]
async fn conditions_that_do_not_fit_are_refused_and_not_passed_over() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let body = json!({"resourceType": "Organization", "id": "a", "name": "A"});
    let json_body = ("content-type", "application/fhir+json");
    for (method, path, condition) in [
        ("PUT", "Organization/a", ("if-none-exist", "name=A")),
        ("PUT", "Organization?name=A", ("if-none-exist", "name=A")),
        ("DELETE", "Organization/a", ("if-none-exist", "name=A")),
        ("POST", "Organization", ("if-match", "W/\"1\"")),
    ] {
        let reply = backend.call(method, path, &[json_body, condition], body.to_string()).await;
        assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text());
        let asked = match condition.0 {
            "if-match" => json!({"method": method, "url": path, "ifMatch": condition.1}),
            _ => json!({"method": method, "url": path, "ifNoneExist": condition.1}),
        };
        for kind in ["batch", "transaction"] {
            let bundle =
                json!({"resourceType": "Bundle", "type": kind, "entry": [{"resource": body, "request": asked}]});
            let reply = backend.post("", &bundle).await;
            let status = reply.json()["entry"][0]["response"]["status"].as_str().map_or(reply.status, |status| {
                status.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or_default()
            });
            assert_eq!(status, 400, "{kind} {method} {path}: {}", reply.text());
        }
    }
    assert_eq!(backend.get("Organization").await.ids().len(), 0);
}

#[tokio::test]
async fn the_reply_of_a_write_is_what_was_preferred() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let body = json!({"resourceType": "Patient"}).to_string();
    for (prefer, expected) in [
        ("return=minimal", None),
        ("return=representation", Some("Patient")),
        ("return=OperationOutcome", Some("OperationOutcome")),
    ] {
        let headers = [("content-type", "application/fhir+json"), ("prefer", prefer)];
        let reply = backend.call("POST", "Patient", &headers, body.clone()).await;
        assert_eq!(reply.status, 201);
        match expected {
            None => assert!(reply.body.is_empty()),
            Some(kind) => assert_eq!(reply.json()["resourceType"], kind),
        }
    }
}

#[tokio::test]
async fn xml_goes_in_and_comes_out_as_json_does() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let xml = "<Patient xmlns=\"http://hl7.org/fhir\"><id value=\"p1\"/><active value=\"true\"/><name>\
               <family value=\"M&#252;ller\"/></name></Patient>";
    let headers = [("content-type", "application/fhir+xml"), ("accept", "application/fhir+xml")];
    let reply = backend.call("PUT", "Patient/p1", &headers, xml).await;
    assert_eq!((reply.status, reply.header("content-type")), (201, "application/fhir+xml; charset=utf-8"));
    assert!(reply.text().contains("<family value=\"Müller\"/>"), "{}", reply.text());
    assert_eq!(backend.get("Patient/p1").await.json()["name"], json!([{"family": "Müller"}]));
    let bundle = backend.get("Patient?family=m%C3%BCller&_format=xml").await;
    assert!(bundle.text().contains("<Bundle xmlns=\"http://hl7.org/fhir\">"), "{}", bundle.text());
    let refused =
        backend.call("POST", "Patient", &headers, "<Patient xmlns=\"http://hl7.org/fhir\"><x/></Patient>").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("<OperationOutcome"), "{}", refused.text());
}

#[tokio::test]
async fn a_binary_is_its_content_or_a_resource() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let created = backend.call("PUT", "Binary/b1", &[("content-type", "image/png")], "pixels").await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.json()["data"], "cGl4ZWxz");
    let raw = backend.call("GET", "Binary/b1", &[("accept", "image/*, */*;q=0.8")], "").await;
    assert_eq!((raw.header("content-type"), raw.text().as_str()), ("image/png", "pixels"));
    assert_eq!(raw.header("x-content-type-options"), "nosniff");
    let resource = backend.call("GET", "Binary/b1", &[("accept", "application/fhir+json")], "").await;
    assert_eq!(resource.json()["contentType"], "image/png");
    // What is no base64 is only warned of: as content it cannot be given, so it is given as it came.
    for data in ["a b$", "YQ", "===="] {
        let odd = json!({"resourceType": "Binary", "id": "b3", "contentType": "text/plain", "data": data});
        assert!(backend.put("Binary/b3", &odd).await.status < 300, "{data}");
        let reply = backend.get("Binary/b3").await;
        assert_eq!((reply.status, &reply.json()["data"]), (200, &json!(data)));
    }
    let headers = [("content-type", "image/png"), ("x-security-context", "Patient/p1")];
    let of_patient = backend.call("PUT", "Binary/b2", &headers, "face").await;
    assert_eq!(of_patient.json()["securityContext"]["reference"], "Patient/p1");
    let events = backend.audit_of(of_patient.header("x-request-id")).await;
    assert!(events[0]["entity"].to_string().contains("\"Patient/p1\""), "the patient's: {}", events[0]);
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p1", &patient("p1", "One")).await;
    for (name, value, status) in [
        ("if-none-match", "W/\"1\"", 304),
        ("if-none-match", "W/\"2\"", 200),
        ("if-modified-since", "Sat, 31 Jan 2026 08:15:30 GMT", 304),
        ("if-modified-since", "Sat, 31 Jan 2026 08:15:29 GMT", 200),
    ] {
        let reply = backend.call("GET", "Patient/p1", &[(name, value)], "").await;
        assert_eq!((reply.status, reply.body.is_empty()), (status, status == 304), "{name}: {value}");
    }
}

#[tokio::test]
async fn head_is_get_without_its_body_and_pretty_is_for_eyes() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p1", &patient("p1", "One")).await;
    for path in ["Patient/p1", "Patient/p1/_history/1", "Patient/p1/_history", "Patient?family=one", "metadata"] {
        let (get, head) = (backend.get(path).await, backend.call("HEAD", path, &[], "").await);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        for name in ["etag", "last-modified", "content-type", "content-location"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    let read = backend.get("Patient/p1").await;
    assert_eq!(read.header("content-location"), "http://phial.test/fhir/Patient/p1/_history/1");
    assert_eq!(backend.call("HEAD", "Patient/none", &[], "").await.status, 404);
    for format in ["json", "xml"] {
        let pretty = backend.get(&format!("Patient/p1?_pretty=true&_format={format}")).await.text();
        assert!(pretty.lines().count() > 5, "{pretty}");
        assert_eq!(backend.get(&format!("Patient/p1?_format={format}")).await.text().lines().count(), 1);
    }
    assert_eq!(backend.get("Patient/p1?_pretty=perhaps").await.status, 400);
    assert_eq!(backend.get("Patient/p1?_format=pdf").await.status, 406);
}

#[tokio::test]
async fn audit_events_are_added_and_never_changed() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let event = |id: &str| {
        json!({
            "resourceType": "AuditEvent", "id": id, "recorded": "2026-01-31T08:00:00Z",
            "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
            "agent": [{"requestor": false}], "source": {"observer": {"display": "x"}}
        })
    };
    assert_eq!(backend.post("AuditEvent", &event("x")).await.status, 201);
    assert_eq!(backend.put("AuditEvent/a1", &event("a1")).await.status, 201);
    assert_eq!(backend.get("AuditEvent/a1").await.status, 200);
    assert_eq!(backend.put("AuditEvent/a1", &event("a1")).await.status, 405);
    assert_eq!(backend.delete("AuditEvent/a1").await.status, 405);
    let own = backend.get("AuditEvent?_count=1").await.ids().remove(0);
    for id in ["a1", own.as_str()] {
        assert_eq!(backend.get(&format!("AuditEvent/{id}/_history/1")).await.status, 200, "{id}");
        assert_eq!(backend.get(&format!("AuditEvent/{id}/_history/2")).await.status, 404, "{id}");
        assert_eq!(backend.get(&format!("AuditEvent/{id}/_history")).await.ids(), [id]);
    }
}

#[tokio::test]
async fn elements_may_be_named_by_their_paths() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let whole = json!({"resourceType": "Patient", "id": "p", "active": true, "gender": "male",
        "name": [{"use": "usual", "family": "F", "given": ["G"], "_given": [{"id": "g"}]}],
        "link": [{"id": "l", "other": {"reference": "Patient/q", "display": "Q"}, "type": "seealso"}],
        "contact": [{"name": {"family": "C", "given": ["D"]}, "gender": "other", "modifierExtension": [{"url": "http://m", "valueString": "x"}]}]});
    assert_eq!(backend.put("Patient/p", &whole).await.status, 201);
    // Modifiers (active, link, modifierExtension) and what must be there (link.other, link.type) stay.
    let cut = |name: Value, contact: Value| {
        let mut cut = json!({"active": true, "link": whole["link"]});
        for (member, value) in [("name", name), ("contact", contact)] {
            if !value.is_null() {
                cut[member] = value;
            }
        }
        cut
    };
    let family = json!([{"use": "usual", "family": "F"}]);
    let contact = json!([{"name": {"family": "C"}, "modifierExtension": [{"url": "http://m", "valueString": "x"}]}]);
    for (elements, wanted) in [
        ("name", cut(whole["name"].clone(), Value::Null)),
        ("Patient.name", cut(whole["name"].clone(), Value::Null)),
        ("name.family", cut(family.clone(), Value::Null)),
        ("Patient.name.family,contact.name.family", cut(family, contact)),
        ("name.family,name", cut(whole["name"].clone(), Value::Null)),
        ("name.given", cut(json!([{"use": "usual", "given": ["G"], "_given": [{"id": "g"}]}]), Value::Null)),
    ] {
        let read = backend.get(&format!("Patient/p?_elements={elements}")).await.json();
        let found = backend.get(&format!("Patient?_elements={elements}")).await.json()["entry"][0]["resource"].take();
        let past =
            backend.get(&format!("Patient/p/_history?_elements={elements}")).await.json()["entry"][0]["resource"]
                .take();
        for mut seen in [read, found, past] {
            assert_eq!(seen["meta"]["tag"][0]["code"], "SUBSETTED", "{elements}");
            let members = seen.as_object_mut().unwrap();
            members.retain(|name, _| !["resourceType", "id", "meta"].contains(&name.as_str()));
            // The number that the server gives is not asked for.
            assert_eq!(seen, wanted, "{elements}");
        }
    }
    for elements in ["name.nme", "Observation.code", "name.", "Patient."] {
        for address in ["Patient/p", "Patient"] {
            assert_eq!(
                backend.get(&format!("{address}?_elements={elements}")).await.status,
                400,
                "{address} {elements}"
            );
        }
    }
}
