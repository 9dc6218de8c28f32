//! See `store`.
