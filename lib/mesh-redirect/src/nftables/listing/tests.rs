use super::*;
use crate::{Difference, Options, in_pod};

/// What nft 1.0.6 printed for `dual-guests.golden`.
const LISTED: &str = include_str!("../../../tests/listing/nft-1.0.6-dual-guests.json");

fn rules() -> RuleSet {
    let virtual_interfaces = ["fake1s0f0", "fake1s0f1"]
        .map(|name| name.parse().unwrap())
        .to_vec();
    in_pod(&Options {
        virtual_interfaces,
        ..Options::default()
    })
}

fn differences(listing: &str) -> Vec<String> {
    match compare(&rules(), listing).unwrap() {
        Verdict::Differs(differences) => differences.iter().map(Difference::to_string).collect(),
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn listing_of_the_rules_is_the_same() {
    assert_eq!(compare(&rules(), LISTED).unwrap(), Verdict::Same);
}

#[test]
fn listing_without_our_tables_is_absent() {
    let other = LISTED.replace("istio-ambient", "other");
    assert_eq!(compare(&rules(), &other).unwrap(), Verdict::Absent);
    // The same names in another family are not our tables.
    let other = LISTED.replace("\"inet\"", "\"ip\"");
    assert_eq!(compare(&rules(), &other).unwrap(), Verdict::Absent);
}

#[test]
fn any_changed_number_is_a_difference() {
    let changes = [
        ("\"port\": 15006", "\"port\": 15007"),
        ("\"right\": 15008", "\"right\": 15009"),
        ("\"right\": 1337", "\"right\": 1338"),
        ("4095", "65535"),
        ("\"prio\": -100", "\"prio\": -99"),
        ("\"policy\": \"accept\"", "\"policy\": \"drop\""),
        ("169.254.7.127", "169.254.7.128"),
        ("\"op\": \"!=\"", "\"op\": \"==\""),
        (
            "\"target\": \"istio-output\"",
            "\"target\": \"istio-prerouting\"",
        ),
        ("{\"accept\": null}", "{\"drop\": null}"),
    ];
    for (from, to) in changes {
        assert!(LISTED.contains(from), "{from}");
        assert!(!differences(&LISTED.replace(from, to)).is_empty(), "{from}");
    }
}

#[test]
fn unknown_rule_is_foreign_in_its_own_words() {
    let unknown = r#"{"queue": {"num": 7}}"#;
    let told = differences(&LISTED.replacen(r#"{"redirect": {"port": 15053}}"#, unknown, 1));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("missing from inet istio-ambient-nat istio-output: oifname != "));
    assert!(told[1].starts_with("foreign in inet istio-ambient-nat istio-output: "));
    assert!(told[1].contains(r#"{"queue":{"num":7}}"#), "{}", told[1]);
}

#[test]
fn both_ways_of_printing_a_mark_mean_the_same() {
    // What the kernel keeps is the mask without the bits that are set; nft prints it either way.
    let folded = LISTED.replace("4294963473", "4294963200");
    assert_ne!(folded, LISTED);
    assert_eq!(compare(&rules(), &folded).unwrap(), Verdict::Same);
}

#[test]
fn other_output_is_refused() {
    assert!(matches!(
        compare(&rules(), "JSON support not compiled-in"),
        Err(Error::Json(_))
    ));
    assert!(matches!(compare(&rules(), "{}"), Err(Error::Shape)));
}
