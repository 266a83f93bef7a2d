//! What is measured, and how two measurements are compared.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// Figures by name, with the unit at the end of the name. Smaller is better in all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures(BTreeMap<String, f64>);

/// Several runs of one program.
#[derive(Clone, Debug, Default)]
struct Runs(Vec<Figures>);

/// How often to measure, and what to compare with.
#[derive(Debug, clap::Args)]
pub(crate) struct Repeat {
    /// How often to measure; the middle is shown.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// An earlier build of this program to compare with.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Print one run's figures as JSON.
    #[arg(long, hide = true)]
    pub(crate) json: bool,
}

// === impl Figures ===

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    pub(crate) fn time(&mut self, name: &str, time: Duration) {
        self.set(&format!("{name}, ms"), time.as_secs_f64() * 1e3);
    }

    /// As other processes of this program read them.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

// === impl Repeat ===

impl Repeat {
    /// Measures by the words of a command line, in turn with the baseline if there is one.
    pub(crate) fn table(&self, command: &str) -> anyhow::Result<String> {
        let this = std::env::current_exe()?;
        let (mut ours, mut theirs) = (Runs::default(), Runs::default());
        for _ in 0..self.runs.max(1) {
            ours.push(in_process_of_its_own(&this, command)?);
            if let Some(baseline) = &self.baseline {
                theirs.push(in_process_of_its_own(baseline, command)?);
            }
        }
        Ok(match self.baseline {
            Some(_) => ours.against(&theirs),
            None => ours.table(),
        })
    }
}

/// Memory of earlier runs must not be counted.
fn in_process_of_its_own(program: &Path, command: &str) -> anyhow::Result<Figures> {
    let output = Command::new(program)
        .args(command.split(' '))
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "`{} {command}` failed",
        program.display()
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

// === impl Runs ===

impl Runs {
    fn push(&mut self, figures: Figures) {
        self.0.push(figures);
    }

    /// The middle of what the runs say of one figure.
    fn median(&self, name: &str) -> Option<f64> {
        let values = self.0.iter().filter_map(|run| run.0.get(name).copied());
        median(values.collect())
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.0.first().into_iter().flat_map(|run| run.0.keys())
    }

    /// A table of medians.
    fn table(&self) -> String {
        let mut table = String::new();
        for name in self.names() {
            let value = self.median(name).unwrap_or(f64::NAN);
            // Writing to a String cannot fail.
            writeln!(table, "{name:<52} {value:>12.3}").ok();
        }
        table
    }

    /// A table of medians of two programs, with their ratio.
    fn against(&self, baseline: &Self) -> String {
        let mut table = format!(
            "{:<52} {:>12} {:>12} {:>7}\n",
            "", "this", "baseline", "ratio"
        );
        for name in self.names() {
            let this = self.median(name).unwrap_or(f64::NAN);
            let other = baseline.median(name).unwrap_or(f64::NAN);
            let ratio = this / other;
            writeln!(table, "{name:<52} {this:>12.3} {other:>12.3} {ratio:>7.2}").ok();
        }
        table
    }
}

/// The middle one, or the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len().is_multiple_of(2) {
        let lower = *values.get(middle.checked_sub(1)?)?;
        return Some(f64::midpoint(lower, upper));
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_of_medians() {
        let runs = |values: &[f64]| {
            let mut runs = Runs::default();
            for value in values {
                let mut figures = Figures::default();
                figures.set("size, MiB", *value);
                runs.push(figures);
            }
            runs
        };
        let table = runs(&[1.0, 9.0, 2.0]).against(&runs(&[4.0, 4.0, 4.0]));
        assert!(table.lines().nth(1).unwrap().ends_with("0.50"), "{table}");
    }
}
