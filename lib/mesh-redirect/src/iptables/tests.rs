use super::*;
use crate::{Difference, Families, Options, in_pod};

/// What `iptables-save` prints where a kernel holds exactly this: our input is written in its form.
fn saved(text: &str) -> Saved {
    Saved::parse(text).unwrap()
}

fn rules() -> RuleSet {
    in_pod(&Options::default())
}

/// The lines about chains that are not ours.
fn jumps(input: &str) -> Vec<&str> {
    input
        .lines()
        .filter(|line| line.contains(" -j ISTIO"))
        .collect()
}

#[test]
fn rendered_rules_read_back_as_the_same() {
    for family in Family::ALL {
        let held = saved(&apply(&rules(), family, &Saved::default()));
        assert_eq!(compare(&rules(), family, &held), Verdict::Same);
        assert_eq!(
            compare(&rules(), family, &Saved::default()),
            Verdict::Absent
        );
    }
}

#[test]
fn jump_that_is_there_is_not_added_again() {
    let once = apply(&rules(), Family::V4, &Saved::default());
    let twice = apply(&rules(), Family::V4, &saved(&once));
    assert_eq!(jumps(&once).len(), 6);
    assert_eq!(jumps(&twice), Vec::<&str>::new());
}

#[test]
fn jumps_beyond_the_first_are_deleted_in_their_own_words() {
    let once = apply(&rules(), Family::V4, &Saved::default());
    let more = "*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_PRERT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n\
        -A PREROUTING -p tcp -m comment --comment \"by hand\" -j ISTIO_PRERT\n\
        -A PREROUTING -j ISTIO_PRERT\n-A PREROUTING -j ISTIO_PRERT\nCOMMIT\n";
    let (before, _) = once.split_once("*nat").unwrap();
    let repair = apply(&rules(), Family::V4, &saved(&format!("{before}{more}")));
    let expected = [
        "-D PREROUTING -p tcp -m comment --comment \"by hand\" -j ISTIO_PRERT",
        "-D PREROUTING -j ISTIO_PRERT",
        "-A OUTPUT -j ISTIO_OUTPUT",
    ];
    assert_eq!(jumps(&repair), expected);
}

#[test]
fn capture_starts_last_and_ends_first() {
    let tables = |input: &str| -> Vec<String> {
        input
            .lines()
            .filter_map(|line| line.strip_prefix('*').map(str::to_owned))
            .collect()
    };
    let input = apply(&rules(), Family::V4, &Saved::default());
    assert_eq!(tables(&input), ["mangle", "raw", "nat"]);
    assert_eq!(tables(&remove(&saved(&input))), ["nat", "raw", "mangle"]);
    // DNS capture ends: first nothing is sent to the DNS port any more, then its zones go.
    let no_dns = in_pod(&Options {
        dns_capture: false,
        ..Options::default()
    });
    assert_eq!(
        tables(&apply(&no_dns, Family::V4, &saved(&input))),
        ["mangle", "nat", "raw"]
    );
}

#[test]
fn nothing_of_ours_is_nothing_to_remove() {
    let others = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
        -A PREROUTING -j KUBE-SERVICES\nCOMMIT\n";
    assert_eq!(remove(&saved(others)), "");
    assert_eq!(remove(&Saved::default()), "");
}

#[test]
fn family_that_is_not_captured_is_cleaned() {
    let only_v4 = in_pod(&Options {
        families: Families::Only(Family::V4),
        ..Options::default()
    });
    let former = saved(&apply(&rules(), Family::V6, &Saved::default()));
    assert_eq!(apply(&only_v4, Family::V6, &former), remove(&former));
    assert!(matches!(
        compare(&only_v4, Family::V6, &former),
        Verdict::Differs(_)
    ));
}

#[test]
fn other_address_is_a_difference() {
    let input = apply(&rules(), Family::V4, &Saved::default());
    let moved = saved(&input.replace("-s 169.254.7.127/32", "-s 169.254.7.126/32"));
    let Verdict::Differs(differences) = compare(&rules(), Family::V4, &moved) else {
        panic!("the other address was not seen");
    };
    let told: Vec<_> = differences.iter().map(Difference::to_string).collect();
    let expected = [
        "missing from ip nat ISTIO_PRERT: -s 169.254.7.127/32 -p tcp -j ACCEPT",
        "foreign in ip nat ISTIO_PRERT: -s 169.254.7.126/32 -p tcp -j ACCEPT",
    ];
    assert_eq!(told, expected);
}
