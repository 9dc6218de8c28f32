//! What a call gives an operation: parameters of the address, of a Parameters body, or a bare resource as body. Every
//! one is checked against the table; faults are named with their place, all of them.

use serde_json::json;

use super::table::{Is, Operation, Param};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::{date, validate};
use crate::interaction::Pairs;

/// Parameters looked at in one call.
const PARAMETERS_MAX: usize = 1_000;

/// The checked parameters of one call.
#[derive(Default)]
pub(super) struct Input {
    given: Vec<Given>,
    /// The position of a page link, still sealed.
    pub cursor: Option<String>,
    /// Parameters of a search, for operations that take them.
    pub search: Pairs,
}

struct Given {
    name: &'static str,
    node: Node,
    place: String,
}

/// Reads a call.
///
/// # Errors
/// `Kind::Invalid` with an issue for every parameter that is unknown, repeated, absent or not of its type.
pub(super) fn read(operation: &Operation, query: Pairs, body: Option<Node>, lenient: bool) -> Result<Input> {
    let mut reader = Reader { operation, lenient, input: Input::default(), named: Vec::new(), issues: Vec::new() };
    if query.len() > PARAMETERS_MAX {
        return Err(Error::new(Kind::TooCostly, format!("At most {PARAMETERS_MAX} parameters are taken.")));
    }
    let linked = operation.paged && query.iter().any(|(name, _)| name == "_cursor");
    if linked && (query.len() > 1 || body.is_some()) {
        return Err(Error::invalid("A page link is complete: no parameter may be added to it."));
    }
    for (name, value) in query {
        match name.as_str() {
            "_cursor" if operation.paged => reader.input.cursor = Some(value),
            _ => reader.of_query(name, value),
        }
    }
    if let Some(body) = body {
        reader.of_body(body)?;
    }
    if !linked {
        reader.complete();
    }
    match reader.issues.is_empty() {
        true => Ok(reader.input),
        false => Err(Error::with_issues(Kind::Invalid, reader.issues)),
    }
}

struct Reader<'a> {
    operation: &'a Operation,
    lenient: bool,
    input: Input,
    /// Known parameters that were given, faulty ones among them.
    named: Vec<&'static str>,
    issues: Vec<Issue>,
}

