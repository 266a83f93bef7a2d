//! The arrows between the crates, here and in made-up workspaces.

use std::collections::BTreeMap;

use xtask::{
    bans,
    layers::{self, Edges, Layer, Table},
    workspace::Workspace,
};

const NONE: [&str; 0] = [];

#[test]
fn the_crates_of_this_workspace_keep_to_their_layers() {
    let workspace = Workspace::load().unwrap();
    assert_eq!(layers::check(&workspace).unwrap(), []);
}

#[test]
fn no_program_ships_other_cryptography_than_the_hosts() {
    let workspace = Workspace::load().unwrap();
    assert_eq!(bans::check(&workspace).unwrap(), []);
}

/// `name rank: uses …`, one per line.
fn mk_table(text: &str) -> Table {
    let entry = |line: &str| {
        let (head, uses) = line.split_once(':').unwrap_or((line, ""));
        let (name, rank) = head.trim().split_once(' ').unwrap_or((head, ""));
        let layer = Layer {
            rank: rank.to_owned(),
            uses: uses.split_whitespace().map(str::to_owned).collect(),
        };
        (name.to_owned(), layer)
    };
    text.lines().map(entry).collect()
}

/// `name: normal … | dev …`, one per line.
fn mk_edges(text: &str) -> BTreeMap<String, Edges> {
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let entry = |line: &str| {
        let (name, uses) = line.split_once(':').unwrap_or((line, ""));
        let (normal, dev) = uses.split_once('|').unwrap_or((uses, ""));
        let edges = Edges {
            normal: names(normal),
            dev: names(dev),
        };
        (name.trim().to_owned(), edges)
    };
    text.lines().map(entry).collect()
}

fn mk_violations(table: &str, edges: &str) -> Vec<String> {
    let found = layers::violations(&mk_table(table), &mk_edges(edges));
    found.iter().map(ToString::to_string).collect()
}

const TABLE: &str = "core 0\nnet 0\nstate 1: core\nkit t: net\nlab 4: state kit\nxtask -";

#[test]
fn arrows_that_nobody_follows_are_fine() {
    let edges = "core\nnet\nstate\nkit\nlab: kit\nxtask";
    assert_eq!(mk_violations(TABLE, edges), NONE);
}

#[test]
fn a_dependency_without_an_arrow_is_found() {
    let edges = "core\nnet\nstate: core net\nkit: net\nlab\nxtask: core";
    assert_eq!(
        mk_violations(TABLE, edges),
        [
            "state: uses net, which its layer does not allow",
            "xtask: uses core, which its layer does not allow",
        ]
    );
}

#[test]
fn crates_and_entries_belong_together() {
    let edges = "core\nnet\nstate\nkit\nlab\nnew";
    assert_eq!(
        mk_violations(TABLE, edges),
        [
            "xtask: is declared but is no crate of this workspace",
            "new: has no entry in [workspace.metadata.layers]",
        ]
    );
}

#[test]
fn arrows_go_down() {
    let edges = "a\nb\nc\nd";
    assert_eq!(
        mk_violations("a 0: b\nb 0\nc 1: d\nd 2: gone", edges),
        [
            "a: may use b, which does not stand below it",
            "c: may use d, which does not stand below it",
            "d: may use gone, which has no entry",
        ]
    );
    assert_eq!(
        mk_violations("a high: b\nb 0", "a\nb"),
        ["a: has no rank: expected a number, t or -"]
    );
}

#[test]
fn testkits_are_for_tests_and_for_the_lab() {
    let edges = "core: | kit\nnet\nstate: | kit net\nkit\nlab: kit\nxtask";
    assert_eq!(mk_violations(TABLE, edges), NONE);
    assert_eq!(
        mk_violations("core 1: kit\nkit t", "core: kit\nkit"),
        ["core: may use kit: a testkit is for tests only"]
    );
}

#[test]
fn a_tool_uses_what_has_a_level_and_is_used_by_nobody() {
    let edges = "a: tool\nkit\ntool: a";
    assert_eq!(
        mk_violations("a 0: tool\nkit t\ntool -: a kit", edges),
        [
            "a: may use tool, which does not stand below it",
            "tool: may use kit: a testkit is for tests only",
        ]
    );
}

#[test]
fn tests_do_not_reach_up_either() {
    let edges = "core: | state\nnet: | core\nstate\nkit\nlab\nxtask";
    assert_eq!(
        mk_violations(TABLE, edges),
        [
            "core: uses state in tests, which does not stand below it",
            "net: uses core in tests, which does not stand below it",
        ]
    );
}
