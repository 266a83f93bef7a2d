//! Handshakes between our certificates and peers of every kind.

use std::{io::Write as _, process::Stdio};

use rustls::{CertificateError, CipherSuite, ProtocolVersion};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpListener,
    process::Command,
};

use super::*;
use crate::{
    fixture::{Authority, HOUR, Leaf, Signed, mk_anonymous_client, mk_identity},
    provider::Versions,
};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

/// Large enough that neither side of a handshake blocks in a write.
const PIPE: usize = 64 * 1024;

type Met<S> = Result<(S, Identity), tls::Error>;

fn mk_pair(authority: &Authority) -> (WorkloadCertificate, WorkloadCertificate) {
    let settings = Settings::default();
    (
        authority.certify(&mk_identity("shop", "client"), &settings),
        authority.certify(&mk_identity("shop", "server"), &settings),
    )
}

async fn meet(
    client: &WorkloadCertificate,
    server: &WorkloadCertificate,
    expected: &[Identity],
) -> (
    Met<client::TlsStream<DuplexStream>>,
    Met<server::TlsStream<DuplexStream>>,
) {
    let (near, far) = duplex(PIPE);
    tokio::join!(client.connect(near, expected), server.accept(far))
}

/// What our client says to a server with this certificate, whom it expects by name.
async fn connect_to(client: &WorkloadCertificate, server: &Signed) -> tls::Error {
    let (near, far) = duplex(PIPE);
    let acceptor = server.server();
    let expected = [mk_identity("shop", "server")];
    let (connected, _) = tokio::join!(client.connect(near, &expected), acceptor.accept(far));
    connected.expect_err("the server has to be refused")
}

/// What our server says to a client with this certificate.
async fn accept_from(server: &WorkloadCertificate, client: TlsConnector) -> tls::Error {
    let (near, far) = duplex(PIPE);
    let name = ServerName::from(Ipv4Addr::LOCALHOST);
    let (_, accepted) = tokio::join!(client.connect(name, near), server.accept(far));
    accepted.expect_err("the client has to be refused")
}

#[tokio::test]
async fn expected_peers_meet_and_learn_each_others_identity() {
    let (client, server) = mk_pair(&Authority::new());
    let expected = [mk_identity("other", "one"), server.identity().clone()];
    let (connected, accepted) = meet(&client, &server, &expected).await;
    let (mut stream, seen_server) = connected.unwrap();
    let (mut peer, seen_client) = accepted.unwrap();
    assert_eq!(seen_server, *server.identity());
    assert_eq!(seen_client, *client.identity());

    let session = peer.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(ALPN));
    assert_eq!(session.server_name(), None);
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_256_GCM_SHA384);

    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn an_empty_expectation_matches_nobody() {
    let (client, _) = mk_pair(&Authority::new());
    let (near, mut far) = duplex(PIPE);
    let refused = client.connect(near, &[]).await;
    assert!(matches!(refused, Err(tls::Error::NobodyExpected)));
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"", "nothing may be sent");
}

#[tokio::test]
async fn an_unexpected_server_is_refused_before_it_sees_our_certificate() {
    let (client, server) = mk_pair(&Authority::new());
    let expected = [mk_identity("shop", "somebody-else")];
    let (connected, accepted) = meet(&client, &server, &expected).await;
    let Err(tls::Error::Refused(refusal)) = connected else {
        panic!("{connected:?}");
    };
    assert_eq!(
        refusal,
        Refusal::Unexpected {
            presented: server.identity().clone(),
            expected: expected.to_vec(),
        }
    );
    assert_eq!(
        refusal.to_string(),
        format!("it is {SERVER}, expected spiffe://cluster.local/ns/shop/sa/somebody-else")
    );
    // The server hears an alert instead of a certificate.
    assert!(matches!(
        accepted,
        Err(tls::Error::Protocol(rustls::Error::AlertReceived(_)))
    ));
}

