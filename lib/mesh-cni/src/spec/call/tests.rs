use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "0a1b2c"),
    ("CNI_NETNS", "/var/run/netns/cni-1"),
    ("CNI_IFNAME", "eth0"),
    (
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=6f-1;",
    ),
];

fn call(variables: &[(&str, &str)], changes: &[(&str, &str)]) -> Result<Option<Call>, Error> {
    let mut all: BTreeMap<_, _> = variables.iter().copied().collect();
    all.extend(changes.iter().copied());
    Call::from_environment(|name| all.get(name).map(OsString::from))
}

fn sandbox() -> Sandbox {
    Sandbox {
        container_id: "0a1b2c".to_owned(),
        interface: "eth0".to_owned(),
        netns: "/var/run/netns/cni-1".to_owned(),
        pod: Some(Pod {
            name: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            uid: "6f-1".to_owned(),
        }),
    }
}

#[test]
fn commands_are_those_of_the_specification() {
    for (command, expected) in [
        ("ADD", Call::Add(sandbox())),
        ("CHECK", Call::Check(sandbox())),
        ("DEL", Call::Delete(sandbox())),
        ("GC", Call::Collect),
        ("STATUS", Call::Status),
        ("VERSION", Call::Version),
    ] {
        assert_eq!(expected.name(), command);
        assert_eq!(call(&ADD, &[("CNI_COMMAND", command)]), Ok(Some(expected)));
    }
    assert_eq!(call(&[], &[]), Ok(None));
    let error = call(&ADD, &[("CNI_COMMAND", "add")]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidEnvironment);
    assert!(
        error.to_string().contains("CNI_COMMAND must be one of"),
        "{error}"
    );
}

#[test]
fn deletion_works_after_the_namespace_has_gone() {
    let gone = [("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), ("CNI_ARGS", "")];
    let Ok(Some(Call::Delete(found))) = call(&ADD, &gone) else {
        unreachable!("it is a valid call");
    };
    assert_eq!((found.netns.as_str(), found.pod), ("", None));
    for command in ["ADD", "CHECK"] {
        let error = call(&ADD, &[("CNI_COMMAND", command), ("CNI_NETNS", "")]).unwrap_err();
        assert_eq!(error, Error::Missing { name: "CNI_NETNS" });
    }
}

#[test]
fn invalid_variable_is_named() {
    let long = "x".repeat(LONGEST_ID + 1);
    let huge = format!("A={}", "x".repeat(LONGEST_ARGS));
    for (name, values) in [
        (
            "CNI_CONTAINERID",
            &["-a", "a/b", "..", "a b", "é", long.as_str()][..],
        ),
        ("CNI_NETNS", &["relative", long.as_str()]),
        (
            "CNI_IFNAME",
            &[".", "..", "a/b", "a:b", "a b", "sixteen-bytes-16", "a\n"],
        ),
        ("CNI_ARGS", &["novalue", "A=1;b", huge.as_str()]),
    ] {
        for value in values {
            let error = call(&ADD, &[(name, value)]).unwrap_err();
            assert!(
                matches!(error, Error::Invalid { name: n, .. } if n == name),
                "{error}"
            );
        }
        if name != "CNI_ARGS" {
            assert_eq!(call(&ADD, &[(name, "")]), Err(Error::Missing { name }));
        }
    }
}

#[test]
fn invalid_pod_is_named() {
    let long = "x".repeat(LONGEST_NAME + 1);
    for (key, values) in [
        ("K8S_POD_NAME", ["A", "../a", "a/b", "a\n", long.as_str()]),
        ("K8S_POD_NAMESPACE", ["-", "a..", "a_b", " ", long.as_str()]),
        ("K8S_POD_UID", ["/", "..", "a b", "a\0", long.as_str()]),
    ] {
        for value in values {
            let args = format!("K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;{key}={value}");
            let error = call(&ADD, &[("CNI_ARGS", args.as_str())]).unwrap_err();
            assert!(
                matches!(error, Error::Invalid { name, .. } if name == key),
                "{args}"
            );
        }
    }
}

#[test]
fn without_name_or_namespace_it_is_not_a_pod() {
    for args in [
        "",
        ";",
        "K8S_POD_NAME=a",
        "K8S_POD_NAMESPACE=b;K8S_POD_NAME=",
        "MAC=0a=1",
    ] {
        let Ok(Some(Call::Add(found))) = call(&ADD, &[("CNI_ARGS", args)]) else {
            unreachable!("{args} is valid");
        };
        assert_eq!(found.pod, None, "{args}");
    }
}

#[test]
fn variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let found = Call::from_environment(|_| Some(OsString::from_vec(vec![0xff])));
    assert_eq!(found.unwrap_err().code(), Code::InvalidEnvironment);
}

proptest! {
    /// What is accepted can be a part of a file's name.
    #[test]
    fn accepted_sandbox_cannot_leave_a_directory(id in ".{1,8}", interface in ".{1,8}") {
        let changes = [("CNI_CONTAINERID", id.as_str()), ("CNI_IFNAME", interface.as_str())];
        if let Ok(Some(Call::Add(found))) = call(&ADD, &changes) {
            let file = format!("{}.{}.json", found.container_id, found.interface);
            prop_assert!(!file.contains('/') && !file.starts_with('.') && file.len() < 255);
        }
    }
}
