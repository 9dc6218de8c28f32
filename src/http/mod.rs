//! The only user of axum: addresses, caller, request, reply, outcome. Must not know storage or search.

mod body;
mod cors;
mod dispatch;
mod fhir;
mod graphql;
mod meter;
mod negotiate;
mod oauth;
mod outcome;
mod pages;
mod peer;
mod rate;
mod reply;
mod sample;
mod serve;
mod site;
mod throttle;
mod tls;
mod unread;
mod write;

#[cfg(test)]
mod tests;

pub use dispatch::Server;
pub use sample::{PLACE as SAMPLE_PLACE, Sample};
pub use serve::serve;
