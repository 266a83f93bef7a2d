use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Authority {
    Authority::Address(text.parse().unwrap())
}

fn host(name: &str, port: u16) -> Authority {
    Authority::Hostname(name.into(), port)
}

#[test]
fn the_three_forms_are_read() {
    for (text, expected) in [
        ("10.0.0.1:80", address("10.0.0.1:80")),
        ("10.0.0.1:65535", address("10.0.0.1:65535")),
        ("[fd00::1]:8080", address("[fd00::1]:8080")),
        ("[::ffff:10.0.0.1]:80", address("10.0.0.1:80")),
        (
            "details.bookinfo.svc.cluster.local:9080",
            host("details.bookinfo.svc.cluster.local", 9080),
        ),
        ("Details.Bookinfo:1", host("details.bookinfo", 1)),
        ("3scale:443", host("3scale", 443)),
        ("_grpc.example.com:1", host("_grpc.example.com", 1)),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn anything_else_is_refused_with_its_reason() {
    for (text, error) in [
        ("", Error::Port),
        ("10.0.0.1", Error::Port),
        ("host:", Error::Port),
        ("host:0", Error::Port),
        ("host:65536", Error::Port),
        ("host:+80", Error::Port),
        ("host:000080", Error::Port),
        ("host: 80", Error::Port),
        (":80", Error::Host),
        ("fd00::1:80", Error::Host),
        ("[fd00::1:80", Error::Host),
        ("[10.0.0.1]:80", Error::Host),
        ("[fe80::1%eth0]:80", Error::Host),
        ("[]:80", Error::Host),
        ("user@host:80", Error::Host),
        ("host/path:80", Error::Host),
        ("999.1.1.1:80", Error::Host),
        ("10.1:80", Error::Host),
        ("a..b:80", Error::Host),
        ("host.:80", Error::Host),
        ("*.example.com:80", Error::Host),
        ("host\n:80", Error::Host),
        ("höst:80", Error::Host),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
}

#[test]
fn lengths_are_bounded() {
    let longest = format!("{}.{0}.{0}.{}:65535", "a".repeat(63), "b".repeat(61));
    assert_eq!(longest.len(), MAX_LENGTH);
    assert!(parse(&longest).is_ok());
    assert_eq!(
        parse(&format!("a{longest}")),
        Err(Error::TooLong(MAX_LENGTH + 1))
    );
    assert_eq!(
        parse(&format!("{}:80", "a".repeat(MAX_LABEL + 1))),
        Err(Error::Host)
    );
}

#[test]
fn the_saved_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/authority");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        fuzz(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen > 0, "{corpus} is empty");
}

proptest! {
    #[test]
    fn every_address_is_read_back(ip: IpAddr, port in 1u16..) {
        let expected = SocketAddr::new(ip.to_canonical(), port);
        let text = SocketAddr::new(ip, port).to_string();
        prop_assert_eq!(parse(&text), Ok(Authority::Address(expected)));
    }

    #[test]
    fn every_host_name_is_read_back(name in "[a-z][a-z0-9_-]{0,20}(\\.[a-z][a-z0-9-]{0,20}){0,5}", port in 1u16..) {
        prop_assert_eq!(parse(&format!("{name}:{port}")), Ok(host(&name, port)));
    }

    #[test]
    fn what_is_accepted_prints_back_to_itself(text in "[\\[\\]0-9a-fA-F.:x_-]{0,40}") {
        fuzz(text.as_bytes());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,300}") {
        fuzz(text.as_bytes());
    }
}
