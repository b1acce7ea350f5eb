//! Parse, run, turn the outcome into an exit code. Everything else is in the library.

fn main() {}
