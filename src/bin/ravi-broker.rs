//! `ravi-broker`: wiring only.

fn main() {}
