//! The `baggage` header: what one end of a tunnel says about its own workload, for the other end's
//! telemetry.
//!
//! The form is the mesh's own: `key=value` pairs joined by commas, without escapes. What it says is
//! never used to decide anything; only an authenticated peer gets this far, and each value is bounded,
//! because it ends up as a label of a metric.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::workload::{Workload, WorkloadType};

/// The header's name.
pub const HEADER: &str = "baggage";

/// What a peer says about its workload. Absent where it said nothing, or nothing usable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// The cluster.
    pub cluster: Option<Arc<str>>,
    /// The namespace.
    pub namespace: Option<Arc<str>>,
    /// The name of the workload's owner.
    pub workload: Option<Arc<str>>,
    /// The canonical service.
    pub service: Option<Arc<str>>,
    /// The canonical revision.
    pub revision: Option<Arc<str>>,
    /// The region.
    pub region: Option<Arc<str>>,
    /// The availability zone.
    pub zone: Option<Arc<str>>,
}

/// Longest value that is taken over, in bytes: the longest name Kubernetes knows (RFC 1123 subdomain).
const MAX_VALUE: usize = 253;

/// What `workload` says about itself; `None` where that is nothing.
///
/// A value that the form cannot carry (a comma, an equals sign, anything but printable ASCII) is left
/// out rather than mangled.
pub fn build(workload: &Workload) -> Option<HeaderValue> {
    let owner = match workload.workload_type {
        WorkloadType::Deployment => "k8s.deployment.name",
        WorkloadType::CronJob => "k8s.cronjob.name",
        WorkloadType::Pod => "k8s.pod.name",
        WorkloadType::Job => "k8s.job.name",
    };
    let pairs = [
        ("k8s.cluster.name", &workload.cluster_id),
        ("k8s.namespace.name", &workload.namespace),
        (owner, &workload.workload_name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
        ("cloud.region", &workload.locality.region),
        ("cloud.availability_zone", &workload.locality.zone),
    ];
    let mut text = String::with_capacity(256);
    for (key, value) in pairs {
        if usable(value) {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}{key}={value}");
        }
    }
    if text.is_empty() {
        return None;
    }
    HeaderValue::try_from(text).ok()
}

/// What a peer said. Unknown keys, malformed pairs and lines that are not ASCII say nothing; of a key
/// that is given twice the last one counts.
pub fn parse(headers: &HeaderMap) -> Baggage {
    let mut baggage = Baggage::default();
    let lines = headers
        .get_all(HEADER)
        .iter()
        .filter_map(|line| line.to_str().ok());
    for (key, value) in lines
        .flat_map(|line| line.split(','))
        .filter_map(|pair| pair.split_once('='))
    {
        if let Some(slot) = slot(&mut baggage, key).filter(|_| usable(value)) {
            *slot = Some(value.into());
        }
    }
    baggage
}

/// What the fuzzer and its corpus feed: a header of a peer.
///
/// # Panics
///
/// When a value is taken over that does not survive being printed.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let read = parse(&HeaderMap::from_iter([(
            HeaderName::from_static(HEADER),
            value,
        )]));
        let taken = [
            read.cluster,
            read.namespace,
            read.workload,
            read.service,
            read.revision,
        ];
        let taken = taken.into_iter().chain([read.region, read.zone]).flatten();
        taken.for_each(|value| assert!(usable(&value), "{value}"));
    }
}

fn slot<'a>(baggage: &'a mut Baggage, key: &str) -> Option<&'a mut Option<Arc<str>>> {
    Some(match key {
        "k8s.cluster.name" => &mut baggage.cluster,
        "k8s.namespace.name" => &mut baggage.namespace,
        "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
            &mut baggage.workload
        }
        "service.name" => &mut baggage.service,
        "service.version" => &mut baggage.revision,
        "cloud.region" => &mut baggage.region,
        "cloud.availability_zone" => &mut baggage.zone,
        _ => return None,
    })
}

fn usable(value: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::workload::Locality;
    use proptest::prelude::*;

    fn details() -> Workload {
        Workload {
            namespace: "bookinfo".into(),
            workload_name: "details-v1".into(),
            canonical_name: "details".into(),
            canonical_revision: "v1".into(),
            locality: Locality {
                region: "r1".into(),
                zone: "z1".into(),
                subzone: "".into(),
            },
            ..Workload::with_uid("cluster1//Pod/bookinfo/details-v1-abc")
        }
    }

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let value = |line: &&[u8]| HeaderValue::from_bytes(line).unwrap();
        lines
            .iter()
            .map(|line| (HEADER.parse().unwrap(), value(line)))
            .collect()
    }

    #[test]
    fn the_printed_form_is_the_one_of_the_contract() {
        assert_eq!(
            build(&details()).unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=bookinfo,k8s.deployment.name=details-v1,\
             service.name=details,service.version=v1,cloud.region=r1,cloud.availability_zone=z1"
        );
    }

    #[test]
    fn what_is_empty_or_cannot_be_carried_is_left_out() {
        let workload = Workload {
            cluster_id: "".into(),
            canonical_name: "a,b=c".into(),
            ..details()
        };
        let text = build(&workload).unwrap();
        assert!(
            text.to_str()
                .unwrap()
                .starts_with("k8s.namespace.name=bookinfo,")
        );
        assert!(!text.to_str().unwrap().contains("service.name"));
        let nothing = Workload {
            cluster_id: "".into(),
            ..Workload::with_uid("w")
        };
        assert_eq!(build(&nothing), None);
    }

    #[test]
    fn all_lines_are_read_and_what_is_not_understood_is_passed_over() {
        let baggage = parse(&headers(&[
            b"k8s.cluster.name=c1,bogus,=x,service.name=,unknown=y",
            b"service.name=\xff",
            b"k8s.job.name=nightly,service.version=v2=v3",
        ]));
        let expected = Baggage {
            cluster: Some("c1".into()),
            workload: Some("nightly".into()),
            ..Baggage::default()
        };
        assert_eq!(baggage, expected);
    }

    #[test]
    fn a_value_longer_than_any_name_is_not_taken_over() {
        let line = format!("service.name={}", "a".repeat(MAX_VALUE + 1));
        assert_eq!(parse(&headers(&[line.as_bytes()])), Baggage::default());
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back(namespace in "[a-z0-9.-]{1,40}", name in "[ -~]{0,40}") {
            let workload = Workload {
                namespace: namespace.clone().into(),
                canonical_name: name.clone().into(),
                ..Workload::with_uid("w")
            };
            let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), build(&workload).unwrap())]);
            let read = parse(&headers);
            prop_assert_eq!(read.namespace.as_deref(), Some(namespace.as_str()));
            prop_assert_eq!(read.service.as_deref(), Some(name.as_str()).filter(|name| usable(name)));
        }

        #[test]
        fn no_header_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                drop(parse(&HeaderMap::from_iter([(HEADER.parse().unwrap(), value)])));
            }
        }
    }
}
