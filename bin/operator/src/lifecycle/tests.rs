use proptest::prelude::*;

use super::*;

fn number(text: &str) -> Number {
    text.parse().unwrap()
}

/// `1.29.0`, or `1.29.0>1.30.0` for a change that is wanted; `~` behind what runs: its rollout is not
/// complete and older pods are left; `!`: all pods are new, some not ready. `-`: not installed.
fn standing(text: &str) -> Standing {
    let (running, wanted) = text.split_once('>').unwrap_or((text, ""));
    let (uniform, ready) = (!running.ends_with('~'), !running.ends_with(['~', '!']));
    let running = running.trim_end_matches(['~', '!']);
    let version = |text: &str| (!text.is_empty() && text != "-").then(|| number(text));
    Standing {
        running: version(running),
        wanted: version(wanted).or_else(|| version(running)),
        uniform,
        ready,
    }
}

fn mesh(versions: [&str; 3]) -> Mesh {
    let [control_plane, cni, ztunnel] = versions.map(standing);
    Mesh {
        control_plane,
        cni,
        ztunnel,
    }
}

/// What the gates say, in one word each.
fn gates(versions: [&str; 3]) -> [String; 3] {
    let mesh = mesh(versions);
    Component::ALL.map(|component| match gate(&mesh, component) {
        Gate::Open => "open".to_owned(),
        Gate::Wait(wait) => wait.first.waiting().to_owned(),
        Gate::Refused(_) => "refused".to_owned(),
    })
}

const CP: &str = "WaitingForControlPlane";
const CNI: &str = "WaitingForCNI";
const ZT: &str = "WaitingForZTunnel";

#[test]
fn an_upgrade_goes_from_the_control_plane_to_the_nodes() {
    for (versions, expected) in [
        (
            ["1.29.6>1.30.3", "1.29.6>1.30.3", "1.29.6>1.30.3"],
            ["open", CP, CP],
        ),
        (
            ["1.30.3~", "1.29.6>1.30.3", "1.29.6>1.30.3"],
            ["open", CP, CP],
        ),
        (
            ["1.30.3!", "1.29.6>1.30.3", "1.29.6>1.30.3"],
            ["open", CP, CP],
        ),
        (
            ["1.30.3", "1.29.6>1.30.3", "1.29.6>1.30.3"],
            ["open", "open", CNI],
        ),
        (
            ["1.30.3", "1.30.3~", "1.29.6>1.30.3"],
            ["open", "open", CNI],
        ),
        (
            ["1.30.3", "1.30.3", "1.29.6>1.30.3"],
            ["open", "open", "open"],
        ),
        // Repairs of a minor version go the same way.
        (
            ["1.30.2>1.30.3", "1.30.2>1.30.3", "1.30.2>1.30.3"],
            ["open", CP, CP],
        ),
        // A component alone may be repaired at any time.
        (
            ["1.30.2", "1.30.2", "1.30.2>1.30.3"],
            ["open", "open", "open"],
        ),
    ] {
        assert_eq!(gates(versions), expected, "{versions:?}");
    }
}

#[test]
fn a_downgrade_goes_the_other_way() {
    for (versions, expected) in [
        (
            ["1.30.3>1.29.6", "1.30.3>1.29.6", "1.30.3>1.29.6"],
            [ZT, ZT, "open"],
        ),
        (
            ["1.30.3>1.29.6", "1.30.3>1.29.6", "1.29.6~"],
            [ZT, ZT, "open"],
        ),
        // A node that does not come back does not keep the rest from going back.
        (
            ["1.30.3>1.29.6", "1.30.3>1.29.6", "1.29.6!"],
            [CNI, "open", "open"],
        ),
        (
            ["1.30.3>1.29.6", "1.29.6", "1.29.6"],
            ["open", "open", "open"],
        ),
        // Back to what the nodes still run, while the rollout of the control plane hangs.
        (
            ["1.30.3~>1.29.6", "1.29.6", "1.29.6"],
            ["open", "open", "open"],
        ),
    ] {
        assert_eq!(gates(versions), expected, "{versions:?}");
    }
}

#[test]
fn what_is_installed_for_the_first_time_waits_only_for_what_would_not_fit() {
    for (versions, expected) in [
        (
            ["->1.30.3", "->1.30.3", "->1.30.3"],
            ["open", "open", "open"],
        ),
        (
            ["1.30.3!", "->1.30.3", "->1.30.3"],
            ["open", "open", "open"],
        ),
        (["-", "->1.30.3", "->1.30.3"], ["open", "open", "open"]),
        (
            ["1.29.6>1.30.3", "->1.30.3", "->1.29.6"],
            ["open", CP, "open"],
        ),
        (["1.30.3~", "->1.30.3", "1.29.6"], ["open", CP, "open"]),
        (
            ["->1.30.3", "->1.31.0", "->1.28.0"],
            ["open", "refused", "refused"],
        ),
    ] {
        assert_eq!(gates(versions), expected, "{versions:?}");
    }
}

