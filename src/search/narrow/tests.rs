//! Narrowing never leaves out a hit.
