//! The workspace as cargo describes it, and its files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use cargo_metadata::{Metadata, MetadataCommand, Package, PackageId};

/// The workspace this program belongs to.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    metadata: Metadata,
}

/// What cargo resolves dependencies for: what is shipped runs on Linux.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Folders that hold no source of ours.
const SKIPPED: [&str; 4] = ["target", "corpus", "artifacts", "coverage"];

// === impl Workspace ===

impl Workspace {
    /// Asks cargo for the workspace above this crate.
    pub fn load() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in the root of the workspace")?;
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .other_options(["--filter-platform".into(), PLATFORM.into()])
            .exec()
            .context("cannot read the workspace's metadata")?;
        Ok(Self {
            root: root.to_owned(),
            metadata,
        })
    }

    /// What cargo says.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The members whose manifest lies under `folder`, such as `lib`.
    pub fn members_under(&self, folder: &str) -> Vec<&Package> {
        let folder = self.root.join(folder);
        let mut members = self.metadata.workspace_packages();
        members.retain(|package| package.manifest_path.starts_with(&folder));
        members
    }

    /// The crates that a member depends on, by the names they have in its code.
    pub fn dependencies(&self, member: &PackageId) -> Vec<&str> {
        let nodes = self
            .metadata
            .resolve
            .iter()
            .flat_map(|resolve| &resolve.nodes);
        let node = nodes.filter(|node| node.id == *member);
        node.flat_map(|node| &node.deps)
            .map(|dependency| dependency.name.as_str())
            .collect()
    }

    /// The text of a file, named from the root.
    pub fn read(&self, path: impl AsRef<Path>) -> anyhow::Result<String> {
        let path = self.root.join(path);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Replaces a file, named from the root, and makes its folder.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) -> anyhow::Result<()> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// All files below `folder`, named from the root and sorted; none if there is no such folder.
    pub fn files(&self, folder: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.join(folder)];
        while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("cannot list {}", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                if !path.is_dir() {
                    found.push(path.strip_prefix(&self.root)?.to_owned());
                } else if !SKIPPED.iter().any(|skipped| path.ends_with(skipped)) {
                    folders.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// All Rust source files of the workspace.
    pub fn rust_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in ["bin", "lib", "xtask"] {
            files.extend(self.files(folder)?);
        }
        files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
        Ok(files)
    }
}
