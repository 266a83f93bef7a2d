//! Files that are written from the code and checked in, so that reading them needs no tool.

use std::fmt::Write as _;

use crate::{Violation, layers, workspace::Workspace};

/// A file and what it should hold.
type Generated = (&'static str, String);

/// Writes all generated files.
pub fn write(workspace: &Workspace) -> anyhow::Result<()> {
    for (path, text) in files(workspace)? {
        workspace.write(path, &text)?;
    }
    Ok(())
}

/// The generated files that are not what the code makes of them.
pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<Violation>> {
    let files = files(workspace)?.into_iter();
    let stale = files.filter(|(path, text)| workspace.read(path).ok().as_ref() != Some(text));
    Ok(stale
        .map(|(path, _)| Violation::new(path, "is out of date: run `cargo xtask gen`"))
        .collect())
}

fn files(workspace: &Workspace) -> anyhow::Result<Vec<Generated>> {
    Ok(vec![("lib/README.md", crates(workspace)?)])
}

/// One line per shared crate.
fn crates(workspace: &Workspace) -> anyhow::Result<String> {
    let table = layers::table(workspace)?;
    let mut rows = Vec::new();
    for member in workspace.members_under("lib") {
        let name = member.name.as_str();
        let description = member.description.as_deref().unwrap_or_default();
        let (rank, uses) = table.get(name).map_or(("", Vec::new()), |layer| {
            (
                layer.rank.as_str(),
                layer.uses.iter().map(|name| format!("`{name}`")).collect(),
            )
        });
        rows.push((rank, name, description, uses.join(", ")));
    }
    rows.sort();
    let mut text = String::from(
        "# Shared crates\n\n\
         <!-- Written by `cargo xtask gen` from each crate's description and the layers in Cargo.toml. -->\n\n\
         A crate uses only crates of a lower rank, and of those only the ones listed; testkits (`t`) are\n\
         used by tests and by `lab`.\n\n\
         | rank | crate | what it is | may use |\n|---|---|---|---|\n",
    );
    for (rank, name, description, uses) in rows {
        writeln!(
            text,
            "| {rank} | [`{name}`]({name}) | {description} | {uses} |"
        )?;
    }
    Ok(text)
}
