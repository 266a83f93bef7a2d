//! The subset of kubectl's JSONPath that printer columns use: fields, quoted fields, indexes, `[*]` and
//! filters that compare a field with a text, as in `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where {
        path: Path,
        value: String,
        equal: bool,
    },
}

// === impl Path ===

impl Path {
    /// Reads a path; `None` when it is beyond the subset, which shows as an empty cell.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text
            .strip_prefix('{')
            .and_then(|it| it.strip_suffix('}'))
            .unwrap_or(text);
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() {
            if let Some(bracket) = rest.strip_prefix('[') {
                let (inner, after) = bracket.split_at_checked(closing(bracket)?)?;
                steps.push(bracketed(inner)?);
                rest = after.strip_prefix(']')?;
                continue;
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let (field, after) = field(rest);
            if field.is_empty() {
                // `.[0]` is an index.
                if !rest.starts_with('[') {
                    return None;
                }
            } else {
                steps.push(if field == "*" {
                    Step::All
                } else {
                    Step::Field(field)
                });
            }
            rest = after;
        }
        Some(Self(steps))
    }

    /// All values that the path leads to.
    pub(super) fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![object], |found, step| {
            found
                .into_iter()
                .flat_map(|value| step.take(value))
                .collect()
        })
    }
}

// === impl Step ===

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let items = || value.as_array().map(Vec::as_slice).unwrap_or_default();
        match self {
            Self::Field(name) => {
                let field = value.get(name).filter(|field| !field.is_null());
                field.into_iter().collect()
            }
            Self::Index(index) => {
                let length = i64::try_from(items().len()).unwrap_or_default();
                let index = if *index < 0 { length + index } else { *index };
                let index = usize::try_from(index).ok();
                index
                    .and_then(|index| items().get(index))
                    .into_iter()
                    .collect()
            }
            Self::All => match value {
                Value::Object(fields) => fields.values().collect(),
                _ => items().iter().collect(),
            },
            Self::Where { path, value, equal } => items()
                .iter()
                .filter(|item| {
                    let found = path.find(item);
                    found
                        .first()
                        .is_some_and(|found| (super::plain(found) == *value) == *equal)
                })
                .collect(),
        }
    }
}

/// Where the bracket that has been opened is closed, quotes and inner brackets aside.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (place, letter) in text.char_indices() {
        if let Some(open) = quote {
            quote = (open != letter).then_some(open);
            continue;
        }
        match letter {
            '\'' | '"' => quote = Some(letter),
            '[' => depth += 1,
            ']' if depth == 0 => return Some(place),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracketed(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|it| it.strip_suffix(')')) {
        let (path, value, equal) = if let Some((path, value)) = filter.split_once("==") {
            (path, value, true)
        } else {
            let (path, value) = filter.split_once("!=")?;
            (path, value, false)
        };
        return Some(Step::Where {
            path: Path::parse(path.trim().strip_prefix('@')?)?,
            value: value.trim().trim_matches(['"', '\'']).to_owned(),
            equal,
        });
    }
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(name) = quoted('\'').or_else(|| quoted('"')) {
        return Some(Step::Field(name.to_owned()));
    }
    text.parse().ok().map(Step::Index)
}

/// A field up to the next dot or bracket; a backslash takes the letter after it as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, text.get(place..).unwrap_or_default()),
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            _ => name.push(letter),
        }
    }
    (name, "")
}
