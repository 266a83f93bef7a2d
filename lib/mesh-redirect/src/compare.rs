//! What a namespace should hold against what it holds.

use std::fmt;

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exactly what is wanted: the namespace is enrolled.
    Same,
    /// Nothing of the mesh is there.
    Absent,
    /// Something of the mesh is there, but not what is wanted. Applying again repairs it.
    Differs(Vec<Difference>),
}

/// One difference, in the words of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Wanted and not there.
    Missing(Item),
    /// There and not wanted. A rule in the wrong place is foreign in one and missing in the other.
    Foreign(Item),
}

/// A rule or chain and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Family, table and chain.
    pub place: String,
    /// The rule, or the words `table`, `chain`, `base chain`.
    pub what: String,
}

/// Collects differences while a listing is walked.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    differences: Vec<Difference>,
    found: bool,
}

// === impl Comparison ===

impl Comparison {
    pub(crate) fn missing(&mut self, place: &str, what: impl Into<String>) {
        let item = Item {
            place: place.into(),
            what: what.into(),
        };
        self.differences.push(Difference::Missing(item));
    }

    pub(crate) fn foreign(&mut self, place: &str, what: impl Into<String>) {
        self.found = true;
        let item = Item {
            place: place.into(),
            what: what.into(),
        };
        self.differences.push(Difference::Foreign(item));
    }

    /// Something of ours was there, as wanted.
    pub(crate) fn found(&mut self) {
        self.found = true;
    }

    /// Compares two ordered lists; each element comes with its text.
    pub(crate) fn sequence<T: PartialEq>(
        &mut self,
        place: &str,
        wanted: &[(T, String)],
        held: &[(T, String)],
    ) {
        let kept = common_subsequence(wanted, held);
        for (index, (_, text)) in wanted.iter().enumerate() {
            if !kept.iter().any(|(w, _)| *w == index) {
                self.missing(place, text);
            }
        }
        for (index, (_, text)) in held.iter().enumerate() {
            if !kept.iter().any(|(_, h)| *h == index) {
                self.foreign(place, text);
            }
        }
        self.found |= !kept.is_empty();
    }

    pub(crate) fn verdict(self) -> Verdict {
        match (self.differences.is_empty(), self.found) {
            (true, _) => Verdict::Same,
            (false, false) => Verdict::Absent,
            (false, true) => Verdict::Differs(self.differences),
        }
    }
}

/// The longest list that is in both, as pairs of indexes. Quadratic; chains hold some twenty rules.
fn common_subsequence<T: PartialEq>(
    left: &[(T, String)],
    right: &[(T, String)],
) -> Vec<(usize, usize)> {
    let mut longest = vec![vec![0_usize; right.len() + 1]; left.len() + 1];
    for l in (0..left.len()).rev() {
        for r in (0..right.len()).rev() {
            longest[l][r] = if left[l].0 == right[r].0 {
                longest[l + 1][r + 1] + 1
            } else {
                longest[l + 1][r].max(longest[l][r + 1])
            };
        }
    }
    let (mut l, mut r, mut pairs) = (0, 0, Vec::new());
    while l < left.len() && r < right.len() {
        if left[l].0 == right[r].0 {
            pairs.push((l, r));
            (l, r) = (l + 1, r + 1);
        } else if longest[l + 1][r] >= longest[l][r + 1] {
            l += 1;
        } else {
            r += 1;
        }
    }
    pairs
}

// === impl Difference ===

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, item) = match self {
            Self::Missing(item) => ("missing from", item),
            Self::Foreign(item) => ("foreign in", item),
        };
        write!(f, "{word} {}: {}", item.place, item.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<(char, String)> {
        text.chars().map(|c| (c, c.to_string())).collect()
    }

    fn verdict(wanted: &str, held: &str) -> Verdict {
        let mut comparison = Comparison::default();
        comparison.sequence("chain", &list(wanted), &list(held));
        comparison.verdict()
    }

    fn missing(what: &str) -> Difference {
        Difference::Missing(Item {
            place: "chain".into(),
            what: what.into(),
        })
    }

    fn foreign(what: &str) -> Difference {
        Difference::Foreign(Item {
            place: "chain".into(),
            what: what.into(),
        })
    }

    #[test]
    fn equal_lists_are_the_same() {
        assert_eq!(verdict("abc", "abc"), Verdict::Same);
    }

    #[test]
    fn nothing_held_is_absent_rather_than_different() {
        assert_eq!(verdict("abc", ""), Verdict::Absent);
    }

    #[test]
    fn order_counts() {
        assert_eq!(
            verdict("abc", "acb"),
            Verdict::Differs(vec![missing("b"), foreign("b")])
        );
    }

    #[test]
    fn strangers_and_gaps_are_named() {
        assert_eq!(
            verdict("abc", "axc"),
            Verdict::Differs(vec![missing("b"), foreign("x")])
        );
        let doubled = Verdict::Differs(vec![foreign("a")]);
        assert_eq!(verdict("ab", "aab"), doubled);
    }
}
