//! The only user of axum: one route table, caller, request, reply, outcome.
