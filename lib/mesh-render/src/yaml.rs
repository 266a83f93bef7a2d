//! Objects as YAML: in an order that does not depend on how they were built, and such that readers of YAML
//! 1.1, as kubectl is one, and of YAML 1.2 find the same.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Keys that readers look for first, in their order; the others follow by name.
const FIRST: &[&str] = &["apiVersion", "kind", "metadata", "name", "namespace"];

/// A value as YAML. The same value gives the same bytes.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        scalar => {
            out.push_str(&one_line(scalar));
            out.push('\n');
        }
    }
    out
}

/// A value whose objects have their keys in the order of their names, however JSON's library keeps them.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter();
            Value::Object(
                entries
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn mapping(out: &mut String, map: &Map<String, Value>, indent: usize) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| {
        let first = FIRST.iter().position(|first| first == key);
        (first.unwrap_or(FIRST.len()), *key)
    });
    for (at, (key, value)) in entries.into_iter().enumerate() {
        if at > 0 {
            margin(out, indent);
        }
        out.push_str(&scalar(key));
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                margin(out, indent + 2);
                mapping(out, map, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                margin(out, indent);
                sequence(out, items, indent);
            }
            Value::String(text) if is_block(text) => block(out, text, indent + 2),
            other => {
                out.push(' ');
                out.push_str(&one_line(other));
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            margin(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(out, items, indent + 2),
            other => {
                out.push_str(&one_line(other));
                out.push('\n');
            }
        }
    }
}

fn margin(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A text as it stands if no reader can take it for something else, and in quotes otherwise.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Whether all readers take it for the text that it is. Rather no than yes: words that are numbers, truths
/// or times in some version of YAML begin with a digit, a sign or a dot, or are listed.
fn is_plain(text: &str) -> bool {
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let begins = |c: char| c.is_ascii_alphabetic() || c == '/' || c == '_';
    let inside = |c: char| c.is_ascii_alphanumeric() || "/_-.,()=@+ :".contains(c);
    text.starts_with(begins)
        && text.chars().all(inside)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// A text in the form of JSON, which is YAML too, with everything escaped that YAML does not print.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            '\u{a0}'..='\u{d7ff}' if !['\u{2028}', '\u{2029}'].contains(&c) => out.push(c),
            other => write_escape(&mut out, other),
        }
    }
    out.push('"');
    out
}

fn write_escape(out: &mut String, c: char) {
    // Writing to a text cannot fail.
    let _ = write!(out, "\\U{:08X}", u32::from(c));
}

/// Whether a text of several lines reads best, and safely, as a block.
fn is_block(text: &str) -> bool {
    let printable = |c: char| (' '..='~').contains(&c) || c == '\n';
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n'])
        && text.chars().all(printable)
        && text.lines().all(|line| !line.ends_with(' '))
}

fn block(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    let ends = text.len() - body.len();
    out.push_str(match ends {
        0 => " |-\n",
        1 => " |\n",
        _ => " |+\n",
    });
    for line in body.split('\n') {
        if !line.is_empty() {
            margin(out, indent);
            out.push_str(line);
        }
        out.push('\n');
    }
    out.extend(std::iter::repeat_n('\n', ends.saturating_sub(1)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_readers_look_for_comes_first() {
        let value = json!({"data": {"b": "1", "a": "yes", "mesh": "x: 1\ny:\n  - 2\n"},
            "metadata": {"labels": {}, "name": "x"}, "kind": "ConfigMap", "apiVersion": "v1",
            "rules": [{"verbs": ["get"], "apiGroups": [""]}, [1, [true]]]});
        let expected = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: x
  labels: {}
data:
  a: \"yes\"
  b: \"1\"
  mesh: |
    x: 1
    y:
      - 2
rules:
- apiGroups:
  - \"\"
  verbs:
  - get
- - 1
  - - true
";
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn texts_that_some_reader_takes_for_something_else_are_quoted() {
        for word in [
            "yes", "No", "on", "OFF", "y", "true", "Null", "~", "1e3", "0x1f", "1_0", "012", "",
            "-", ".5", "1:30", "a: b", "a:", "*a", "&a", "- a", "#a", "@a",
        ] {
            let written = text(&json!(word));
            assert!(written.starts_with('"'), "{written}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[a-z: \n-]{0,16}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let key = prop_oneof!["[a-zA-Z./-]{1,8}", ".{0,4}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(value in values()) {
            let written = text(&value);
            let read: Value = serde_yaml_ng::from_str(&written).unwrap();
            prop_assert_eq!(read, value, "{}", written);
        }
    }
}
