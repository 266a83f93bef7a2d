//! The files of this workspace: their rules, their promises and what is generated.

use xtask::{Violation, generate, lint, promises, workspace::Workspace};

fn mk_report(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(ToString::to_string).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn the_files_keep_the_rules() {
    let workspace = Workspace::load().unwrap();
    assert_eq!(mk_report(&lint::check(&workspace).unwrap()), NONE);
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let workspace = Workspace::load().unwrap();
    assert_eq!(mk_report(&promises::check(&workspace).unwrap()), NONE);
}

#[test]
fn generated_files_are_up_to_date() {
    let workspace = Workspace::load().unwrap();
    assert_eq!(mk_report(&generate::check(&workspace).unwrap()), NONE);
}
