//! The configurations in a folder, as container runtimes would read them.

use std::path::Path;

use mesh_cni::{
    config::{PLUGIN, PluginConfig},
    conflist::{ConfigList, Format, Verdict},
};

use super::state::{Content, File, State, saved};

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The file's name.
    pub(super) name: String,
    /// Its form.
    pub(super) format: Format,
    /// Its permissions.
    pub(super) mode: u32,
    /// What it holds.
    pub(super) list: ConfigList,
    /// What it would hold without our entry.
    pub(super) base: ConfigList,
    /// Whether our entry is in it.
    pub(super) has_ours: bool,
}

/// A file that looks like a configuration and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// The file's name.
    pub(super) name: String,
    /// What is wrong with it.
    pub(super) why: String,
}

/// All configurations in a folder, in the order in which runtimes read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The valid ones.
    pub(super) valid: Vec<Listed>,
    /// The others.
    pub(super) invalid: Vec<Invalid>,
}

// === impl Listing ===

impl Listing {
    /// Those of `state`.
    pub(super) fn of(state: &State) -> Self {
        let mut listing = Self::default();
        for (name, file) in &state.conf {
            match Listed::parse(name, file) {
                Some(Ok(listed)) => listing.valid.push(listed),
                Some(Err(invalid)) => listing.invalid.push(invalid),
                None => {}
            }
        }
        listing
    }

    /// The valid one with this name.
    pub(super) fn get(&self, name: &str) -> Option<&Listed> {
        self.valid.iter().find(|listed| listed.name == name)
    }

    /// The one with this name, or else the one that differs from it in its form alone.
    pub(super) fn get_or_sibling(&self, name: &str) -> Option<&Listed> {
        let sibling = || self.valid.iter().find(|l| l.stem() == stem(name));
        self.get(name).or_else(sibling)
    }
}

// === impl Listed ===

impl Listed {
    /// The configuration in a file, if its name is that of one.
    pub(super) fn parse(name: &str, file: &File) -> Option<Result<Self, Invalid>> {
        let format = Format::of(Path::new(name))?;
        let invalid = |why: String| {
            let name = name.to_owned();
            Some(Err(Invalid { name, why }))
        };
        let bytes = match &file.content {
            Content::Bytes(bytes) => bytes,
            Content::Unreadable(why) => return invalid(why.clone()),
            Content::Unread => return None,
        };
        let list = match ConfigList::parse(bytes, format) {
            Ok(list) => list,
            Err(error) => return invalid(mesh_runtime::error::chain(&error).to_string()),
        };
        let mut base = list.clone();
        let has_ours = base.remove();
        Some(Ok(Self {
            name: name.to_owned(),
            format,
            mode: file.mode,
            list,
            base,
            has_ours,
        }))
    }

    /// Whether there is nothing in it but our entry.
    pub(super) fn is_ours_alone(&self) -> bool {
        self.base.plugins().is_empty()
    }

    /// Whether our entry is as it should be.
    pub(super) fn is_current(&self, entry: &PluginConfig) -> bool {
        self.list.verdict(entry) == Verdict::Current
    }

    /// Whether it is a file of our own with a copy of another network's configuration: it has a name that no
    /// other installer uses, or `owned`. A file of which we keep what it was before is no copy.
    pub(super) fn is_copy(&self, state: &State, owned: Option<&str>) -> bool {
        let is_named = self.name.contains(PLUGIN) || Some(self.name.as_str()) == owned;
        let kept = ["conflist", "conf", "json"].map(|form| format!("{}.{form}", self.stem()));
        let is_kept = kept
            .iter()
            .any(|name| state.conf.contains_key(&saved(name)));
        self.has_ours && is_named && !is_kept
    }

    /// Its name without the ending.
    pub(super) fn stem(&self) -> &str {
        stem(&self.name)
    }

    /// The name of the list that a single plugin becomes.
    pub(super) fn list_name(&self) -> String {
        match self.format {
            Format::List => self.name.clone(),
            Format::Single => format!("{}.conflist", self.stem()),
        }
    }
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
