//! What the suites do not say: digits, siblings of primitives, choices, places of faults, limits.

use proptest::prelude::*;
use serde_json::json;

use super::{OPERATIONS_MAX, Patch};
use crate::error::{Kind, Result};
use crate::fhir::json::{self, Node};

fn tree(text: &str) -> Node {
    json::parse(text.as_bytes()).expect("JSON")
}

fn patched(resource: &str, patch: &str) -> Result<String> {
    let patch = Patch::json(tree(patch))?;
    patch.apply(tree(resource)).map(|node| String::from_utf8(json::write(&node)).expect("text"))
}

/// One operation as Parameters: (part name, value[x] suffix, value).
fn operation(parts: &[(&str, &str, Node)]) -> Node {
    let parts: Vec<Node> = parts
        .iter()
        .map(|(name, kind, value)| match *kind {
            "part" | "resource" => json!({"name": name, *kind: value}),
            kind => json!({"name": name, format!("value{kind}"): value}),
        })
        .collect();
    json!({"name": "operation", "part": parts})
}

fn parameters(operations: Vec<Node>) -> Node {
    json!({"resourceType": "Parameters", "parameter": operations})
}

fn by_path(resource: &Node, operations: Vec<Node>) -> Result<Node> {
    Patch::fhirpath(parameters(operations))?.apply(resource.clone())
}

