//! Errors in one line.

use std::{error::Error, fmt, iter};

/// Prints an error followed by its sources, `what we did: what went wrong: why`.
///
/// Our messages never repeat their source, other people's sometimes do: a source whose text already
/// ends what stands before it is left out. Recorded as a tracing field through `&dyn Error`, an error is
/// printed like this as well.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

/// Longest chain that is printed. More would be a loop or of no use to the reader.
const MAX_DEPTH: usize = 16;

struct Chain<'a>(&'a (dyn Error + 'static));

// === impl Chain ===

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = self.0.to_string();
        f.write_str(&printed)?;
        let sources = iter::successors(self.0.source(), |error| (*error).source());
        for source in sources.take(MAX_DEPTH) {
            let text = source.to_string();
            if !printed.ends_with(&text) {
                write!(f, ": {text}")?;
                printed = text;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        source: Option<Box<Self>>,
    }

    fn mk_chain(texts: &[&'static str]) -> Link {
        let mut texts = texts.iter().rev();
        let last = Link {
            text: texts.next().unwrap(),
            source: None,
        };
        texts.fold(last, |source, text| Link {
            text,
            source: Some(Box::new(source)),
        })
    }

    #[test]
    fn sources_follow_their_error() {
        let error = mk_chain(&["cannot open the door", "key lost", "hole in pocket"]);
        assert_eq!(
            chain(&error).to_string(),
            "cannot open the door: key lost: hole in pocket"
        );
    }

    #[test]
    fn a_source_that_was_already_printed_is_not_repeated() {
        let error = mk_chain(&["cannot open: key lost", "key lost", "hole in pocket"]);
        assert_eq!(
            chain(&error).to_string(),
            "cannot open: key lost: hole in pocket"
        );
    }
}
