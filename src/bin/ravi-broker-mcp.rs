//! `ravi-broker-mcp`: wiring only.

fn main() {}
