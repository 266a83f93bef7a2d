use super::*;
use crate::fixture::{Authority, Leaf};

const NAME: &str = "spiffe://cluster.local/ns/a/sa/b";

#[test]
fn the_last_element_is_the_bundle_and_the_rest_is_the_chain() {
    let root = Authority::new();
    let intermediate = root.subordinate();
    let old_root = Authority::new();
    let leaf = intermediate.sign(&Leaf::naming(&[NAME]));
    let bundle = root.pem() + &old_root.pem();
    let expected = Answer {
        leaf: leaf.der.clone(),
        intermediates: parse_pem(&intermediate.pem()).unwrap(),
        roots: parse_pem(&bundle).unwrap(),
    };
    assert_eq!(expected.roots.len(), 2);
    let apart = [leaf.pem.clone(), intermediate.pem(), bundle.clone()];
    assert_eq!(Answer::parse(&apart).unwrap(), expected);
    let together = [leaf.pem + &intermediate.pem(), bundle];
    assert_eq!(Answer::parse(&together).unwrap(), expected);
}

#[test]
fn an_element_without_a_certificate_is_named() {
    let root = Authority::new();
    let leaf = root.sign(&Leaf::naming(&[NAME]));
    let key = leaf.key.as_pkey().private_key_to_pem_pkcs8().unwrap();
    let key = String::from_utf8(key).unwrap();
    for bad in ["", "garbage", &key] {
        let answer = Answer::parse(&[&leaf.pem, bad, &root.pem()]);
        assert!(matches!(answer, Err(Error::NoCertificate(1))), "{answer:?}");
        let answer = Answer::parse(&[&leaf.pem, bad]);
        assert!(matches!(answer, Err(Error::NoCertificate(1))), "{answer:?}");
    }
    let half = leaf.pem.get(..leaf.pem.len() / 2).unwrap();
    let answer = Answer::parse(&[half, &root.pem()]);
    assert!(
        matches!(answer, Err(Error::NotPem(0, _) | Error::NoCertificate(0))),
        "{answer:?}"
    );
}

#[test]
fn too_much_of_anything_is_refused_before_it_is_used() {
    let root = Authority::new();
    let pem = root.pem();
    let too_large = |elements: &[String]| {
        let answer = Answer::parse(elements);
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
    };
    too_large(&["x".repeat(MAX_BYTES), pem.clone()]);
    too_large(&vec![pem.clone(); MAX_CHAIN + 2]);
    too_large(&[pem.repeat(MAX_CHAIN + 1), pem.clone()]);
    too_large(&[pem.clone(), pem.repeat(MAX_ROOTS + 1)]);
    assert!(Answer::parse(&vec![pem.clone(); MAX_CHAIN + 1]).is_ok());
    assert!(Answer::parse(&[pem.clone(), pem.repeat(MAX_ROOTS)]).is_ok());
}

#[test]
fn nothing_is_incomplete() {
    let nothing: [&str; 0] = [];
    assert!(matches!(Answer::parse(&nothing), Err(Error::Incomplete(0))));
    let only_roots = Authority::new().pem();
    assert!(matches!(
        Answer::parse(&[only_roots]),
        Err(Error::Incomplete(1))
    ));
}
