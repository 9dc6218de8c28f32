//! Every operation there is, as data: routing, the reading of parameters, the CapabilityStatement and the
//! OperationDefinitions all read this one table.

/// One operation.
pub struct Operation {
    /// Without the `$`.
    pub name: &'static str,
    /// The logical id of its OperationDefinition here.
    pub id: &'static str,
    /// Canonical url of the published definition it follows; None: one of our own.
    pub published: Option<&'static str>,
    pub about: &'static str,
    pub levels: Levels,
    /// Types it is defined for; empty: all. Without meaning at system level.
    pub types: &'static [&'static str],
    /// Whether it may write: then GET is not defined.
    pub affects: bool,
    /// Whether its answer comes in pages (`_cursor`).
    pub paged: bool,
    /// Whether parameters it does not know are those of a search.
    pub search: bool,
    pub params: &'static [Param],
    /// Type of what it gives back.
    pub returns: &'static str,
    pub run: Run,
}

#[derive(Clone, Copy)]
pub struct Levels {
    pub system: bool,
    pub on_type: bool,
    pub instance: bool,
}

/// One input parameter.
pub struct Param {
    pub name: &'static str,
    pub min: u8,
    /// Whether it may be repeated.
    pub many: bool,
    pub is: Is,
    pub about: &'static str,
}

