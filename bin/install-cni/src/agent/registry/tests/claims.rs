//! Who has an address.

use super::*;

fn uid(name: &str) -> PodUid {
    name.into()
}

fn set(last: &[u8]) -> BTreeSet<IpAddr> {
    last.iter()
        .map(|last| IpAddr::from([10, 0, 0, *last]))
        .collect()
}

fn uids(names: &[&str]) -> BTreeSet<PodUid> {
    names.iter().map(|name| uid(name)).collect()
}

#[test]
fn an_address_is_the_last_ones_who_said_to_have_it() {
    let mut claims = Claims::default();
    let (a, b) = (uid("a"), uid("b"));
    assert_eq!(claims.claim(&a, &set(&[1, 2])), uids(&[]));
    assert_eq!(claims.claim(&b, &set(&[2])), uids(&["a"]));
    assert_eq!((claims.of(&a), claims.of(&b)), (set(&[1]), set(&[2])));
    // To say it again is no news.
    assert_eq!(claims.claim(&a, &set(&[1, 2])), uids(&[]));
    assert_eq!(claims.of(&a), set(&[1]));
}

#[test]
fn an_address_that_is_given_up_is_the_others_who_says_to_have_it() {
    let mut claims = Claims::default();
    let (a, b) = (uid("a"), uid("b"));
    claims.claim(&a, &set(&[1]));
    claims.claim(&b, &set(&[1]));
    assert_eq!(claims.release(&b), uids(&["a"]));
    assert_eq!(claims.of(&a), set(&[1]));
    assert_eq!(claims.claim(&a, &set(&[])), uids(&[]));
    assert_eq!(claims.of(&a), set(&[]));
}
