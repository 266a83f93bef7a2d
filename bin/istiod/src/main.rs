//! `istiod`: see the library.

fn main() {}