#[tokio::test]
async fn the_shared_configuration_alone_believes_nobody() {
    let (client, server) = mk_pair(&Authority::new());
    let (near, far) = duplex(PIPE);
    let outside = TlsConnector::from(Arc::clone(&client.client));
    let name = ServerName::from(Ipv4Addr::LOCALHOST);
    let (connected, _) = tokio::join!(outside.connect(name, near), server.accept(far));
    let error = tls::Error::from_handshake(connected.unwrap_err());
    assert!(matches!(error, tls::Error::Refused(Refusal::Unverified)));
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused_unless_it_is_an_alias() {
    let authority = Authority::new();
    let (_, server) = mk_pair(&authority);
    let foreign = Identity::try_new("old.example", "shop", "client").unwrap();
    let client = authority.certify(&foreign, &Settings::default());
    let expected = [server.identity().clone()];

    let (_, accepted) = meet(&client, &server, &expected).await;
    let Err(tls::Error::Refused(Refusal::ForeignTrustDomain { presented, .. })) = accepted else {
        panic!("{accepted:?}");
    };
    assert_eq!(presented, foreign);

    let renamed = Settings {
        trust_domain_aliases: vec!["old.example".into()],
        ..Settings::default()
    };
    let server = authority.certify(server.identity(), &renamed);
    let (connected, accepted) = meet(&client, &server, &expected).await;
    connected.unwrap();
    assert_eq!(accepted.unwrap().1, foreign);
}

#[tokio::test]
async fn a_certificate_out_of_its_dates_or_purpose_is_refused_by_both_sides() {
    let authority = Authority::new();
    let (client, server) = mk_pair(&authority);
    let good = Leaf::naming(&[SERVER]);
    let expired = Leaf { to: -1, ..good };
    let early = Leaf {
        from: HOUR / 2,
        ..good
    };
    let no_server = Leaf {
        server: false,
        ..good
    };
    let no_client = Leaf {
        client: false,
        ..good
    };
    for (ours, theirs, check) in [
        (
            expired,
            expired,
            is_expired as fn(&CertificateError) -> bool,
        ),
        (early, early, is_early),
        (no_server, no_client, is_misused),
    ] {
        let error = connect_to(&client, &authority.sign(&ours)).await;
        assert!(is_untrusted(&error, check), "{error:?}");
        let villain = authority.sign(&theirs).client();
        let error = accept_from(&server, villain).await;
        assert!(is_untrusted(&error, check), "{error:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_root_is_refused_by_both_sides() {
    let (client, server) = mk_pair(&Authority::new());
    let other = Authority::new();
    let unknown = |e: &CertificateError| {
        // The name of both roots is the same, so the signature decides.
        matches!(
            e,
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        )
    };
    let error = connect_to(&client, &other.sign(&Leaf::naming(&[SERVER]))).await;
    assert!(is_untrusted(&error, unknown), "{error:?}");
    let villain = other.sign(&Leaf::naming(&[CLIENT])).client();
    let error = accept_from(&server, villain).await;
    assert!(is_untrusted(&error, unknown), "{error:?}");
}

#[tokio::test]
async fn a_certificate_with_no_or_several_identities_is_refused_by_both_sides() {
    let authority = Authority::new();
    let (client, server) = mk_pair(&authority);
    for uris in [&[][..], &[SERVER, CLIENT], &["https://example.com/"]] {
        let leaf = authority.sign(&Leaf {
            dns: &["server.shop.svc"],
            ..Leaf::naming(uris)
        });
        let error = connect_to(&client, &leaf).await;
        assert!(is_nameless(&error), "{error:?}");
        let error = accept_from(&server, leaf.client()).await;
        assert!(is_nameless(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let (_, server) = mk_pair(&Authority::new());
    let error = accept_from(&server, mk_anonymous_client()).await;
    assert!(matches!(
        error,
        tls::Error::Untrusted(rustls::Error::NoCertificatesPresented)
    ));
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_refused() {
    let (_, server) = mk_pair(&Authority::new());
    let (mut near, far) = duplex(PIPE);
    near.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await
        .unwrap();
    let accepted = server.accept(far).await;
    assert!(
        matches!(accepted, Err(tls::Error::Protocol(_))),
        "{accepted:?}"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_is_an_io_error() {
    let (_, server) = mk_pair(&Authority::new());
    let (near, far) = duplex(PIPE);
    drop(near);
    let accepted = server.accept(far).await;
    assert!(matches!(accepted, Err(tls::Error::Io(_))), "{accepted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_is_given_up() {
    let (client, server) = mk_pair(&Authority::new());
    let (near, _silent) = duplex(PIPE);
    let started = tokio::time::Instant::now();
    let accepted = server.accept(near).await;
    assert!(matches!(accepted, Err(tls::Error::Timeout(_))));
    assert_eq!(started.elapsed(), HANDSHAKE_TIMEOUT);

    let (near, _silent) = duplex(PIPE);
    let connected = client.connect(near, &[mk_identity("a", "b")]).await;
    assert!(matches!(connected, Err(tls::Error::Timeout(_))));
}

#[tokio::test]
async fn tls12_is_spoken_only_where_it_is_asked_for() {
    let authority = Authority::new();
    let (_, server) = mk_pair(&authority);
    let old = || {
        let signed = authority.sign(&Leaf::naming(&[CLIENT]));
        signed.old_client()
    };
    let error = accept_from(&server, old()).await;
    assert!(matches!(error, tls::Error::Protocol(_)), "{error:?}");

    let lenient = Settings {
        versions: Versions::Tls12AndTls13,
        ..Settings::default()
    };
    let server = authority.certify(server.identity(), &lenient);
    let (near, far) = duplex(PIPE);
    let (old, name) = (old(), ServerName::from(Ipv4Addr::LOCALHOST));
    let (_, accepted) = tokio::join!(old.connect(name, near), server.accept(far));
    let (stream, identity) = accepted.unwrap();
    assert_eq!(identity, mk_identity("shop", "client"));
    let version = stream.get_ref().1.protocol_version();
    assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn openssl_s_client_is_accepted_with_a_certificate_and_not_without() {
    let authority = Authority::new();
    let (_, server) = mk_pair(&authority);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let signed = authority.sign(&Leaf::naming(&[CLIENT]));
    let key = signed.key.as_pkey().private_key_to_pem_pkcs8().unwrap();
    std::fs::write(path("key"), key).unwrap();
    std::fs::write(path("cert"), &signed.pem).unwrap();
    std::fs::File::create(path("roots"))
        .and_then(|mut file| file.write_all(authority.pem().as_bytes()))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();

    let roots = path("roots");
    let common = [
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-alpn",
        "h2",
        "-noservername",
    ];
    let mk_client = |extra: &[&str]| {
        Command::new("openssl")
            .args(common)
            .args(["-connect", &address, "-CAfile", &roots])
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs the openssl command")
    };
    let _with = mk_client(&["-cert", &path("cert"), "-key", &path("key")]);
    let (tcp, _) = listener.accept().await.unwrap();
    let (stream, identity) = server.accept(tcp).await.unwrap();
    assert_eq!(identity, mk_identity("shop", "client"));
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));

    let _without = mk_client(&[]);
    let (tcp, _) = listener.accept().await.unwrap();
    let refused = server.accept(tcp).await;
    assert!(
        matches!(refused, Err(tls::Error::Untrusted(_))),
        "{refused:?}"
    );
}

// What the manager relies on: nothing wrong gets as far as a handshake.

/// Why the server's certificate cannot be built from this answer and key, if so.
fn defect(authority: &Authority, signed: &Signed, key: &PrivateKey) -> Option<Error> {
    let answer = Answer::parse(&[signed.pem.clone(), authority.pem()]).unwrap();
    let identity = mk_identity("shop", "server");
    WorkloadCertificate::try_new(identity, key, answer, &Settings::default()).err()
}

#[test]
fn an_answer_for_another_identity_or_key_is_refused() {
    let authority = Authority::new();
    let other = authority.sign(&Leaf::naming(&[CLIENT]));
    assert!(matches!(
        defect(&authority, &other, &other.key),
        Some(Error::OtherIdentity(identity)) if identity == mk_identity("shop", "client")
    ));
    let right = authority.sign(&Leaf::naming(&[SERVER]));
    assert!(matches!(
        defect(&authority, &right, &other.key),
        Some(Error::OtherKey)
    ));
    assert!(defect(&authority, &right, &right.key).is_none());
}

#[test]
fn an_answer_that_is_not_valid_now_or_not_with_its_roots_is_refused() {
    let authority = Authority::new();
    let good = Leaf::naming(&[SERVER]);
    for bad in [
        Leaf { to: -1, ..good },
        Leaf {
            from: HOUR / 2,
            ..good
        },
    ] {
        let signed = authority.sign(&bad);
        let refused = defect(&authority, &signed, &signed.key);
        assert!(matches!(refused, Some(Error::Invalid(_))), "{refused:?}");
    }
    let signed = Authority::new().sign(&good);
    let refused = defect(&authority, &signed, &signed.key);
    assert!(matches!(refused, Some(Error::Invalid(_))), "{refused:?}");
}

#[test]
fn facts_are_those_of_the_certificate() {
    let authority = Authority::new();
    let (_, server) = mk_pair(&authority);
    assert_eq!(server.serial(), "4711");
    let life = server.not_after().duration_since(server.not_before());
    assert_eq!(life.unwrap().as_secs(), 2 * HOUR.unsigned_abs());
    assert!(!server.is_expired(SystemTime::now()));
    assert!(server.is_expired(server.not_after() + std::time::Duration::from_secs(1)));
    assert_eq!(server.chain().len(), 1);
    assert_eq!(server.roots()[0].pem, authority.pem());
}

fn is_untrusted(error: &tls::Error, check: impl Fn(&CertificateError) -> bool) -> bool {
    let tls::Error::Untrusted(rustls::Error::InvalidCertificate(certificate)) = error else {
        return false;
    };
    check(certificate)
}

fn is_nameless(error: &tls::Error) -> bool {
    matches!(error, tls::Error::Refused(Refusal::Nameless(_)))
}

fn is_expired(error: &CertificateError) -> bool {
    matches!(error, CertificateError::ExpiredContext { .. })
}

fn is_early(error: &CertificateError) -> bool {
    matches!(error, CertificateError::NotValidYetContext { .. })
}

fn is_misused(error: &CertificateError) -> bool {
    matches!(error, CertificateError::InvalidPurposeContext { .. })
}
