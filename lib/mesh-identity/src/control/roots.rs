//! The roots by which a control plane's server is verified.

use std::{convert::Infallible, io, path::PathBuf, str::FromStr, sync::Arc};

use rustls::{RootCertStore, pki_types::CertificateDer};

use crate::answer::{PemError, parse_pem};

/// Where the roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// A PEM file, read anew for each connection.
    File(PathBuf),
    /// PEM in the configuration itself.
    Inline(Arc<str>),
    /// The roots of the operating system, for a control plane with a public certificate.
    System,
}

/// A set of roots, as it was at one moment. Equal if the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots(Vec<CertificateDer<'static>>);

/// Why there are no roots. Without roots no server is believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read. The pod's volumes are at fault; retrying helps once it is there.
    #[error("the root certificates in {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The text is not PEM. Whoever wrote it is at fault.
    #[error("the root certificates from {0} are not PEM")]
    NotPem(String, #[source] PemError),
    /// No certificate that can serve as a root is there.
    #[error("there is no usable root certificate in {0}")]
    Empty(String),
}

// === impl RootSource ===

impl RootSource {
    /// The roots as of now.
    pub async fn load(&self) -> Result<Roots, Error> {
        let roots = match self {
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                self.parse(&text.map_err(|source| Error::Read {
                    path: path.clone(),
                    source,
                })?)?
            }
            Self::Inline(text) => self.parse(text)?,
            Self::System => rustls_native_certs::load_native_certs().certs,
        };
        let roots = Roots(roots);
        if roots.store().is_empty() {
            return Err(Error::Empty(self.describe()));
        }
        Ok(roots)
    }

    fn parse(&self, text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
        parse_pem(text).map_err(|e| Error::NotPem(self.describe(), e))
    }

    fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Inline(_) => "the configuration".into(),
            Self::System => "the operating system".into(),
        }
    }
}

impl FromStr for RootSource {
    type Err = Infallible;

    /// The form of upstream's settings: `SYSTEM`, PEM, or else a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "SYSTEM" {
            Self::System
        } else if text.contains("-----BEGIN") {
            Self::Inline(text.into())
        } else {
            Self::File(text.into())
        })
    }
}

// === impl Roots ===

impl Roots {
    /// The roots in rustls' form, without those that cannot serve as one.
    pub(super) fn store(&self) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.0.iter().cloned());
        Arc::new(store)
    }
}
