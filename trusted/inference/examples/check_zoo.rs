//! Checks the model zoo.
fn main() {}
