//! Plug-in certificates: an authority that somebody else made, mounted from Secret `cacerts`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::material::Pem;

/// Reads the files of a folder anew whenever they may have changed.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
}

/// Names of the four files, in one of two conventions.
struct Names {
    certificate: &'static str,
    key: &'static str,
    /// Optional: what signs may be a root.
    chain: Option<&'static str>,
    roots: &'static str,
}

/// Why there are no plug-in certificates although there should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing or cannot be read. The Secret or its mount is at fault.
    #[error("{path} of the plug-in certificates cannot be read")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any set of certificates.
    #[error("{0} of the plug-in certificates is larger than {MAX_FILE} bytes")]
    TooLarge(PathBuf),
}

/// Istio's names.
const ISTIO: Names = Names {
    certificate: "ca-cert.pem",
    key: "ca-key.pem",
    chain: Some("cert-chain.pem"),
    roots: "root-cert.pem",
};
/// The names of a Secret of type `kubernetes.io/tls`, as cert-manager writes it; what signs stands first
/// in `tls.crt`, what is above it behind.
const TLS: Names = Names {
    certificate: "tls.crt",
    key: "tls.key",
    chain: None,
    roots: "ca.crt",
};

/// Largest file: what fits into a Secret.
const MAX_FILE: u64 = 1 << 20;

// === impl Files ===

impl Files {
    /// The files in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// What is there now; `None` if there is no key of either convention.
    ///
    /// While the kubelet replaces them a mixture may be read: who reads twice in a row the same has them
    /// all from one version.
    pub fn read(&self) -> Result<Option<Pem>, Error> {
        let Some(names) = [ISTIO, TLS].into_iter().find(|names| self.has(names.key)) else {
            return Ok(None);
        };
        let chain = names.chain.filter(|chain| self.has(chain));
        Ok(Some(Pem {
            certificate: self.text(names.certificate)?,
            key: self.text(names.key)?,
            chain: chain.map_or(Ok(String::new()), |chain| self.text(chain))?,
            roots: self.text(names.roots)?,
        }))
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).is_file()
    }

    fn text(&self, name: &str) -> Result<String, Error> {
        let path = self.folder.join(name);
        let read = || {
            let size = std::fs::metadata(&path)?.len();
            let text = if size > MAX_FILE {
                None
            } else {
                Some(std::fs::read_to_string(&path)?)
            };
            Ok(text)
        };
        match read() {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(Error::TooLarge(path)),
            Err(source) => Err(Error::Read { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn both_conventions_are_known_and_istios_goes_first() {
        let tls = [("tls.crt", "1"), ("tls.key", "2"), ("ca.crt", "3")];
        let istio = [
            ("ca-cert.pem", "4"),
            ("ca-key.pem", "5"),
            ("root-cert.pem", "6"),
        ];
        let mk = |[certificate, key, chain, roots]: [&str; 4]| Pem {
            certificate: certificate.into(),
            key: key.into(),
            chain: chain.into(),
            roots: roots.into(),
        };
        let folder = mk_folder(&tls);
        let files = Files::new(folder.path());
        assert_eq!(files.read().unwrap(), Some(mk(["1", "2", "", "3"])));
        let folder = mk_folder(&[&tls[..], &istio[..]].concat());
        let files = Files::new(folder.path());
        assert_eq!(files.read().unwrap(), Some(mk(["4", "5", "", "6"])));
        std::fs::write(folder.path().join("cert-chain.pem"), "7").unwrap();
        assert_eq!(files.read().unwrap(), Some(mk(["4", "5", "7", "6"])));
    }

    #[test]
    fn no_files_are_no_error_and_half_of_them_are() {
        let empty = mk_folder(&[]);
        assert_eq!(Files::new(empty.path()).read().unwrap(), None);
        assert_eq!(Files::new("/nowhere/at/all").read().unwrap(), None);
        let half = mk_folder(&[("ca-key.pem", "k"), ("ca-cert.pem", "c")]);
        let error = Files::new(half.path()).read().unwrap_err();
        assert!(error.to_string().contains("root-cert.pem"), "{error}");
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let large = "x".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
        let folder = mk_folder(&[("tls.key", "k"), ("tls.crt", &large), ("ca.crt", "r")]);
        let error = Files::new(folder.path()).read().unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
    }
}