/// What a parameter holds.
#[derive(Clone, Copy)]
pub enum Is {
    /// A primitive type, by its FHIR name.
    Simple(&'static str),
    /// A datatype, checked by its reader.
    Complex(&'static str),
    /// A CodeableConcept; in an address a code, or `system|code`.
    Concept,
    /// A resource of this type, or of any (`Resource`), checked by its reader. A body that is no Parameters is the
    /// first of these.
    Resource(&'static str),
}

impl Is {
    /// The FHIR type.
    pub fn name(self) -> &'static str {
        match self {
            Is::Simple(name) | Is::Complex(name) | Is::Resource(name) => name,
            Is::Concept => "CodeableConcept",
        }
    }
}

/// Which code performs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    Everything,
    Meta,
    MetaAdd,
    MetaDelete,
    LastN,
    DocRef,
    Document,
    Convert,
    Validate,
    Emergency,
    Match,
    MemberMatch,
    Explain,
    GraphQl,
    Status,
}

const BOTH: Levels = Levels { system: false, on_type: true, instance: true };
const SYSTEM_INSTANCE: Levels = Levels { system: true, on_type: false, instance: true };
const ALL: Levels = Levels { system: true, on_type: true, instance: true };
const SYSTEM: Levels = Levels { system: true, on_type: false, instance: false };
const ON_TYPE: Levels = Levels { system: false, on_type: true, instance: false };
const INSTANCE: Levels = Levels { system: false, on_type: false, instance: true };

const CODE: Is = Is::Simple("code");
const DATE: Is = Is::Simple("date");
const INSTANT: Is = Is::Simple("instant");
const ID: Is = Is::Simple("id");
const URI: Is = Is::Simple("uri");
const BOOLEAN: Is = Is::Simple("boolean");
const META: Is = Is::Complex("Meta");
const RESOURCE: Is = Is::Resource("Resource");
const COUNT: Is = Is::Simple("positiveInt");

const fn one(name: &'static str, is: Is, about: &'static str) -> Param {
    Param { name, min: 0, many: false, is, about }
}

const fn many(name: &'static str, is: Is, about: &'static str) -> Param {
    Param { name, min: 0, many: true, is, about }
}

const fn must(name: &'static str, is: Is, about: &'static str) -> Param {
    Param { name, min: 1, many: false, is, about }
}

const SINCE: Param = one("_since", INSTANT, "Only resources updated at or after this instant.");
const TYPES: Param = many("_type", CODE, "Only resources of these types, separated by commas.");
const COUNT_OF_PAGE: Param = one("_count", COUNT, "Most resources on a page, included ones not counted.");

/// Every operation.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "status",
        id: "SearchParameter-status",
        published: None,
        about: "Whether a search parameter that a SearchParameter of this server defines can be searched by: ready, or \
                indexing with how many of how many resources are done; inactive where it defines none.",
        levels: INSTANCE,
        types: &["SearchParameter"],
        affects: false,
        paged: false,
        search: false,
        params: &[],
        returns: "Parameters",
        run: Run::Status,
    },
    Operation {
        name: "everything",
        id: "Patient-everything",
        published: Some("http://hl7.org/fhir/OperationDefinition/Patient-everything"),
        about: "The record of one patient, or of every patient the caller may see: the resources of the compartment \
                and those they refer to outside of it.",
        levels: BOTH,
        types: &["Patient"],
        affects: false,
        paged: true,
        search: false,
        params: &[
            one("start", DATE, "Only resources of care on or after this date; those without a date of care stay."),
            one("end", DATE, "Only resources of care on or before this date; those without a date of care stay."),
            SINCE,
            TYPES,
            COUNT_OF_PAGE,
        ],
        returns: "Bundle",
        run: Run::Everything,
    },
    Operation {
        name: "everything",
        id: "Encounter-everything",
        published: Some("http://hl7.org/fhir/OperationDefinition/Encounter-everything"),
        about: "The record of one encounter: the resources of its compartment and those they refer to outside of it.",
        levels: INSTANCE,
        types: &["Encounter"],
        affects: false,
        paged: true,
        search: false,
        params: &[SINCE, TYPES, COUNT_OF_PAGE],
        returns: "Bundle",
        run: Run::Everything,
    },
    Operation {
        name: "meta",
        id: "Resource-meta",
        published: Some("http://hl7.org/fhir/OperationDefinition/Resource-meta"),
        about: "The profiles, tags and security labels of one resource, or all that are in use on the resources the \
                caller may see.",
        levels: ALL,
        types: &[],
        affects: false,
        paged: false,
        search: false,
        params: &[],
        returns: "Meta",
        run: Run::Meta,
    },
    Operation {
        name: "meta-add",
        id: "Resource-meta-add",
        published: Some("http://hl7.org/fhir/OperationDefinition/Resource-meta-add"),
        about: "Adds profiles, tags and security labels to a resource, as a new version.",
        levels: INSTANCE,
        types: &[],
        affects: true,
        paged: false,
        search: false,
        params: &[must("meta", META, "What to add.")],
        returns: "Meta",
        run: Run::MetaAdd,
    },
    Operation {
        name: "meta-delete",
        id: "Resource-meta-delete",
        published: Some("http://hl7.org/fhir/OperationDefinition/Resource-meta-delete"),
        about: "Takes profiles, tags and security labels away from a resource, as a new version.",
        levels: INSTANCE,
        types: &[],
        affects: true,
        paged: false,
        search: false,
        params: &[must("meta", META, "What to take away; what is not there is passed over.")],
        returns: "Meta",
        run: Run::MetaDelete,
    },
    Operation {
        name: "lastn",
        id: "Observation-lastn",
        published: Some("http://hl7.org/fhir/OperationDefinition/Observation-lastn"),
        about: "The most recent observations of each code. Takes the search parameters of Observation: patient or \
                subject, and category or code, must be among them.",
        levels: ON_TYPE,
        types: &["Observation"],
        affects: false,
        paged: false,
        search: true,
        params: &[one("max", COUNT, "Most observations of one code; 1 where it is not given.")],
        returns: "Bundle",
        run: Run::LastN,
    },
    Operation {
        name: "docref",
        id: "docref",
        published: Some("http://hl7.org/fhir/us/core/OperationDefinition/docref"),
        about: "DocumentReferences of a patient by date of care and type; without dates the most recent of each type. \
                Documents are not made on demand.",
        levels: ON_TYPE,
        types: &["DocumentReference"],
        affects: false,
        paged: false,
        search: false,
        params: &[
            must("patient", ID, "The logical id of the patient."),
            one("start", DATE, "Documents on care on or after this date."),
            one("end", DATE, "Documents on care on or before this date."),
            many("type", Is::Concept, "The type of document: one of these."),
            one("on-demand", BOOLEAN, "true asks for documents that are made on demand: there are none here."),
            many("profile", Is::Simple("canonical"), "The profile of the DocumentReference: one of these."),
        ],
        returns: "Bundle",
        run: Run::DocRef,
    },
    Operation {
        name: "document",
        id: "Composition-document",
        published: Some("http://hl7.org/fhir/OperationDefinition/Composition-document"),
        about: "A document Bundle of a Composition and everything it refers to. Stored with persist, by POST only.",
        levels: BOTH,
        types: &["Composition"],
        affects: false,
        paged: false,
        search: false,
        params: &[
            one("id", URI, "At type level: the Composition, as id or address on this server."),
            one("persist", BOOLEAN, "Whether to store the Bundle here."),
        ],
        returns: "Bundle",
        run: Run::Document,
    },
    Operation {
        name: "convert",
        id: "Resource-convert",
        published: Some("http://hl7.org/fhir/OperationDefinition/Resource-convert"),
        about: "A resource in another form: sent as JSON or XML, given back as Accept or _format asks.",
        levels: SYSTEM,
        types: &[],
        affects: false,
        paged: false,
        search: false,
        params: &[must("input", RESOURCE, "The resource.")],
        returns: "Resource",
        run: Run::Convert,
    },
    Operation {
        name: "validate",
        id: "Resource-validate",
        published: Some("http://hl7.org/fhir/OperationDefinition/Resource-validate"),
        about: "Whether a resource is valid by the structure of R4, and with a mode, whether that could be done with it \
                here. Validation against profiles is not supported yet, and refused.",
        levels: BOTH,
        types: &[],
        affects: false,
        paged: false,
        search: false,
        params: &[
            one("resource", RESOURCE, "The resource; at the address of a stored one: that one, if absent."),
            one("mode", CODE, "create, update or delete."),
            many("profile", Is::Simple("canonical"), "Refused: validation against profiles is not supported yet."),
        ],
        returns: "OperationOutcome",
        run: Run::Validate,
    },
    Operation {
        name: "emergency-access",
        id: "Patient-emergency-access",
        published: None,
        about: "Break-glass: a short token for this patient's record whatever the care relation and consents. An alert \
                and an order to review the access are made, and all that is done with the token is on record as such.",
        levels: Levels { system: false, on_type: false, instance: true },
        types: &["Patient"],
        affects: true,
        paged: false,
        search: false,
        params: &[
            must("purpose", CODE, "Purpose of use (v3 ActReason): ETREAT or BTG."),
            must("reason", Is::Simple("string"), "Why, in 10 to 1,000 characters."),
        ],
        returns: "Parameters",
        run: Run::Emergency,
    },
    Operation {
        name: "match",
        id: "Patient-match",
        published: Some("http://hl7.org/fhir/OperationDefinition/Patient-match"),
        about: "Patients whose demographics are like those given, with scores and grades, best first.",
        levels: ON_TYPE,
        types: &["Patient"],
        affects: false,
        paged: false,
        search: false,
        params: &[
            must("resource", Is::Resource("Patient"), "What is known of the patient."),
            one("onlyCertainMatches", BOOLEAN, "Only a match that is certain, and the only one."),
            one("count", COUNT, "Most matches to be given."),
        ],
        returns: "Bundle",
        run: Run::Match,
    },
    Operation {
        name: "member-match",
        id: "member-match",
        published: Some("http://hl7.org/fhir/us/davinci-hrex/OperationDefinition/member-match"),
        about: "The member identifier of the one patient whose demographics and coverage are those given; 422 where \
                there is none, or not just one.",
        levels: ON_TYPE,
        types: &["Patient"],
        affects: false,
        paged: false,
        search: false,
        params: &[
            must("MemberPatient", Is::Resource("Patient"), "Demographics of the member."),
            must("CoverageToMatch", Is::Resource("Coverage"), "The coverage the member has here."),
            one("CoverageToLink", Is::Resource("Coverage"), "The coverage with the caller: checked, and not kept."),
            one("Consent", Is::Resource("Consent"), "The member's consent: must be active, permit and cover today."),
        ],
        returns: "Identifier",
        run: Run::MemberMatch,
    },
    Operation {
        name: "explain",
        id: "Resource-explain",
        published: None,
        about: "How a search would be performed for this caller: grants, what the database narrows by, how many rows \
                would be looked at. Takes the parameters of the search; nothing of the records is told.",
        levels: ON_TYPE,
        types: &[],
        affects: false,
        paged: false,
        search: true,
        params: &[one("query", Is::Simple("string"), "By POST: the search as it stands after the ? of an address.")],
        returns: "Parameters",
        run: Run::Explain,
    },
    Operation {
        name: "graphql",
        id: "Resource-graphql",
        published: Some("http://hl7.org/fhir/OperationDefinition/Resource-graphql"),
        about: "A GraphQL query on the system or on one resource, answered as application/json. Bodies of the media \
                types application/graphql and application/json are taken too. Queries only; __schema and __type tell the schema.",
        levels: SYSTEM_INSTANCE,
        types: &[],
        affects: false,
        paged: false,
        search: false,
        params: &[
            must("query", Is::Simple("string"), "The text of the query."),
            one("operationName", Is::Simple("string"), "Which operation of the text, where it holds several."),
            one("variables", Is::Simple("string"), "The values of its variables: a JSON object."),
        ],
        returns: "Binary",
        run: Run::GraphQl,
    },
];

