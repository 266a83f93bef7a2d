//! Which configuration file is edited, and how.

use std::path::Path;

use mesh_cni::conflist::Format;

/// What is done with the container runtime's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Our entry goes to the end of the list of the first configuration, or of the file with this name.
    Chained {
        /// The file's name, if it is forced.
        file: Option<String>,
    },
    /// The first configuration (or the one with the forced name) is copied into a file of our own, which
    /// sorts before it, with our entry at the end. The original is not touched.
    Owned {
        /// Our file's name.
        file: String,
        /// The name of the file to copy, if it is forced.
        primary: Option<String>,
    },
    /// A file of our own with our plugin alone, which Multus calls.
    Standalone {
        /// The file's name.
        file: String,
    },
}

/// A file has a name that no container runtime would read, or not as what it shall be. The values are at
/// fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name for {what}: it must be a file name that ends in {endings}")]
pub struct InvalidName {
    name: String,
    what: &'static str,
    endings: &'static str,
}

/// Our own list, if no other name is asked for: before those of most networks.
const OWNED: &str = "02-istio-cni.conflist";
/// Our own single plugin, if no other name is asked for: behind those of all networks.
const STANDALONE: &str = "YYY-istio-cni.conf";

// === impl Mode ===

impl Mode {
    /// The mode that `CHAINED_CNI_PLUGIN`, `CNI_CONF_NAME` and the file name of `ISTIO_OWNED_CNI_CONFIG` ask
    /// for, each empty for its default. A configuration of our own is made only where the plugin is chained.
    pub fn new(chained: bool, conf_name: &str, owned: Option<&str>) -> Result<Self, InvalidName> {
        let forced = (!conf_name.is_empty()).then_some(conf_name);
        if !chained {
            let file = forced.unwrap_or(STANDALONE);
            check(file, "a single plugin", &[Format::Single], ".conf")?;
            return Ok(Self::Standalone {
                file: file.to_owned(),
            });
        }
        let both = [Format::Single, Format::List];
        if let Some(name) = forced {
            check(name, "a CNI configuration", &both, ".conf or .conflist")?;
        }
        let forced = forced.map(str::to_owned);
        let Some(file) = owned else {
            return Ok(Self::Chained { file: forced });
        };
        let file = if file.is_empty() { OWNED } else { file };
        check(file, "a list of plugins", &[Format::List], ".conflist")?;
        Ok(Self::Owned {
            file: file.to_owned(),
            primary: forced,
        })
    }

    /// The file that is ours alone.
    pub(super) fn own_file(&self) -> Option<&str> {
        match self {
            Self::Chained { .. } => None,
            Self::Owned { file, .. } | Self::Standalone { file } => Some(file),
        }
    }
}

fn check(
    name: &str,
    what: &'static str,
    formats: &[Format],
    endings: &'static str,
) -> Result<(), InvalidName> {
    let path = Path::new(name);
    let is_name = path.file_name().is_some_and(|file| file == name) && !name.starts_with('.');
    if is_name && Format::of(path).is_some_and(|format| formats.contains(&format)) {
        return Ok(());
    }
    Err(InvalidName {
        name: name.chars().take(80).collect(),
        what,
        endings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_from_istios_variables() {
        let chained = |file: Option<&str>| Mode::Chained {
            file: file.map(str::to_owned),
        };
        let owned = |file: &str, primary: Option<&str>| Mode::Owned {
            file: file.to_owned(),
            primary: primary.map(str::to_owned),
        };
        let standalone = |file: &str| Mode::Standalone {
            file: file.to_owned(),
        };
        for (chain, name, own, mode) in [
            (true, "", None, chained(None)),
            (true, "a.conf", None, chained(Some("a.conf"))),
            (true, "", Some(""), owned(OWNED, None)),
            (
                true,
                "a.conflist",
                Some("b.conflist"),
                owned("b.conflist", Some("a.conflist")),
            ),
            (false, "", None, standalone(STANDALONE)),
            (
                false,
                "istio-cni.conf",
                Some(""),
                standalone("istio-cni.conf"),
            ),
        ] {
            assert_eq!(Mode::new(chain, name, own), Ok(mode), "{name}");
        }
    }

    #[test]
    fn names_that_no_runtime_would_read_are_refused() {
        for (chained, name, owned) in [
            (true, "a.yaml", None),
            (true, "../a.conf", None),
            (true, "", Some("a.conf")),
            (true, "", Some("x/a.conflist")),
            (true, ".a.conflist", None),
            (false, "a.conflist", None),
        ] {
            let refused = Mode::new(chained, name, owned).unwrap_err().to_string();
            let wrong = owned.unwrap_or(name);
            assert!(
                refused.starts_with(&format!("`{wrong}` is no name for")),
                "{refused}"
            );
        }
    }
}
