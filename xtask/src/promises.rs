//! SPECIFICATION.md: numbered promises to users, each naming the tests that keep it.
//!
//! A promise is a list item, possibly over several lines, that ends at a blank line or the next item:
//!
//! ```text
//! - **S7** A blocked log output never delays a connection.
//!   — `lib/mesh-runtime/src/log/tests.rs::a_blocked_output_never_blocks_the_caller`
//! ```

use std::collections::BTreeSet;

use crate::{Violation, source, workspace::Workspace};

/// The file of the promises.
pub const FILE: &str = "SPECIFICATION.md";

/// One promise as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The line it begins on, from 1.
    pub line: usize,
    /// `S7`.
    pub number: String,
    /// Files and names of the tests.
    pub tests: Vec<(String, String)>,
}

/// The violations of the real workspace.
pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<Violation>> {
    let promises = parse(&workspace.read(FILE)?);
    Ok(violations(&promises, |file| {
        let facts = source::facts(&workspace.read(file).ok()?).ok()?;
        Some(facts.tests)
    }))
}

/// Reads the promises. What is no list item with a bold beginning is prose.
pub fn parse(text: &str) -> Vec<Promise> {
    let mut promises: Vec<Promise> = Vec::new();
    let mut open = false;
    for (line, number) in text.lines().zip(1..) {
        if let Some(item) = line.strip_prefix("- **") {
            let (name, _) = item.split_once("**").unwrap_or_default();
            promises.push(Promise {
                line: number,
                number: name.trim().to_owned(),
                tests: Vec::new(),
            });
            open = true;
        } else if line.trim().is_empty() || line.starts_with(['#', '-']) {
            open = false;
        }
        if open && let Some(promise) = promises.last_mut() {
            promise.tests.extend(tests(line));
        }
    }
    promises
}

/// The tests that a line names between backticks.
fn tests(line: &str) -> impl Iterator<Item = (String, String)> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| {
        let (file, test) = text.split_once(".rs::")?;
        Some((format!("{file}.rs"), test.to_owned()))
    })
}

/// What is wrong with the promises, given the names of the tests in a file.
pub fn violations(
    promises: &[Promise],
    tests_in: impl Fn(&str) -> Option<Vec<String>>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for promise in promises {
        let mut wrong = |rule: String| {
            found.push(Violation::new(format!("{FILE}:{}", promise.line), rule));
        };
        let number = &promise.number;
        let digits = number
            .strip_prefix('S')
            .and_then(|digits| digits.parse::<u32>().ok());
        if digits.is_none() {
            wrong(format!(
                "`{number}` is not a promise's number: expected S1, S2, …"
            ));
        }
        if !seen.insert(number) {
            wrong(format!("{number} stands there twice"));
        }
        if promise.tests.is_empty() {
            wrong(format!(
                "{number} names no test: add `path/to/file.rs::test_name`"
            ));
        }
        for (file, test) in &promise.tests {
            match tests_in(file) {
                None => wrong(format!("{number} names {file}, which is not there")),
                Some(tests) if !tests.contains(test) => {
                    wrong(format!("{number} names {test}, which is no test in {file}"));
                }
                Some(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Promises

- **S1** One. — `a.rs::kept`
- **S2** Two, over
  two lines with `code`. — `a.rs::kept`,
  `b/c.rs::also`

Prose with `a.rs::ignored`.
";

    fn mk_violations(text: &str) -> Vec<String> {
        let tests_in = |file: &str| match file {
            "a.rs" => Some(vec!["kept".to_owned()]),
            "b/c.rs" => Some(vec!["also".to_owned()]),
            _ => None,
        };
        let found = violations(&parse(text), tests_in);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn items_are_read_with_all_their_lines() {
        let test = |file: &str, test: &str| (file.to_owned(), test.to_owned());
        let promise = |line, number: &str, tests| Promise {
            line,
            number: number.to_owned(),
            tests,
        };
        assert_eq!(
            parse(TEXT),
            [
                promise(3, "S1", vec![test("a.rs", "kept")]),
                promise(4, "S2", vec![test("a.rs", "kept"), test("b/c.rs", "also")]),
            ]
        );
        assert_eq!(mk_violations(TEXT), [""; 0]);
    }

    #[test]
    fn a_promise_that_nothing_keeps_is_found() {
        let text = "\
- **S1** No test.
- **S1** Twice. — `a.rs::kept`
- **S3** Gone. — `gone.rs::kept`
- **S4** Renamed. — `a.rs::lost`
- **Five** Five. — `a.rs::kept`
";
        assert_eq!(
            mk_violations(text),
            [
                "SPECIFICATION.md:1: S1 names no test: add `path/to/file.rs::test_name`",
                "SPECIFICATION.md:2: S1 stands there twice",
                "SPECIFICATION.md:3: S3 names gone.rs, which is not there",
                "SPECIFICATION.md:4: S4 names lost, which is no test in a.rs",
                "SPECIFICATION.md:5: `Five` is not a promise's number: expected S1, S2, …",
            ]
        );
    }
}
