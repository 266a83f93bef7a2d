//! The policy route of a pod.

use mesh_net::{
    netns::NetNs,
    routing::{self, PolicyRoute, Presence},
};
use mesh_redirect::{Families, Family};

use super::{Error, findings::Findings};

/// One half of the policy route, in the words of `ip`.
#[derive(Clone, Copy, Debug)]
struct Noun {
    name: &'static str,
    what: &'static str,
}

const RULE: Noun = Noun {
    name: "rule",
    what: "fwmark 0x111/0xfff pref 32764 lookup 100",
};

const ROUTE: Noun = Noun {
    name: "route",
    what: "local default dev lo table 100",
};

/// Looks at rule and route of every family; where a namespace does not use a family, nothing is wanted.
pub(super) fn verify(
    netns: &NetNs,
    families: Families,
    findings: &mut Findings,
) -> Result<(), Error> {
    for family in Family::ALL {
        let found = netns.run(|| PolicyRoute::IN_POD.look(of(family)))??;
        if let Some(Presence { rule, route }) = found {
            let wanted = families.contains(family);
            judge(findings, family, wanted, &[(RULE, rule), (ROUTE, route)]);
        }
    }
    Ok(())
}

/// Makes rule and route of the families that are wanted, and removes those of the other.
pub(super) fn apply(netns: &NetNs, families: Families) -> Result<(), Error> {
    for family in Family::ALL {
        if families.contains(family) {
            netns.run(|| PolicyRoute::IN_POD.ensure(of(family)))??;
        } else {
            remove_one(netns, family)?;
        }
    }
    Ok(())
}

/// Removes rule and route of both families, the second also if the first cannot be.
pub(super) fn remove(netns: &NetNs) -> Result<(), Error> {
    let [v4, v6] = Family::ALL.map(|family| remove_one(netns, family));
    v4.and(v6)
}

fn remove_one(netns: &NetNs, family: Family) -> Result<(), Error> {
    netns.run(|| PolicyRoute::IN_POD.remove(of(family)))??;
    Ok(())
}

fn judge(findings: &mut Findings, family: Family, wanted: bool, found: &[(Noun, bool)]) {
    for (Noun { name, what }, found) in found {
        let place = match family {
            Family::V4 => format!("ip -4 {name}"),
            Family::V6 => format!("ip -6 {name}"),
        };
        match (wanted, found) {
            (true, true) => findings.present(),
            (true, false) => findings.missing(&place, what),
            (false, true) => findings.foreign(&place, what),
            (false, false) => {}
        }
    }
}

fn of(family: Family) -> routing::Family {
    match family {
        Family::V4 => routing::Family::V4,
        Family::V6 => routing::Family::V6,
    }
}
