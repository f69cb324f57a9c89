//! The tug command: verbs, configuration and wiring.

fn main() {}
