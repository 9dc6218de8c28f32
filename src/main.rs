//! Command line of Phial.

fn main() {}
