//! What is in the folders, as values.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File as OsFile},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_cni::conflist::{Format, MAX_BYTES};

use super::{Action, Folders, PLUGIN, Place, durable};

/// All that decides what has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The plugin.
    pub(super) plugin: Plugin,
    /// What killed copies left in the folder of plugins.
    pub(super) bin_leftovers: BTreeSet<String>,
    /// What they left in the folder of configurations.
    pub(super) conf_leftovers: BTreeSet<String>,
    /// Everything else there, by name. Container runtimes read it in this order.
    pub(super) conf: BTreeMap<String, File>,
    /// The names of what is in the run directory.
    pub(super) run: BTreeSet<String>,
}

/// How the installed plugin compares with the one in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Plugin {
    /// There is none.
    #[default]
    Missing,
    /// It is another one, or cannot be executed.
    Different,
    /// It is the same.
    Right,
}

/// A file in the folder of configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// What is in it.
    pub(super) content: Content,
    /// Its permissions.
    pub(super) mode: u32,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// Neither a runtime nor we read files with such a name.
    Unread,
}

/// Why the folders could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plugin in the image cannot be read. The image is at fault.
    #[error("read the plugin {} of the image", path.display())]
    Image {
        /// Where it should be.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A folder of the host cannot be read. A mount is missing, or permissions are at fault.
    #[error("read the folder {}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is more in the folder than in any of CNI configurations.
    #[error("{} holds more than {MAX_FILES} files: it is no folder of CNI configurations", .0.display())]
    TooMany(PathBuf),
}

/// Most files in a folder of configurations. Real ones have a handful.
const MAX_FILES: usize = 4096;
/// Most bytes of the plugin; it has less than two million.
const MAX_PLUGIN: u64 = 64 << 20;
/// What follows the name of a file that is kept as it was before us. Runtimes do not read such names.
const SAVED: &str = ".before-istio-cni";
/// The plugin's permissions: runtimes need not run as root's group.
pub(super) const PLUGIN_MODE: u32 = 0o755;

/// Reads the folders. To remove the plugin, the one in the image need not be there.
pub(super) fn read(folders: &Folders, with_image: bool) -> Result<State, Error> {
    let (conf, conf_leftovers) = read_conf(&folders.conf)?;
    let installed = folders.bin.join(PLUGIN);
    let plugin = if with_image {
        compare(&folders.plugin, &installed)?
    } else if installed.symlink_metadata().is_ok() {
        Plugin::Different
    } else {
        Plugin::Missing
    };
    let bin = names(&folders.bin)?;
    Ok(State {
        plugin,
        bin_leftovers: bin
            .into_iter()
            .filter(|name| durable::is_leftover(name))
            .collect(),
        conf_leftovers,
        conf,
        run: names(&folders.run)?,
    })
}

/// The plugin in the image.
pub(super) fn image(path: &Path) -> Result<Vec<u8>, Error> {
    bounded(path, MAX_PLUGIN).map_err(|source| Error::Image {
        path: path.to_owned(),
        source,
    })
}

/// The name under which a file is kept as it was before us.
pub(super) fn saved(name: &str) -> String {
    format!("{name}{SAVED}")
}

/// The file that is kept under this name.
pub(super) fn original(saved: &str) -> Option<&str> {
    saved.strip_suffix(SAVED)
}

fn compare(image: &Path, installed: &Path) -> Result<Plugin, Error> {
    let wanted = self::image(image)?;
    let Ok(found) = installed.symlink_metadata() else {
        return Ok(Plugin::Missing);
    };
    let is_plain = found.is_file() && found.mode() & 0o777 == PLUGIN_MODE;
    let same = is_plain && bounded(installed, MAX_PLUGIN).is_ok_and(|bytes| bytes == wanted);
    Ok(if same {
        Plugin::Right
    } else {
        Plugin::Different
    })
}

fn read_conf(folder: &Path) -> Result<(BTreeMap<String, File>, BTreeSet<String>), Error> {
    let names = names(folder)?;
    if names.len() > MAX_FILES {
        return Err(Error::TooMany(folder.to_owned()));
    }
    let (leftovers, names): (BTreeSet<_>, BTreeSet<_>) = names
        .into_iter()
        .partition(|name| durable::is_leftover(name));
    let files = names.into_iter().filter_map(|name| {
        let file = read_file(&folder.join(&name))?;
        Some((name, file))
    });
    Ok((files.collect(), leftovers))
}

/// A file with its contents; `None` for folders, and for what has gone since it was listed.
fn read_file(path: &Path) -> Option<File> {
    let own = path.symlink_metadata().ok()?;
    if own.is_dir() {
        return None;
    }
    let mode = path.metadata().unwrap_or(own).mode() & 0o7777;
    let name = path.file_name()?.to_str()?;
    let reads = Format::of(path).is_some() || original(name).is_some();
    let content = if reads {
        match bounded(path, MAX_BYTES as u64) {
            Ok(bytes) => Content::Bytes(bytes.into()),
            Err(error) => Content::Unreadable(error.to_string()),
        }
    } else {
        Content::Unread
    };
    Some(File { content, mode })
}

/// The names in a folder; none if it does not exist. A name that is not UTF-8 is nobody's configuration.
fn names(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let read = || -> io::Result<BTreeSet<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<_>> = names.collect();
        Ok(names?.into_iter().flatten().collect())
    };
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        result => result.map_err(|source| Error::Folder {
            path: folder.to_owned(),
            source,
        }),
    }
}

/// A plain file's bytes, if they are not more than `most`. A pipe or a device would never end.
fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is no plain file",
        ));
    }
    let mut bytes = Vec::new();
    OsFile::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("it has more than {most} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

// === impl State ===

impl State {
    /// What is in the folders once `action` is done.
    pub(super) fn apply(&mut self, action: &Action) {
        match action {
            Action::RemoveLeftover { place, name } => {
                match place {
                    Place::Bin => self.bin_leftovers.remove(name),
                    Place::Conf => self.conf_leftovers.remove(name),
                };
            }
            Action::InstallPlugin => self.plugin = Plugin::Right,
            Action::Remember { name } => {
                if let Some(file) = self.conf.get(name).cloned() {
                    self.conf.insert(saved(name), file);
                }
            }
            Action::Write { name, bytes, mode } => {
                let content = Content::Bytes(Arc::clone(bytes));
                let file = File {
                    content,
                    mode: *mode,
                };
                self.conf.insert(name.clone(), file);
            }
            Action::SetAside { name } => self.rename(name, saved(name)),
            Action::GiveBack { name } => self.rename(&saved(name), name.clone()),
            Action::Remove { name } => {
                self.conf.remove(name);
            }
            Action::LetRuntimesReload => {}
            Action::RemovePlugin => self.plugin = Plugin::Missing,
            Action::RemoveRun { name } => {
                self.run.remove(name);
            }
        }
    }

    fn rename(&mut self, from: &str, to: String) {
        if let Some(file) = self.conf.remove(from) {
            self.conf.insert(to, file);
        }
    }
}

// === impl File ===

impl File {
    /// What is in it, if it was read.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Unreadable(_) | Content::Unread => None,
        }
    }
}
