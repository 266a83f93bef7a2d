//! What has to be done, as a function of what is in the folders.
//!
//! Every plan keeps three things, whatever action it is stopped after. The runtime always finds a
//! configuration: a new one is there before an old one goes, and of two the old one sorts first or both mean
//! the same network. It never finds our entry without the plugin. And the next plan leads to the same end.
//!
//! What somebody else wrote is kept beside our version under a name that no runtime reads, as the very same
//! file. To give it back is one renaming, and afterwards the folder is as it was.

use std::{fmt, sync::Arc};

use mesh_cni::{
    config::PluginConfig,
    conflist::{self, ConfigList, Format, Plugin as Entry},
};

use super::{
    Config, Mode, OLDER_CREDENTIALS, RUN_FILES, STALE_CREDENTIALS,
    listing::{Invalid, Listed, Listing},
    rival,
    state::{Plugin, State, original, saved},
};

/// One step, done by one change that happens or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Remove what a killed process left.
    RemoveLeftover {
        /// Where.
        place: Place,
        /// Its name.
        name: String,
    },
    /// Copy the plugin from the image.
    InstallPlugin,
    /// Keep a configuration as it is under its saved name too.
    Remember {
        /// Its name.
        name: String,
    },
    /// Make a configuration hold this.
    Write {
        /// Its name.
        name: String,
        /// What it shall hold.
        bytes: Arc<[u8]>,
        /// Its permissions.
        mode: u32,
    },
    /// Rename a configuration to its saved name.
    SetAside {
        /// Its name.
        name: String,
    },
    /// Rename what was saved back, over what took its place.
    GiveBack {
        /// The configuration's name.
        name: String,
    },
    /// Remove from the folder of configurations.
    Remove {
        /// Its name.
        name: String,
    },
    /// Wait until runtimes have noticed what became of their configuration.
    LetRuntimesReload,
    /// Remove the plugin.
    RemovePlugin,
    /// Remove from the run directory.
    RemoveRun {
        /// Its name.
        name: String,
    },
}

/// One of the host's folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// That of plugins.
    Bin,
    /// That of configurations.
    Conf,
}

/// What is to be done, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order; none if all is right.
    pub(super) actions: Vec<Action>,
    /// How it is afterwards.
    pub(super) outcome: Outcome,
}

/// How it is after a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Runtimes call the plugin.
    Installed {
        /// The file with our entry.
        file: String,
        /// What there is to be aware of.
        note: Option<Note>,
    },
    /// There is no network yet to which the plugin could be chained.
    Waiting {
        /// The file that is waited for, if it has to be a particular one.
        name: Option<String>,
        /// What might have been meant to be one.
        invalid: Vec<Invalid>,
    },
}

/// What there is to be aware of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Another file sorts before ours: a runtime that takes the first one passes us by.
    NotFirst {
        /// The other one.
        first: String,
    },
    /// The network's own configuration has gone; our copy of it serves.
    OriginalGone,
}

/// Permissions of our own files, as the CIS benchmark asks for them.
const OWN_MODE: u32 = 0o600;
/// The same, readable to the group.
const GROUP_MODE: u32 = 0o640;

/// How often a folder is looked at anew in one plan. Two are enough for everything that installers leave.
const MAX_PASSES: usize = 4;
/// How many files that are no configurations are named to the reader.
const SHOWN: usize = 5;

/// A plan in the making: the folders as they are after its actions so far.
struct Draft<'a> {
    config: &'a Config,
    state: State,
    actions: Vec<Action>,
}

/// What to do so that runtimes call the plugin.
pub(super) fn install(state: &State, config: &Config) -> Plan {
    let mut draft = Draft::new(state, config);
    draft.remove_leftovers();
    if draft.state.plugin != Plugin::Right {
        draft.push(Action::InstallPlugin);
    }
    let mut outcome = draft.configure();
    // What is given back may be another network than the one that was there before.
    for _ in 0..MAX_PASSES {
        let done = draft.actions.len();
        outcome = draft.configure();
        if draft.actions.len() == done {
            break;
        }
    }
    Plan {
        actions: draft.actions,
        outcome,
    }
}

