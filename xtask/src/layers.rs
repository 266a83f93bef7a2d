//! The arrows of the architecture: `[workspace.metadata.layers]` against the real dependencies.
//!
//! A crate may use what its entry lists, and only crates of a lower rank. An arrow that nobody follows
//! yet is fine; a crate without an entry, or an entry without a crate, is not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Package};
use serde::Deserialize;

use crate::{Violation, workspace::Workspace};

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Layer {
    /// How high the crate stands: a number from 0 at the bottom, `t` for a testkit, `-` for a tool.
    pub rank: String,
    /// The crates of this workspace it may use.
    pub uses: BTreeSet<String>,
}

/// The table: the entries by crate.
pub type Table = BTreeMap<String, Layer>;

/// Which crates of this workspace a crate really uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// By the code and by build scripts.
    pub normal: BTreeSet<String>,
    /// By tests only.
    pub dev: BTreeSet<String>,
}

/// How high a crate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// `0` at the bottom and up.
    Level(u8),
    /// `t`: used by tests, by other testkits and by `TESTKIT_USERS`.
    Testkit,
    /// `-`: a tool that may use what has a level, and is used by nobody.
    Aside,
}

/// Crates that are test programs themselves.
const TESTKIT_USERS: [&str; 2] = ["bench", "lab"];

/// The violations of the real workspace.
pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<Violation>> {
    let table = table(workspace)?;
    let members = workspace.metadata().workspace_packages();
    let names: BTreeSet<_> = members
        .iter()
        .map(|member| member.name.to_string())
        .collect();
    let edges = members
        .iter()
        .map(|member| (member.name.to_string(), edges(member, &names)))
        .collect();
    Ok(violations(&table, &edges))
}

/// The table in the workspace's manifest.
pub fn table(workspace: &Workspace) -> anyhow::Result<Table> {
    let layers = workspace.metadata().workspace_metadata.get("layers");
    let layers = layers.context("Cargo.toml has no [workspace.metadata.layers]")?;
    Table::deserialize(layers).context("cannot read [workspace.metadata.layers]")
}

fn edges(member: &Package, names: &BTreeSet<String>) -> Edges {
    let mut edges = Edges::default();
    for dependency in &member.dependencies {
        if names.contains(&dependency.name) {
            let kind = match dependency.kind {
                DependencyKind::Development => &mut edges.dev,
                _ => &mut edges.normal,
            };
            kind.insert(dependency.name.clone());
        }
    }
    edges
}

/// The violations of any workspace.
pub fn violations(table: &Table, edges: &BTreeMap<String, Edges>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, layer) in table {
        if !edges.contains_key(name) {
            found.push(Violation::new(
                name,
                "is declared but is no crate of this workspace",
            ));
        }
        let arrows = layer.uses.iter();
        found.extend(arrows.filter_map(|to| wrong_arrow(table, name, to)));
    }
    for (name, edges) in edges {
        let Some(layer) = table.get(name) else {
            found.push(Violation::new(
                name,
                "has no entry in [workspace.metadata.layers]",
            ));
            continue;
        };
        for to in edges.normal.difference(&layer.uses) {
            let rule = format!("uses {to}, which its layer does not allow");
            found.push(Violation::new(name, rule));
        }
        let for_tests = edges.dev.difference(&layer.uses);
        found.extend(for_tests.filter_map(|to| wrong_dev_edge(table, name, to)));
    }
    found
}

/// Whether the arrow itself goes the wrong way.
fn wrong_arrow(table: &Table, from: &str, to: &str) -> Option<Violation> {
    let rule = match (rank(table, from), rank(table, to)) {
        (_, None) => format!("may use {to}, which has no entry"),
        (None, _) => "has no rank: expected a number, t or -".to_owned(),
        (Some(Rank::Level(from)), Some(Rank::Level(to))) if from > to => return None,
        (Some(Rank::Testkit), Some(Rank::Testkit))
        | (Some(Rank::Testkit | Rank::Aside), Some(Rank::Level(_))) => return None,
        (Some(_), Some(Rank::Testkit)) if TESTKIT_USERS.contains(&from) => return None,
        (Some(_), Some(Rank::Testkit)) => format!("may use {to}: a testkit is for tests only"),
        (Some(_), Some(_)) => format!("may use {to}, which does not stand below it"),
    };
    Some(Violation::new(from, rule))
}

/// Tests may use testkits and whatever stands lower, listed or not.
fn wrong_dev_edge(table: &Table, from: &str, to: &str) -> Option<Violation> {
    match (rank(table, from)?, rank(table, to)?) {
        (_, Rank::Testkit) | (Rank::Testkit, Rank::Level(_)) => None,
        (Rank::Level(from), Rank::Level(to)) if from > to => None,
        _ => Some(Violation::new(
            from,
            format!("uses {to} in tests, which does not stand below it"),
        )),
    }
}

fn rank(table: &Table, name: &str) -> Option<Rank> {
    match table.get(name)?.rank.as_str() {
        "t" => Some(Rank::Testkit),
        "-" => Some(Rank::Aside),
        level => level.parse().ok().map(Rank::Level),
    }
}
