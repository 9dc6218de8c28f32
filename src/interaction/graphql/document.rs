//! The text of a GraphQL query as a tree of selections: the operation is chosen, variables are put in, fragments are
//! in their places, `@skip` and `@include` are decided. Knows the language, not what the fields mean in FHIR; the
//! arguments are read into what kind of field the name says it is.

use std::collections::HashMap;

use graphql_parser::query as ast;

use super::Fault;
use super::arguments::{self, Argument};
use crate::error::{Error, Kind};
use crate::fhir::json::Node;
use crate::fhir::path::Expr;
use crate::fhir::{TypeId, definitions};

pub use graphql_parser::Pos;

/// Limits of one query. Beyond them the answer is `too-costly` and states the limit.
pub mod limits {
    /// Bytes of its text.
    pub const TEXT: usize = 64 * 1024;
    /// Selections in one another, fragments counted.
    pub const DEPTH: usize = 24;
    /// Fields and fragments, each counted as often as fragments repeat it.
    pub const FIELDS: usize = 1_000;
}

/// A query as it was sent.
pub struct Request {
    pub query: String,
    pub operation: Option<String>,
    /// An object, or null.
    pub variables: Node,
}

pub enum Selection {
    Field(Box<Field>),
    /// Selections of a fragment, and the type they are for.
    On {
        kind: Option<String>,
        selections: Vec<Selection>,
    },
}

pub struct Field {
    /// Distinct within one query.
    pub number: usize,
    pub at: Pos,
    /// The name in the answer.
    pub key: String,
    pub name: String,
    pub what: What,
    pub flatten: bool,
    pub first: bool,
    pub singleton: bool,
    pub slice: Option<Slice>,
    pub selections: Vec<Selection>,
    /// Name, arguments and directives: fields of one key must agree in it.
    pub said: String,
}

/// `@slice(path:)`.
pub enum Slice {
    Index,
    Path(Expr),
}

/// What a name asks for.
pub enum What {
    TypeName,
    /// `__schema`, or `__type` with a name.
    Introspection {
        name: Option<String>,
    },
    /// `Patient(id: "1")`.
    Lookup {
        kind: TypeId,
        id: String,
    },
    /// `PatientList(...)`, `PatientConnection(...)`.
    Search {
        kind: TypeId,
        search: Search,
        connection: bool,
    },
    /// `resource(optional:, type:)`: what a reference points to, or an element of that name.
    Resource {
        optional: bool,
        only: Vec<TypeId>,
        bare: bool,
    },
    /// An element, or a field of a connection.
    Element(Filter),
}

/// Arguments of a search.
#[derive(Default)]
pub struct Search {
    /// Parameters by their FHIR names.
    pub pairs: Vec<(String, String)>,
    /// `_reference`: the parameter by which what is found refers to where the field stands.
    pub reference: Option<String>,
    pub count: Option<usize>,
    pub offset: usize,
    pub cursor: Option<String>,
}

/// Arguments of an element.
#[derive(Default)]
pub struct Filter {
    pub fhirpath: Vec<Expr>,
    /// Member and value as text.
    pub equals: Vec<(String, String)>,
    pub count: Option<usize>,
    pub offset: usize,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.fhirpath.is_empty() && self.equals.is_empty() && self.count.is_none() && self.offset == 0
    }
}

impl Field {
    /// Whether a field of this name is selected of it.
    pub fn selects(&self, name: &str) -> bool {
        fn among(selections: &[Selection], name: &str) -> bool {
            selections.iter().any(|selection| match selection {
                Selection::Field(field) => field.name == name,
                Selection::On { selections, .. } => among(selections, name),
            })
        }
        among(&self.selections, name)
    }
}

type Set<'a> = ast::SelectionSet<'a, &'a str>;
type Directives<'a> = [ast::Directive<'a, &'a str>];
type Variables<'a> = [ast::VariableDefinition<'a, &'a str>];
type Fragments<'a> = HashMap<&'a str, &'a ast::FragmentDefinition<'a, &'a str>>;

/// Reads the text and gives the selections of the operation that is asked for.
///
/// # Errors
/// `Kind::Invalid` with line and column; `Kind::Unsupported` for mutations and subscriptions; `Kind::TooCostly`.
pub fn parse(request: &Request) -> Result<Vec<Selection>, Fault> {
    if request.query.len() > limits::TEXT {
        return Err(costly(format!("A query may have {} bytes.", limits::TEXT)));
    }
    if nesting(&request.query) > limits::DEPTH {
        return Err(costly(format!("Brackets may be {} deep.", limits::DEPTH)));
    }
    let parsed = ast::parse_query::<&str>(&request.query).map_err(|error| unreadable(&error.to_string()))?;
    let mut fragments = Fragments::new();
    let mut operations = Vec::new();
    for definition in &parsed.definitions {
        match definition {
            ast::Definition::Operation(operation) => operations.push(operation),
            ast::Definition::Fragment(fragment) => {
                if fragments.insert(fragment.name, fragment).is_some() {
                    let text = format!("The fragment '{}' is defined twice.", fragment.name);
                    return Err(Fault::invalid(text).at(fragment.position));
                }
            }
        }
    }
    let (set, definitions) = chosen(&operations, request.operation.as_deref())?;
    let variables = variables(definitions, &request.variables)?;
    let mut builder = Builder { fragments: &fragments, variables: &variables, open: Vec::new(), fields: 0 };
    builder.set(set)
}

