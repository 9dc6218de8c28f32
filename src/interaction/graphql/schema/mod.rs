//! The schema as introspection tells it: types, fields and arguments are made from the definitions while they are
//! asked for; nothing of it is kept. It is that of R4, so it tells nothing of what is stored. What `check` takes is what
//! stands here, but for what no schema can say: arguments for choices, fields without a fragment where several types may
//! stand, and searches for what refers to a resource by a parameter that may refer to anything.

mod answer;
mod meta;

use std::borrow::Cow;

use super::check::repeats;
use super::is_audit;
use super::types::{CONNECTION_FIELDS, Type};
use crate::fhir::definitions::{Child, Param, Primitive, Shape, ShapeKind};
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::mapping::{Treatment, treatment};

pub use answer::{answers, check};

/// A type of the schema that has a name.
#[derive(Clone, Copy)]
pub enum Named {
    Scalar(&'static str),
    Query,
    /// Resources, datatypes and backbone elements; what any resource is, as an interface.
    Element(&'static Shape),
    Connection(TypeId),
    Edge(TypeId),
    Meta(&'static meta::Object),
    Enum(&'static meta::Enum),
}

/// A type as a field or argument has it.
#[derive(Clone, Copy)]
pub struct Ref {
    /// `!` (never null) and `[` (a list of), from the outside in.
    wraps: &'static str,
    of: Named,
}

pub struct Field {
    name: Cow<'static, str>,
    takes: Takes,
    of: Ref,
}

/// The arguments of a field, made when they are asked for.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    /// `Patient(id:)`
    Id,
    /// Searches; of what refers to a resource of this type.
    Search(TypeId, Option<TypeId>),
    /// Elements that repeat.
    Filter(&'static Child),
    /// `Reference.resource`
    Resource,
    Deprecated,
}

pub struct Argument {
    name: Cow<'static, str>,
    about: Option<String>,
    of: Ref,
}

const fn scalar(name: &'static str) -> Ref {
    Ref { wraps: "", of: Named::Scalar(name) }
}

/// Types that a reference parameter may name to be among what refers to each of them. Those that name more are to anything,
/// whether they say so or list all types; with them the schema would be eight times as large.
const TARGETS_MAX: usize = 20;

const STRING: Ref = scalar("String");
const INT: Ref = scalar("Int");
const FLOAT: Ref = scalar("Float");

/// Scalars: those of GraphQL, the primitive types of FHIR that none of them is, and kinds of search parameters.
const SCALARS: [&str; 24] = [
    "Boolean",
    "Float",
    "ID",
    "Int",
    "String",
    "base64Binary",
    "canonical",
    "code",
    "composite",
    "date",
    "dateTime",
    "instant",
    "markdown",
    "number",
    "oid",
    "quantity",
    "reference",
    "special",
    "time",
    "token",
    "uri",
    "url",
    "uuid",
    "xhtml",
];

/// How a primitive type is called here.
fn simple(kind: Primitive) -> Ref {
    scalar(match kind {
        Primitive::Boolean => "Boolean",
        Primitive::Decimal => "Float",
        Primitive::Id => "ID",
        Primitive::Integer | Primitive::PositiveInt | Primitive::UnsignedInt => "Int",
        Primitive::String => "String",
        Primitive::Base64Binary => "base64Binary",
        Primitive::Canonical => "canonical",
        Primitive::Code => "code",
        Primitive::Date => "date",
        Primitive::DateTime => "dateTime",
        Primitive::Instant => "instant",
        Primitive::Markdown => "markdown",
        Primitive::Oid => "oid",
        Primitive::Time => "time",
        Primitive::Uri => "uri",
        Primitive::Url => "url",
        Primitive::Uuid => "uuid",
        Primitive::Xhtml => "xhtml",
    })
}

/// Shapes that are types here. Of abstract ones: what any resource is, and what stands beside a primitive.
fn shown(shape: &Shape) -> bool {
    !shape.is_abstract || is_interface(shape) || shape.path == "Element"
}

fn is_interface(shape: &Shape) -> bool {
    shape.is_abstract && shape.kind == ShapeKind::Resource
}

fn reachable() -> impl Iterator<Item = TypeId> {
    definitions().types().iter().copied().filter(|kind| !is_audit(*kind))
}

/// Whether a fragment may be on this: the types of the schema, and what they derive from in FHIR.
pub fn is_named(name: &str) -> bool {
    definitions().is_type(name) || Named::find(name).is_some()
}

impl Named {
    /// Every type of the schema.
    pub fn all() -> impl Iterator<Item = Named> {
        let shapes = definitions().shapes().iter().filter(|shape| shown(shape)).map(Named::Element);
        let pages = reachable().flat_map(|kind| [Named::Connection(kind), Named::Edge(kind)]);
        let scalars = SCALARS.into_iter().map(Named::Scalar);
        let meta = meta::OBJECTS.iter().map(Named::Meta).chain(meta::ENUMS.iter().map(Named::Enum));
        std::iter::once(Named::Query).chain(scalars).chain(shapes).chain(pages).chain(meta)
    }

    pub fn find(name: &str) -> Option<Named> {
        Named::all().find(|named| named.name() == name)
    }

    fn name(&self) -> Cow<'static, str> {
        Cow::Owned(match *self {
            Named::Scalar(name) => return Cow::Borrowed(name),
            Named::Meta(object) => return Cow::Borrowed(object.name),
            Named::Enum(of) => return Cow::Borrowed(of.name),
            Named::Query => Type::Query.name(),
            Named::Element(shape) => Type::Element(shape, &[]).name(),
            Named::Connection(kind) => Type::Connection(kind).name(),
            Named::Edge(kind) => Type::Edge(kind).name(),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Named::Scalar(_) => "SCALAR",
            Named::Enum(_) => "ENUM",
            Named::Element(shape) if is_interface(shape) => "INTERFACE",
            _ => "OBJECT",
        }
    }

    /// None for what has no fields.
    fn fields(&self) -> Option<Vec<Field>> {
        let field = |name: &'static str, of: Ref| Field { name: Cow::Borrowed(name), takes: Takes::Nothing, of };
        Some(match *self {
            Named::Scalar(_) | Named::Enum(_) => return None,
            Named::Query => reachable().flat_map(roots).collect(),
            Named::Element(shape) => elements(shape),
            Named::Connection(kind) => {
                let edges = Field { name: "edges".into(), takes: Takes::Nothing, of: list(Named::Edge(kind)) };
                let simple = CONNECTION_FIELDS.into_iter().map(|name| {
                    field(name, if matches!(name, "count" | "offset" | "pagesize") { INT } else { STRING })
                });
                simple.chain([edges]).collect()
            }
            Named::Edge(kind) => {
                let resource = definitions().resource_shape(kind).map(|shape| one(Named::Element(shape)));
                let resource = resource.map(|of| field("resource", of));
                [field("mode", scalar("code")), field("score", FLOAT)].into_iter().chain(resource).collect()
            }
            Named::Meta(object) => object.fields.iter().map(of_meta).collect(),
        })
    }

    /// None for what can have none.
    fn interfaces(&self) -> Option<Vec<Named>> {
        let shape = match self {
            Named::Scalar(_) | Named::Enum(_) => return None,
            Named::Element(shape) => shape,
            _ => return Some(Vec::new()),
        };
        let above = definitions().shapes().iter().filter(|above| {
            is_interface(above) && above.path != shape.path && definitions().is_a(shape.path, above.path)
        });
        Some(above.map(Named::Element).collect())
    }

    /// None for what is no interface.
    fn possible(&self) -> Option<Vec<Named>> {
        let Named::Element(interface) = self else { return None };
        let below = definitions().shapes().iter().filter(|shape| {
            shape.kind == ShapeKind::Resource && !shape.is_abstract && definitions().is_a(shape.path, interface.path)
        });
        is_interface(interface).then(|| below.map(Named::Element).collect())
    }
}

fn one(of: Named) -> Ref {
    Ref { wraps: "", of }
}

fn list(of: Named) -> Ref {
    Ref { wraps: "[", of }
}

/// Any resource.
fn any() -> Ref {
    definitions().shape("Resource").map_or(STRING, |shape| one(Named::Element(shape)))
}

fn of_meta(member: &'static meta::Member) -> Field {
    let of = Named::find(member.of).unwrap_or(Named::Scalar("String"));
    let takes = if member.deprecable { Takes::Deprecated } else { Takes::Nothing };
    Field { name: member.name.into(), takes, of: Ref { wraps: member.wraps, of } }
}

/// What a query starts with.
fn roots(kind: TypeId) -> Vec<Field> {
    let Some(shape) = definitions().resource_shape(kind) else { return Vec::new() };
    let lookup = Field { name: definitions().type_name(kind).into(), takes: Takes::Id, of: one(Named::Element(shape)) };
    [lookup].into_iter().chain(searches(kind, shape, None)).collect()
}

fn searches(kind: TypeId, shape: &'static Shape, to: Option<TypeId>) -> [Field; 2] {
    let name = definitions().type_name(kind);
    let takes = Takes::Search(kind, to);
    [
        Field { name: format!("{name}List").into(), takes, of: list(Named::Element(shape)) },
        Field { name: format!("{name}Connection").into(), takes, of: one(Named::Connection(kind)) },
    ]
}

fn elements(shape: &'static Shape) -> Vec<Field> {
    let mut fields = Vec::new();
    if shape.kind == ShapeKind::Resource {
        fields.push(Field { name: "resourceType".into(), takes: Takes::Nothing, of: STRING });
    }
    for child in shape.members() {
        let within = match (child.primitive, Type::of_child(child)) {
            (Some(kind), _) => simple(kind),
            (None, Some(Type::Element(shape, _))) => one(Named::Element(shape)),
            (None, _) => any(),
        };
        let (wraps, takes) = if repeats(child) { ("[", Takes::Filter(child)) } else { ("", Takes::Nothing) };
        fields.push(Field { name: child.name.into(), takes, of: Ref { wraps, ..within } });
        if let (Some(_), Some(Type::Element(beside, _))) = (child.primitive, Type::sibling()) {
            let of = Ref { wraps, of: Named::Element(beside) };
            fields.push(Field { name: format!("_{}", child.name).into(), takes: Takes::Nothing, of });
        }
    }
    if shape.path == "Reference" {
        fields.push(Field { name: "resource".into(), takes: Takes::Resource, of: any() });
    }
    if let Some(to) = Type::Element(shape, &[]).resource().filter(|to| !is_audit(*to)) {
        let referring = reachable().filter(|kind| by(*kind, to).next().is_some());
        let shapes = referring.filter_map(|kind| Some((kind, definitions().resource_shape(kind)?)));
        fields.extend(shapes.flat_map(|(kind, shape)| searches(kind, shape, Some(to))));
    }
    fields
}

/// The parameters by which a type refers to another, where they name it.
fn by(kind: TypeId, to: TypeId) -> impl Iterator<Item = &'static Param> {
    let named = move |param: &Param| param.targets.len() <= TARGETS_MAX && param.targets.contains(&to);
    searchable(kind).filter(move |param| param.kind == ParamKind::Reference && named(param))
}

fn searchable(kind: TypeId) -> impl Iterator<Item = &'static Param> {
    let refused = move |param: &Param| matches!(treatment(kind, param.id), Treatment::Refused { .. });
    definitions().params(kind).iter().copied().filter(move |param| !refused(param))
}

fn argument(name: &'static str, of: Ref) -> Argument {
    Argument { name: name.into(), about: None, of }
}

impl Takes {
    fn arguments(self) -> Vec<Argument> {
        match self {
            Takes::Nothing => Vec::new(),
            Takes::Id => vec![argument("id", Ref { wraps: "!", ..scalar("ID") })],
            Takes::Deprecated => vec![argument("includeDeprecated", scalar("Boolean"))],
            Takes::Resource => {
                vec![argument("optional", scalar("Boolean")), argument("type", Ref { wraps: "[", ..scalar("code") })]
            }
            Takes::Filter(child) => {
                let general = [argument("fhirpath", STRING), argument("_count", INT), argument("_offset", INT)];
                let members = child.shape().map(Shape::members).unwrap_or_default();
                let plain = members.iter().filter(|member| !member.element.choice && member.name != "id");
                let plain = plain.filter_map(|member| Some(argument(member.name, simple(member.primitive?))));
                general.into_iter().chain(plain).collect()
            }
            Takes::Search(kind, to) => search(kind, to),
        }
    }
}

fn search(kind: TypeId, to: Option<TypeId>) -> Vec<Argument> {
    let mut arguments = Vec::new();
    if let Some(to) = to {
        let codes: Vec<&str> = by(kind, to).map(|param| param.code).collect();
        let about = format!("How it refers to this: {}.", codes.join(", "));
        // With the hyphens of FHIR a code is a text, without it may be a bare word: this scalar takes both.
        let of = Ref { wraps: "!", ..scalar("code") };
        arguments.push(Argument { name: "_reference".into(), about: Some(about), of });
    }
    arguments.extend([
        argument("_count", INT),
        argument("_offset", INT),
        argument("_cursor", STRING),
        argument("_sort", Ref { wraps: "[", ..STRING }),
    ]);
    arguments.extend(searchable(kind).map(|param| {
        let of = scalar(match param.kind {
            ParamKind::String | ParamKind::Phonetic => "String",
            kind => kind.code(),
        });
        Argument { name: param.code.replace('-', "_").into(), about: None, of: Ref { wraps: "[", ..of } }
    }));
    arguments
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn types_have_names_of_their_own_and_all_that_are_named_are_there() {
        let all: Vec<Named> = Named::all().collect();
        let names: HashSet<String> = all.iter().map(|named| named.name().into_owned()).collect();
        assert_eq!(names.len(), all.len(), "a name stands for two types");
        for named in &all {
            let legal = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let of = named.name();
            let mut seen = HashSet::new();
            for field in named.fields().unwrap_or_default() {
                assert!(legal(&field.name) && seen.insert(field.name.clone()), "{of}.{}", field.name);
                assert!(names.contains(field.of.of.name().as_ref()), "{of}.{}", field.name);
                let mut own = HashSet::new();
                for argument in field.takes.arguments() {
                    assert!(
                        legal(&argument.name) && own.insert(argument.name.clone()),
                        "{}({})",
                        field.name,
                        argument.name
                    );
                    assert!(names.contains(argument.of.of.name().as_ref()), "{}({})", field.name, argument.name);
                }
            }
        }
    }
}
