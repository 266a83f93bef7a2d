use std::collections::BTreeSet;

use super::*;

#[test]
fn the_table_is_complete_and_consistent() {
    let file = &TABLE.file;
    let names: BTreeSet<_> = file.versions.iter().map(|entry| &entry.name).collect();
    assert_eq!(
        names.len(),
        file.versions.len(),
        "a name stands there twice"
    );
    for entry in &file.versions {
        assert!(!(entry.eol && entry.reference.is_some()), "{}", entry.name);
        assert_eq!(
            entry.is_alias() && !entry.eol,
            entry.reference.is_some(),
            "{}",
            entry.name
        );
        assert_eq!(resolve(&entry.name).is_err(), entry.eol, "{}", entry.name);
    }
    assert_eq!(
        resolve(default_version()).unwrap().number.stage,
        Stage::Stable
    );
    assert!(resolve(&format!("{OLDEST}-latest")).is_ok());
}

#[test]
fn there_are_as_many_names_as_sail_has() {
    let counts = [
        names().len(),
        names_of_revisions().len(),
        names_of_ztunnels().len(),
    ];
    assert_eq!(counts, [76, 65, 64]);
    assert!(names_of_ztunnels().contains(&"master") && !names_of_revisions().contains(&"master"));
}

#[test]
fn an_alias_stands_for_the_newest_release_of_its_minor() {
    for name in names().into_iter().filter(|name| name.ends_with("-latest")) {
        let Ok(release) = resolve(name) else { continue };
        let minor = release.number.minor;
        assert_eq!(name, format!("v1.{minor}-latest"));
        let newest = releases()
            .iter()
            .filter(|other| other.number.minor == minor)
            .max();
        assert_eq!(newest, Some(release));
    }
}

#[test]
fn a_name_that_cannot_be_had_says_what_can() {
    let text = |name| resolve(name).unwrap_err().to_string();
    assert_eq!(
        text("v1.23.6"),
        "version v1.23.6 is end-of-life and cannot be installed: use v1.24 or later, such as v1.30.3"
    );
    assert!(
        text("v9.9.9").starts_with("version v9.9.9 is not known: `kubectl explain"),
        "{}",
        text("v9.9.9")
    );
    assert!(matches!(resolve("v1.21.6"), Err(Error::EndOfLife(_))));
    assert!(matches!(resolve("1.30.3"), Err(Error::Unknown(_))));
}

#[test]
fn releases_are_ordered_by_number_and_previews_come_first() {
    let order = [
        "v1.24.0",
        "v1.24.10",
        "v1.30.3",
        "v1.31.0-alpha.2",
        "v1.31.0-beta.1",
        "v1.31.0",
    ];
    let numbers = order.map(|text| text.parse::<Number>().unwrap());
    assert!(numbers.is_sorted());
    assert_eq!(numbers.map(|number| format!("v{number}")), order);
    for text in [
        "",
        "v",
        "1.2",
        "1.2.3.4",
        "1.2.3-",
        "1.x.3",
        "master",
        "v1.30-latest",
    ] {
        assert!(text.parse::<Number>().is_err(), "{text}");
    }
}

#[test]
fn the_distance_is_counted_in_minor_releases() {
    let release = |name| resolve(name).unwrap();
    assert_eq!(release("v1.30.3").minors_ahead_of(release("v1.29.0")), 1);
    assert_eq!(
        release("v1.24.6").minors_ahead_of(release("v1.30-latest")),
        -6
    );
    assert_eq!(release("v1.30.3").minors_ahead_of(release("v1.30.0")), 0);
    assert_eq!(release("v1.30.3").tag(), "1.30.3");
    assert!(
        release("v1.30.3").number.is_at_least(1, 30)
            && !release("v1.30.3").number.is_at_least(1, 31)
    );
}
