//! Types as FHIRPath sees them: every type and backbone element of R4 as a small number, and for each the children by
//! name, with the members of the JSON object where they stand. Built once from the definitions.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::fhir::definitions::{Element, definitions};
use crate::fhir::json::Node;

/// A type or backbone element. Small, so that an item of a collection stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ty(u16);

/// The name of an element as a number, so that a step costs no string comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sym(u16);

/// The System type a FHIR primitive (or Quantity) turns into where a value is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Boolean,
    Integer,
    Decimal,
    String,
    Date,
    DateTime,
    Time,
    Quantity,
}

/// Where a child stands in the JSON object: `valueQuantity` for `value` of type Quantity.
pub(super) struct Member {
    pub key: &'static str,
    /// `_birthDate`, for primitives only.
    pub sibling: Option<Box<str>>,
    pub ty: Ty,
}

struct Def {
    /// The type code: `HumanName`, `code`, `BackboneElement`.
    name: &'static str,
    parent: Option<Ty>,
    system: Option<System>,
    primitive: bool,
    /// `Resource`: the node itself says which one it is.
    any_resource: bool,
    resource: bool,
    /// Children by name, sorted by symbol.
    kids: Vec<(Sym, Vec<Member>)>,
    /// The type of each member of the JSON object.
    keys: HashMap<&'static str, Ty>,
}

struct Table {
    defs: Vec<Def>,
    by_name: HashMap<&'static str, Ty>,
    symbols: HashMap<&'static str, Sym>,
}

static TABLE: LazyLock<Table> = LazyLock::new(build);

const PRIMITIVES: [(&str, System); 20] = [
    ("boolean", System::Boolean),
    ("integer", System::Integer),
    ("unsignedInt", System::Integer),
    ("positiveInt", System::Integer),
    ("decimal", System::Decimal),
    ("string", System::String),
    ("code", System::String),
    ("id", System::String),
    ("markdown", System::String),
    ("uri", System::String),
    ("url", System::String),
    ("canonical", System::String),
    ("uuid", System::String),
    ("oid", System::String),
    ("base64Binary", System::String),
    ("xhtml", System::String),
    ("date", System::Date),
    ("dateTime", System::DateTime),
    ("instant", System::DateTime),
    ("time", System::Time),
];

/// Types that are described by no snapshot of their own children but may be named in an expression.
const ABSTRACT: [&str; 6] = ["Element", "BackboneElement", "Resource", "DomainResource", "Extension", "Quantity"];

impl Ty {
    /// Nothing is known: children are found by the shape of the JSON.
    pub const UNKNOWN: Ty = Ty(0);

    fn def(self) -> &'static Def {
        &TABLE.defs[usize::from(self.0)]
    }

    /// The type of this code (`HumanName`, `code`, `Patient`).
    pub fn named(name: &str) -> Option<Ty> {
        TABLE.by_name.get(name).copied()
    }

    /// The type code; None for unknown.
    pub fn name(self) -> Option<&'static str> {
        (self != Ty::UNKNOWN).then(|| self.def().name)
    }

    pub fn system(self) -> Option<System> {
        self.def().system
    }

    pub fn is_primitive(self) -> bool {
        self.def().primitive
    }

    /// Whether this is the other type or derives from it.
    pub fn is_a(self, other: Ty) -> bool {
        let mut at = Some(self);
        while let Some(ty) = at {
            if ty == other {
                return true;
            }
            at = ty.def().parent;
        }
        false
    }

    /// The members in which a child of this name may stand; None when the type has no such child.
    pub fn members(self, sym: Sym) -> Option<&'static [Member]> {
        let kids = &self.def().kids;
        kids.binary_search_by_key(&sym, |(s, _)| *s).ok().map(|at| kids[at].1.as_slice())
    }

    /// The type of a member of the JSON object, `valueQuantity` say.
    pub fn member_type(self, key: &str) -> Option<Ty> {
        self.def().keys.get(key).copied()
    }

    /// Whether a node of this type is some resource that itself says which.
    pub fn holds_resource(self) -> bool {
        self.def().any_resource
    }

    /// Whether more than its own children may be found in an instance: `Resource`, `Element` and the like.
    pub fn is_abstract(self) -> bool {
        self.holds_resource() || self.name().is_some_and(|name| name == "Element")
    }

    /// Whether this is a resource type, abstract ones included.
    pub fn is_resource(self) -> bool {
        self.def().resource
    }

    pub fn is_resource_or_unknown(self) -> bool {
        self == Ty::UNKNOWN || self.is_resource()
    }

    /// The type that the node itself names: resources do, in `resourceType`.
    pub fn of_resource(node: &Node) -> Option<Ty> {
        node.as_object()?.get("resourceType")?.as_str().and_then(Ty::named)
    }
}

impl Sym {
    /// The number of an element name; None: no element of R4 has it.
    pub fn of(name: &str) -> Option<Sym> {
        TABLE.symbols.get(name).copied()
    }
}

