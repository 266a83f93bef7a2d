use proptest::prelude::*;

use super::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn number(number: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value)].concat()
}

fn bytes(number: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let tag = varint(u64::from(number) << 3 | 2);
    [tag, varint(value.len() as u64), value.to_vec()].concat()
}

fn object(api_version: &str, kind: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    let kinds = [bytes(1, api_version), bytes(2, kind)].concat();
    let raw = parts.concat();
    [
        MAGIC.to_vec(),
        bytes(1, kinds),
        bytes(2, raw),
        bytes(3, ""),
        bytes(4, ""),
    ]
    .concat()
}

#[test]
fn every_line_of_the_table_is_understood() {
    let table = include_str!("messages.txt");
    for line in table.lines() {
        let mut words = line.split(' ');
        let message = &MESSAGES[words.next().unwrap()];
        let mut count = 0;
        for word in words {
            let (number, field) = parse_field(word).unwrap_or_else(|| panic!("{line}"));
            assert!(message.fields.contains_key(&number), "{line}");
            if let Type::Message(name) = field.of {
                assert!(MESSAGES.contains_key(name), "{name} in {line}");
            }
            count += 1;
        }
        assert_eq!(count, message.fields.len(), "{line}");
    }
    assert_eq!(
        MESSAGES.len(),
        table.lines().count(),
        "a message is there twice"
    );
}

#[test]
fn a_config_map_is_what_it_would_be_in_json() {
    let metadata = [bytes(1, "name"), bytes(3, "ns"), bytes(8, ""), number(7, 0)].concat();
    let entry = |key: &str, value: &str| bytes(2, [bytes(1, key), bytes(2, value)].concat());
    let body = object(
        "v1",
        "ConfigMap",
        &[
            bytes(1, metadata),
            entry("a", "1"),
            entry("empty", ""),
            bytes(3, [bytes(1, "b"), bytes(2, b"\0\xff")].concat()),
            number(4, 0),
        ],
    );
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "name", "namespace": "ns" },
        "data": { "a": "1", "empty": "" },
        "binaryData": { "b": "AP8=" },
        "immutable": false,
    });
    assert_eq!(decode(&body), Ok(expected));
}

#[test]
fn a_zero_counts_where_nothing_would_be_something_else() {
    let spec = |replicas: &[u8]| bytes(2, [replicas, &number(5, 0)].concat());
    let deployment = |spec: Vec<u8>| decode(&object("apps/v1", "Deployment", &[spec])).unwrap();
    // `replicas` may be absent, `minReadySeconds` may not.
    assert_eq!(
        deployment(spec(&number(1, 0)))["spec"],
        json!({ "replicas": 0 })
    );
    assert_eq!(deployment(spec(&[])).get("spec"), None);
}

#[test]
fn special_types_have_their_json() {
    let port = [
        number(3, 80),
        bytes(4, [number(1, 1), bytes(3, "http")].concat()),
    ]
    .concat();
    let service = object("v1", "Service", &[bytes(2, bytes(1, port))]);
    let ports = json!([{ "port": 80, "targetPort": "http" }]);
    assert_eq!(decode(&service).unwrap()["spec"]["ports"], ports);
    let renewed = [number(1, 1_767_225_600), number(2, 123_456_000)].concat();
    let lease = object(
        "coordination.k8s.io/v1",
        "Lease",
        &[bytes(2, bytes(4, renewed))],
    );
    let expected = json!({ "renewTime": "2026-01-01T00:00:00.123456Z" });
    assert_eq!(decode(&lease).unwrap()["spec"], expected);
    let items = [bytes(1, "x"), bytes(1, "y")].concat();
    let extra = bytes(5, [bytes(1, "scopes"), bytes(2, items)].concat());
    let review = object(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &[bytes(2, extra)],
    );
    let expected = json!({ "extra": { "scopes": ["x", "y"] } });
    assert_eq!(decode(&review).unwrap()["spec"], expected);
}

#[test]
fn what_json_inlines_is_part_of_its_parent() {
    // A volume holds its source, a probe its handler.
    let volume = [bytes(1, "v"), bytes(2, bytes(2, ""))].concat();
    let pod = object("v1", "Pod", &[bytes(2, bytes(1, volume))]);
    let volumes = json!([{ "name": "v", "emptyDir": {} }]);
    assert_eq!(decode(&pod).unwrap()["spec"]["volumes"], volumes);
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(decode(b"{}"), Err(Error::NoMagic));
    let unknown = Error::UnknownKind {
        api_version: "v1".to_owned(),
        kind: "Thing".to_owned(),
    };
    assert_eq!(decode(&object("v1", "Thing", &[])), Err(unknown));
    let broken = object("v1", "ConfigMap", &[vec![0x0a, 0x05, 0x00]]);
    assert_eq!(decode(&broken), Err(Error::Broken("core.ConfigMap")));
}

#[test]
fn nesting_ends_somewhere() {
    // A JSON schema is the only message that holds itself, and it is not in the table; the depth of what
    // is there is bounded by the table. The limit is for messages that are added to it.
    let message = &MESSAGES["core.ConfigMap"];
    let read = message.read(&[], MAX_DEPTH + 1, &mut Map::new());
    assert_eq!(read, Err(Error::TooDeep("core.ConfigMap")));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let with_magic = [MAGIC, &body].concat();
        let _read = decode(&with_magic);
        let _read = decode(&object("v1", "Pod", &[body]));
    }
}