/// How deep brackets stand in one another, texts and comments left out. The parser recurses, so this comes first.
fn nesting(text: &str) -> usize {
    let (mut deepest, mut depth) = (0, 0usize);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '(', '[', '}', ')', ']', '"', '#']) {
        let (sign, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = match sign {
            b'#' => after.find('\n').map_or("", |end| &after[end..]),
            b'"' => match after.strip_prefix("\"\"") {
                Some(block) => after_block(block),
                None => after_text(after),
            },
            b'{' | b'(' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                after
            }
            _ => {
                depth = depth.saturating_sub(1);
                after
            }
        };
    }
    deepest
}

/// What follows the three quotes that end a block; escaped ones do not.
fn after_block(block: &str) -> &str {
    let ends = |(at, _): &(usize, &str)| !block[..*at].ends_with('\\');
    block.match_indices("\"\"\"").find(ends).map_or("", |(at, quotes)| &block[at + quotes.len()..])
}

/// What follows the quote that ends a text.
fn after_text(text: &str) -> &str {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or("", |end| &text[end + 1..])
}

/// The operation's selections and variables.
fn chosen<'a, 'b>(
    operations: &[&'b ast::OperationDefinition<'a, &'a str>],
    wanted: Option<&str>,
) -> Result<(&'b Set<'a>, &'b Variables<'a>), Fault> {
    use ast::OperationDefinition as Operation;
    let name = |operation: &Operation<'a, &'a str>| match operation {
        Operation::SelectionSet(_) => None,
        Operation::Query(query) => query.name,
        Operation::Mutation(mutation) => mutation.name,
        Operation::Subscription(subscription) => subscription.name,
    };
    let mut found = operations.iter().filter(|operation| wanted.is_none() || name(operation) == wanted);
    let operation = match (found.next(), found.next()) {
        (Some(operation), None) => *operation,
        (None, _) => return Err(Fault::invalid("The document holds no such operation.")),
        _ => return Err(Fault::invalid("The document holds several operations: operationName must choose one.")),
    };
    let refused = |what: &str, at: Pos| {
        let text = format!("{what} are not supported: FHIR's own interactions write and subscribe.");
        Err(Fault::from(Error::unsupported(text)).at(at))
    };
    match operation {
        Operation::SelectionSet(set) => Ok((set, &[])),
        Operation::Query(query) => {
            if let Some(directive) = query.directives.first() {
                let text = format!("The directive '@{}' has no place on a query.", directive.name);
                return Err(Fault::invalid(text).at(directive.position));
            }
            Ok((&query.selection_set, &query.variable_definitions))
        }
        Operation::Mutation(mutation) => refused("Mutations", mutation.position),
        Operation::Subscription(subscription) => refused("Subscriptions", subscription.position),
    }
}

/// The value of every variable that the operation defines; those without one are left out.
fn variables<'a>(defined: &Variables<'a>, given: &Node) -> Result<HashMap<&'a str, Argument>, Fault> {
    if !given.is_object() && !given.is_null() {
        return Err(Fault::invalid("The variables must be an object."));
    }
    let mut values = HashMap::new();
    for variable in defined {
        let at = |fault: Fault| fault.at(variable.position);
        let value = match (given.get(variable.name), &variable.default_value) {
            (Some(sent), _) => Some(arguments::of_json(sent).map_err(at)?),
            (None, Some(default)) => Some(arguments::of_ast(default, &HashMap::new()).map_err(at)?),
            (None, None) => None,
        };
        arguments::fits(variable.name, &variable.var_type, value.as_ref()).map_err(at)?;
        if let Some(value) = value
            && values.insert(variable.name, value).is_some()
        {
            return Err(at(Fault::invalid(format!("The variable '${}' is defined twice.", variable.name))));
        }
    }
    Ok(values)
}

struct Builder<'a, 'b> {
    fragments: &'b Fragments<'a>,
    variables: &'b HashMap<&'a str, Argument>,
    /// Fragments and fields that are being read: those in one another.
    open: Vec<Option<&'a str>>,
    fields: usize,
}

/// What the directives of a field say.
#[derive(Default)]
struct Directed {
    flatten: bool,
    first: bool,
    singleton: bool,
    slice: Option<Slice>,
}