impl Operation {
    /// Whether GET may call it: it changes nothing, and all it needs fits into an address.
    pub fn get(&self) -> bool {
        !self.affects
            && self.params.iter().all(|param| param.min == 0 || !matches!(param.is, Is::Complex(_) | Is::Resource(_)))
    }

    /// Whether it is the one whose bodies and answers are no FHIR.
    pub fn is_graphql(&self) -> bool {
        self.run == Run::GraphQl
    }

    /// Whether it is defined at this level. `kind`: the type of the address.
    pub fn fits(&self, kind: Option<&str>, instance: bool) -> bool {
        match kind {
            None => self.levels.system,
            Some(kind) => {
                let level = if instance { self.levels.instance } else { self.levels.on_type };
                level && self.on(kind)
            }
        }
    }

    /// Whether it is defined for a type, at type level or for instances.
    pub fn on(&self, kind: &str) -> bool {
        // AuditEvents are the trail's: they are read and searched, and nothing else is done with them.
        let any = self.types.is_empty() && (kind != "AuditEvent" || self.run == Run::Validate);
        (self.levels.on_type || self.levels.instance) && (any || self.types.contains(&kind))
    }

    /// The published definition, or that of this server.
    pub fn canonical(&self, base: &str) -> String {
        self.published.map_or_else(|| self.own_url(base), str::to_owned)
    }

