//! What the demo prints: steps in plain words, and the table of what was verified.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use anyhow::Context as _;

/// The checks so far, printed as they are made.
#[derive(Debug, Default)]
pub struct Report {
    checks: Vec<Check>,
    steps: usize,
    unread: Option<io::Error>,
    kept: bool,
}

#[derive(Debug)]
struct Check {
    what: String,
    holds: bool,
}

// === impl Report ===

impl Report {
    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        self.say(&format!("\n{}. {title}", self.steps));
    }

    /// Notes that all was shown that should be before somebody ends the demo.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Whether to end it now is no interruption.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Shows something that was done or seen, indented; long lines stay whole, to be copied.
    pub fn show(&mut self, text: impl fmt::Display) {
        for line in text.to_string().lines() {
            self.say(&format!("   {line}"));
        }
    }

    /// Notes whether a promise holds. One that does not ends the demo, with `evidence`; so does a reader
    /// who has gone, as in `lab demo | head`.
    pub fn check(
        &mut self,
        what: &str,
        holds: bool,
        evidence: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        self.checks.push(Check {
            what: what.to_owned(),
            holds,
        });
        self.say(&format!("   {} {what}", sign(holds)));
        anyhow::ensure!(holds, "this does not hold: {what}\n{}", evidence());
        match self.unread.take() {
            Some(error) => Err(error).context("write to standard output"),
            None => Ok(()),
        }
    }

    /// Prints a line of the demo.
    pub fn say(&mut self, line: &str) {
        let written = writeln!(io::stdout(), "{line}");
        self.unread = self.unread.take().or_else(|| written.err());
    }

    /// How many checks were made.
    pub fn len(&self) -> usize {
        self.checks.len()
    }

    /// Whether no check was made.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .checks
            .iter()
            .map(|check| check.what.chars().count())
            .max();
        let rule = "─".repeat(width.unwrap_or(0) + 7);
        let mut table = format!("{rule}\n");
        for check in &self.checks {
            let padding = width.unwrap_or(0) - check.what.chars().count();
            let verdict = if check.holds { "holds" } else { "FAILS" };
            writeln!(table, "{}{}  {verdict}", check.what, " ".repeat(padding))?;
        }
        write!(f, "{table}{rule}")
    }
}

fn sign(holds: bool) -> char {
    if holds { '✓' } else { '✗' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_ends_the_demo_with_its_evidence_and_stays_in_the_table() {
        let mut report = Report::default();
        report.check("water is wet", true, String::new).unwrap();
        let failed = report
            .check("fire is cold", false, || "it burns".to_owned())
            .unwrap_err();
        assert_eq!(
            failed.to_string(),
            "this does not hold: fire is cold\nit burns"
        );
        let table = report.to_string();
        assert!(table.contains("water is wet  holds"), "{table}");
        assert!(table.contains("fire is cold  FAILS"), "{table}");
    }
}
