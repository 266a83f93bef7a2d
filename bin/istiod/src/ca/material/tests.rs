//! Files of authorities, in the forms in which they are found. Made with the openssl command, as their
//! owners do.

use std::{path::Path, process::Command};

use mesh_identity::issuer::{Root as NewRoot, RootKind};

use super::*;

/// A root, an intermediate under it, and files as they are in a Secret `cacerts`.
struct Owner(tempfile::TempDir);

impl Owner {
    fn new() -> Self {
        let owner = Self(tempfile::tempdir().unwrap());
        owner.openssl("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 30 -subj /O=owner -addext keyUsage=critical,keyCertSign,cRLSign");
        owner.openssl(
            "req -newkey rsa:2048 -nodes -keyout ca.key -out ca.csr -subj /O=owner/CN=intermediate",
        );
        let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
        std::fs::write(owner.path().join("ext"), extensions).unwrap();
        owner.openssl("x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 -extfile ext -out ca.pem");
        owner
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.path())
            .output()
            .expect("this test needs the openssl command");
        assert!(
            output.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn pem(&self, chain: &str) -> Pem {
        Pem {
            certificate: self.read("ca.pem"),
            key: self.read("ca.key"),
            chain: chain.to_owned(),
            roots: self.read("root.pem"),
        }
    }
}

fn mk_root() -> Pem {
    let root = NewRoot::generate(RootKind::EcP256, "test", Duration::from_secs(3600)).unwrap();
    Pem {
        roots: root.certificate.clone(),
        certificate: root.certificate,
        key: root.key,
        chain: String::new(),
    }
}

fn try_new(pem: Pem) -> Result<Signer, Error> {
    Signer::try_new(pem, SystemTime::now())
}

#[test]
fn a_chain_is_put_in_order_whatever_its_owner_put_in_it() {
    let owner = Owner::new();
    let (ca, root) = (owner.read("ca.pem"), owner.read("root.pem"));
    for chain in [
        String::new(),
        ca.clone(),
        root.clone(),
        format!("{ca}{root}"),
    ] {
        let signer = try_new(owner.pem(&chain)).unwrap();
        assert_eq!((&signer.pem.chain, &signer.pem.roots), (&ca, &root));
        assert_eq!(signer.anchors, [signer.roots[0].fingerprint.clone()]);
    }
    // As cert-manager writes it: what is above stands in the same file.
    let mut pem = owner.pem("");
    pem.certificate = format!("{ca}{root}");
    assert_eq!(try_new(pem).unwrap().pem.chain, ca);
}

#[test]
fn a_root_that_signs_itself_sends_no_chain() {
    let mut pem = mk_root();
    pem.chain = format!("{}{}", pem.certificate, pem.roots);
    let signer = try_new(pem).unwrap();
    assert_eq!(signer.pem.chain, "");
    assert_eq!(signer.anchors, std::slice::from_ref(&signer.id));
}

#[test]
fn only_roots_to_which_it_leads_are_its_anchors() {
    let mut pem = mk_root();
    let own = pem.roots.clone();
    pem.roots = format!("{}{own}{own}", mk_root().roots);
    let signer = try_new(pem).unwrap();
    assert_eq!(signer.roots.len(), 2, "each once");
    assert_eq!(signer.anchors, std::slice::from_ref(&signer.id));
}

#[test]
fn what_makes_no_authority_is_refused_with_its_reason() {
    let good = mk_root();
    let mut keyless = good.clone();
    keyless.key = mk_root().key;
    assert!(matches!(try_new(keyless), Err(Error::Unusable(_))));
    let mut rootless = good.clone();
    rootless.roots = String::new();
    assert!(matches!(
        try_new(rootless),
        Err(Error::Empty("root bundle"))
    ));
    let mut foreign = good.clone();
    foreign.roots = mk_root().roots;
    assert!(matches!(try_new(foreign), Err(Error::Unusable(_))));
    let mut garbage = good.clone();
    garbage.roots = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".into();
    assert!(matches!(try_new(garbage), Err(Error::Unreadable(..))));
    let later = SystemTime::now() + Duration::from_secs(7200);
    assert!(matches!(
        Signer::try_new(good, later),
        Err(Error::Expired(_))
    ));
}

#[test]
fn a_key_is_never_printed() {
    let signer = try_new(mk_root()).unwrap();
    assert!(!format!("{signer:?}").contains("PRIVATE"));
}
