//! Both backends in one shape, for callers that run the programs.

use std::{fmt, str::FromStr};

use crate::{
    compare::{Comparison, Verdict},
    iptables::{self, Saved},
    model::RuleSet,
    nftables,
    options::Family,
};

/// What puts the rules into the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `nft`: one transaction for everything.
    #[default]
    Nftables,
    /// `iptables-restore`: one transaction per family and table. For kernels without nf_tables, and for
    /// pods whose network namespace others manage with iptables.
    Iptables,
}

/// A program run that the caller performs inside the pod's network namespace. Any exit status but zero
/// is a failure, and then nothing of its input has been applied (iptables: nothing of the failing table
/// and those after it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Its standard input.
    pub input: String,
}

/// A program with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Applies an nftables script.
    Nft,
    /// Lists what nftables holds.
    NftList,
    /// Applies rules of one family.
    IptablesRestore(Family),
    /// Lists the rules of one family.
    IptablesSave(Family),
}

/// What a listing program printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which of [`Backend::listing`] it was.
    pub program: Program,
    /// Its standard output.
    pub output: String,
}

/// A listing that no plan can be made from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of [`Backend::listing`] was not run. The caller is at fault.
    #[error("plan without the output of {0}")]
    NotListed(Program),
    /// nft's listing.
    #[error("plan from the output of nft")]
    Nftables(#[from] nftables::Error),
    /// A listing of iptables.
    #[error("plan from the output of iptables-save")]
    Iptables(#[from] iptables::Error),
}

/// No backend has this name; whoever configures the agent has to correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no backend; known are nftables and iptables")]
pub struct UnknownBackend(pub String);

// === impl Backend ===

impl Backend {
    /// What to run, without input, to learn what a namespace holds.
    ///
    /// Where a host has no IPv6, `ip6tables-save` fails; it may be left out for rules of IPv4 alone.
    pub fn listing(self) -> &'static [Program] {
        match self {
            Self::Nftables => &[Program::NftList],
            Self::Iptables => &[
                Program::IptablesSave(Family::V4),
                Program::IptablesSave(Family::V6),
            ],
        }
    }

    /// What to run to make a namespace hold exactly these rules of ours. nftables needs no listing for
    /// it.
    pub fn apply(self, rules: &RuleSet, listed: &[Listed]) -> Result<Vec<Command>, Error> {
        match self {
            Self::Nftables => Ok(vec![Program::Nft.with(nftables::apply(rules))]),
            Self::Iptables => {
                if let Some(family) = rules
                    .families()
                    .iter()
                    .find(|f| output(listed, *f).is_none())
                {
                    return Err(Error::NotListed(Program::IptablesSave(family)));
                }
                restore(listed, |family, saved| {
                    iptables::apply(rules, family, saved)
                })
            }
        }
    }

    /// What to run to remove every trace. Harmless where there is none. nftables needs no listing for
    /// it; iptables removes from the families that were listed.
    pub fn remove(self, listed: &[Listed]) -> Result<Vec<Command>, Error> {
        match self {
            Self::Nftables => Ok(vec![Program::Nft.with(nftables::remove())]),
            Self::Iptables => restore(listed, |_, saved| iptables::remove(saved)),
        }
    }

    /// Whether a namespace holds these rules.
    pub fn compare(self, rules: &RuleSet, listed: &[Listed]) -> Result<Verdict, Error> {
        match self {
            Self::Nftables => {
                let found = listed.iter().find(|l| l.program == Program::NftList);
                let listing = found.ok_or(Error::NotListed(Program::NftList))?;
                Ok(nftables::compare(rules, &listing.output)?)
            }
            Self::Iptables => {
                let mut both = Comparison::default();
                for family in Family::ALL {
                    match output(listed, family) {
                        Some(output) => {
                            iptables::compare_into(
                                &mut both,
                                rules,
                                family,
                                &Saved::parse(output)?,
                            );
                        }
                        None if rules.families().contains(family) => {
                            return Err(Error::NotListed(Program::IptablesSave(family)));
                        }
                        None => {}
                    }
                }
                Ok(both.verdict())
            }
        }
    }
}

/// One restore for each listed family in which there is something to do.
fn restore(
    listed: &[Listed],
    plan: impl Fn(Family, &Saved) -> String,
) -> Result<Vec<Command>, Error> {
    let mut commands = Vec::new();
    for family in Family::ALL {
        if let Some(output) = output(listed, family) {
            let input = plan(family, &Saved::parse(output)?);
            if !input.is_empty() {
                commands.push(Program::IptablesRestore(family).with(input));
            }
        }
    }
    Ok(commands)
}

fn output(listed: &[Listed], family: Family) -> Option<&str> {
    let program = Program::IptablesSave(family);
    listed
        .iter()
        .find(|l| l.program == program)
        .map(|l| l.output.as_str())
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            other => Err(UnknownBackend(other.to_owned())),
        }
    }
}

// === impl Program ===

impl Program {
    /// The file name, to be looked up in `PATH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft | Self::NftList => "nft",
            Self::IptablesRestore(Family::V4) => "iptables-restore",
            Self::IptablesRestore(Family::V6) => "ip6tables-restore",
            Self::IptablesSave(Family::V4) => "iptables-save",
            Self::IptablesSave(Family::V6) => "ip6tables-save",
        }
    }

    /// The arguments.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Nft => &["-f", "-"],
            Self::NftList => &["--json", "list", "ruleset"],
            // Seconds to wait for the lock that legacy iptables takes, whichever namespace it is in.
            Self::IptablesRestore(_) => &["--noflush", "--wait=30"],
            Self::IptablesSave(_) => &[],
        }
    }

    fn with(self, input: String) -> Command {
        Command {
            program: self,
            input,
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        self.arguments()
            .iter()
            .try_for_each(|argument| write!(f, " {argument}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Families, Options, in_pod};

    #[test]
    fn iptables_is_not_planned_blindly() {
        let rules = in_pod(&Options::default());
        let v4 = [Listed {
            program: Program::IptablesSave(Family::V4),
            output: String::new(),
        }];
        let refused = Backend::Iptables.apply(&rules, &v4).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "plan without the output of ip6tables-save"
        );
        // A host without IPv6 has no such output, and rules of IPv4 alone do not need it.
        let only_v4 = Options {
            families: Families::Only(Family::V4),
            ..Options::default()
        };
        let commands = Backend::Iptables.apply(&in_pod(&only_v4), &v4).unwrap();
        assert_eq!(commands.len(), 1);
    }

    #[test]
    fn nft_needs_no_listing_to_apply_or_remove() {
        let rules = in_pod(&Options::default());
        assert_eq!(Backend::Nftables.apply(&rules, &[]).unwrap().len(), 1);
        assert_eq!(Backend::Nftables.remove(&[]).unwrap().len(), 1);
        assert!(Backend::Nftables.compare(&rules, &[]).is_err());
    }

    #[test]
    fn names_read_back() {
        for backend in [Backend::Nftables, Backend::Iptables] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!(
            "ebpf".parse::<Backend>(),
            Err(UnknownBackend("ebpf".to_owned()))
        );
    }
}
