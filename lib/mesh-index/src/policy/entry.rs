//! One entry of a rule, put together attribute by attribute.

use mesh_api::security::MAX_VALUES;
use mesh_core::policy::{Clause, Match};
use serde_json::{Map, Value};

use super::{Finding, Leaning, Problem, quote, value};

/// What a part of a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term<T> {
    /// No connection.
    Never,
    /// Every connection.
    Always,
    /// Some.
    Some(T),
}

/// Attributes that must all agree.
///
/// A list that states nothing is not in the match; a match without any list would match nothing on the
/// wire, so that case is a [`Term`] of its own.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The path of the object that holds the attributes.
    path: &'a str,
    leaning: Leaning,
    matched: Match,
    never: bool,
    stated: bool,
    findings: &'a mut Vec<Finding>,
}

/// One list of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    /// The name of the field.
    name: &'a str,
    /// What it holds, if it is there.
    values: Option<&'a [String]>,
    /// Whether none of the values may match, rather than one must.
    negated: bool,
}

/// The clause of entries of which any may match.
pub(super) fn any_of(entries: impl IntoIterator<Item = Term<Match>>) -> Term<Clause> {
    let mut matches = Vec::new();
    for entry in entries {
        match entry {
            Term::Never => {}
            Term::Always => return Term::Always,
            Term::Some(matched) => matches.push(matched),
        }
    }
    if matches.is_empty() {
        Term::Never
    } else {
        Term::Some(Clause { matches })
    }
}

// === impl Term ===

impl<T> Term<T> {
    /// What is taken for something that is unclear.
    pub(super) fn unclear(leaning: Leaning) -> Self {
        match leaning {
            Leaning::Narrow => Self::Never,
            Leaning::Wide => Self::Always,
        }
    }
}

// === impl List ===

impl<'a> List<'a> {
    /// A list of which one value must match.
    pub(super) fn one_of(name: &'a str, values: Option<&'a [String]>) -> Self {
        Self {
            name,
            values,
            negated: false,
        }
    }

    /// A list of which no value may match.
    pub(super) fn none_of(name: &'a str, values: Option<&'a [String]>) -> Self {
        Self {
            negated: true,
            ..Self::one_of(name, values)
        }
    }
}

// === impl Entry ===

impl<'a> Entry<'a> {
    pub(super) fn new(path: &'a str, leaning: Leaning, findings: &'a mut Vec<Finding>) -> Self {
        Self {
            path,
            leaning,
            matched: Match::default(),
            never: false,
            stated: false,
            findings,
        }
    }

    /// Adds a list that ztunnel can check to the slot of the match that it belongs to.
    pub(super) fn add<T>(
        &mut self,
        list: List<'_>,
        parse: impl Fn(&str) -> Result<Vec<T>, value::Error>,
        slot: impl FnOnce(&mut Match) -> &mut Vec<T>,
    ) {
        let Some(values) = list.values else { return };
        self.stated = true;
        match self.read(list, values, parse) {
            Term::Never => self.never = true,
            Term::Always => {}
            Term::Some(values) => *slot(&mut self.matched) = values,
        }
    }

    /// Notes those of the attributes that are stated. ztunnel cannot check them.
    pub(super) fn add_beyond(&mut self, attributes: &[(&str, &Option<Vec<String>>)]) {
        for (name, _) in attributes.iter().filter(|(_, values)| values.is_some()) {
            self.add_unsupported(name, Problem::NeedsWaypoint);
        }
    }

    /// Notes attributes of a newer version, and misspelt ones.
    pub(super) fn add_unknown(&mut self, fields: &Map<String, Value>) {
        for name in fields.keys() {
            self.add_unsupported(&quote(name), Problem::UnknownField);
        }
    }

    /// Notes an attribute that cannot be checked.
    pub(super) fn add_unsupported(&mut self, name: &str, problem: Problem) {
        self.stated = true;
        self.never |= self.leaning == Leaning::Narrow;
        let field = format!("{}.{name}", self.path);
        self.findings.push(Finding::new(field, problem));
    }

    /// What the entry matches. One without any attribute says nothing, and what it was to say is
    /// unknown: Istio refuses it too.
    pub(super) fn finish(self) -> Term<Match> {
        if !self.stated {
            self.findings.push(Finding::new(self.path, Problem::Empty));
            return Term::unclear(self.leaning);
        }
        if self.never {
            Term::Never
        } else if self.matched == Match::default() {
            Term::Always
        } else {
            Term::Some(self.matched)
        }
    }

    /// The values of a list. A malformed one is as if it matched nothing or everything, whichever
    /// makes the entry err in its direction; behind `not` that is the other way round.
    fn read<T>(
        &mut self,
        list: List<'_>,
        values: &[String],
        parse: impl Fn(&str) -> Result<Vec<T>, value::Error>,
    ) -> Term<Vec<T>> {
        let field = || format!("{}.{}", self.path, list.name);
        if values.is_empty() {
            self.findings.push(Finding::new(field(), Problem::Empty));
            return Term::unclear(self.leaning);
        }
        if let Some(problem) = Problem::too_many(values.len(), MAX_VALUES) {
            self.findings.push(Finding::new(field(), problem));
            return Term::unclear(self.leaning);
        }
        let mut parsed = Vec::with_capacity(values.len());
        let mut malformed = false;
        for (i, value) in values.iter().enumerate() {
            match parse(value) {
                Ok(some) => parsed.extend(some),
                Err(error) => {
                    malformed = true;
                    let field = format!("{}[{i}]", field());
                    self.findings.push(Finding::new(field, error));
                }
            }
        }
        let skippable = (self.leaning == Leaning::Narrow) != list.negated;
        if malformed && (!skippable || parsed.is_empty()) {
            return Term::unclear(self.leaning);
        }
        Term::Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_that_cannot_be_checked_errs_in_the_direction_of_the_action() {
        for (leaning, expected) in [
            (Leaning::Narrow, Term::Never),
            (Leaning::Wide, Term::Always),
        ] {
            let mut findings = Vec::new();
            let mut entry = Entry::new("source", leaning, &mut findings);
            entry.add_beyond(&[("paths", &Some(Vec::new())), ("hosts", &None)]);
            assert_eq!(entry.finish(), expected);
            let expected = Finding::new("source.paths", Problem::NeedsWaypoint);
            assert_eq!(findings, [expected]);
        }
    }
}
