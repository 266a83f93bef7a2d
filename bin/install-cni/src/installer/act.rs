//! Does one action.

use std::path::{Path, PathBuf};

use super::{
    Action, Config, PLUGIN, Place, claim, durable,
    state::{self, PLUGIN_MODE, State, saved},
};
use crate::platform::Kind;

/// Why an installation or a removal failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folders cannot be read; the source says which and why.
    #[error("look at what is installed")]
    Read(#[from] state::Error),
    /// The run directory cannot be written to. Its mount is at fault. It is tried again.
    #[error("begin the installation")]
    Claim(#[from] claim::Error),
    /// A folder is on a read-only file system: usually another one is meant on this platform. Trying again
    /// does not help.
    #[error("{doing}: {} is read-only: {remedy}", folder.display())]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The value to set, and the platform.
        remedy: String,
    },
    /// A mounted folder has been removed from the host. A new container sees the one that came after it.
    #[error(
        "{} has been removed from the host while it was mounted here; only a new container sees what came \
         after it", .0.display()
    )]
    Gone(PathBuf),
    /// The plugin cannot be written or removed; the source says why. It is tried again.
    #[error("{doing}")]
    Plugin {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: durable::Error,
    },
    /// The configuration cannot be written or removed; the source says why. It is tried again.
    #[error("{doing}")]
    Configuration {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: durable::Error,
    },
    /// The run directory cannot be cleared; the source says why.
    #[error("clear the run directory")]
    RunDirectory(#[source] durable::Error),
    /// Another agent on this node has taken over. Nothing is wrong, unless everything shall be removed: then
    /// that agent has to end first.
    #[error("another agent, {by}, installs on this node: delete its DaemonSet first")]
    Taken {
        /// Its pod.
        by: String,
    },
    /// The process ends.
    #[error("change the folders while the process ends")]
    Ending,
}

/// Reads the folders, aside of the runtime's other tasks.
pub(super) async fn read(config: &Config, with_image: bool) -> Result<State, Error> {
    let folders = config.folders.clone();
    let reading = tokio::task::spawn_blocking(move || state::read(&folders, with_image));
    Ok(reading.await.map_err(|_ending| Error::Ending)??)
}

/// Does `action`, aside of the runtime's other tasks: to make something last can take seconds.
pub(super) async fn act(config: &Config, action: &Action) -> Result<(), Error> {
    let (config, action) = (config.clone(), action.clone());
    let acting = tokio::task::spawn_blocking(move || action.run(&config));
    acting.await.map_err(|_ending| Error::Ending)?
}

// === impl Action ===

impl Action {
    fn run(&self, config: &Config) -> Result<(), Error> {
        let folders = &config.folders;
        let conf = folders.conf.as_path();
        match self {
            Self::RemoveLeftover { place, name } => {
                let folder = match place {
                    Place::Bin => &folders.bin,
                    Place::Conf => &folders.conf,
                };
                let removed = durable::remove(folder, name);
                self.because(config, *place, folder, removed)
            }
            Self::InstallPlugin => {
                let image = state::image(&folders.plugin)?;
                let written = durable::replace(&folders.bin, PLUGIN, &image, PLUGIN_MODE);
                self.because(config, Place::Bin, &folders.bin, written)
            }
            Self::RemovePlugin => {
                let removed = durable::remove(&folders.bin, PLUGIN);
                self.because(config, Place::Bin, &folders.bin, removed)
            }
            Self::RemoveRun { name } => {
                durable::remove(&folders.run, name).map_err(Error::RunDirectory)
            }
            // Those who act have a clock.
            Self::LetRuntimesReload => Ok(()),
            Self::Remember { .. }
            | Self::Write { .. }
            | Self::SetAside { .. }
            | Self::GiveBack { .. }
            | Self::Remove { .. } => self.because(config, Place::Conf, conf, self.edit(conf)),
        }
    }

    /// Changes the folder of configurations.
    fn edit(&self, folder: &Path) -> Result<(), durable::Error> {
        match self {
            Self::Remember { name } => durable::link(folder, name, &saved(name)),
            Self::Write { name, bytes, mode } => durable::replace(folder, name, bytes, *mode),
            Self::SetAside { name } => durable::rename(folder, name, &saved(name)),
            Self::GiveBack { name } => durable::rename(folder, &saved(name), name),
            Self::Remove { name } => durable::remove(folder, name),
            _ => Ok(()),
        }
    }

    /// Whether a plugin that runtimes still call would be missing if this were done after a failure before it.
    pub(super) fn is_configuration(&self) -> bool {
        !matches!(
            self,
            Self::RemovePlugin | Self::RemoveRun { .. } | Self::RemoveLeftover { .. }
        )
    }

    /// In words, for the log.
    pub(super) fn doing(&self) -> &'static str {
        match self {
            Self::RemoveLeftover { .. } => "remove what a killed copy has left",
            Self::InstallPlugin => "install the plugin",
            Self::Remember { .. } => "keep the configuration as it was",
            Self::Write { .. } => "write the configuration",
            Self::SetAside { .. } => "set the single configuration aside",
            Self::GiveBack { .. } => "give the configuration back",
            Self::Remove { .. } => "remove the configuration",
            Self::LetRuntimesReload => "let runtimes read their configuration",
            Self::RemovePlugin => "remove the plugin",
            Self::RemoveRun { .. } => "clear the run directory",
        }
    }

    /// The file it is about, for the log.
    pub(super) fn file(&self) -> &str {
        match self {
            Self::RemoveLeftover { name, .. }
            | Self::Remember { name }
            | Self::Write { name, .. }
            | Self::SetAside { name }
            | Self::GiveBack { name }
            | Self::Remove { name }
            | Self::RemoveRun { name } => name,
            Self::InstallPlugin | Self::RemovePlugin => PLUGIN,
            Self::LetRuntimesReload => "",
        }
    }

    fn because(
        &self,
        config: &Config,
        place: Place,
        folder: &Path,
        result: Result<(), durable::Error>,
    ) -> Result<(), Error> {
        let doing = self.doing();
        result.map_err(|source| match (source, place) {
            (durable::Error::ReadOnly { .. }, _) => Error::ReadOnly {
                doing,
                folder: folder.to_owned(),
                remedy: remedy(config.platform, place),
            },
            (durable::Error::Gone { folder }, _) => Error::Gone(folder),
            (source, Place::Bin) => Error::Plugin { doing, source },
            (source, Place::Conf) => Error::Configuration { doing, source },
        })
    }
}

/// What to set where a folder of the host cannot be written to.
fn remedy(platform: Kind, place: Place) -> String {
    let (value, folder) = match place {
        Place::Bin => ("cni.cniBinDir", platform.folders().bin),
        Place::Conf => ("cni.cniConfDir", platform.folders().conf),
    };
    if platform.is_value() {
        format!(
            "this node is {}, where it is {folder}: set `global.platform` to `{}`, or `{value}`",
            platform.title(),
            platform.as_str()
        )
    } else {
        format!(
            "set `{value}` to the folder that the container runtime of {} uses and that can be written to \
             (platforms with a value of `global.platform` have it set)",
            platform.title()
        )
    }
}

// === impl Error ===

impl Error {
    /// Whether it is the plugin itself that could not be brought to its place.
    pub(super) fn is_about_plugin(&self) -> bool {
        match self {
            Self::Plugin { .. } | Self::Read(state::Error::Image { .. }) => true,
            Self::ReadOnly { doing, .. } => *doing == Action::InstallPlugin.doing(),
            _ => false,
        }
    }
}
