//! Versions of the specification.

use std::fmt;

/// A version of the specification that we speak. Their order is that of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first. A configuration that does not say is of this one.
    V0_1_0,
    /// Results are as in 0.1.0; plugins answer VERSION.
    V0_2_0,
    /// Results name interfaces, and are passed from plugin to plugin.
    V0_3_0,
    /// The same, corrected in words.
    V0_3_1,
    /// CHECK.
    V0_4_0,
    /// Addresses no longer say of which family they are.
    V1_0_0,
    /// GC and STATUS; interfaces and routes say more.
    V1_1_0,
}

// === impl Version ===

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a text names; none if we do not speak it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION, in the version that the runtime speaks if we do too.
pub fn answer(spoken: Option<Version>) -> String {
    serde_json::json!({
        "cniVersion": spoken.unwrap_or(Version::LATEST).as_str(),
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
    .to_string()
}
