use proptest::prelude::*;

use super::*;

fn mk_pod(name: &str, namespace: &str, service_account: &str) -> PodInfo {
    PodInfo {
        name: name.into(),
        namespace: namespace.into(),
        service_account: service_account.into(),
    }
}

#[test]
fn bytes_are_those_of_the_contract() {
    let add = Request::Add {
        uid: "u".into(),
        pod: mk_pod("p", "n", "s"),
    };
    let cases: [(Request, &[u8]); 4] = [
        (add, b"\x0a\x0e\x0a\x01u\x12\x09\x0a\x01p\x12\x01n\x1a\x01s"),
        (Request::Keep { uid: "u".into() }, b"\x2a\x03\x0a\x01u"),
        // The number of this uid is 2.
        (Request::Delete { uid: "u".into() }, b"\x12\x03\x12\x01u"),
        (Request::SnapshotSent, b"\x1a\x00"),
    ];
    for (request, bytes) in cases {
        assert_eq!(request.encode().unwrap(), bytes, "{}", request.name());
        assert_eq!(Request::decode(bytes), Ok(request));
    }
    assert_eq!(encode_hello(), b"\x08\x01");
    assert_eq!(Ack(Ok(())).encode(), b"\x0a\x00");
    assert_eq!(Ack(Err("no".into())).encode(), b"\x0a\x04\x0a\x02no");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    let cases: [(&[u8], &str); 7] = [
        (b"\xff", "a WorkloadRequest cannot be decoded"),
        (b"", "a WorkloadRequest holds no payload that is known here"),
        // A payload with number 9, from the future.
        (
            b"\x4a\x00",
            "a WorkloadRequest holds no payload that is known here",
        ),
        (b"\x0a\x03\x0a\x01u", "AddWorkload lacks workload_info"),
        (
            b"\x0a\x08\x0a\x01u\x12\x03\x12\x01n",
            "AddWorkload lacks workload_info.name",
        ),
        (b"\x2a\x00", "KeepWorkload lacks uid"),
        // The number of this uid is 2, not 1.
        (b"\x12\x03\x0a\x01u", "DelWorkload lacks uid"),
    ];
    for (bytes, reason) in cases {
        assert_eq!(Request::decode(bytes).unwrap_err().to_string(), reason);
    }
}

#[test]
fn only_version_one_is_greeted() {
    assert_eq!(decode_hello(&encode_hello()), Ok(()));
    assert_eq!(decode_hello(b""), Err(Error::Version(0)));
    assert_eq!(decode_hello(b"\x08\x02"), Err(Error::Version(2)));
    assert!(matches!(
        decode_hello(b"\xff\xff"),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn a_pod_without_service_account_has_the_default_one() {
    let bytes = b"\x0a\x0b\x0a\x01u\x12\x06\x0a\x01p\x12\x01n";
    let expected = Request::Add {
        uid: "u".into(),
        pod: mk_pod("p", "n", "default"),
    };
    assert_eq!(Request::decode(bytes), Ok(expected));
}

#[test]
fn a_request_that_does_not_fit_is_not_sent() {
    let uid: Arc<str> = "u".repeat(MAX_MESSAGE).into();
    let error = Request::Keep { uid }.encode().unwrap_err();
    assert!(matches!(error, Error::TooLong(length) if length > MAX_MESSAGE));
}

#[test]
fn an_error_text_is_cut_between_characters_and_never_means_success() {
    let long = "é".repeat(MAX_MESSAGE);
    let bytes = Ack(Err(long.clone())).encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    let Ack(Err(text)) = Ack::decode(&bytes).unwrap() else {
        panic!("success");
    };
    assert!(long.starts_with(&text) && text.len() > MAX_MESSAGE - 32);
    let bytes = Ack(Err(String::new())).encode();
    assert!(Ack::decode(&bytes).unwrap().0.is_err());
}

#[test]
fn the_saved_corpus_passes() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/datagram");
    let mut files = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        crate::fuzz::datagram(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 10, "{files} files in {corpus}");
}

proptest! {
    #[test]
    fn requests_survive_the_wire(uid in ".{1,40}", name in ".{1,60}", ns in ".{1,60}", sa in ".{1,60}", kind in 0..3) {
        let uid: Arc<str> = uid.into();
        let request = match kind {
            0 => Request::Add { uid, pod: mk_pod(&name, &ns, &sa) },
            1 => Request::Keep { uid },
            _ => Request::Delete { uid },
        };
        prop_assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        crate::fuzz::datagram(&bytes);
    }
}