impl<'a> Builder<'a, '_> {
    fn set(&mut self, set: &Set<'a>) -> Result<Vec<Selection>, Fault> {
        let mut selections = Vec::with_capacity(set.items.len());
        for item in &set.items {
            self.fields += 1;
            if self.fields > limits::FIELDS {
                return Err(costly(format!("A query may have {} fields, those of fragments counted.", limits::FIELDS)));
            }
            selections.extend(self.selection(item)?);
        }
        Ok(selections)
    }

    /// None: skipped.
    fn selection(&mut self, item: &ast::Selection<'a, &'a str>) -> Result<Option<Selection>, Fault> {
        let (directives, of_field) = match item {
            ast::Selection::Field(field) => (&field.directives, true),
            ast::Selection::FragmentSpread(spread) => (&spread.directives, false),
            ast::Selection::InlineFragment(inline) => (&inline.directives, false),
        };
        let Some(directed) = self.directed(directives, of_field)? else { return Ok(None) };
        Ok(Some(match item {
            ast::Selection::Field(field) => Selection::Field(Box::new(self.field(field, directed)?)),
            ast::Selection::FragmentSpread(spread) => {
                let name = spread.fragment_name;
                let at = |fault: Fault| fault.at(spread.position);
                let Some(fragment) = self.fragments.get(name) else {
                    return Err(at(Fault::invalid(format!("The fragment '{name}' is not defined."))));
                };
                if self.open.contains(&Some(name)) {
                    return Err(at(Fault::invalid(format!("The fragment '{name}' holds itself."))));
                }
                let ast::TypeCondition::On(kind) = &fragment.type_condition;
                self.fragment(Some(name), Some(*kind), &fragment.selection_set, spread.position)?
            }
            ast::Selection::InlineFragment(inline) => {
                let kind = inline.type_condition.as_ref().map(|ast::TypeCondition::On(kind)| *kind);
                self.fragment(None, kind, &inline.selection_set, inline.position)?
            }
        }))
    }

    fn fragment(
        &mut self,
        name: Option<&'a str>,
        kind: Option<&'a str>,
        set: &Set<'a>,
        at: Pos,
    ) -> Result<Selection, Fault> {
        if let Some(kind) = kind.filter(|kind| !super::schema::is_named(kind)) {
            return Err(Fault::invalid(format!("There is no type '{kind}'.")).at(at));
        }
        let selections = self.deeper(name, set, at)?;
        Ok(Selection::On { kind: kind.map(str::to_owned), selections })
    }

    fn deeper(&mut self, name: Option<&'a str>, set: &Set<'a>, at: Pos) -> Result<Vec<Selection>, Fault> {
        if self.open.len() >= limits::DEPTH {
            return Err(costly(format!("Selections may be {} deep.", limits::DEPTH)).at(at));
        }
        self.open.push(name);
        let selections = self.set(set);
        self.open.pop();
        selections
    }

    /// None: skipped or not included.
    fn directed(&self, directives: &Directives<'a>, of_field: bool) -> Result<Option<Directed>, Fault> {
        let mut directed = Directed::default();
        let mut shown = true;
        for (n, directive) in directives.iter().enumerate() {
            let at = |fault: Fault| fault.at(directive.position);
            let invalid = |text: String| Err(at(Fault::invalid(text)));
            let name = directive.name;
            if directives[..n].iter().any(|other| other.name == name) {
                return invalid(format!("The directive '@{name}' stands twice."));
            }
            let mut given = arguments::all(&directive.arguments, self.variables).map_err(at)?;
            let argument = given.pop();
            if !given.is_empty() {
                return invalid(format!("The directive '@{name}' takes one argument at most."));
            }
            match (name, argument) {
                ("skip", Some(("if", Argument::Bool(skip)))) => shown &= !skip,
                ("include", Some(("if", Argument::Bool(include)))) => shown &= include,
                ("skip" | "include", _) => return invalid(format!("'@{name}' takes if: with a Boolean.")),
                (_, _) if !of_field => return invalid(format!("'@{name}' has no place on a fragment.")),
                ("flatten", None) => directed.flatten = true,
                ("first", None) => directed.first = true,
                ("singleton", None) => directed.singleton = true,
                ("slice", Some(("path" | "fhirpath", Argument::Text(path)))) => {
                    directed.slice = Some(match path.as_str() {
                        "$index" => Slice::Index,
                        path => Slice::Path(Expr::parse(path).map_err(|error| at(error.into()))?),
                    });
                }
                ("slice", _) => return invalid("'@slice' takes path: with a FHIRPath or \"$index\".".to_owned()),
                ("flatten" | "first" | "singleton", _) => return invalid(format!("'@{name}' takes no argument.")),
                _ => return invalid(format!("The directive '@{name}' is not known.")),
            }
        }
        if directed.first && directed.slice.is_some() {
            return Err(Fault::invalid("'@first' and '@slice' cannot be combined.").at(directives[0].position));
        }
        Ok(shown.then_some(directed))
    }

    fn field(&mut self, field: &ast::Field<'a, &'a str>, directed: Directed) -> Result<Field, Fault> {
        let given = arguments::all(&field.arguments, self.variables).map_err(|fault| fault.at(field.position))?;
        let said = format!("{} {given:?} {:?}", field.name, names(&field.directives, self.variables)?);
        let number = self.fields;
        let what = what(field.name, given).map_err(|fault| fault.at(field.position))?;
        Ok(Field {
            number,
            at: field.position,
            key: field.alias.unwrap_or(field.name).to_owned(),
            name: field.name.to_owned(),
            what,
            flatten: directed.flatten,
            first: directed.first,
            singleton: directed.singleton,
            slice: directed.slice,
            selections: self.deeper(None, &field.selection_set, field.position)?,
            said,
        })
    }
}