/// The type that a choice suffix names: `Quantity`, `DateTime` (which is `dateTime`).
pub(super) fn by_suffix(suffix: &str) -> Option<Ty> {
    let lower = || {
        let mut chars = suffix.chars();
        let first = chars.next()?;
        Ty::named(&format!("{}{}", first.to_ascii_lowercase(), chars.as_str())).filter(|ty| ty.is_primitive())
    };
    Ty::named(suffix).or_else(lower)
}

/// Builds the table by walking the definitions from every type.
struct Builder {
    table: Table,
    by_path: HashMap<&'static str, Ty>,
    queue: Vec<(&'static str, Ty)>,
}

impl Builder {
    fn sym(&mut self, name: &'static str) -> Sym {
        let next = Sym(self.table.symbols.len() as u16);
        *self.table.symbols.entry(name).or_insert(next)
    }

    /// The entry of a type; new ones are queued, so that their children are read too.
    fn named(&mut self, code: &'static str) -> Ty {
        let code = code.rsplit_once("System.").map_or(code, |(_, system)| match system {
            "Boolean" => "boolean",
            "Integer" => "integer",
            "Decimal" => "decimal",
            _ => "string",
        });
        if let Some(ty) = self.table.by_name.get(code) {
            return *ty;
        }
        let primitive = PRIMITIVES.iter().find(|(name, _)| *name == code).map(|(_, system)| *system);
        let ty = self.add(code, primitive);
        self.table.by_name.insert(code, ty);
        self.by_path.insert(code, ty);
        self.queue.push((code, ty));
        let parent = definitions().base(code).map(|base| self.named(base));
        self.table.defs[usize::from(ty.0)].parent = parent;
        if definitions().is_a(code, "Quantity") {
            self.table.defs[usize::from(ty.0)].system = Some(System::Quantity);
        }
        ty
    }

    fn add(&mut self, name: &'static str, primitive: Option<System>) -> Ty {
        let ty = Ty(u16::try_from(self.table.defs.len()).expect("R4 has some hundred types"));
        self.table.defs.push(Def {
            name,
            parent: None,
            system: primitive,
            primitive: primitive.is_some(),
            any_resource: matches!(name, "Resource" | "DomainResource"),
            resource: matches!(name, "Resource" | "DomainResource") || definitions().type_id(name).is_some(),
            kids: Vec::new(),
            keys: HashMap::new(),
        });
        ty
    }

    /// The type of one element: a named one, or a place of its own for a backbone element.
    fn element_type(&mut self, element: &'static Element, code: &'static str) -> Ty {
        match element.children {
            Some(path) if path.contains('.') => {
                if let Some(ty) = self.by_path.get(path) {
                    return *ty;
                }
                let code = if code.is_empty() { "BackboneElement" } else { code };
                let ty = self.add(code, None);
                let parent = self.named("BackboneElement");
                self.table.defs[usize::from(ty.0)].parent = Some(parent);
                self.by_path.insert(path, ty);
                self.queue.push((path, ty));
                ty
            }
            _ => self.named(if code.is_empty() { "Element" } else { code }),
        }
    }

    fn fill(&mut self, path: &'static str, ty: Ty) {
        let primitive = self.table.defs[usize::from(ty.0)].primitive;
        let Some(elements) = definitions().children(if primitive { "Element" } else { path }) else { return };
        let mut kids = Vec::with_capacity(elements.len());
        let mut keys = HashMap::with_capacity(elements.len());
        for element in elements {
            let sym = self.sym(element.name);
            let mut members = Vec::with_capacity(element.types.len().max(1));
            if element.types.is_empty() {
                members.push(self.member(element, "", element.name));
            }
            for (n, code) in element.types.iter().copied().enumerate() {
                let key = match element.choice {
                    true => choice_key(element.name, code),
                    false if n > 0 => break,
                    false => element.name,
                };
                members.push(self.member(element, code, key));
            }
            keys.extend(members.iter().map(|m| (m.key, m.ty)));
            kids.push((sym, members));
        }
        kids.sort_by_key(|(sym, _)| *sym);
        let def = &mut self.table.defs[usize::from(ty.0)];
        def.kids = kids;
        def.keys = keys;
    }

    fn member(&mut self, element: &'static Element, code: &'static str, key: &'static str) -> Member {
        let ty = self.element_type(element, code);
        let primitive = self.table.defs[usize::from(ty.0)].primitive;
        Member { key, sibling: primitive.then(|| format!("_{key}").into()), ty }
    }
}

/// `value` and `dateTime` make `valueDateTime`. The table lives as long as the program, and so do its names.
fn choice_key(name: &str, code: &str) -> &'static str {
    let (first, rest) = code.split_at(1.min(code.len()));
    String::leak(format!("{name}{}{rest}", first.to_ascii_uppercase()))
}

fn build() -> Table {
    let table = Table { defs: Vec::new(), by_name: HashMap::new(), symbols: HashMap::new() };
    let mut builder = Builder { table, by_path: HashMap::new(), queue: Vec::new() };
    builder.add("", None);
    for name in ABSTRACT {
        builder.named(name);
    }
    for (name, _) in PRIMITIVES {
        builder.named(name);
    }
    for id in definitions().types() {
        builder.named(definitions().type_name(*id));
    }
    while let Some((path, ty)) = builder.queue.pop() {
        builder.fill(path, ty);
    }
    builder.table
}
