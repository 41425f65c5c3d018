//! `ravi-sandbox`: wiring only.

fn main() {}