impl Reader<'_> {
    fn param(&self, name: &str) -> Option<&'static Param> {
        self.operation.params.iter().find(|param| param.name == name)
    }

    fn of_query(&mut self, name: String, value: String) {
        let place = format!("http.{name}");
        let Some(param) = self.param(&name) else {
            return match self.operation.search {
                true => self.input.search.push((name, value)),
                false => self.unknown(&name, place),
            };
        };
        if value.is_empty() {
            return;
        }
        self.named.push(param.name);
        let node = match param.is {
            Is::Simple(kind) => from_text(kind, &value),
            Is::Concept => Ok(concept(&value)),
            Is::Complex(_) | Is::Resource(_) => Err("It is no simple value, and goes into the body of a POST."),
        };
        match node {
            Ok(node) => self.take(param, node, place),
            Err(fault) => self.issues.push(Issue::error("value", format!("{name}: {fault}")).at(place)),
        }
    }

    fn unknown(&mut self, name: &str, place: String) {
        if !self.lenient {
            let known: Vec<&str> = self.operation.params.iter().map(|param| param.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let text = format!("${} has no parameter {name}; it has: {known}.", self.operation.name);
            self.issues.push(Issue::error("not-supported", text).at(place));
        }
    }

    fn take(&mut self, param: &'static Param, node: Node, place: String) {
        if !param.many && self.input.given.iter().any(|given| given.name == param.name) {
            let text = format!("The parameter {} may be given once.", param.name);
            self.issues.push(Issue::error("invalid", text).at(place));
            return;
        }
        self.input.given.push(Given { name: param.name, node, place });
    }

    fn of_body(&mut self, mut body: Node) -> Result<()> {
        if body.get("resourceType").and_then(Node::as_str) != Some("Parameters") {
            return self.bare(body);
        }
        let Some(members) = body.as_object_mut() else { return Ok(()) };
        for (name, value) in std::mem::take(members) {
            match (name.as_str(), value) {
                ("resourceType" | "id" | "meta" | "implicitRules" | "language", _) => {}
                ("parameter", Node::Array(items)) if items.len() <= PARAMETERS_MAX => {
                    for (n, item) in items.into_iter().enumerate() {
                        self.item(item, format!("Parameters.parameter[{n}]"));
                    }
                }
                ("parameter", Node::Array(_)) => {
                    return Err(Error::new(Kind::TooCostly, format!("At most {PARAMETERS_MAX} parameters are taken.")));
                }
                ("parameter", _) => self.fault("structure", "Expected a list.", "Parameters.parameter"),
                (other, _) => {
                    self.fault("structure", "There is no such element.", &format!("Parameters.{other}"));
                }
            }
        }
        Ok(())
    }

    fn fault(&mut self, code: &'static str, text: &'static str, place: &str) {
        self.issues.push(Issue::error(code, text).at(place));
    }

    /// A body that is the resource itself.
    fn bare(&mut self, body: Node) -> Result<()> {
        let kind = body.get("resourceType").and_then(Node::as_str).unwrap_or_default().to_owned();
        let takes = |param: &&Param| matches!(param.is, Is::Resource(of) if of == "Resource" || of == kind);
        let Some(param) = self.operation.params.iter().find(takes) else {
            let text = "The body must be a Parameters resource.";
            return Err(Error::invalid(text).at("Parameters.resourceType"));
        };
        self.named.push(param.name);
        self.take(param, body, kind);
        Ok(())
    }

    /// One `parameter` of a Parameters body.
    fn item(&mut self, item: Node, place: String) {
        let Node::Object(mut members) = item else {
            return self.fault("structure", "Expected an object.", &place);
        };
        members.shift_remove("id");
        let Some(Node::String(name)) = members.shift_remove("name") else {
            return self.fault("required", "A parameter has a name.", &format!("{place}.name"));
        };
        let Some(param) = self.param(&name) else { return self.unknown(&name, format!("{place}.name")) };
        self.named.push(param.name);
        let mut members = members.into_iter();
        let (Some((member, node)), None) = (members.next(), members.next()) else {
            let text = "A parameter holds one value or one resource and nothing else.";
            return self.fault("structure", text, &place);
        };
        let at = format!("{place}.{}", if member == "resource" { "resource" } else { "value" });
        match (param.is, member.strip_prefix("value")) {
            (Is::Resource(of), None) if member == "resource" => {
                let is = node.get("resourceType").and_then(Node::as_str);
                match of == "Resource" || is == Some(of) {
                    true => self.take(param, node, at),
                    false => self.wrong(param, at),
                }
            }
            (Is::Simple(of), Some(given)) if kin(of, given) => match validate::simple(of, &node) {
                Ok(()) => self.take(param, node, at),
                Err(fault) => self.issues.push(Issue::error("value", format!("{name}: {fault}")).at(at)),
            },
            (is @ (Is::Complex(_) | Is::Concept), Some(given)) if is.name() == given => {
                let issues = validate::datatype(given, &node, &at);
                match validate::refuses(&issues) {
                    true => self.issues.extend(issues),
                    false => self.take(param, node, at),
                }
            }
            _ => self.wrong(param, at),
        }
    }

    fn wrong(&mut self, param: &Param, place: String) {
        let text = match param.is {
            Is::Resource(of) => format!("The parameter {} is a resource: {of}.", param.name),
            is => format!("The parameter {} is a {}.", param.name, is.name()),
        };
        self.issues.push(Issue::error("value", text).at(place));
    }

    /// What must be there.
    fn complete(&mut self) {
        for param in self.operation.params.iter().filter(|param| param.min > 0) {
            if !self.named.contains(&param.name) {
                let text = format!("The parameter {} is absent.", param.name);
                self.issues.push(Issue::error("required", text).at("Parameters.parameter"));
            }
        }
    }
}

/// Whether a value of the type `given` (`String`) may stand for one of `of` (`code`): texts may stand for each other,
/// their format is checked, and so may whole numbers.
fn kin(of: &str, given: &str) -> bool {
    const NUMBERS: [&str; 3] = ["Integer", "PositiveInt", "UnsignedInt"];
    const TEXTS: [&str; 9] = ["String", "Code", "Id", "Uri", "Url", "Canonical", "Date", "DateTime", "Instant"];
    let of = of.split_at_checked(1).map(|(first, rest)| format!("{}{rest}", first.to_ascii_uppercase()));
    let of = of.as_deref().unwrap_or_default();
    of == given || [&NUMBERS[..], &TEXTS[..]].iter().any(|kin| kin.contains(&of) && kin.contains(&given))
}

/// `code` or `system|code`.
fn concept(text: &str) -> Node {
    match text.split_once('|') {
        None => json!({"coding": [{"code": text}]}),
        Some(("", code)) => json!({"coding": [{"code": code}]}),
        Some((system, "")) => json!({"coding": [{"system": system}]}),
        Some((system, code)) => json!({"coding": [{"system": system, "code": code}]}),
    }
}

/// The other way round, for each coding.
fn codings(concept: &Node) -> Vec<String> {
    let codings = concept.get("coding").and_then(Node::as_array).into_iter().flatten();
    let part = |coding: &Node, name: &str| coding.get(name).and_then(Node::as_str).map(str::to_owned);
    let text = |coding: &Node| match (part(coding, "system"), part(coding, "code")) {
        (None, code) => code,
        (Some(system), code) => Some(format!("{system}|{}", code.unwrap_or_default())),
    };
    codings.filter_map(text).collect()
}

fn from_text(kind: &str, text: &str) -> Result<Node, &'static str> {
    let node = match kind {
        "boolean" => match text {
            "true" => json!(true),
            "false" => json!(false),
            _ => return Err("Expected true or false."),
        },
        "integer" | "positiveInt" | "unsignedInt" => match text.parse::<i32>() {
            Ok(number) => json!(number),
            Err(_) => return Err("Expected a whole number of 32 bits."),
        },
        _ => json!(text),
    };
    validate::simple(kind, &node).map(|()| node)
}

