//! `ravi-brokerd`: wiring only.

fn main() {}
