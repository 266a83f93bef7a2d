//! Rules by the programs of iptables.
//!
//! They run in the agent's own file system, so that how the node resolves names does not matter: only
//! their network namespace is the pod's.

use std::{fs, time::Duration};

use mesh_net::{
    command::{Command, Output},
    netns::{NetNs, NetNsId},
};
use mesh_redirect::{
    Backend, Families, Family, RuleSet, Verdict,
    backend::{Listed, Program},
    iptables::Sieve,
};

use super::{Error, Inner, Mechanism, Variant, findings::Findings};

/// Longest that a program may take: they wait up to 30 s for the lock of `iptables-legacy`.
const DEADLINE: Duration = Duration::from_secs(40);

/// Most bytes that are kept of a listing, which is sieved. What is cut off is not understood.
const LISTING_LIMIT: usize = 4 * 1024 * 1024;

/// What the kernel says which tables of the legacy variant are in use, in the thread's namespace.
const LEGACY_TABLES: [&str; 2] = [
    "/proc/thread-self/net/ip_tables_names",
    "/proc/thread-self/net/ip6_tables_names",
];

/// What says which file the legacy variant locks, since iptables 1.8.6. Older ones lock that of the host
/// always.
const LOCK_FILE: &str = "XTABLES_LOCKFILE";
/// A file that is another one for each process, and that nobody else opens.
const OWN_LOCK: &str = "/proc/self/stat";

/// The programs of one variant, as they are called here.
///
/// The legacy variant reads all rules, changes them and writes them back, so whoever changes rules of the
/// host has to hold `/run/xtables.lock`; it is the host's if the agent's container has that mounted. In pods nothing
/// is locked: the agent does one thing at a time there, and whoever has the lock of the host, such as
/// kube-proxy with its thousands of rules, is not to wait for pods, nor pods for it. A lock that a pod's
/// processes can take, such as its namespace, would let them hold the agent up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    host: NetNsId,
    variant: Variant,
    /// The name before `-restore` and `-save`.
    v4: String,
    v6: Option<String>,
}

// === impl Programs ===

impl Programs {
    /// Looks for the programs of a variant, under its own name or as the one that is just called
    /// `iptables`.
    pub(super) async fn find(variant: Variant, host: NetNsId) -> Option<Self> {
        Some(Self {
            host,
            variant,
            v4: find(variant, "iptables").await?,
            v6: find(variant, "ip6tables").await,
        })
    }

    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    /// Whether the legacy variant holds rules, which says that others use it. A policy or an empty chain
    /// is none: those stay when the last rule is gone.
    pub(super) async fn hold_rules(&self, netns: &NetNs) -> bool {
        let Ok(command) = self.command(Program::IptablesSave(Family::V4), netns) else {
            return false;
        };
        let mut first = true;
        let a_rule = move |line: &str| line.starts_with("-A ") && std::mem::take(&mut first);
        let saved = command.lines(a_rule).run().await;
        saved.is_ok_and(|output| !output.stdout.is_empty())
    }

    /// Has the kernel check rules without effect, family by family; those that work, or why none does.
    pub(super) async fn trial(&self, netns: &NetNs, rules: &RuleSet) -> Result<Families, Error> {
        let mut works = [false; 2];
        for (works, family) in works.iter_mut().zip(Family::ALL) {
            match self.trial_of(netns, rules, family).await {
                Ok(()) => *works = true,
                Err(error) if family == Family::V4 => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %error.in_full(), "ip6tables does not work; IPv4 alone");
                }
            }
        }
        let [v4, v6] = works;
        Families::new(v4, v6).ok_or(Error::Ended)
    }

    async fn trial_of(&self, netns: &NetNs, rules: &RuleSet, family: Family) -> Result<(), Error> {
        let nothing = Family::ALL.map(|family| Listed {
            program: Program::IptablesSave(family),
            output: String::new(),
        });
        let restore = Program::IptablesRestore(family);
        for command in Backend::Iptables.apply(rules, &nothing)? {
            if command.program == restore {
                let arguments = ["--test"]
                    .into_iter()
                    .chain(restore.arguments().iter().copied());
                let run = self.command(restore, netns)?;
                let run = run.args(arguments).input(command.input);
                run.run().await?;
            }
        }
        Ok(())
    }

    async fn list(&self, netns: &NetNs) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        for family in Family::ALL {
            if self.name(family).is_some() {
                let program = Program::IptablesSave(family);
                let mut sieve = Sieve::default();
                let command = self.command(program, netns)?;
                let command = command.args(program.arguments().iter().copied());
                let command = command.lines(move |line| sieve.keeps(line));
                let output = command.run().await?.stdout;
                listed.push(Listed { program, output });
            }
        }
        Ok(listed)
    }

    async fn carry_out(
        &self,
        netns: &NetNs,
        commands: Vec<mesh_redirect::Command>,
    ) -> Result<(), Error> {
        for mesh_redirect::Command { program, input } in commands {
            self.run(program, &input, netns).await?;
        }
        Ok(())
    }

    async fn run(&self, program: Program, input: &str, netns: &NetNs) -> Result<Output, Error> {
        let command = self
            .command(program, netns)?
            .args(program.arguments().iter().copied())
            .input(input);
        Ok(command.run().await?)
    }

    fn command<'a>(&self, program: Program, netns: &'a NetNs) -> Result<Command<'a>, Error> {
        let (family, verb) = match program {
            Program::IptablesRestore(family) => (family, "restore"),
            Program::IptablesSave(family) => (family, "save"),
            Program::Nft | Program::NftList => return Err(Error::Ended),
        };
        let name = self.name(family).ok_or(Error::Ended)?;
        let command = Command::new(format!("{name}-{verb}"))
            .deadline(DEADLINE)
            .output_limit(LISTING_LIMIT)
            .netns(netns);
        Ok(if netns.id() == self.host {
            command
        } else {
            command.env(LOCK_FILE, OWN_LOCK)
        })
    }

    fn name(&self, family: Family) -> Option<&str> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_deref(),
        }
    }
}

