//! Rules about files that neither rustc nor clippy knows.

use std::{collections::BTreeSet, path::Path};

use cargo_metadata::Package;

use crate::{Violation, source, source::Facts, workspace::Workspace};

/// Longest source file, in lines outside of tests.
const MAX_FILE: usize = 600;
/// Longest `main.rs`: it parses arguments and runs the program that is the library.
const MAX_MAIN: usize = 60;
/// Longest inline test module; a longer one moves to `foo/tests.rs`.
const MAX_TEST_MODULE: usize = 150;
/// Longest file of tests; a longer one is split by behaviour.
const MAX_TEST_FILE: usize = 800;
/// Longest shell script; what needs more becomes a command of xtask.
const MAX_SCRIPT: usize = 60;

/// The crates that may hold unsafe code.
const UNSAFE_CRATES: [&str; 2] = ["lib/mesh-net", "lib/testkit-net"];

/// Words that mark unfinished work. Spelled in parts, so that this file may hold them.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Dependencies that no source of ours names: whose, which, and why they are there.
const UNNAMED: [(&str, &str, &str); 2] = [
    ("mesh-proto", "tonic", "named by the generated code"),
    ("mesh-proto", "tonic_prost", "named by the generated code"),
];

/// The violations of the real workspace.
pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<Violation>> {
    let mut found = Vec::new();
    for path in workspace.rust_files()? {
        let text = workspace.read(&path)?;
        found.extend(source_file(&path, &text));
    }
    for folder in ["hack", ".ci"] {
        for path in workspace.files(folder)? {
            found.extend(script(&path, &workspace.read(&path)?));
        }
    }
    for member in workspace.metadata().workspace_packages() {
        found.extend(unused_dependencies(workspace, member)?);
    }
    Ok(found)
}

/// The violations of one Rust file, named from the root.
pub fn source_file(path: &Path, text: &str) -> Vec<Violation> {
    let place = path.display().to_string();
    let facts = match source::facts(text) {
        Ok(facts) => facts,
        Err(error) => return vec![Violation::new(place, error.to_string())],
    };
    let mut rules = sizes(path, &facts);
    if !facts.documented && !path.ends_with("tests.rs") {
        rules.push((1, "opens without a `//!` that says what it is for".into()));
    }
    if path.ends_with("mod.rs") {
        rules.push((1, "is named mod.rs: call it after its module".into()));
    }
    if !UNSAFE_CRATES
        .iter()
        .any(|allowed| path.starts_with(allowed))
    {
        let rule = format!("unsafe code outside of {}", UNSAFE_CRATES.join(" and "));
        rules.extend(facts.unsafe_code.iter().map(|line| (*line, rule.clone())));
    }
    let ignored = facts.ignored.iter();
    rules.extend(ignored.map(|line| (*line, "an ignored test: repair it or remove it".into())));
    let placeholders = facts.placeholders.iter();
    rules.extend(placeholders.map(|line| (*line, "a placeholder for code".into())));
    rules.extend(unfinished(text));
    let place = |(line, rule)| Violation::new(format!("{place}:{line}"), rule);
    rules.into_iter().map(place).collect()
}

/// A line and the rule it breaks.
type Broken = (usize, String);

fn sizes(path: &Path, facts: &Facts) -> Vec<Broken> {
    let mut rules = Vec::new();
    let mut limit = |what: &str, lines: usize, most: usize| {
        if lines > most {
            rules.push((
                1,
                format!("{what} of {lines} lines, {most} at most: split it"),
            ));
        }
    };
    if is_test(path) {
        limit("a file of tests", facts.lines, MAX_TEST_FILE);
    } else if path.ends_with("main.rs") {
        limit("a main.rs", facts.lines, MAX_MAIN);
    } else {
        limit("a file", facts.program_lines(), MAX_FILE);
    }
    for module in &facts.test_modules {
        let lines = module.clone().count();
        limit("an inline test module", lines, MAX_TEST_MODULE);
    }
    rules
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The violations of a file that may be a shell script, named from the root.
pub fn script(path: &Path, text: &str) -> Vec<Violation> {
    let place = path.display().to_string();
    let mut rules = unfinished(text);
    let first = text.lines().next().unwrap_or_default();
    let is_script = first.starts_with("#!") && first.ends_with("sh");
    let lines = text.lines().count();
    if lines > MAX_SCRIPT && (is_script || path.extension().is_some_and(|ext| ext == "sh")) {
        let rule = "write a command of xtask";
        rules.push((
            1,
            format!("a script of {lines} lines, {MAX_SCRIPT} at most: {rule}"),
        ));
    }
    let place = |(line, rule)| Violation::new(format!("{place}:{line}"), rule);
    rules.into_iter().map(place).collect()
}

fn unfinished(text: &str) -> Vec<Broken> {
    let lines = text.lines().zip(1..);
    let marked = lines.filter(|(line, _)| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| UNFINISHED.contains(&word))
    });
    marked
        .map(|(_, line)| {
            (
                line,
                "marks unfinished work: finish it or open an issue".into(),
            )
        })
        .collect()
}

fn unused_dependencies(workspace: &Workspace, member: &Package) -> anyhow::Result<Vec<Violation>> {
    let folder = member.manifest_path.parent();
    let root = &workspace.metadata().workspace_root;
    let folder = folder.and_then(|folder| folder.strip_prefix(root).ok());
    let mut named = BTreeSet::new();
    for path in workspace.files(folder.map_or("", |folder| folder.as_str()))? {
        if path.extension().is_some_and(|extension| extension == "rs") {
            named.extend(source::facts(&workspace.read(&path)?)?.identifiers);
        }
    }
    let excused = |name: &str| {
        let mut entries = UNNAMED.iter();
        entries.any(|(of, dependency, _)| *of == member.name.as_str() && *dependency == name)
    };
    let dependencies = workspace.dependencies(&member.id).into_iter();
    let unused = dependencies.filter(|name| !named.contains(*name) && !excused(name));
    Ok(unused
        .map(|name| {
            let rule = format!("depends on {name} and never names it");
            Violation::new(member.name.as_str(), rule)
        })
        .collect())
}

#[cfg(test)]
mod tests;