/// What to do so that nothing of ours is left.
pub(super) fn remove(state: &State, config: &Config) -> Vec<Action> {
    let mut draft = Draft::new(state, config);
    draft.forget_ours();
    draft.leave_all_but(None);
    let has_changed = !draft.actions.is_empty();
    if draft.state.plugin != Plugin::Missing {
        if has_changed {
            draft.push(Action::LetRuntimesReload);
        }
        draft.push(Action::RemovePlugin);
    }
    draft.remove_leftovers();
    draft.remove_renamed();
    draft.remove_conf(OLDER_CREDENTIALS);
    for prefix in RUN_FILES {
        let names = draft.state.run.iter();
        let names: Vec<_> = names
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        for name in names.into_iter().rev() {
            draft.push(Action::RemoveRun { name });
        }
    }
    draft.actions
}

// === impl Draft ===

impl<'a> Draft<'a> {
    fn new(state: &State, config: &'a Config) -> Self {
        Self {
            config,
            state: state.clone(),
            actions: Vec::new(),
        }
    }

    /// Brings our entry to where it belongs, and only there.
    fn configure(&mut self) -> Outcome {
        let config = self.config;
        self.forget_ours();
        let outcome = match &config.mode {
            Mode::Chained { file } => self.chain(file.as_deref()),
            Mode::Owned { file, primary } => self.own(file, primary.as_deref()),
            Mode::Standalone { file } => self.stand_alone(file),
        };
        if let Outcome::Installed { file, .. } = &outcome {
            self.leave_all_but(Some(file));
            self.remove_credentials();
        }
        outcome
    }

    fn push(&mut self, action: Action) {
        self.state.apply(&action);
        self.actions.push(action);
    }

    fn listing(&self) -> Listing {
        Listing::of(&self.state)
    }

