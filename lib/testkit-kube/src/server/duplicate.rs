//! Keys that JSON has twice: the last one counts, which is rarely what its writer wanted.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The paths of the keys that come a second time in the same object. Empty when the text is no JSON,
/// which others complain about.
pub(super) fn find(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let walk = Walk {
        path: String::new(),
        found: &mut found,
    };
    let mut text = serde_json::Deserializer::from_slice(json);
    match walk.deserialize(&mut text) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

/// Goes through one value.
struct Walk<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = match self.path.as_str() {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            if !seen.insert(key) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Walk {
                path,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        let mut next = |index: usize, found: &mut Vec<String>| {
            let path = format!("{}[{index}]", self.path);
            list.next_element_seed(Walk { path, found })
        };
        while next(index, &mut *self.found)?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_key_is_found_where_it_is() {
        let json = br#"{"a":{"x":1,"x":2},"l":[{"y":null},{"y":"","y":1.5}],"a":true}"#;
        assert_eq!(find(json), ["a.x", "l[1].y", "a"]);
    }

    #[test]
    fn the_same_key_elsewhere_is_another() {
        assert_eq!(find(br#"{"a":{"a":{}},"b":[{"a":1},{"a":2}]}"#), [""; 0]);
        assert_eq!(find(b"{\"a\":1,\"a\""), [""; 0]);
    }
}
