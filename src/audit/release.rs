//! Content whose disclosure is on record.

use zeroize::Zeroizing;

use crate::fhir::TypeId;
use crate::world::Instant;

/// JSON bytes of one resource (or of a Bundle made of such) whose disclosure is durable. Only `audit` makes one. No
/// Debug, no Serialize; zeroized on drop.
///
/// Anyone may look at what it is of:
///
/// ```
/// fn version(released: &phial::audit::Released) -> u32 {
///     released.version()
/// }
/// ```
/// Nobody else can make one, nor take its content out, nor print it:
///
/// ```compile_fail,E0451
/// fn forge(kind: phial::fhir::TypeId, at: phial::world::Instant) -> phial::audit::Released {
///     let bytes = b"{}".to_vec().into();
///     phial::audit::Released { bytes, kind, id: String::new(), version: 1, last_updated: at, deleted: false, patients: Vec::new() }
/// }
/// ```
/// ```compile_fail,E0624
/// fn take(released: &phial::audit::Released) -> &[u8] {
///     released.bytes()
/// }
/// ```
/// ```compile_fail,E0277
/// fn print(released: &phial::audit::Released) -> String {
///     format!("{released:?}")
/// }
/// ```
pub struct Released {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) kind: TypeId,
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) last_updated: Instant,
    pub(super) deleted: bool,
    /// Logical ids of its patients.
    pub(super) patients: Vec<String>,
}

impl Released {
    pub fn kind(&self) -> TypeId {
        self.kind
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn last_updated(&self) -> Instant {
        self.last_updated
    }

    /// Its patients' logical ids, for the record.
    pub(crate) fn patients(&self) -> &[String] {
        &self.patients
    }

    /// A deletion in a history: it has no content.
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// The bytes, for the reply alone.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
