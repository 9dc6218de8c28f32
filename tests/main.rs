//! The one binary of black-box tests: the real program, started as a process, over HTTP.

mod harness;
mod smoke;
mod tidy;
