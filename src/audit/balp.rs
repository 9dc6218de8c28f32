//! An entry as IHE BALP AuditEvents.
