//! What holds for all objects and all writers.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    super::{fields::Set, managed::Managers},
    applied, object, try_apply, updated,
};

/// Specifications of the custom kind. Names and values are few, so that writers meet.
fn spec() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec!["p", "q", "r"]);
    let number = 0..3;
    let map = prop::collection::btree_map(text.clone(), text.clone(), 0..3);
    let item = (
        text.clone(),
        prop::option::of(number.clone()),
        prop::option::of(number.clone()),
    );
    let items = prop::collection::btree_map(text.clone(), item, 0..3).prop_map(|items| {
        let items = items.into_iter().map(|(name, (_, x, y))| {
            let mut item = json!({"name": name});
            for (name, value) in [("x", x), ("y", y)] {
                if let Some(value) = value {
                    item[name] = json!(value);
                }
            }
            item
        });
        Value::from(items.collect::<Vec<_>>())
    });
    let set = prop::collection::btree_set(text.clone(), 0..3);
    let parts = (
        prop::option::of(number.clone().prop_map(Value::from)),
        prop::option::of(map.clone().prop_map(|map| json!(map))),
        prop::option::of(map.clone().prop_map(|map| json!(map))),
        prop::option::of(set.prop_map(|set| json!(set))),
        prop::option::of(items),
        prop::option::of(prop::collection::vec(text, 0..3).prop_map(|list| json!(list))),
        prop::option::of(map.prop_map(|map| json!({"deep": map}))),
        prop::option::of((number.clone(), number).prop_map(|(x, y)| json!({"x": x, "y": y}))),
    );
    parts.prop_map(|(a, map, atomic, set, items, list, free, fields)| {
        let named = [
            ("a", a),
            ("map", map),
            ("atomicMap", atomic),
            ("set", set),
            ("items", items),
            ("list", list),
            ("free", free),
            ("struct", fields),
        ];
        let fields = named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(fields.collect())
    })
}

/// One write: by whom, by apply or not, forced or not, and what.
fn write() -> impl Strategy<Value = (usize, bool, bool, Value)> {
    (0..3_usize, any::<bool>(), any::<bool>(), spec())
}

const MANAGERS: [&str; 3] = ["one", "two", "three"];

fn run(writes: Vec<(usize, bool, bool, Value)>) -> Value {
    let mut live = object(&json!({}));
    for (manager, applies, force, spec) in writes {
        let manager = MANAGERS[manager];
        live = if applies {
            try_apply(Some(&live), manager, &spec, force).unwrap_or(live)
        } else {
            updated(&live, manager, &spec)
        };
    }
    live
}

/// Whether every field of `part` stands in `whole` with the same value; lists and free maps as wholes.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|whole| contains(whole, value))),
        (Value::Array(whole), Value::Array(part)) => part
            .iter()
            .all(|item| whole.iter().any(|whole| contains(whole, item))),
        _ => whole == part,
    }
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(writes in prop::collection::vec(write(), 0..5), spec in spec()) {
        let live = run(writes);
        let once = try_apply(Some(&live), "one", &spec, true).unwrap();
        let twice = applied(Some(&once), "one", &spec);
        prop_assert_eq!(&twice, &once);
        prop_assert!(contains(&once["spec"], &spec) || spec == json!({}), "{} lacks {}", once["spec"], spec);
    }

    #[test]
    fn any_history_leaves_owners_that_can_be_read(writes in prop::collection::vec(write(), 0..8)) {
        let live = run(writes);
        let managers = Managers::of(&live).unwrap();
        let mut again = live.clone();
        managers.write(&mut again);
        prop_assert_eq!(again, live);
    }

    #[test]
    fn managers_of_different_fields_do_not_meet(one in spec(), two in spec()) {
        let (mut mine, mut theirs) = (Map::new(), Map::new());
        for (index, name) in ["a", "map", "set", "items", "list", "free", "struct", "atomicMap"].into_iter().enumerate() {
            let (from, to) = if index % 2 == 0 { (&one, &mut mine) } else { (&two, &mut theirs) };
            if let Some(value) = from.get(name) {
                to.insert(name.to_owned(), value.clone());
            }
        }
        let (mine, theirs) = (Value::from(mine), Value::from(theirs));
        let first = applied(None, "one", &mine);
        let both = applied(Some(&first), "two", &theirs);
        prop_assert!(contains(&both["spec"], &mine) && contains(&both["spec"], &theirs));
        // And what the second leaves is what the first had.
        let left = applied(Some(&both), "two", &Value::Null);
        prop_assert_eq!(&left["spec"], &first["spec"]);
    }

    #[test]
    fn what_a_manager_leaves_goes_unless_another_holds_it(one in spec(), two in spec()) {
        let first = applied(None, "one", &one);
        let both = try_apply(Some(&first), "two", &two, true).unwrap();
        let left = applied(Some(&both), "one", &Value::Null);
        // Only what the second applied is left.
        prop_assert!(contains(&left["spec"], &two) || two == json!({}), "{} lacks {}", left["spec"], two);
        prop_assert!(contains(&two, &left["spec"]) || left.get("spec").is_none_or(|spec| *spec == json!({})),
            "{} has more than {}", left["spec"], two);
    }

    #[test]
    fn a_set_survives_being_written(writes in prop::collection::vec(write(), 1..6)) {
        let live = run(writes);
        for entry in live["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let set = Set::decode(&entry["fieldsV1"]).unwrap();
            prop_assert_eq!(Set::decode(&set.encode()).unwrap(), set);
        }
    }

    #[test]
    fn no_managed_fields_are_too_strange(fields in strange(), spec in spec()) {
        let mut live = object(&json!({"a": 1}));
        live["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "fieldsV1": fields}]);
        drop(try_apply(Some(&live), "m", &spec, true));
        let new = updated(&live, "other", &spec);
        prop_assert!(Managers::of(&new).is_ok());
    }

    #[test]
    fn sets_obey_the_laws_of_sets(one in strange(), two in strange()) {
        if let (Ok(one), Ok(two)) = (Set::decode(&one), Set::decode(&two)) {
            let mut union = one.clone();
            union.add(two.clone());
            prop_assert_eq!(&union.difference(&two), &one.difference(&two));
            prop_assert_eq!(&one.intersection(&union), &one);
            let mut parts = one.difference(&two);
            parts.add(one.intersection(&two));
            prop_assert_eq!(parts, one);
        }
    }
}

/// Something like `FieldsV1`.
fn strange() -> impl Strategy<Value = Value> {
    let names = [
        "f:spec",
        "f:a",
        "f:items",
        "k:{\"name\":\"p\"}",
        "k:{\"name\":\"q\",\"x\":1}",
        "v:\"p\"",
        "v:1",
        "i:0",
        ".",
        "f:",
        "k:[]",
        "k:{",
        "v:",
        "i:x",
        "nothing",
        "",
        "f:metadata",
        "f:x",
    ];
    let leaf = prop_oneof![9 => Just(json!({})), 1 => Just(Value::Null), 1 => Just(json!([]))];
    leaf.prop_recursive(5, 30, 5, move |inner| {
        prop::collection::btree_map(prop::sample::select(names.to_vec()), inner, 0..5).prop_map(
            |map| {
                map.into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            },
        )
    })
}
