//! The plaintext of a search capsule: a compact, versioned binary form of [`Values`], readable without decoding all.

use super::values::{Header, Value, Values};
use crate::error::Result;
use crate::fhir::{ParamId, TypeId};

/// Bytes of a capsule (to be sealed).
pub fn encode(_values: &Values) -> Vec<u8> {
    todo!()
}

/// An opened capsule; values are decoded parameter by parameter, when asked for.
pub struct View<'a> {
    _bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// # Errors
    /// `Kind::Tampered` when the bytes are no capsule.
    pub fn new(_bytes: &'a [u8]) -> Result<View<'a>> {
        todo!()
    }

    pub fn header(&self) -> Result<Header> {
        todo!()
    }

    /// The logical id, borrowed.
    pub fn id(&self) -> &'a str {
        todo!()
    }

    pub fn param(&self, _id: ParamId) -> Result<Vec<Value>> {
        todo!()
    }

    /// The resources on this server that one parameter refers to, or (None) any reference parameter.
    pub fn references(&self, _param: Option<ParamId>) -> Result<Vec<(TypeId, String)>> {
        todo!()
    }

    pub fn to_values(&self) -> Result<Values> {
        todo!()
    }
}