async fn find(variant: Variant, tool: &str) -> Option<String> {
    for name in [format!("{tool}-{variant}"), tool.to_owned()] {
        let version = Command::new(&name).args(["--version"]).run().await;
        if version.is_ok_and(|output| variant_of(&output.stdout) == variant) {
            return Some(name);
        }
    }
    None
}

/// The variant that a version such as `iptables v1.8.9 (nf_tables)` names; before 1.8 there was one.
fn variant_of(version: &str) -> Variant {
    if version.contains("nf_tables") {
        Variant::Nft
    } else {
        Variant::Legacy
    }
}

/// Looks at the rules, and for those of the variant that is not used.
pub(super) async fn verify(
    inner: &Inner,
    netns: &NetNs,
    wanted: &RuleSet,
    findings: &mut Findings,
) -> Result<(), Error> {
    if let Some(programs) = &inner.programs {
        let listed = programs.list(netns).await?;
        findings.rules(Backend::Iptables.compare(wanted, &listed)?);
    }
    if let Some((_, commands)) = unused(inner, netns).await?
        && !commands.is_empty()
    {
        findings.foreign("iptables-legacy", "rules of the mechanism that is not used");
    }
    Ok(())
}

/// Puts rules into a namespace, if iptables is what is used; does nothing if all is as it should be.
pub(super) async fn apply(inner: &Inner, netns: &NetNs, rules: &RuleSet) -> Result<(), Error> {
    let Some(programs) = &inner.programs else {
        return Ok(());
    };
    let listed = programs.list(netns).await?;
    if Backend::Iptables.compare(rules, &listed)? == Verdict::Same {
        return Ok(());
    }
    let commands = Backend::Iptables.apply(rules, &listed)?;
    programs.carry_out(netns, commands).await
}

/// Removes what the legacy variant holds of ours, if it is not what is used.
pub(super) async fn remove_unused(inner: &Inner, netns: &NetNs) -> Result<(), Error> {
    match unused(inner, netns).await? {
        Some((legacy, commands)) => legacy.carry_out(netns, commands).await,
        None => Ok(()),
    }
}

/// Removes what the legacy variant holds of ours. The other variant's rules are tables of nf_tables, and
/// are removed as such.
pub(super) async fn remove(inner: &Inner, netns: &NetNs) -> Result<(), Error> {
    match leftovers(inner, netns).await? {
        Some((legacy, commands)) => legacy.carry_out(netns, commands).await,
        None => Ok(()),
    }
}

type Plan<'a> = (&'a Programs, Vec<mesh_redirect::Command>);

async fn unused<'a>(inner: &'a Inner, netns: &NetNs) -> Result<Option<Plan<'a>>, Error> {
    if inner.mechanism == Mechanism::Iptables(Variant::Legacy) {
        return Ok(None);
    }
    leftovers(inner, netns).await
}

/// What has to be run to remove what the legacy variant holds of ours. It is not even looked at where
/// none of its tables is in use, which is so nearly everywhere: looking would bring them into use.
async fn leftovers<'a>(inner: &'a Inner, netns: &NetNs) -> Result<Option<Plan<'a>>, Error> {
    if !uses_legacy(netns)? {
        return Ok(None);
    }
    let Some(legacy) = &inner.legacy else {
        tracing::debug!("tables of iptables-legacy are in use, and it is not installed here");
        return Ok(None);
    };
    let listed = legacy.list(netns).await?;
    let commands = Backend::Iptables.remove(&listed)?;
    Ok(Some((legacy, commands)))
}

/// Whether a table of the legacy variant that our rules may be in is in use.
fn uses_legacy(netns: &NetNs) -> Result<bool, Error> {
    // No such file: the kernel's module is not even loaded.
    let names = netns.run(|| LEGACY_TABLES.map(|path| fs::read_to_string(path).ok()))?;
    let ours = |name: &str| matches!(name, "mangle" | "raw" | "nat");
    Ok(names.iter().flatten().any(|names| names.lines().any(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_without_a_variant_is_of_the_time_when_there_was_one() {
        assert_eq!(variant_of("iptables v1.8.9 (nf_tables)\n"), Variant::Nft);
        assert_eq!(variant_of("iptables v1.8.9 (legacy)\n"), Variant::Legacy);
        assert_eq!(variant_of("iptables v1.6.2\n"), Variant::Legacy);
    }
}
