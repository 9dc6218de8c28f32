//! The types of introspection itself, and the directives, as GraphQL has them (spec.graphql.org, October 2021, 4).

/// A type in whose fields a client may ask about the schema.
pub struct Object {
    pub name: &'static str,
    pub fields: &'static [Member],
}

/// A field of one.
pub struct Member {
    pub name: &'static str,
    /// `!` and `[` from the outside in.
    pub wraps: &'static str,
    pub of: &'static str,
    /// Takes `includeDeprecated`; nothing here is deprecated.
    pub deprecable: bool,
}

pub struct Enum {
    pub name: &'static str,
    pub values: &'static [&'static str],
}

pub struct Directive {
    pub name: &'static str,
    pub about: &'static str,
    pub locations: &'static [&'static str],
    /// Name and type of its argument, which must be given.
    pub argument: Option<(&'static str, &'static str)>,
}

const fn member(name: &'static str, wraps: &'static str, of: &'static str) -> Member {
    Member { name, wraps, of, deprecable: false }
}

const fn deprecable(name: &'static str, wraps: &'static str, of: &'static str) -> Member {
    Member { name, wraps, of, deprecable: true }
}

const NAME: Member = member("name", "!", "String");
const ABOUT: Member = member("description", "", "String");
const IS_DEPRECATED: Member = member("isDeprecated", "!", "Boolean");
const DEPRECATION_REASON: Member = member("deprecationReason", "", "String");

pub const SCHEMA: &str = "__Schema";
pub const TYPE: &str = "__Type";

pub static OBJECTS: [Object; 6] = [
    Object {
        name: SCHEMA,
        fields: &[
            ABOUT,
            member("types", "![!", TYPE),
            member("queryType", "!", TYPE),
            member("mutationType", "", TYPE),
            member("subscriptionType", "", TYPE),
            member("directives", "![!", "__Directive"),
        ],
    },
    Object {
        name: TYPE,
        fields: &[
            member("kind", "!", "__TypeKind"),
            member("name", "", "String"),
            ABOUT,
            member("specifiedByURL", "", "String"),
            deprecable("fields", "[!", "__Field"),
            member("interfaces", "[!", TYPE),
            member("possibleTypes", "[!", TYPE),
            deprecable("enumValues", "[!", "__EnumValue"),
            deprecable("inputFields", "[!", "__InputValue"),
            member("ofType", "", TYPE),
            member("isOneOf", "", "Boolean"),
        ],
    },
    Object {
        name: "__Field",
        fields: &[
            NAME,
            ABOUT,
            deprecable("args", "![!", "__InputValue"),
            member("type", "!", TYPE),
            IS_DEPRECATED,
            DEPRECATION_REASON,
        ],
    },
    Object {
        name: "__InputValue",
        fields: &[
            NAME,
            ABOUT,
            member("type", "!", TYPE),
            member("defaultValue", "", "String"),
            IS_DEPRECATED,
            DEPRECATION_REASON,
        ],
    },
    Object { name: "__EnumValue", fields: &[NAME, ABOUT, IS_DEPRECATED, DEPRECATION_REASON] },
    Object {
        name: "__Directive",
        fields: &[
            NAME,
            ABOUT,
            member("isRepeatable", "!", "Boolean"),
            member("locations", "![!", "__DirectiveLocation"),
            deprecable("args", "![!", "__InputValue"),
        ],
    },
];

pub static ENUMS: [Enum; 2] = [
    Enum {
        name: "__TypeKind",
        values: &["SCALAR", "OBJECT", "INTERFACE", "UNION", "ENUM", "INPUT_OBJECT", "LIST", "NON_NULL"],
    },
    Enum {
        name: "__DirectiveLocation",
        values: &[
            "QUERY",
            "MUTATION",
            "SUBSCRIPTION",
            "FIELD",
            "FRAGMENT_DEFINITION",
            "FRAGMENT_SPREAD",
            "INLINE_FRAGMENT",
            "VARIABLE_DEFINITION",
            "SCHEMA",
            "SCALAR",
            "OBJECT",
            "FIELD_DEFINITION",
            "ARGUMENT_DEFINITION",
            "INTERFACE",
            "UNION",
            "ENUM",
            "ENUM_VALUE",
            "INPUT_OBJECT",
            "INPUT_FIELD_DEFINITION",
        ],
    },
];

const CHOOSING: &[&str] = &["FIELD", "FRAGMENT_SPREAD", "INLINE_FRAGMENT"];
const SHAPING: &[&str] = &["FIELD"];

pub static DIRECTIVES: [Directive; 6] = [
    Directive {
        name: "include",
        about: "Only if this is true.",
        locations: CHOOSING,
        argument: Some(("if", "Boolean")),
    },
    Directive { name: "skip", about: "Not if this is true.", locations: CHOOSING, argument: Some(("if", "Boolean")) },
    Directive {
        name: "flatten",
        about: "The fields below are put in the place of this one.",
        locations: SHAPING,
        argument: None,
    },
    Directive { name: "first", about: "The first of the list alone.", locations: SHAPING, argument: None },
    Directive {
        name: "singleton",
        about: "One value, not a list; several are an error.",
        locations: SHAPING,
        argument: None,
    },
    Directive {
        name: "slice",
        about: "A suffix of the name in the answer, by a FHIRPath or $index.",
        locations: SHAPING,
        argument: Some(("path", "String")),
    },
];

pub fn object(name: &str) -> Option<&'static Object> {
    OBJECTS.iter().find(|object| object.name == name)
}