#[test]
fn a_skew_is_refused_and_the_rest_goes_on() {
    for (versions, expected) in [
        (
            ["1.30.3", "1.30.3", "1.30.3>1.31.0"],
            ["open", "open", "refused"],
        ),
        (
            ["1.30.3", "1.30.3>1.28.0", "1.30.3"],
            ["open", "refused", "open"],
        ),
        (
            ["1.28.0>1.30.3", "1.28.0", "1.28.0"],
            ["refused", "open", "open"],
        ),
        (
            ["1.28.0>1.30.3", "1.28.0>1.30.3", "1.28.0>1.30.3"],
            ["refused", "refused", "refused"],
        ),
        (
            ["1.30.3>1.29.0", "1.30.3", "1.30.3>1.29.0"],
            ["refused", "open", "open"],
        ),
        // The nodes catch up first where the control plane could not go ahead of them.
        (
            ["1.30.3>1.31.0", "1.29.0>1.30.3", "1.29.0>1.30.3"],
            [CNI, "open", CNI],
        ),
        (
            ["1.30.3>1.31.0", "1.30.3>1.31.0", "1.30.3>1.32.0"],
            ["open", CP, "refused"],
        ),
    ] {
        assert_eq!(gates(versions), expected, "{versions:?}");
    }
}

#[test]
fn messages_name_versions_and_remedies() {
    let rule = "what runs on the nodes is of the control plane's minor version or the one before";
    let refused = |versions, component| match gate(&mesh(versions), component) {
        Gate::Refused(skew) => skew.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(["1.30.3", "1.30.3", "1.30.3>1.31.0"], Component::ZTunnel),
        format!(
            "v1.31.0 of ztunnel does not go with v1.30.3 of the control plane: {rule}; \
                 set spec.version of Istio to v1.31 first"
        )
    );
    assert_eq!(
        refused(["1.30.3", "1.30.3>1.28.0", "1.30.3"], Component::Cni),
        format!(
            "v1.28.0 of the CNI agent does not go with v1.30.3 of the control plane: {rule}; \
                 ask for a version from v1.29 on"
        )
    );
    assert_eq!(
        refused(
            ["1.28.0>1.30.3", "1.28.0", "1.28.0"],
            Component::ControlPlane
        ),
        format!(
            "v1.30.3 of the control plane does not go with v1.28.0 of the CNI agent: {rule}; \
                 go up one minor version at a time, and set spec.version of IstioCNI to v1.29 first"
        )
    );
    assert_eq!(
        refused(
            ["1.30.3>1.29.6", "1.29.6", "1.30.3"],
            Component::ControlPlane
        ),
        format!(
            "v1.29.6 of the control plane does not go with v1.30.3 of ztunnel: {rule}; \
                 set spec.version of ZTunnel to v1.29.6 or older first"
        )
    );
    let waits = |versions| match gate(&mesh(versions), Component::ZTunnel) {
        Gate::Wait(wait) => wait.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        waits(["1.29.6>1.30.3", "1.29.6", "1.29.6>1.30.3"]),
        "waiting for the control plane to change to v1.30.3 first"
    );
    assert_eq!(
        waits(["1.30.3!", "1.29.6", "1.29.6>1.30.3"]),
        "waiting for the control plane to be rolled out at v1.30.3"
    );
}

/// A cluster that does what the gates allow. Versions are minors of 1; a component may run several.
#[derive(Clone, Debug)]
struct Cluster {
    applied: [Option<u32>; 3],
    older: [Vec<u32>; 3],
    unready: [bool; 3],
    wanted: [Option<u32>; 3],
}

impl Cluster {
    fn mesh(&self) -> Mesh {
        let number = |minor: u32| number(&format!("1.{minor}.0"));
        let [control_plane, cni, ztunnel] = [0, 1, 2].map(|at| Standing {
            running: self.applied[at].map(number),
            wanted: self.wanted[at].map(number),
            uniform: self.older[at].is_empty(),
            ready: self.older[at].is_empty() && !self.unready[at],
        });
        Mesh {
            control_plane,
            cni,
            ztunnel,
        }
    }