/// Directives of FHIR as they stand, for comparing fields of one key.
fn names<'a>(directives: &Directives<'a>, variables: &HashMap<&'a str, Argument>) -> Result<Vec<String>, Fault> {
    let of_fhir = directives.iter().filter(|directive| directive.name != "skip" && directive.name != "include");
    of_fhir
        .map(|directive| Ok(format!("{} {:?}", directive.name, arguments::all(&directive.arguments, variables)?)))
        .collect()
}

/// What a field's name and arguments ask for. Names of types begin with a capital, those of elements do not.
fn what(name: &str, given: Vec<(&str, Argument)>) -> Result<What, Fault> {
    let of_type = |name: &str| definitions().type_id(name);
    if let Some(kind) = of_type(name) {
        return Ok(What::Lookup { kind, id: arguments::lookup(name, given)? });
    }
    let list = name.strip_suffix("List").and_then(of_type).map(|kind| (kind, false));
    let connection = || name.strip_suffix("Connection").and_then(of_type).map(|kind| (kind, true));
    if let Some((kind, connection)) = list.or_else(connection) {
        return Ok(What::Search { kind, search: arguments::search(kind, given)?, connection });
    }
    match name {
        "__typename" | "__schema" if !given.is_empty() => Err(Fault::invalid(format!("'{name}' takes no argument."))),
        "__typename" => Ok(What::TypeName),
        "__schema" => Ok(What::Introspection { name: None }),
        "__type" => match given.as_slice() {
            [("name", Argument::Text(name))] => Ok(What::Introspection { name: Some(name.clone()) }),
            _ => Err(Fault::invalid("'__type' takes one argument, 'name'.")),
        },
        "resource" => arguments::resource(given),
        _ => Ok(What::Element(arguments::filter(given)?)),
    }
}

fn costly(text: String) -> Fault {
    Error::new(Kind::TooCostly, text).into()
}

/// The parser's own words, with its place taken out of them.
fn unreadable(text: &str) -> Fault {
    let text = text.strip_prefix("query parse error: ").unwrap_or(text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let place = first.rsplit_once("at ").and_then(|(_, place)| place.trim_end_matches(':').split_once(':'));
    let place = place.and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    let words = rest.split_whitespace().collect::<Vec<_>>().join(" ");
    let fault = Fault::invalid(format!("The query cannot be read: {}", words.trim()));
    match place {
        Some((line, column)) => fault.at(Pos { line, column }),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Vec<Selection>, Fault> {
        parse(&Request { query: query.to_owned(), operation: None, variables: Node::Null })
    }

    #[test]
    fn nesting_is_told_without_texts_and_comments() {
        for (text, deep) in [
            ("{ a(b: [1]) { c } }", 3),
            ("{ a(b: \"{{{\") }", 2),
            ("{ a(b: \"\\\"{{{\") }", 2),
            ("{ a(b: \"\"\"\"{{{\"\"\") }", 2),
            ("{ a(b: \"\"\"\\\"\"\" {{{ \"\"\") { c } }", 2),
            ("{ # {{{\n a }", 1),
            ("\"{", 0),
            ("}}}{", 1),
        ] {
            assert_eq!(nesting(text), deep, "{text}");
        }
    }

    #[test]
    fn the_deepest_query_needs_little_of_the_stack() {
        let deepest = |levels: usize| format!("{{{}id{}}}", "x{".repeat(levels - 1), "}".repeat(levels - 1));
        let small = std::thread::Builder::new().stack_size(768 * 1024).spawn(move || {
            assert!(read(&deepest(limits::DEPTH)).is_ok());
            assert!(read(&deepest(limits::DEPTH + 1)).is_err_and(|fault| fault.error.kind == Kind::TooCostly));
        });
        small.expect("a thread").join().expect("no panic");
    }
}
