//! Bytes of a capsule, read and written piece by piece: varints, strings, numbers. Knows nothing of values.

use crate::error::{Error, Result};

/// Strings that capsules name by number. The numbers are stored: only ever append.
const WELL_KNOWN: [&str; 40] = [
    "http://loinc.org",
    "http://snomed.info/sct",
    "http://unitsofmeasure.org",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://hl7.org/fhir/sid/icd-10",
    "http://hl7.org/fhir/sid/icd-9-cm",
    "http://hl7.org/fhir/sid/cvx",
    "http://hl7.org/fhir/sid/ndc",
    "http://hl7.org/fhir/sid/us-ssn",
    "http://hl7.org/fhir/sid/us-npi",
    "http://hl7.org/fhir/sid/us-medicare",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
    "http://www.ama-assn.org/go/cpt",
    "urn:ietf:bcp:47",
    "urn:ietf:rfc:3986",
    "urn:iso:std:iso:3166",
    "urn:iso:std:iso:4217",
    "urn:oid:2.16.840.1.113883.6.238",
    "https://github.com/synthetichealth/synthea",
    "http://terminology.hl7.org/CodeSystem/v2-0203",
    "http://terminology.hl7.org/CodeSystem/v2-0074",
    "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus",
    "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
    "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
    "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    "http://terminology.hl7.org/CodeSystem/observation-category",
    "http://terminology.hl7.org/CodeSystem/condition-category",
    "http://terminology.hl7.org/CodeSystem/condition-clinical",
    "http://terminology.hl7.org/CodeSystem/condition-ver-status",
    "http://terminology.hl7.org/CodeSystem/data-absent-reason",
    "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
    "http://hl7.org/fhir/us/core/CodeSystem/condition-category",
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient",
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-condition",
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-encounter",
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab",
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-documentreference",
    "http://hl7.org/fhir/StructureDefinition/vitalsigns",
    "http://ihe.net/fhir/ValueSet/IHE.FormatCode.codesystem",
];

/// What every reader says of bytes that are no capsule.
pub(super) fn broken() -> Error {
    Error::tampered("search capsule")
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A string, or its number in the table: the lowest bit says which.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    if let Some(at) = WELL_KNOWN.iter().position(|known| *known == text) {
        return put_varint(out, (at as u64) << 1 | 1);
    }
    put_varint(out, (text.len() as u64) << 1);
    out.extend_from_slice(text.as_bytes());
}

/// Reads forward over bytes; every overrun is an error.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const EMPTY: Reader<'static> = Reader { bytes: &[] };

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(length).ok_or_else(broken)?;
        self.bytes = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or_else(broken)?;
        self.bytes = tail;
        Ok(*head)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn float(&mut self) -> Result<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(broken());
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(broken())
    }

    /// A number of items each at least one byte long: more than the bytes left is an error, so that no count makes
    /// anyone reserve memory.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.varint()?;
        usize::try_from(count).ok().filter(|count| *count <= self.bytes.len()).ok_or_else(broken)
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let head = self.varint()?;
        let size = usize::try_from(head >> 1).map_err(|_| broken())?;
        if head & 1 == 1 {
            return WELL_KNOWN.get(size).copied().ok_or_else(broken);
        }
        std::str::from_utf8(self.take(size)?).map_err(|_| broken())
    }

    pub(super) fn text_if(&mut self, present: bool) -> Result<Option<&'a str>> {
        if present { self.text().map(Some) } else { Ok(None) }
    }
}