    fn running(&self, at: usize) -> impl Iterator<Item = u32> {
        self.older[at].iter().copied().chain(self.applied[at])
    }

    fn is_safe(&self) -> bool {
        self.running(0).all(|control_plane| {
            let nodes = [1, 2].into_iter().flat_map(|at| self.running(at));
            nodes
                .into_iter()
                .all(|node| node <= control_plane && control_plane <= node + 1)
        })
    }

    /// The engine looks at a component. Whether something was done.
    fn reconcile(&mut self, at: usize) -> bool {
        let (wanted, applied) = (self.wanted[at], self.applied[at]);
        if wanted.is_none() || wanted == applied {
            return false;
        }
        let open = gate(&self.mesh(), Component::ALL[at]) == Gate::Open;
        if open {
            self.older[at].extend(applied);
            self.applied[at] = wanted;
            self.unready[at] = true;
        }
        open
    }

    fn settle(&mut self, at: usize) -> bool {
        let unsettled = self.unready[at] || !self.older[at].is_empty();
        self.older[at].clear();
        self.unready[at] = false;
        unsettled
    }

    /// Until nothing happens any more.
    fn run(&mut self) {
        while (0..3).any(|at| self.reconcile(at) || self.settle(at)) {
            assert!(self.is_safe(), "{self:?}");
        }
    }
}

fn pair_is_allowed(control_plane: Option<u32>, node: Option<u32>) -> bool {
    match (control_plane, node) {
        (Some(control_plane), Some(node)) => node <= control_plane && control_plane <= node + 1,
        _ => true,
    }
}

fn is_allowed(versions: [Option<u32>; 3]) -> bool {
    pair_is_allowed(versions[0], versions[1]) && pair_is_allowed(versions[0], versions[2])
}

/// Whether some order of single changes leads there through nothing that is forbidden.
fn is_reachable(from: [Option<u32>; 3], to: [Option<u32>; 3]) -> bool {
    from == to
        || (0..3).filter(|at| from[*at] != to[*at]).any(|at| {
            let mut then = from;
            then[at] = to[at];
            is_allowed(then) && is_reachable(then, to)
        })
}

fn triples() -> impl Iterator<Item = [Option<u32>; 3]> {
    let versions = || [None, Some(24), Some(25), Some(26), Some(27)].into_iter();
    versions().flat_map(move |a| versions().flat_map(move |b| versions().map(move |c| [a, b, c])))
}

#[test]
fn every_change_that_some_order_allows_comes_to_its_end_without_a_forbidden_pair() {
    let allowed = || triples().filter(|versions| is_allowed(*versions));
    let (mut reached, mut stopped) = (0, 0);
    for from in allowed() {
        for to in triples() {
            // A component that nobody wants any more is removed by other means.
            if (0..3).any(|at| from[at].is_some() && to[at].is_none()) {
                continue;
            }
            let mut cluster = Cluster {
                applied: from,
                older: Default::default(),
                unready: [false; 3],
                wanted: to,
            };
            cluster.run();
            assert!(cluster.is_safe(), "{from:?} to {to:?}: {cluster:?}");
            if is_reachable(from, to) {
                assert_eq!(cluster.applied, to, "from {from:?}");
                reached += 1;
            } else {
                stopped += 1;
            }
        }
    }
    assert!(
        reached > 500 && stopped > 500,
        "{reached} reached, {stopped} stopped"
    );
}

proptest! {
    /// People change their minds, rollouts end at any time, components are looked at in any order.
    #[test]
    fn no_forbidden_pair_ever_runs(
        wanted in prop::array::uniform3(24..28_u32),
        events in prop::collection::vec((0..3_usize, 0..6_u8, 24..28_u32), 0..80),
    ) {
        let mut cluster = Cluster {
            applied: [None; 3],
            older: Default::default(),
            unready: [false; 3],
            wanted: wanted.map(Some),
        };
        for (at, event, version) in events {
            match event {
                0..=2 => { cluster.reconcile(at); }
                3 => { cluster.settle(at); }
                4 => cluster.unready[at] = true,
                _ => cluster.wanted[at] = Some(version),
            }
            prop_assert!(cluster.is_safe(), "{cluster:?}");
        }
        // At rest, whatever is wanted and can be had is had.
        cluster.run();
        let rest = (0..3).filter(|at| cluster.applied[*at] != cluster.wanted[*at]).collect::<Vec<_>>();
        prop_assert!(rest.is_empty() || !is_reachable(cluster.applied, cluster.wanted), "{cluster:?}");
    }
}
