//! The project's one door for tools: up, test, tidy, bench.

fn main() {}
