use super::*;

const TYPE: &str = "t";

#[expect(
    clippy::unnecessary_wraps,
    reason = "as the catalog takes it; none withdraws"
)]
fn resource(content: &'static str, aliases: &[&str], groups: &[Group]) -> Option<Resource> {
    Some(Resource {
        aliases: aliases.iter().map(|alias| Arc::from(*alias)).collect(),
        groups: groups.to_vec(),
        ..Bytes::from(content).into()
    })
}

fn plain(content: &'static str) -> Option<Resource> {
    resource(content, &[], &[])
}

fn since(catalog: &Catalog, number: u64) -> Option<Vec<String>> {
    let names = catalog.table(TYPE)?.since(number)?;
    Some(names.map(ToString::to_string).collect())
}

fn found<'a>(catalog: &'a Catalog, name: &str) -> Option<&'a str> {
    Some(catalog.table(TYPE)?.find(name)?.0)
}

#[test]
fn the_same_content_again_is_no_change() {
    let mut catalog = Catalog::default();
    assert!(catalog.set(TYPE, "a".into(), plain("1")));
    assert!(!catalog.set(TYPE, "a".into(), plain("1")));
    assert!(catalog.set(TYPE, "a".into(), plain("2")));
    assert!(catalog.set(TYPE, "a".into(), None));
    assert!(!catalog.set(TYPE, "a".into(), None));
}

#[test]
fn each_name_stands_under_its_latest_change_only() {
    let mut catalog = Catalog::default();
    for content in ["1", "2", "3"] {
        catalog.set(TYPE, "a".into(), plain(content));
    }
    catalog.set(TYPE, "b".into(), plain("1"));
    catalog.set(TYPE, "b".into(), None);
    catalog.set(TYPE, "b".into(), plain("1"));
    assert_eq!(since(&catalog, 0).unwrap(), ["a", "b"]);
    assert_eq!(since(&catalog, 3).unwrap(), ["b"]);
    assert_eq!(since(&catalog, 6).unwrap(), [""; 0]);
}

#[test]
fn removals_beyond_the_history_are_forgotten_and_it_says_so() {
    let mut catalog = Catalog::with_history(1);
    for name in ["a", "b"] {
        catalog.set(TYPE, name.into(), plain("1"));
        catalog.set(TYPE, name.into(), None);
    }
    assert_eq!(since(&catalog, 1), None);
    assert_eq!(since(&catalog, 2).unwrap(), ["b"]);
    assert_eq!(catalog.len(TYPE), 0);
}

#[test]
fn an_address_follows_the_resource_that_has_it() {
    let mut catalog = Catalog::default();
    catalog.set(TYPE, "a".into(), resource("1", &["/1", "/2"], &[]));
    assert_eq!(found(&catalog, "/1"), Some("a"));
    // `b` takes over one address, and an unrelated change of `a` does not bring it back.
    catalog.set(TYPE, "b".into(), resource("1", &["/1"], &[]));
    catalog.set(TYPE, "a".into(), resource("2", &["/1", "/2"], &[]));
    assert_eq!(found(&catalog, "/1"), Some("b"));
    assert_eq!(found(&catalog, "/2"), Some("a"));
    catalog.set(TYPE, "b".into(), None);
    assert_eq!(found(&catalog, "/1"), Some("a"));
    catalog.set(TYPE, "a".into(), plain("2"));
    assert_eq!(found(&catalog, "/1"), None);
    assert_eq!(found(&catalog, "a"), Some("a"));
}

#[test]
fn members_come_and_go_with_their_resources() {
    let mut catalog = Catalog::default();
    let (of, node) = (Group::Of("s".into()), Group::Node("n".into()));
    catalog.set(
        TYPE,
        "a".into(),
        resource("1", &[], &[of.clone(), node.clone()]),
    );
    catalog.set(
        TYPE,
        "a".into(),
        resource("2", &[], std::slice::from_ref(&node)),
    );
    catalog.set(
        TYPE,
        "b".into(),
        resource("1", &[], std::slice::from_ref(&of)),
    );
    let members = |catalog: &Catalog, group| {
        let table = catalog.table(TYPE).unwrap();
        table
            .members(group)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(members(&catalog, &of), ["b"]);
    assert_eq!(members(&catalog, &node), ["a"]);
    catalog.set(TYPE, "a".into(), None);
    assert_eq!(members(&catalog, &node), [""; 0]);
}

#[test]
fn versions_are_those_of_every_replica() {
    // XXH64 with seed 0, from the algorithm's published test vectors.
    let version = Version::of(b"");
    assert_eq!(version.to_string(), "ef46db3751d8e999");
    assert_eq!(version.digits(), *b"ef46db3751d8e999");
    assert_eq!(Version::parse("ef46db3751d8e999"), Some(version));
    assert_ne!(Version::parse("+f46db3751d8e999"), Some(version));
    for foreign in [
        "",
        "ef46db3751d8e99",
        "0ef46db3751d8e999",
        "version-of-other",
    ] {
        assert_eq!(Version::parse(foreign), None, "{foreign}");
    }
}
