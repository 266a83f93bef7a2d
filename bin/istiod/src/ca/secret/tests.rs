//! The Secret, as we and as Istio write it.

use std::process::Command;

use mesh_identity::issuer::{Root as NewRoot, RootKind};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn mk_signer(kind: RootKind) -> Arc<Signer> {
    let root = NewRoot::generate(kind, "cluster.local", 100 * DAY).unwrap();
    Arc::new(self_signed(&root.certificate, &root.key, SystemTime::now()).unwrap())
}

fn read(secret: &Secret) -> Result<State, Error> {
    decode(secret, 90 * DAY, SystemTime::now())
}

/// A state in the middle of everything, with dates to the second.
fn mk_state() -> State {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let mut state = State::new(mk_signer(RootKind::EcP256), DAY);
    state.announce(mk_signer(RootKind::EcP256), now);
    state.switch(now + DAY);
    state.requested = Some("please".into());
    state.announce(mk_signer(RootKind::EcP256), now + 2 * DAY);
    state
}

#[test]
fn what_is_written_is_read_again() {
    let state = mk_state();
    let mut secret = encode(&state, "istio-system", None);
    assert_eq!(secret.type_.as_deref(), Some("istio.io/ca-root"));
    let annotations = secret.metadata.annotations.as_mut().unwrap();
    annotations.insert(ROTATE.into(), "please".into());
    let read = read(&secret).unwrap();
    assert_eq!(read, state);
    assert!(
        encode(&read, "istio-system", Some(&secret)) == secret,
        "to the byte"
    );
}

#[test]
fn a_rotation_that_is_over_leaves_no_second_key() {
    let mut state = mk_state();
    let secret = encode(&state, "istio-system", None);
    assert!(secret.data.as_ref().unwrap().contains_key(NEXT_KEY));
    state.switch(SystemTime::now());
    let secret = encode(&state, "istio-system", Some(&secret));
    let keys: Vec<_> = secret.data.as_ref().unwrap().keys().collect();
    assert_eq!(keys, [CERTIFICATE, KEY, ROOTS]);
}

#[test]
fn what_others_put_there_stays() {
    let mut secret = encode(&mk_state(), "istio-system", None);
    let foreign = ByteString(b"x".to_vec());
    secret
        .data
        .as_mut()
        .unwrap()
        .insert("foreign".into(), foreign.clone());
    secret.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
    let again = encode(&read(&secret).unwrap(), "istio-system", Some(&secret));
    assert_eq!(again.data.unwrap().get("foreign"), Some(&foreign));
    assert_eq!(again.metadata.labels, secret.metadata.labels);
}

/// What Istio's istiod writes: an RSA key in PKCS #1, a certificate, and empty values for the rest.
fn mk_istio_secret() -> Secret {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output()
            .expect("this test needs the openssl command");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    openssl("genrsa -traditional -out key.pem 2048");
    openssl(
        "req -x509 -key key.pem -out cert.pem -days 3650 -subj /O=cluster.local -addext keyUsage=critical,keyCertSign",
    );
    let file = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(file("key.pem").starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    let data = [
        (CERTIFICATE, file("cert.pem")),
        (KEY, file("key.pem")),
        (ROOTS, Vec::new()),
        ("cert-chain.pem", Vec::new()),
        ("key.pem", Vec::new()),
    ];
    Secret {
        data: Some(
            data.map(|(key, value)| (key.to_owned(), ByteString(value)))
                .into(),
        ),
        ..Secret::default()
    }
}

#[test]
fn a_secret_of_istio_is_taken_over_with_its_rsa_key() {
    let secret = mk_istio_secret();
    let state = read(&secret).unwrap();
    assert_eq!(state.roots().count(), 1);
    assert_eq!(state.longest, 90 * DAY, "who knows what Istio granted");
    assert!(!state.is_in_transition());
    let issuer = state.signing.issuer(&state.signing.pem.roots, DAY).unwrap();
    issuer
        .server_certificate(&["istiod.istio-system.svc"], DAY)
        .unwrap();
    // And what we make of it, Istio can take back: nothing it reads has changed.
    let ours = encode(&state, "istio-system", Some(&secret));
    for key in [CERTIFICATE, KEY] {
        let text =
            |secret: &Secret| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone());
        assert_eq!(text(&ours).unwrap().trim(), text(&secret).unwrap().trim());
    }
}

#[test]
fn our_keys_are_in_the_forms_that_istio_reads() {
    let pem = |kind| mk_signer(kind).pem.key.clone();
    assert!(pem(RootKind::EcP256).starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert!(pem(RootKind::Rsa(2048)).starts_with("-----BEGIN RSA PRIVATE KEY-----"));
}

#[test]
fn a_broken_secret_is_refused_with_the_broken_part() {
    let good = encode(&mk_state(), "istio-system", None);
    let broken = |change: &dyn Fn(&mut Secret)| {
        let mut secret = good.clone();
        change(&mut secret);
        read(&secret).unwrap_err().to_string()
    };
    for key in [CERTIFICATE, KEY, NEXT_CERTIFICATE, NEXT_KEY] {
        let told = broken(&|secret| drop(secret.data.as_mut().unwrap().remove(key)));
        assert!(told.contains(key), "{told}");
    }
    let other = mk_signer(RootKind::EcP256).pem.key.clone();
    let told = broken(&|secret| {
        let key = ByteString(other.clone().into_bytes());
        secret.data.as_mut().unwrap().insert(KEY.into(), key);
    });
    assert!(told.contains("cannot be used"), "{told}");
    let told = broken(&|secret| {
        let annotations = secret.metadata.annotations.as_mut().unwrap();
        annotations.insert(LONGEST.into(), "a day".into());
    });
    assert!(told.contains(LONGEST) && told.contains("a day"), "{told}");
    let told = broken(&|secret| {
        let annotations = secret.metadata.annotations.as_mut().unwrap();
        annotations.insert(ROOT_DATES.into(), "[{}]".into());
    });
    assert!(told.contains(ROOT_DATES), "{told}");
}