    fn entry(&self) -> &'a PluginConfig {
        &self.config.entry
    }

    fn remove_leftovers(&mut self) {
        let bin = self.state.bin_leftovers.clone();
        let conf = self.state.conf_leftovers.clone();
        let bin = bin.into_iter().map(|name| (Place::Bin, name));
        for (place, name) in bin.chain(conf.into_iter().map(|name| (Place::Conf, name))) {
            self.push(Action::RemoveLeftover { place, name });
        }
    }

    // --- chained ---

    fn chain(&mut self, forced: Option<&str>) -> Outcome {
        let listing = self.listing();
        let Some(target) = self.primary(&listing, forced, None) else {
            return waiting(forced, listing);
        };
        // Before a file of ours comes into a place of which something else is remembered.
        self.forget();
        let file = target.list_name();
        match target.format {
            Format::List => self.insert(target),
            Format::Single => self.convert(target),
        }
        self.set_aside_remains(&file, &target.base);
        let note = self.not_first(&file);
        Outcome::Installed { file, note }
    }

    /// The network's own configuration: the one with the forced name, or the first.
    fn primary<'l>(
        &self,
        listing: &'l Listing,
        forced: Option<&str>,
        owned: Option<&str>,
    ) -> Option<&'l Listed> {
        let is_network =
            |listed: &&Listed| !listed.is_ours_alone() && !listed.is_copy(&self.state, owned);
        match forced {
            Some(name) => listing
                .get_or_sibling(name)
                .filter(|listed| !listed.is_ours_alone() && Some(listed.name.as_str()) != owned),
            None => listing.valid.iter().find(is_network),
        }
    }

    fn insert(&mut self, target: &Listed) {
        if target.is_current(self.entry()) {
            return;
        }
        let mut list = target.list.clone();
        list.insert(self.entry());
        self.replace(&target.name, &list, target.mode);
    }

    /// Makes a list of a single plugin. While both are there the single one sorts first, and it is what the
    /// runtime knows already.
    fn convert(&mut self, target: &Listed) {
        let name = target.list_name();
        let is_right =
            |listed: &Listed| listed.is_current(self.entry()) && listed.base == target.base;
        if !self.listing().get(&name).is_some_and(is_right) {
            let list = target.base.owned_copy(self.entry());
            self.replace(&name, &list, target.mode);
        }
        self.push(Action::SetAside {
            name: target.name.clone(),
        });
    }

    /// Where a conversion was stopped half-way, the single plugin of which our list was made still stands
    /// before it.
    fn set_aside_remains(&mut self, file: &str, base: &ConfigList) {
        let listing = self.listing();
        let Some(ours) = listing.get(file) else {
            return;
        };
        for listed in &listing.valid {
            let is_single = listed.format == Format::Single && listed.stem() == ours.stem();
            if is_single && listed.base == *base {
                let name = listed.name.clone();
                self.push(Action::SetAside { name });
            }
        }
    }

    // --- files of our own ---

    fn own(&mut self, file: &str, primary: Option<&str>) -> Outcome {
        let listing = self.listing();
        let mode = self.own_mode();
        if let Some(primary) = self.primary(&listing, primary, Some(file)) {
            self.forget();
            let wanted = primary.base.owned_copy(self.entry());
            let is_right = |listed: &Listed| listed.list == wanted && listed.mode == mode;
            if !listing.get(file).is_some_and(is_right) {
                self.replace(file, &wanted, mode);
            }
            let note = self.not_first(file);
            let file = file.to_owned();
            return Outcome::Installed { file, note };
        }
        // After a restart of the node the network's own configuration may come late, or not under this name.
        let Some(copy) = listing
            .get(file)
            .filter(|l| l.has_ours && !l.is_ours_alone())
        else {
            return waiting(primary, listing);
        };
        self.insert(copy);
        Outcome::Installed {
            file: file.to_owned(),
            note: Some(Note::OriginalGone),
        }
    }

    fn stand_alone(&mut self, file: &str) -> Outcome {
        self.forget();
        let found = self.state.conf.get(file);
        let mode = self.own_mode();
        let is_right = found.is_some_and(|found| {
            let entry = found.bytes().map(Entry::parse);
            let same = |entry: Entry| entry.is_standalone(self.entry());
            found.mode == mode && entry.is_some_and(|entry| entry.is_ok_and(same))
        });
        if !is_right {
            let bytes = conflist::standalone(self.entry());
            self.replace_bytes(file, bytes, mode);
        }
        Outcome::Installed {
            file: file.to_owned(),
            note: None,
        }
    }

    fn own_mode(&self) -> u32 {
        if self.config.group_read {
            GROUP_MODE
        } else {
            OWN_MODE
        }
    }

    // --- what others wrote ---

    fn replace(&mut self, name: &str, list: &ConfigList, mode: u32) {
        self.replace_bytes(name, list.to_bytes(), mode);
    }

    /// Writes a file; if it is somebody else's, that is remembered first.
    fn replace_bytes(&mut self, name: &str, bytes: Vec<u8>, mode: u32) {
        let found = self.state.conf.get(name);
        let is_foreign = match found.and_then(|file| Listed::parse(name, file)) {
            Some(Ok(listed)) => !listed.has_ours,
            // Under our own name it is what became of a file of ours, and must not come back.
            Some(Err(_invalid)) => self.config.mode.own_file() != Some(name),
            None => false,
        };
        if is_foreign && found != self.state.conf.get(&saved(name)) {
            let name = name.to_owned();
            self.push(Action::Remember { name });
        }
        self.push(Action::Write {
            name: name.to_owned(),
            bytes: bytes.into(),
            mode,
        });
    }

    /// Takes our entry out of all files but this one, and removes what is remembered for nothing.
    fn leave_all_but(&mut self, kept: Option<&str>) {
        let listing = self.listing();
        let others = listing
            .valid
            .iter()
            .filter(|l| Some(l.name.as_str()) != kept);
        for listed in others.filter(|listed| listed.has_ours) {
            self.leave(listed, &listing);
        }
        self.forget();
    }

    fn leave(&mut self, listed: &Listed, listing: &Listing) {
        let name = listed.name.clone();
        let owned = self.config.mode.own_file();
        let is_saved = |name: &str, format| {
            let file = self.state.conf.get(&saved(name));
            let bytes = file.and_then(|file| file.bytes());
            let list = bytes.map(|bytes| ConfigList::parse(bytes, format));
            list.is_some_and(|list| list.is_ok_and(|list| list == listed.base))
        };
        let single = ["conf", "json"].map(|ending| format!("{}.{ending}", listed.stem()));
        let single = single.into_iter().find(|s| is_saved(s, Format::Single));
        // A conversion, or a removal of one, that was stopped half-way.
        let is_converted = listing.valid.iter().any(|other| {
            let is_single = other.format == Format::Single && other.stem() == listed.stem();
            is_single && other.name != name && other.base == listed.base
        });
        if listed.is_ours_alone() || is_converted || listed.is_copy(&self.state, owned) {
            self.discard(name);
        } else if is_saved(&name, listed.format) {
            self.push(Action::GiveBack { name });
        } else if let Some(single) = single.filter(|_| listed.format == Format::List) {
            self.push(Action::GiveBack { name: single });
            self.discard(name);
        } else {
            // Somebody has changed it since, or it was Istio's agent that put the entry in.
            let bytes = listed.base.to_bytes().into();
            let mode = listed.mode;
            self.push(Action::Write { name, bytes, mode });
        }
    }

    /// Removes a file of ours; what was in its place comes back.
    fn discard(&mut self, name: String) {
        self.push(if self.state.conf.contains_key(&saved(&name)) {
            Action::GiveBack { name }
        } else {
            Action::Remove { name }
        });
    }

    /// Removes what is saved and has our entry: it is not what was there before us.
    fn forget_ours(&mut self) {
        let names = self.state.conf.iter().filter(|(name, file)| {
            let parsed = original(name).and_then(|of| Listed::parse(of, file)?.ok());
            parsed.is_some_and(|listed| listed.has_ours)
        });
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.push(Action::Remove { name });
        }
    }

    /// Removes what is saved of files in whose place there is nothing of ours.
    fn forget(&mut self) {
        let listing = self.listing();
        let holds = |name: &str| listing.get(name).is_some_and(|listed| listed.has_ours);
        let list_of = |name: &str| {
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            format!("{stem}.conflist")
        };
        let names = self.state.conf.keys();
        let useless = names
            .filter(|name| original(name).is_some_and(|of| !holds(of) && !holds(&list_of(of))));
        for name in useless.cloned().collect::<Vec<_>>() {
            self.push(Action::Remove { name });
        }
    }

    /// The file that a runtime would take, if that is not this one.
    fn not_first(&self, file: &str) -> Option<Note> {
        let listing = self.listing();
        let first = listing.valid.first().map(|listed| listed.name.clone())?;
        (first != file).then_some(Note::NotFirst { first })
    }

    /// Removes files of ours that Cilium has taken away. It would bring them back when it goes.
    fn remove_renamed(&mut self) {
        if let Some(file) = self.config.mode.own_file() {
            self.remove_conf(&rival::taken_by_cilium(file));
        }
    }

    // --- the run directory ---

    /// Istio's agent gave its plugin credentials, before 1.24 in the folder of configurations. Ours needs
    /// none; they go unless another configuration speaks of them.
    fn remove_credentials(&mut self) {
        let valid = self.listing().valid;
        // The older name ends with the newer one: who speaks of either keeps both.
        let speaks = |list: &ConfigList| {
            String::from_utf8_lossy(&list.to_bytes()).contains(STALE_CREDENTIALS)
        };
        if valid.iter().any(|listed| speaks(&listed.base)) {
            return;
        }
        self.remove_run(STALE_CREDENTIALS);
        self.remove_conf(OLDER_CREDENTIALS);
    }

    fn remove_conf(&mut self, name: &str) {
        if self.state.conf.contains_key(name) {
            let name = name.to_owned();
            self.push(Action::Remove { name });
        }
    }

    fn remove_run(&mut self, name: &str) {
        if self.state.run.contains(name) {
            let name = name.to_owned();
            self.push(Action::RemoveRun { name });
        }
    }
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed { file, .. } => write!(f, "installed in {file}"),
            Self::Waiting { name, invalid } => {
                match name {
                    Some(name) => write!(f, "waiting for the CNI configuration {name}")?,
                    None => f.write_str("waiting for a CNI configuration of the node's network")?,
                }
                for Invalid { name, why } in invalid.iter().take(SHOWN) {
                    write!(f, "; {name} is none: {why}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFirst { first } => write!(
                f,
                "{first} sorts before the configuration with the mesh's plugin: a container runtime that                  takes the first one starts pods outside of the mesh. Choose a file name that sorts before it"
            ),
            Self::OriginalGone => f.write_str(
                "the network's own CNI configuration has gone; pods get their network as it said last",
            ),
        }
    }
}

fn waiting(name: Option<&str>, listing: Listing) -> Outcome {
    Outcome::Waiting {
        name: name.map(str::to_owned),
        invalid: listing.invalid,
    }
}

#[cfg(test)]
mod tests;
