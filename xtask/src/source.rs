//! What can be told of a Rust source file from its tokens.

use std::ops::RangeInclusive;

use anyhow::anyhow;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Facts about one file. Lines count from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Number of lines.
    pub lines: usize,
    /// Whether the file begins with a `//!` comment.
    pub documented: bool,
    /// The inline modules under `#[cfg(test)]`.
    pub test_modules: Vec<RangeInclusive<usize>>,
    /// The names of the functions that are tests.
    pub tests: Vec<String>,
    /// Where a test is ignored.
    pub ignored: Vec<usize>,
    /// Where the word `unsafe` stands.
    pub unsafe_code: Vec<usize>,
    /// Where a macro stands in for code to be written.
    pub placeholders: Vec<usize>,
    /// All identifiers, for looking up what is mentioned at all.
    pub identifiers: std::collections::BTreeSet<String>,
}

/// What has been read of an item, until its body or its end.
#[derive(Debug, Default)]
struct Item {
    is_test: bool,
    cfg_test: Option<usize>,
    is_module: bool,
}

/// Reads the facts of a source text.
pub fn facts(text: &str) -> anyhow::Result<Facts> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    let mut facts = Facts {
        lines: text.lines().count(),
        documented: is_documented(text),
        ..Facts::default()
    };
    facts.walk(tokens);
    Ok(facts)
}

/// Attributes of the file may stand before its comment.
fn is_documented(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//!"))
}

// === impl Facts ===

impl Facts {
    /// Lines outside of inline test modules.
    pub fn program_lines(&self) -> usize {
        let tests: usize = self
            .test_modules
            .iter()
            .map(|lines| lines.clone().count())
            .sum();
        self.lines - tests
    }

    fn walk(&mut self, tokens: TokenStream) {
        let mut item = Item::default();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.peek()
                        && attribute.delimiter() == Delimiter::Bracket
                    {
                        self.attribute(&mut item, attribute);
                    }
                }
                TokenTree::Punct(mark) if mark.as_char() == ';' => item = Item::default(),
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    let next = tokens.peek().map(ToString::to_string);
                    self.word(&mut item, &word.to_string(), line, next.as_deref());
                }
                TokenTree::Group(group) => {
                    if group.delimiter() == Delimiter::Brace {
                        self.end_of_item(&item, &group);
                        item = Item::default();
                    }
                    self.walk(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn word(&mut self, item: &mut Item, word: &str, line: usize, next: Option<&str>) {
        match (word, next) {
            ("unsafe", _) => self.unsafe_code.push(line),
            ("todo" | "unimplemented", Some("!")) => self.placeholders.push(line),
            ("mod", _) => item.is_module = true,
            ("fn", Some(name)) if item.is_test => self.tests.push(name.to_owned()),
            _ => {}
        }
        self.identifiers.insert(word.to_owned());
    }

    fn attribute(&mut self, item: &mut Item, attribute: &Group) {
        let line = attribute.span_open().start().line;
        let text: String = attribute
            .stream()
            .into_iter()
            .map(|token| token.to_string())
            .collect();
        let path = text.split('(').next().unwrap_or_default();
        match path {
            "test" => item.is_test = true,
            "ignore" => self.ignored.push(line),
            path if path.starts_with("ignore=") => self.ignored.push(line),
            path if path.ends_with("::test") => item.is_test = true,
            _ if text == "cfg(test)" => item.cfg_test = Some(line),
            _ => {}
        }
    }

    fn end_of_item(&mut self, item: &Item, body: &Group) {
        if let (Some(start), true) = (item.cfg_test, item.is_module) {
            self.test_modules.push(start..=body.span_close().end().line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"//! Says "unsafe" and todo!() in comments.

/// unsafe
fn plain() { let _ = "unsafe todo!()"; }

#[cfg(test)]
mod sibling;

#[cfg(test)]
mod tests {
    #[test]
    fn first() { todo!() }

    proptest! {
        #[test]
        fn second(x in 0..3) {}
    }

    #[tokio::test(start_paused = true)]
    #[ignore = "slow"]
    async fn third() {}

    fn helper() { unsafe { plain() } }
}

fn last() {}
"#;

    #[test]
    fn facts_come_from_tokens_and_not_from_text() {
        let facts = facts(SOURCE).unwrap();
        assert!(facts.documented);
        assert_eq!(facts.lines, 26);
        assert_eq!(facts.test_modules, [9..=24]);
        assert_eq!(facts.program_lines(), 10);
        assert_eq!(facts.tests, ["first", "second", "third"]);
        assert_eq!(facts.ignored, [20]);
        assert_eq!(facts.unsafe_code, [23]);
        assert_eq!(facts.placeholders, [12]);
        assert!(facts.identifiers.contains("helper"));
    }

    #[test]
    fn a_comment_may_follow_the_attributes_of_the_file() {
        assert!(facts("#![no_main]\n\n//! Doc.\n").unwrap().documented);
        assert!(
            !facts("#![no_main]\nfn f() {}\n//! Doc.\n")
                .unwrap_or_default()
                .documented
        );
    }

    #[test]
    fn what_is_not_rust_is_an_error() {
        assert!(facts("fn (").is_err());
    }
}
