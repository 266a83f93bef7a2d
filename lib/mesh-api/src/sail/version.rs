//! The versions that can be asked for, from `versions.yaml`.
//!
//! A name is a release (`v1.30.3`), an alias (`v1.30-latest`, `master`), or too old. Every name that Sail's
//! CRDs take is taken, so that stored resources stay valid; those that are too old are refused by the operator.

use std::{fmt, str::FromStr, sync::LazyLock};

use serde::Deserialize;

/// A release that can be installed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Release {
    /// Its number, by which releases are ordered.
    pub number: Number,
    /// Its name as `spec.version` has it, such as `v1.30.3`.
    pub name: String,
}

impl Release {
    /// What its images are tagged with: the name without `v`.
    pub fn tag(&self) -> String {
        self.number.to_string()
    }

    /// How many minor releases it is ahead of another; negative if it is behind.
    pub fn minors_ahead_of(&self, other: &Self) -> i64 {
        self.number.minors_ahead_of(&other.number)
    }
}

/// A version number, ordered as releases are: a preview comes before its release.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number {
    /// 1.
    pub major: u32,
    /// Three or four of them a year.
    pub minor: u32,
    /// Repairs only.
    pub patch: u32,
    /// Which preview it is, if it is one.
    pub stage: Stage,
}

impl Number {
    /// How many minor releases it is ahead of another; negative if it is behind.
    pub fn minors_ahead_of(&self, other: &Self) -> i64 {
        // A major release would be further away than any minor one.
        (i64::from(self.major) - i64::from(other.major)) * 1000 + i64::from(self.minor)
            - i64::from(other.minor)
    }

    /// Whether it is of a minor release or a later one.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

/// Whether a release is a preview.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Such as `beta.1`.
    Preview(String),
    /// No preview.
    Stable,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        match &self.stage {
            Stage::Preview(name) => write!(f, "-{name}"),
            Stage::Stable => Ok(()),
        }
    }
}

/// A text that is no version number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version number such as 1.30.3 or 1.31.0-beta.1")]
pub struct ParseError(String);

impl FromStr for Number {
    type Err = ParseError;

    /// Reads `1.30.3`, also behind a `v`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        number(text).ok_or_else(|| ParseError(text.to_owned()))
    }
}

fn number(text: &str) -> Option<Number> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (numbers, stage) = match text.split_once('-') {
        Some((_, "")) => return None,
        Some((numbers, preview)) => (numbers, Stage::Preview(preview.to_owned())),
        None => (text, Stage::Stable),
    };
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    let number = Number {
        major: parts.next()??,
        minor: parts.next()??,
        patch: parts.next()??,
        stage,
    };
    parts.next().is_none().then_some(number)
}

/// Why a version cannot be had. The resource's author can repair it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too old: use a later one.
    #[error(
        "version {0} is end-of-life and cannot be installed: use {first} or later, such as {default}",
        first = OLDEST, default = default_version()
    )]
    EndOfLife(String),
    /// Misspelt, or newer than this operator: use one of the names of the CRD, or update the operator.
    #[error(
        "version {0} is not known: `kubectl explain istio.spec.version` lists those of this operator, \
         such as {default}",
        default = default_version()
    )]
    Unknown(String),
}

/// The first minor release that can be installed: the first one in which ambient mode was stable.
const OLDEST: &str = "v1.24";

/// The release that a name stands for.
pub fn resolve(name: &str) -> Result<&'static Release, Error> {
    let unknown = || Error::Unknown(name.to_owned());
    let entry = TABLE.entry(name).ok_or_else(unknown)?;
    if entry.eol {
        return Err(Error::EndOfLife(name.to_owned()));
    }
    let release = entry.reference.as_deref().unwrap_or(name);
    let mut releases = TABLE.releases.iter();
    releases
        .find(|known| known.name == release)
        .ok_or_else(unknown)
}

/// What `spec.version` is when it is not said.
pub fn default_version() -> &'static str {
    &TABLE.file.default
}

/// All releases that can be installed, newest name first as in the file.
pub fn releases() -> &'static [Release] {
    &TABLE.releases
}

/// The names that Istio and IstioCNI take: all of them.
pub fn names() -> Vec<&'static str> {
    TABLE.names(|_| true)
}

/// The names that an IstioRevision takes: no aliases, since what runs is one release.
pub fn names_of_revisions() -> Vec<&'static str> {
    TABLE.names(|entry| !entry.is_alias())
}

/// The names that a ZTunnel takes: those with ambient mode.
pub fn names_of_ztunnels() -> Vec<&'static str> {
    TABLE.names(|entry| !entry.eol)
}

/// Where images are and what they are called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageNames {
    /// The control plane.
    pub istiod: String,
    /// The node agent.
    pub cni: String,
    /// The node proxy.
    pub ztunnel: String,
}

/// The registry and folder of this distribution's images.
pub fn hub() -> &'static str {
    &TABLE.file.hub
}

/// What the images are called in every hub, Istio's included.
pub fn images() -> &'static ImageNames {
    &TABLE.file.images
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::load);

struct Table {
    file: File,
    releases: Vec<Release>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: String,
    hub: String,
    images: ImageNames,
    versions: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    eol: bool,
}

impl Entry {
    fn is_alias(&self) -> bool {
        self.name.parse::<Number>().is_err()
    }
}

impl Table {
    #[expect(
        clippy::expect_used,
        reason = "the file is part of the program, and a test reads it"
    )]
    fn load() -> Self {
        let file: File = serde_yaml_ng::from_str(include_str!("versions.yaml"))
            .expect("versions.yaml is well-formed");
        let installable = file
            .versions
            .iter()
            .filter(|entry| !entry.eol && entry.reference.is_none());
        let release = |entry: &Entry| {
            Some(Release {
                number: number(&entry.name)?,
                name: entry.name.clone(),
            })
        };
        Self {
            releases: installable.filter_map(release).collect(),
            file,
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.file.versions.iter().find(|entry| entry.name == name)
    }

    fn names(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<&str> {
        let entries = self.file.versions.iter().filter(|entry| wanted(entry));
        entries.map(|entry| entry.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests;
