//! FHIR R4 itself: resources as checked data, JSON and XML, definitions, FHIRPath, dates, references, bundles.
//! Must not know storage or HTTP.

pub mod bundle;
pub mod date;
pub mod definitions;
pub mod json;
pub mod literal;
pub mod patch;
pub mod path;
pub mod reference;
pub mod resource;
pub mod sent;
pub mod validate;
pub mod xml;

pub use definitions::{Definitions, ParamId, ParamKind, TypeId, definitions};
pub use resource::Resource;
