//! What is signed, for whom and for whom not; the openssl command is the witness.

use std::{io::Write as _, process};

use openssl::{
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    rsa::Rsa,
    stack::Stack,
    x509::{X509Name, X509Req, extension::SubjectAlternativeName},
};

use super::*;
use crate::{
    WorkloadCertificate,
    answer::Answer,
    fixture::{Authority, HOUR, Leaf, mk_identity},
    svid,
    tls::Settings,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn mk_issuer() -> Issuer {
    Issuer::self_signed("cluster.local", 10 * DAY).unwrap()
}

fn mk_request(key: &PKeyRef<Private>, digest: MessageDigest) -> String {
    let mut builder = X509Req::builder().unwrap();
    let name = X509Name::builder().unwrap().build();
    builder.set_subject_name(&name).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(key, digest).unwrap();
    String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
}

fn mk_ec_key(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn mk_rsa_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

/// Runs the openssl command with a text as its input.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut child = process::Command::new("openssl")
        .args(arguments)
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .spawn()
        .expect("this test needs the openssl command");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refusal(issuer: &Issuer, request: &str) -> Option<Error> {
    issuer.sign(request, &mk_identity("a", "b"), DAY).err()
}

#[test]
fn a_leaf_has_the_form_of_the_contract() {
    let issuer = mk_issuer();
    let id = mk_identity("a", "b");
    let key = PrivateKey::generate().unwrap();
    let request = key.certificate_request(&id).unwrap();
    let answer = issuer.sign(&request, &id, DAY).unwrap();
    assert_eq!(answer.len(), 2);
    assert!(answer.iter().all(|element| element.ends_with('\n')));

    let text = openssl(&["x509", "-noout", "-text"], &answer[0]);
    for expected in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: O = cluster.local\n",
        "Subject: \n",
        "ASN1 OID: prime256v1",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/a/sa/b\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }

    let answer = Answer::parse(&answer).unwrap();
    let certificate = WorkloadCertificate::try_new(id, &key, answer, &Settings::default()).unwrap();
    let life = certificate
        .not_after()
        .duration_since(certificate.not_before());
    assert_eq!(
        life.unwrap(),
        DAY + Duration::from_secs(120),
        "two minutes backdated"
    );
}

#[test]
fn a_self_signed_root_may_sign_leaves_and_nothing_else() {
    let text = openssl(&["x509", "-noout", "-text"], mk_issuer().roots());
    for expected in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn a_request_is_read_by_openssl_as_it_was_meant() {
    let key = PrivateKey::generate().unwrap();
    let request = key.certificate_request(&mk_identity("a", "b")).unwrap();
    let text = openssl(&["req", "-noout", "-text", "-verify"], &request);
    for expected in [
        "Subject: \n",
        "ASN1 OID: prime256v1",
        "X509v3 Subject Alternative Name: critical\n                    URI:spiffe://cluster.local/ns/a/sa/b\n",
        "Signature Algorithm: ecdsa-with-SHA256",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn names_in_a_request_count_for_nothing() {
    let key = PrivateKey::generate().unwrap();
    let mut builder = X509Req::builder().unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "admin").unwrap();
    builder.set_subject_name(&name.build()).unwrap();
    builder.set_pubkey(key.as_pkey()).unwrap();
    let mut extensions = Stack::new().unwrap();
    let wanted = SubjectAlternativeName::new()
        .uri("spiffe://cluster.local/ns/kube-system/sa/admin")
        .dns("istiod.istio-system.svc")
        .build(&builder.x509v3_context(None))
        .unwrap();
    extensions.push(wanted).unwrap();
    builder.add_extensions(&extensions).unwrap();
    builder
        .sign(key.as_pkey(), MessageDigest::sha256())
        .unwrap();
    let request = String::from_utf8(builder.build().to_pem().unwrap()).unwrap();

    let granted = mk_identity("a", "b");
    let answer = mk_issuer().sign(&request, &granted, DAY).unwrap();
    let leaf = Answer::parse(&answer).unwrap().leaf;
    assert_eq!(svid::identity(&leaf), Ok(granted));
    let text = openssl(&["x509", "-noout", "-text"], &answer[0]);
    assert!(
        !text.contains("admin") && !text.contains("istiod"),
        "{text}"
    );
}

#[test]
fn only_strong_keys_of_common_kinds_are_certified() {
    let issuer = mk_issuer();
    let sha256 = MessageDigest::sha256();
    for good in [
        mk_ec_key(Nid::X9_62_PRIME256V1),
        mk_ec_key(Nid::SECP384R1),
        mk_rsa_key(2048),
    ] {
        let refused = refusal(&issuer, &mk_request(&good, sha256));
        assert!(refused.is_none(), "{refused:?}");
    }
    let ed25519 = PKey::generate_ed25519().unwrap();
    for bad in [
        mk_request(&mk_rsa_key(1024), sha256),
        mk_request(&mk_ec_key(Nid::SECP256K1), sha256),
        mk_request(&ed25519, MessageDigest::null()),
    ] {
        let refused = refusal(&issuer, &bad);
        assert!(
            matches!(refused, Some(Error::WeakKey { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_request_must_be_signed_by_the_key_in_it() {
    let request = mk_request(&mk_ec_key(Nid::X9_62_PRIME256V1), MessageDigest::sha256());
    let mut der = X509Req::from_pem(request.as_bytes())
        .unwrap()
        .to_der()
        .unwrap();
    *der.last_mut().unwrap() ^= 1;
    let forged = X509Req::from_der(&der).unwrap().to_pem().unwrap();
    let refused = refusal(&mk_issuer(), &String::from_utf8(forged).unwrap());
    assert!(
        matches!(refused, Some(Error::NotSigned | Error::Unreadable(_))),
        "{refused:?}"
    );
}

#[test]
fn garbage_and_excess_are_refused() {
    let issuer = mk_issuer();
    for garbage in ["", "garbage", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"] {
        let refused = refusal(&issuer, garbage);
        assert!(matches!(refused, Some(Error::Unreadable(_))), "{refused:?}");
    }
    let refused = refusal(&issuer, &"x".repeat(MAX_REQUEST + 1));
    assert!(matches!(refused, Some(Error::TooLarge(_))), "{refused:?}");
}

#[test]
fn a_lifetime_is_limited_by_the_rule_and_by_the_authority_itself() {
    let id = mk_identity("a", "b");
    let request = PrivateKey::generate()
        .unwrap()
        .certificate_request(&id)
        .unwrap();
    let issuer = mk_issuer().with_max_ttl(30 * DAY);
    let refused = issuer.sign(&request, &id, 31 * DAY);
    assert!(
        matches!(refused, Err(Error::Lifetime { .. })),
        "{refused:?}"
    );

    let answer = issuer.sign(&request, &id, 20 * DAY).unwrap();
    let answer = Answer::parse(&answer).unwrap();
    let leaf = Facts::of(&answer.leaf).unwrap();
    let root = Facts::of(&answer.roots[0]).unwrap();
    let late = root.not_after.duration_since(leaf.not_after);
    assert!(
        late.is_ok_and(|late| late < Duration::from_secs(2)),
        "{leaf:?}"
    );
}

#[test]
fn serial_numbers_do_not_repeat() {
    let id = mk_identity("a", "b");
    let request = PrivateKey::generate()
        .unwrap()
        .certificate_request(&id)
        .unwrap();
    let issuer = mk_issuer();
    let serial = |_| {
        let answer = issuer.sign(&request, &id, DAY).unwrap();
        Facts::of(&Answer::parse(&answer).unwrap().leaf)
            .unwrap()
            .serial
    };
    let serials: std::collections::HashSet<_> = (0..20).map(serial).collect();
    assert_eq!(serials.len(), 20);
}

#[test]
fn an_intermediate_authority_is_sent_along() {
    let root = Authority::new();
    let intermediate = root.subordinate();
    let (certificate, key, roots) = (intermediate.pem(), intermediate.key_pem(), root.pem());
    let issuer = Issuer::from_pem(Material {
        certificate: &certificate,
        key: &key,
        chain: &certificate,
        roots: &roots,
    })
    .unwrap();
    let id = mk_identity("a", "b");
    let key = PrivateKey::generate().unwrap();
    let request = key.certificate_request(&id).unwrap();
    let answer = issuer.sign(&request, &id, Duration::from_secs(60)).unwrap();
    assert_eq!(answer[1..], [certificate, roots]);
    let answer = Answer::parse(&answer).unwrap();
    WorkloadCertificate::try_new(id, &key, answer, &Settings::default()).unwrap();
}

#[test]
fn an_authority_that_nobody_could_believe_is_refused_at_once() {
    let root = Authority::new();
    let other = Authority::new();
    let leaf = root.sign(&Leaf {
        to: HOUR,
        ..Leaf::naming(&["spiffe://cluster.local/ns/a/sa/b"])
    });
    let leaf_key = leaf.key.as_pkey().private_key_to_pem_pkcs8().unwrap();
    let leaf_key = String::from_utf8(leaf_key).unwrap();
    let (pem, key, other_key, roots) = (root.pem(), root.key_pem(), other.key_pem(), root.pem());
    let mk = |certificate, key, chain, roots| {
        Issuer::from_pem(Material {
            certificate,
            key,
            chain,
            roots,
        })
    };
    mk(&pem, &key, "", &roots).unwrap();
    let foreign_key = mk(&pem, &other_key, "", &roots);
    assert!(
        matches!(foreign_key, Err(Error::Unbelievable(_))),
        "{foreign_key:?}"
    );
    let not_a_ca = mk(&leaf.pem, &leaf_key, &leaf.pem, &roots);
    assert!(
        matches!(not_a_ca, Err(Error::Unbelievable(_))),
        "{not_a_ca:?}"
    );
    let other_roots = other.pem();
    let foreign_roots = mk(&pem, &key, "", &other_roots);
    assert!(
        matches!(foreign_roots, Err(Error::Unbelievable(_))),
        "{foreign_roots:?}"
    );
    assert!(matches!(mk(&pem, &key, "", ""), Err(Error::Missing(_))));
    assert!(matches!(mk("", &key, "", &roots), Err(Error::Material(_))));
}

#[test]
fn new_roots_of_both_kinds_sign_and_are_kept_in_the_forms_that_istio_reads() {
    for (kind, label, algorithm) in [
        (RootKind::EcP256, "EC PRIVATE KEY", "ecdsa-with-SHA256"),
        (
            RootKind::Rsa(2048),
            "RSA PRIVATE KEY",
            "sha256WithRSAEncryption",
        ),
    ] {
        let root = Root::generate(kind, "cluster.local", 10 * DAY).unwrap();
        assert!(root.key.starts_with(&format!("-----BEGIN {label}-----")));
        let issuer = Issuer::from_pem(Material {
            certificate: &root.certificate,
            key: &root.key,
            chain: "",
            roots: &root.certificate,
        });
        let id = mk_identity("a", "b");
        let request = PrivateKey::generate().unwrap();
        let request = request.certificate_request(&id).unwrap();
        let answer = issuer.unwrap().sign(&request, &id, DAY).unwrap();
        let text = openssl(&["x509", "-noout", "-text"], &answer[0]);
        assert!(
            text.contains(&format!("Signature Algorithm: {algorithm}")),
            "{text}"
        );
    }
    for bits in [0, 1024, 2047, 8193] {
        let refused = Root::generate(RootKind::Rsa(bits), "cluster.local", DAY);
        assert!(matches!(refused, Err(Error::WeakKey { .. })), "{refused:?}");
    }
}

#[test]
fn trust_is_a_matter_of_the_roots_and_not_of_their_number() {
    let (one, other) = (mk_issuer(), mk_issuer());
    let both = format!("{}{}", other.roots(), one.roots());
    assert!(one.is_trusted_by(one.roots()).unwrap());
    assert!(one.is_trusted_by(&both).unwrap());
    assert!(!one.is_trusted_by(other.roots()).unwrap());
    assert!(matches!(one.is_trusted_by(""), Err(Error::Missing(_))));
}

#[test]
fn certificates_are_told_apart_by_their_fingerprints() {
    let (one, other) = (mk_issuer(), mk_issuer());
    let text = format!("leading text\n{}{}", one.roots(), other.roots());
    let facts = Facts::of_pem(&text).unwrap();
    let shown = openssl(&["x509", "-noout", "-fingerprint", "-sha256"], one.roots());
    let shown = shown
        .trim()
        .rsplit('=')
        .next()
        .unwrap()
        .replace(':', "")
        .to_lowercase();
    assert_eq!(facts[0].fingerprint, shown);
    assert_ne!(facts[0].fingerprint, facts[1].fingerprint);
    assert!(Facts::of_pem("").unwrap().is_empty());
}
