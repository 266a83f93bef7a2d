//! The output of `iptables-save`, as far as a plan needs it.

use super::is_own_chain;

/// What `iptables-save` (or `ip6tables-save`) printed: every table, chain and rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    tables: Vec<SavedTable>,
}

/// What was printed is not the output of `iptables-save`, or is cut off. Planning on it could double
/// rules or leave some behind, so nothing is planned. Running the program again may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The line is none that `iptables-save` prints, or is not inside a table.
    #[error("read the output of iptables-save: line {line} is not understood: `{text}`")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Its first 100 characters.
        text: String,
    },
    /// The output ends within a table.
    #[error("read the output of iptables-save: table `{table}` is cut off before COMMIT")]
    Truncated {
        /// The last table.
        table: String,
    },
}

/// Passes on, line by line, what a plan needs of the output of `iptables-save`: of rules of others only
/// those that lead to ours, and of both no more than a thousand in each table. What is cut off is more than we
/// ever write, so that the plan is to make our chains anew in any case.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    rules: usize,
    jumps: usize,
}

/// Most rules in our chains of a table, and most that lead there, of which a plan is made. A pod with 64 virtual
/// interfaces has some 150 of ours.
pub(super) const LIMIT: usize = 1000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SavedTable {
    pub(super) name: String,
    pub(super) chains: Vec<String>,
    pub(super) rules: Vec<SavedRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedRule {
    pub(super) chain: String,
    /// All after the chain's name, as it was printed: a rule is deleted by the words it was saved with.
    pub(super) spec: String,
}

// === impl Saved ===

impl Saved {
    /// Reads the output of `iptables-save`, with or without counters. Empty output is a namespace in
    /// which nothing was ever set.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut tables = Vec::new();
        let mut open: Option<SavedTable> = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let understood = match (line, &mut open) {
                ("COMMIT", current) => current.take().map(|table| tables.push(table)).is_some(),
                (line, None) => line.strip_prefix('*').is_some_and(|name| {
                    let name = name.trim().to_owned();
                    open = Some(SavedTable {
                        name,
                        ..SavedTable::default()
                    });
                    true
                }),
                (line, Some(table)) => table.add(line),
            };
            if !understood {
                return Err(Error::Line {
                    line: index + 1,
                    text: line.chars().take(100).collect(),
                });
            }
        }
        match open {
            Some(table) => Err(Error::Truncated { table: table.name }),
            None => Ok(Self { tables }),
        }
    }

    pub(super) fn table(&self, name: &str) -> Option<&SavedTable> {
        self.tables.iter().find(|table| table.name == name)
    }
}

// === impl Sieve ===

impl Sieve {
    /// Whether a plan needs this line.
    pub fn keeps(&mut self, line: &str) -> bool {
        let line = line.trim();
        if let Some(chain) = line.strip_prefix(':') {
            return chain.split_whitespace().next().is_some_and(is_own_chain);
        }
        let Some((chain, spec)) = rule(line) else {
            if line.starts_with('*') {
                *self = Self::default();
            }
            // What is not understood has to be refused.
            return !line.starts_with('#');
        };
        let count = if is_own_chain(chain) {
            &mut self.rules
        } else if target(spec).is_some_and(is_own_chain) {
            &mut self.jumps
        } else {
            return false;
        };
        *count += 1;
        *count <= LIMIT
    }
}

// === impl SavedTable ===

impl SavedTable {
    fn add(&mut self, line: &str) -> bool {
        if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split_whitespace().next();
            self.chains.extend(name.map(str::to_owned));
            return name.is_some();
        }
        let Some((chain, spec)) = rule(line) else {
            return false;
        };
        self.rules.push(SavedRule {
            chain: chain.to_owned(),
            spec: spec.to_owned(),
        });
        true
    }
}

/// The chain of a rule, and what is said of the rule, without what it has counted.
fn rule(line: &str) -> Option<(&str, &str)> {
    let counted = line.strip_prefix('[');
    let rule = counted.and_then(|counted| counted.split_once("] "));
    let rule = rule.map_or(line, |(_, rule)| rule).strip_prefix("-A ")?;
    Some(rule.split_once(' ').unwrap_or((rule, "")))
}

/// The words of a rule. A quoted word may hold blanks; it is of no interest what it says, only that it is one
/// word.
fn words(spec: &str) -> impl Iterator<Item = &str> {
    let mut rest = spec.trim_start();
    std::iter::from_fn(move || {
        let (word, after) = (!rest.is_empty()).then(|| split_word(rest))?;
        rest = after.trim_start();
        Some(word)
    })
}

