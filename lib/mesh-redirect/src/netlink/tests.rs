use proptest::prelude::*;

use super::*;
use crate::{Difference, Families, Options, Verdict, in_pod, on_host, options::ProbeAddresses};

/// What a kernel lists that holds exactly this: what makes something is what lists it.
fn listed(rules: &RuleSet) -> Vec<u8> {
    let batch = add(rules);
    batch.to_trial()
}

fn rules() -> RuleSet {
    in_pod(&Options::default())
}

#[test]
fn what_a_batch_makes_compares_as_the_same() {
    let host = on_host(Families::Dual, &ProbeAddresses::default());
    for rules in [rules(), host] {
        assert_eq!(Dump::decode(&listed(&rules)).compare(&rules), Verdict::Same);
        assert_eq!(Dump::default().compare(&rules), Verdict::Absent);
    }
}

#[test]
fn every_message_of_a_batch_has_a_name() {
    let batch = apply(&rules());
    assert_eq!(batch.step(0), None);
    assert_eq!(batch.step(1), Some("add table inet istio-ambient-mangle"));
    let last = (1..1000)
        .take_while(|n| batch.step(*n).is_some())
        .last()
        .unwrap();
    assert!(batch.step(last).unwrap().ends_with("redirect to :15001"));
}

#[test]
fn a_rule_that_differs_is_told_with_its_place() {
    let other = in_pod(&Options {
        probes: ProbeAddresses::new([169, 254, 7, 126].into(), crate::contract::PROBE_ADDRESS_V6)
            .unwrap(),
        ..Options::default()
    });
    let Verdict::Differs(differences) = Dump::decode(&listed(&other)).compare(&rules()) else {
        panic!("the other address was not seen");
    };
    let told: Vec<_> = differences.iter().map(Difference::to_string).collect();
    let place = "inet istio-ambient-nat istio-prerouting";
    assert!(
        told[0].starts_with(&format!("missing from {place}: ip saddr 169.254.7.127")),
        "{told:?}"
    );
    assert!(
        told[1].starts_with(&format!("foreign in {place}: meta Family == 0x02")),
        "{told:?}"
    );
}

#[test]
fn a_listing_that_is_cut_off_is_not_whole() {
    let whole = listed(&rules());
    for end in (0..whole.len()).step_by(3) {
        let verdict = Dump::decode(&whole[..end]).compare(&rules());
        assert_ne!(verdict, Verdict::Same, "{end} of {}", whole.len());
    }
}

#[test]
fn a_host_with_many_probed_pods_is_read_to_the_end() {
    let rules = on_host(Families::Dual, &ProbeAddresses::default());
    let address = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).into();
    let uid = "0b0e7d1c-3c0c-4a39-8f2b-0d8f5e6a7b8c".to_owned();
    let members: Members = (0..10_000).map(|n| (address(n), uid.clone())).collect();
    let listing = restore(&rules, &members).to_trial();
    let (mut dump, mut seen, mut rest) = (Dump::of_host(), Members::new(), &*listing);
    while let Some((length, _)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap();
        let (message, after) = rest.split_at(length.next_multiple_of(4));
        members::read(&mut seen, message);
        assert!(dump.add(message).is_continue(), "{:?}", dump.cost());
        rest = after;
    }
    assert_eq!(seen, members);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&bytes);
    }

    #[test]
    fn a_listing_with_one_wrong_byte_is_survived(at in any::<prop::sample::Index>(), xor: u8) {
        let mut bytes = listed(&rules());
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        fuzz(&bytes);
    }
}

#[test]
fn the_saved_listings_are_survived() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/dump");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz(&bytes);
        // A cut anywhere is the commonest damage.
        for end in (0..bytes.len()).step_by(131) {
            fuzz(&bytes[..end]);
        }
        seen += 1;
    }
    assert!(seen >= 5, "{folder} is incomplete");
}