impl Input {
    /// For the search of a page link or an inner call: as if these had been sent.
    pub fn of_pairs(operation: &Operation, pairs: Pairs) -> Result<Input> {
        read(operation, pairs, None, false)
    }

    /// The values of a parameter, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Node> {
        self.given.iter().filter(move |given| given.name == name).map(|given| &given.node)
    }

    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).filter_map(Node::as_str)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|given| given.name == name).and_then(|given| given.node.as_str())
    }

    /// Where a parameter was given, for faults that only its meaning shows.
    pub fn place(&self, name: &str) -> String {
        self.given.iter().find(|given| given.name == name).map_or_else(String::new, |given| given.place.clone())
    }

    pub fn number(&self, name: &str) -> Option<usize> {
        let node = self.given.iter().find(|given| given.name == name).map(|given| &given.node)?;
        node.as_u64().and_then(|number| usize::try_from(number).ok())
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        self.given.iter().find(|given| given.name == name).and_then(|given| given.node.as_bool())
    }

    /// The dates of care, `start` and `end`.
    ///
    /// # Errors
    /// `Kind::Invalid` when the end lies before the start: nothing could be found by them.
    pub fn care(&self) -> Result<(Option<&str>, Option<&str>)> {
        let (start, end) = (self.text("start"), self.text("end"));
        if let (Some(first), Some(last)) = (start, end)
            && date::parse(first)?.lo > date::parse(last)?.hi
        {
            return Err(Error::invalid("The end lies before the start.").at(self.place("end")));
        }
        Ok((start, end))
    }

    /// A resource or datatype, taken out.
    pub fn take(&mut self, name: &str) -> Option<Node> {
        let at = self.given.iter().position(|given| given.name == name)?;
        Some(self.given.remove(at).node)
    }

    /// What an address can hold, as pairs: simple values, and the codings of concepts one by one.
    pub fn pairs(&self) -> Pairs {
        let texts = |node: &Node| match node {
            Node::String(text) => vec![text.clone()],
            Node::Bool(_) | Node::Number(_) => vec![node.to_string()],
            _ => codings(node),
        };
        let pairs = |given: &Given| texts(&given.node).into_iter().map(|text| (given.name.to_owned(), text));
        self.given.iter().flat_map(|given| pairs(given).collect::<Vec<_>>()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::operations::table;

    fn everything() -> &'static Operation {
        table::find("everything", Some("Patient"), true).expect("in the table")
    }

    fn query(text: &str) -> Result<Input> {
        read(everything(), crate::interaction::form::decode(text).expect("a form"), None, false)
    }

    fn body(parameter: Node) -> Result<Input> {
        read(everything(), Vec::new(), Some(json!({"resourceType": "Parameters", "parameter": parameter})), false)
    }

    fn places(input: Result<Input>) -> Vec<String> {
        let issues = input.err().map(|error| error.issues).unwrap_or_default();
        issues.into_iter().filter_map(|issue| issue.expression).collect()
    }

    #[test]
    fn addresses_and_bodies_say_the_same() {
        let by_get = query("_count=5&_type=Observation,Condition&start=2020-01");
        let by_post = body(json!([
            {"name": "_count", "valueInteger": 5},
            {"name": "_type", "valueCode": "Observation,Condition"},
            {"name": "start", "valueDate": "2020-01"}
        ]));
        let (Ok(by_get), Ok(by_post)) = (by_get, by_post) else { panic!("both are valid") };
        assert_eq!(by_get.pairs(), by_post.pairs());
        assert_eq!(by_get.number("_count"), Some(5));
        assert_eq!(by_get.text("start"), Some("2020-01"));
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        assert_eq!(places(query("_count=0&colour=red&start=tomorrow")), ["http._count", "http.colour", "http.start"]);
        assert_eq!(places(query("start=2020&start=2021")), ["http.start"]);
        let faults = body(json!([
            {"name": "_count", "valueString": "5"},
            {"name": "_since", "valueInstant": "2020"},
            {"name": "start", "valueDate": "2020"},
            {"name": "start", "valueDate": "2021"},
            {"name": "colour", "valueCode": "red"},
            {"name": "end"},
            {"valueCode": "x"},
            {"name": "_type", "resource": {"resourceType": "Patient"}}
        ]));
        let at = |n: usize, rest: &str| format!("Parameters.parameter[{n}]{rest}");
        let expected = [
            at(0, ".value"),
            at(1, ".value"),
            at(3, ".value"),
            at(4, ".name"),
            at(5, ""),
            at(6, ".name"),
            at(7, ".resource"),
        ];
        assert_eq!(places(faults), expected);
    }

    #[test]
    fn a_page_link_stands_alone() {
        assert!(query("_cursor=x").is_ok());
        assert!(query("_cursor=x&_count=1").is_err());
    }
}