/// The chain or target to which a rule leads.
fn target(spec: &str) -> Option<&str> {
    let mut words = words(spec);
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}

// === impl SavedRule ===

impl SavedRule {
    pub(super) fn words(&self) -> Vec<&str> {
        words(&self.spec).collect()
    }

    pub(super) fn target(&self) -> Option<&str> {
        target(&self.spec)
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return text.split_at(index),
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-MARK - [0:0]
[12:720] -A PREROUTING -m comment --comment "not -j ISTIO_PRERT \" really" -j KUBE-MARK
-A KUBE-MARK
COMMIT
# Completed
"#;

    #[test]
    fn quoted_text_is_one_word_and_no_target() {
        let saved = Saved::parse(SAVED).unwrap();
        let rules = &saved.table("nat").unwrap().rules;
        assert_eq!(rules[0].chain, "PREROUTING");
        assert_eq!(rules[0].target(), Some("KUBE-MARK"));
        assert_eq!(rules[0].words().len(), 6);
        assert_eq!(
            rules[1],
            SavedRule {
                chain: "KUBE-MARK".into(),
                spec: String::new()
            }
        );
    }

    #[test]
    fn rules_of_others_are_sieved_out_and_the_plan_is_the_same() {
        let jump = "-A OWN -p tcp -j ISTIO_PRERT\n";
        let whole = SAVED.replace(
            "COMMIT",
            &format!(":ISTIO_PRERT - [0:0]\n{jump}[1:2] -A ISTIO_PRERT -j RETURN\nCOMMIT"),
        );
        let mut sieve = Sieve::default();
        let kept: Vec<_> = whole.lines().filter(|line| sieve.keeps(line)).collect();
        assert_eq!(kept.len(), 5, "{kept:?}");
        let kept = kept.join("\n");
        let [whole, kept] = [&whole, &kept].map(|text| Saved::parse(text).unwrap());
        assert_eq!(super::super::remove(&kept), super::super::remove(&whole));
        assert!(sieve.keeps("iptables: command not found"));
    }

    #[test]
    fn more_than_we_ever_write_is_cut_off_and_chains_that_are_jumped_to_stay() {
        let mut sieve = Sieve::default();
        let rules = "-A ISTIO_PRERT -j RETURN\n".repeat(20_000);
        let jumps = "-A OWN -j ISTIO_PRERT\n".repeat(20_000);
        let whole = format!("*nat\n:ISTIO_PRERT - [0:0]\n{rules}{jumps}COMMIT\n");
        let kept: Vec<_> = whole.lines().filter(|line| sieve.keeps(line)).collect();
        assert_eq!(kept.len(), 3 + 2 * LIMIT);
        let plan = super::super::remove(&Saved::parse(&kept.join("\n")).unwrap());
        assert!(plan.contains("-F ISTIO_PRERT") && !plan.contains("-X"));
    }

    #[test]
    fn what_only_speaks_of_our_chains_hides_no_jump_and_tables_are_counted_apart() {
        let spoken = "-A OWN -m comment --comment \"-j ISTIO_PRERT\" -j RETURN\n".repeat(2 * LIMIT);
        let jumps = "-A OWN -j ISTIO_PRERT\n".repeat(LIMIT * 2 / 3);
        let table = |name| format!("*{name}\n:ISTIO_PRERT - [0:0]\n{spoken}{jumps}COMMIT\n");
        let whole = ["mangle", "nat"].map(table).concat();
        let mut sieve = Sieve::default();
        let kept: Vec<_> = whole.lines().filter(|line| sieve.keeps(line)).collect();
        let kept = Saved::parse(&kept.join("\n")).unwrap();
        let whole = Saved::parse(&whole).unwrap();
        assert_eq!(super::super::remove(&kept), super::super::remove(&whole));
    }

    #[test]
    fn output_cut_off_is_refused() {
        let (cut, _) = SAVED.split_once("COMMIT").unwrap();
        assert_eq!(
            Saved::parse(cut),
            Err(Error::Truncated {
                table: "nat".into()
            })
        );
    }

    #[test]
    fn other_text_is_refused_with_its_line() {
        let refused = Saved::parse("*nat\niptables: command not found\nCOMMIT\n");
        let text = "iptables: command not found".to_owned();
        assert_eq!(refused, Err(Error::Line { line: 2, text }));
        assert!(Saved::parse("-A PREROUTING -j ACCEPT\n").is_err());
    }

    #[test]
    fn nothing_saved_is_an_empty_namespace() {
        assert_eq!(Saved::parse(""), Ok(Saved::default()));
    }
}
