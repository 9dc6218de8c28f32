//! Content whose disclosure is on record.

use zeroize::Zeroizing;

use crate::fhir::TypeId;
use crate::world::Instant;

/// JSON bytes of one resource (or of a Bundle made of such) whose disclosure is durable. Only `audit` makes one. No
/// Debug, no Serialize; zeroized on drop.
pub struct Released {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) kind: TypeId,
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) last_updated: Instant,
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

    /// The bytes, for the reply alone.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