#[test]
fn what_is_not_touched_stays_as_it_was_sent() {
    let resource = r#"{"resourceType":"Observation","valueQuantity":{"value":6.30,"unit":"x"},"status":"final"}"#;
    let out = patched(resource, r#"[{"op":"replace","path":"/status","value":"amended"}]"#).expect("fits");
    assert_eq!(out, resource.replace("final", "amended"));
    let out = patched(resource, r#"[{"op":"replace","path":"/valueQuantity/value","value":1.00E-2}]"#).expect("fits");
    assert_eq!(out, resource.replace("6.30", "1.00E-2"));
    let moved = r#"[{"op":"copy","from":"/valueQuantity","path":"/component"},{"op":"move","from":"/component/value","path":"/valueQuantity/value"}]"#;
    assert!(patched(resource, moved).expect("fits").contains("6.30"));
}

#[test]
fn numbers_are_tested_by_value() {
    let resource = r#"{"resourceType":"Observation","v":100.0}"#;
    let test = |value: &str| patched(resource, &format!(r#"[{{"op":"test","path":"/v","value":{value}}}]"#)).is_ok();
    for same in ["100", "1e2", "1.0E+2", "0.1000e3", "100.000"] {
        assert!(test(same), "{same}");
    }
    for other in ["-100", "1e3", "100.01", "\"100.0\"", "1e99999999999999999999", "0"] {
        assert!(!test(other), "{other}");
    }
    assert!(patched(r#"{"v":-0.0}"#, r#"[{"op":"test","path":"/v","value":0}]"#).is_ok());
}

#[test]
fn faults_name_operation_and_place() {
    let resource = r#"{"resourceType":"Patient","name":[{"family":"A"}]}"#;
    for (patch, place) in [
        (r#"[{"op":"test","path":"/active","value":true}]"#, "Patient.active"),
        (r#"[{"op":"remove","path":"/name/1"}]"#, "Patient.name[1]"),
        (r#"[{"op":"add","path":"/name/0/_family/x","value":1}]"#, "Patient.name[0].family.x"),
        (r#"[{"op":"add","path":"/contact/-","value":{}}]"#, "Patient.contact"),
    ] {
        let error = patched(resource, patch).expect_err("does not fit");
        assert_eq!((error.kind, error.issues[0].expression.as_deref()), (Kind::BusinessRule, Some(place)), "{patch}");
        assert!(error.to_string().contains("Operation 0"), "{error}");
    }
    for (patch, part) in [
        (r#"{"op":"add"}"#, "list of operations"),
        (r#"[1]"#, "Operation 0"),
        (r#"[{"op":"add","path":"/a~2","value":1}]"#, "`path`"),
        (r#"[{"op":"move","path":"/a/b","from":"/a"}]"#, "into itself"),
        (r#"[{"op":"test","path":"/a","value":1},{"op":"spam","path":"/a"}]"#, "Operation 1"),
    ] {
        let error = patched(resource, patch).expect_err("no patch");
        assert!(error.kind == Kind::Invalid && error.to_string().contains(part), "{patch}: {error}");
    }
}

#[test]
fn limits_hold() {
    let one = json!({"op": "test", "path": "/a", "value": 1});
    let many = Node::Array(vec![one; OPERATIONS_MAX + 1]);
    assert!(Patch::json(many).is_err_and(|error| error.kind == Kind::TooCostly));
    // Each copy doubles what is there.
    let bomb: Vec<Node> = (0..60).map(|n| json!({"op": "copy", "from": "", "path": format!("/a{n}")})).collect();
    let patch = Patch::json(Node::Array(bomb)).expect("a patch");
    let error = patch.apply(json!({"resourceType": "Basic", "x": "y".repeat(1000)})).expect_err("too much");
    assert_eq!(error.kind, Kind::TooCostly);
}

#[test]
fn lists_of_primitives_move_with_their_extensions() {
    let resource =
        json!({"resourceType": "Patient", "name": [{"given": ["a", null, "c"], "_given": [null, {"id": "b"}, null]}]});
    let path = ("path", "String", json!("Patient.name.given"));
    let moved = by_path(
        &resource,
        vec![operation(&[
            ("type", "Code", json!("move")),
            path.clone(),
            ("source", "Integer", json!(1)),
            ("destination", "Integer", json!(0)),
        ])],
    );
    let name = &moved.expect("fits")["name"][0];
    assert_eq!(*name, json!({"given": [null, "a", "c"], "_given": [{"id": "b"}, null, null]}));
    let inserted = by_path(
        &resource,
        vec![operation(&[
            ("type", "Code", json!("insert")),
            path,
            ("index", "Integer", json!(3)),
            ("value", "String", json!("d")),
        ])],
    );
    let name = &inserted.expect("fits")["name"][0];
    assert_eq!(*name, json!({"given": ["a", null, "c", "d"], "_given": [null, {"id": "b"}, null, null]}));
    let deleted = operation(&[("type", "Code", json!("delete")), ("path", "String", json!("Patient.name.given[1]"))]);
    assert_eq!(by_path(&resource, vec![deleted]).expect("fits")["name"][0], json!({"given": ["a", "c"]}));
}

#[test]
fn extensions_of_primitives_are_added_and_found() {
    let resource = json!({"resourceType": "Patient", "birthDate": "1980"});
    let extension = json!({"url": "http://x", "valueString": "y"});
    let add = operation(&[
        ("type", "Code", json!("add")),
        ("path", "String", json!("Patient.birthDate")),
        ("name", "String", json!("extension")),
        ("value", "part", json!([{"name": "url", "valueUri": "http://x"}, {"name": "value", "valueString": "y"}])),
    ]);
    let added = by_path(&resource, vec![add]).expect("fits");
    assert_eq!(added["_birthDate"], json!({"extension": [extension]}));
    let replace = operation(&[
        ("type", "Code", json!("replace")),
        ("path", "String", json!("Patient.birthDate.extension('http://x').value")),
        ("value", "Boolean", json!(true)),
    ]);
    let replaced = by_path(&added, vec![replace]).expect("fits");
    assert_eq!(replaced["_birthDate"]["extension"][0], json!({"url": "http://x", "valueBoolean": true}));
    let delete =
        operation(&[("type", "Code", json!("delete")), ("path", "String", json!("Patient.birthDate.extension[0]"))]);
    assert_eq!(by_path(&added, vec![delete]).expect("fits"), resource, "nothing empty is left behind");
}

#[test]
fn a_choice_changes_its_name_with_its_type() {
    let resource = json!({"resourceType": "Observation", "valueQuantity": {"value": 1}, "status": "final"});
    let with = |action: &str, kind: &str, value: Node| {
        let mut parts = vec![("type", "Code", json!(action))];
        match action {
            "add" => {
                parts.push(("path", "String", json!("Observation")));
                parts.push(("name", "String", json!("value")));
            }
            _ => parts.push(("path", "String", json!("Observation.value"))),
        }
        parts.push(("value", kind, value));
        by_path(&resource, vec![operation(&parts)])
    };
    let replaced = with("replace", "String", json!("x")).expect("fits");
    assert_eq!(json::write(&replaced), br#"{"resourceType":"Observation","valueString":"x","status":"final"}"#);
    assert!(with("replace", "Address", json!({"text": "x"})).is_err(), "not one of the choices");
    assert!(with("add", "String", json!("x")).is_err(), "there is a value already");
}

#[test]
fn nested_resources_and_anonymous_elements_are_made() {
    let resource = json!({"resourceType": "Patient", "contained": [{"resourceType": "Organization", "id": "o"}]});
    let add = |path: &str, name: &str, kind: &str, value: Node| {
        operation(&[
            ("type", "Code", json!("add")),
            ("path", "String", json!(path)),
            ("name", "String", json!(name)),
            ("value", kind, value),
        ])
    };
    let out = by_path(
        &resource,
        vec![
            add("Patient", "contained", "resource", json!({"resourceType": "Group", "type": "person", "actual": true})),
            add("Patient.contained.where(id = 'o')", "name", "String", json!("O")),
            add(
                "Patient",
                "contact",
                "part",
                json!([
                    {"name": "name", "part": [{"name": "given", "valueString": "a"}, {"name": "given", "valueString": "b"}]},
                    {"name": "gender", "valueCode": "male"}
                ]),
            ),
        ],
    );
    let out = out.expect("fits");
    assert_eq!(out["contained"][0]["name"], "O");
    assert_eq!(out["contained"][1]["resourceType"], "Group");
    assert_eq!(out["contact"], json!([{"name": {"given": ["a", "b"]}, "gender": "male"}]));
}

#[test]
fn a_fhirpath_patch_that_does_not_fit_says_so() {
    let resource = json!({"resourceType": "Patient", "active": true, "name": [{"family": "A"}, {"family": "B"}]});
    let text = |name: &'static str, value: &str| (name, "String", json!(value));
    let number = |name: &'static str, value: i64| (name, "Integer", json!(value));
    let table = [
        (vec![text("type", "delete"), text("path", "Patient.name")], Kind::BusinessRule),
        (vec![text("type", "replace"), text("path", "Patient.name"), text("value", "x")], Kind::BusinessRule),
        (vec![text("type", "replace"), text("path", "Patient.gender"), text("value", "x")], Kind::BusinessRule),
        (
            vec![text("type", "add"), text("path", "Patient"), text("name", "nam"), text("value", "x")],
            Kind::BusinessRule,
        ),
        (
            vec![
                text("type", "add"),
                text("path", "Patient"),
                text("name", "active"),
                ("value", "Boolean", json!(true)),
            ],
            Kind::BusinessRule,
        ),
        (
            vec![text("type", "add"), text("path", "Patient"), text("name", "name"), text("value", "x")],
            Kind::BusinessRule,
        ),
        (
            vec![text("type", "insert"), text("path", "Patient.active"), number("index", 0), text("value", "x")],
            Kind::BusinessRule,
        ),
        (
            vec![text("type", "move"), text("path", "Patient.name"), number("source", 2), number("destination", 0)],
            Kind::BusinessRule,
        ),
        (vec![text("type", "delete"), text("path", "Patient.name.first().family.length()")], Kind::BusinessRule),
        (vec![text("type", "delete"), text("path", "Patient.(")], Kind::Invalid),
        (vec![text("type", "insert"), text("path", "Patient.name"), number("index", -1)], Kind::Invalid),
        (vec![text("type", "spam"), text("path", "Patient")], Kind::Invalid),
        (vec![text("type", "delete")], Kind::Invalid),
        (vec![text("type", "delete"), text("path", "Patient"), text("path", "Patient")], Kind::Invalid),
    ];
    for (n, (parts, kind)) in table.into_iter().enumerate() {
        let error = by_path(&resource, vec![operation(&parts)]).err().unwrap_or_else(|| panic!("case {n} fits"));
        assert_eq!(error.kind, kind, "case {n}: {error}");
    }
    let gone = operation(&[text("type", "delete"), text("path", "Patient.gender")]);
    assert_eq!(by_path(&resource, vec![gone]).expect("nothing to delete is no fault"), resource);
}

#[test]
fn a_patch_knows_whether_it_asks() {
    let json = |op: Node| Patch::json(json!([op])).expect("a patch").asks();
    assert!(json(json!({"op": "test", "path": "/a", "value": 1})));
    assert!(!json(json!({"op": "add", "path": "/a", "value": 1})));
    let path = |path: &str| {
        let delete = operation(&[("type", "Code", json!("delete")), ("path", "String", json!(path))]);
        Patch::fhirpath(parameters(vec![delete])).expect("a patch").asks()
    };
    assert!(path("Patient.name.where(family = 'A')"));
    assert!(!path("Patient.name[0].family"));
}

fn any_tree() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![Just(Node::Null), any::<bool>().prop_map(Node::Bool), "[a-c]{0,3}".prop_map(Node::String)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Node::Array),
            prop::collection::vec(("[ab/~_0]{0,2}", inner), 0..4)
                .prop_map(|members| Node::Object(members.into_iter().collect())),
        ]
    })
}

/// Every pointer of a tree with what is there.
fn pointers(node: &Node, at: &str, out: &mut Vec<(String, Node)>) {
    out.push((at.to_owned(), node.clone()));
    match node {
        Node::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| pointers(item, &format!("{at}/{n}"), out));
        }
        Node::Object(members) => members.iter().for_each(|(name, value)| {
            pointers(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), out);
        }),
        _ => {}
    }
}

fn plain(patch: Node, node: Node) -> Result<Node> {
    match Patch::json(patch)? {
        Patch::Json(patch) => patch.apply(node),
        Patch::FhirPath(_) => unreachable!("read as JSON Patch"),
    }
}

proptest! {
    #[test]
    fn removing_what_was_added_gives_back_the_document(node in any_tree(), pick in any::<prop::sample::Index>()) {
        let mut all = Vec::new();
        pointers(&node, "", &mut all);
        let (at, value) = &all[pick.index(all.len())];
        let test = json!([{"op": "test", "path": at, "value": value}, {"op": "replace", "path": at, "value": value}]);
        prop_assert_eq!(&plain(test, node.clone()).expect("fits"), &node);
        if value.is_array() {
            let patch = json!([
                {"op": "add", "path": format!("{at}/0"), "value": 1},
                {"op": "test", "path": format!("{at}/0"), "value": 1},
                {"op": "remove", "path": format!("{at}/0")},
            ]);
            prop_assert_eq!(&plain(patch, node.clone()).expect("fits"), &node);
        }
        if !at.is_empty() {
            let patch = json!([
                {"op": "copy", "from": at, "path": at},
                {"op": "move", "from": at, "path": at},
            ]);
            let once = plain(patch, node.clone());
            prop_assert!(once.is_ok());
        }
    }
}
