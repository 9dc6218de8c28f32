//! The one binary of black-box tests: the real program, started as a process, over HTTP.

mod admin;
mod audit_faults;
mod browser;
mod canary;
mod clients;
mod demo;
mod fuzz;
mod graphql;
mod harness;
mod import;
mod keycloak;
mod kill;
mod large;
mod leak;
mod lists;
mod negotiation;
mod oracle;
mod races;
mod random_requests;
mod rules;
mod samples;
mod selftest;
mod smoke;
mod tidy;
mod tls;
mod two_servers;