    /// The address of its OperationDefinition here.
    pub fn own_url(&self, base: &str) -> String {
        format!("{base}/OperationDefinition/{}", self.id)
    }
}

/// The operation of an address: `name` without the `$`.
pub fn find(name: &str, kind: Option<&str>, instance: bool) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name && operation.fits(kind, instance))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::fhir::definitions;
    use crate::fhir::definitions::Primitive;

    #[test]
    fn the_table_is_sound() {
        let mut ids = HashSet::new();
        for operation in OPERATIONS {
            assert!(ids.insert(operation.id), "{} twice", operation.id);
            assert!(!operation.name.starts_with('$') && !operation.about.is_empty());
            for kind in operation.types {
                assert!(definitions().type_id(kind).is_some(), "{kind}");
            }
            let mut names = HashSet::new();
            for param in operation.params {
                assert!(names.insert(param.name) && !param.about.is_empty(), "{} {}", operation.id, param.name);
                match param.is {
                    Is::Simple(of) => assert!(Primitive::of(of).is_some(), "{of}"),
                    Is::Complex(of) => assert!(definitions().is_type(of), "{of}"),
                    Is::Resource(_) | Is::Concept => {}
                }
            }
            assert!(!operation.paged || operation.get(), "{}: the links of pages are called by GET", operation.id);
        }
        // No two rows answer one address.
        for (n, one) in OPERATIONS.iter().enumerate() {
            for other in &OPERATIONS[n + 1..] {
                let shared = |kind: &str| one.on(kind) && other.on(kind);
                assert!(one.name != other.name || !one.types.iter().any(|kind| shared(kind)), "{}", one.name);
            }
        }
    }
}
