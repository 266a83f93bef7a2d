//! In which order versions change, and which may run side by side.
//!
//! ```text
//! up    control plane ──▶ CNI agent ──▶ node proxy       each when the one before runs the new version
//! down  node proxy ──▶ CNI agent ──▶ control plane       each when the one before no longer runs the old
//! ```
//!
//! What runs on the nodes is of the control plane's minor version or of the one before, at every moment and
//! in every pod: a control plane speaks to older proxies, and a proxy may ask for what an older control plane
//! does not know. [`gate`] decides about one component from what runs and what is wanted of all three. It
//! looks for the longest order of changes that keeps to the rule all the way, so it refuses only what no
//! order would allow, and it never waits for a change that is itself refused.

use std::fmt;

use mesh_api::sail::{condition::reason, version::Number};

#[cfg(test)]
mod tests;

/// How many minor versions the control plane may be ahead of what runs on the nodes.
const LARGEST_LEAD: i64 = 1;

/// A component of the mesh, in the order of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// istiod.
    ControlPlane,
    /// The CNI agent.
    Cni,
    /// The node proxy.
    ZTunnel,
}

/// The versions of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version that was applied last; `None` if it is not installed.
    pub running: Option<Number>,
    /// The version that is asked for; `None` if nobody asks for it.
    pub wanted: Option<Number>,
    /// No pod of an older rollout is left, so that all pods are of `running`.
    pub uniform: bool,
    /// Its rollout is complete: all pods are of `running` and ready.
    pub ready: bool,
}

/// The versions of all components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// Of the control plane that serves the nodes.
    pub control_plane: Standing,
    /// Of the CNI agent.
    pub cni: Standing,
    /// Of the node proxy.
    pub ztunnel: Standing,
}

/// Whether a component may get the version that is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Now.
    Open,
    /// Later, by itself. Until then what runs stays as it is.
    Wait(Wait),
    /// Not until somebody asks for other versions. What runs stays as it is.
    Refused(Skew),
}

/// What a change of version waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The component that has to be ready first.
    pub first: Component,
    /// The version that it gets or has got.
    pub version: Number,
    /// Whether that one has begun.
    pub begun: bool,
}

/// Two versions that must not run side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The component that asks.
    pub component: Component,
    /// The version that is wanted of it.
    pub wanted: Number,
    /// The component that stands against it.
    pub other: Component,
    /// That one's version.
    pub version: Number,
}

/// Whether `component` may get the version that is wanted of it.
pub fn gate(mesh: &Mesh, component: Component) -> Gate {
    let own = mesh.of(component);
    let Some(wanted) = &own.wanted else {
        return Gate::Open;
    };
    if own.running.as_ref() == Some(wanted) {
        return Gate::Open;
    }
    let plan = mesh.plan();
    if !plan.contains(&component) {
        return Gate::Refused(mesh.skew(component, wanted));
    }
    let free = own.running.is_none() && mesh.fits_with_all(component, wanted);
    let earlier = plan.into_iter().next();
    let earlier = earlier.filter(|first| *first != component && !free);
    match mesh.unfinished_before(component, wanted).or(earlier) {
        None => Gate::Open,
        Some(first) => Gate::Wait(mesh.wait(first, wanted)),
    }
}

/// Whether these may run side by side.
fn fits(control_plane: &Number, node: &Number) -> bool {
    (0..=LARGEST_LEAD).contains(&control_plane.minors_ahead_of(node))
}

/// Whether two components' versions may be there at the same time.
fn agree(one: Component, version: &Number, other: Component, its: &Number) -> bool {
    match (one, other) {
        (Component::ControlPlane, Component::ControlPlane) => true,
        (Component::ControlPlane, _) => fits(version, its),
        (_, Component::ControlPlane) => fits(its, version),
        // The two speak a protocol of their own, in which each takes what the other leaves out.
        _ => true,
    }
}

// === impl Component ===

impl Component {
    /// All of them, in the order of an upgrade.
    pub const ALL: [Self; 3] = [Self::ControlPlane, Self::Cni, Self::ZTunnel];

    /// The reason of a condition for waiting for it.
    pub const fn waiting(self) -> &'static str {
        match self {
            Self::ControlPlane => reason::WAITING_FOR_CONTROL_PLANE,
            Self::Cni => reason::WAITING_FOR_CNI,
            Self::ZTunnel => reason::WAITING_FOR_ZTUNNEL,
        }
    }

    /// The kind of the resource whose `spec.version` says its version.
    const fn resource(self) -> &'static str {
        match self {
            Self::ControlPlane => "Istio",
            Self::Cni => "IstioCNI",
            Self::ZTunnel => "ZTunnel",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "the control plane",
            Self::Cni => "the CNI agent",
            Self::ZTunnel => "ztunnel",
        })
    }
}

// === impl Standing ===

impl Standing {
    /// The version that is wanted, if the component does not have it.
    fn change(&self) -> Option<&Number> {
        let wanted = self.wanted.as_ref()?;
        (self.running.as_ref() != Some(wanted)).then_some(wanted)
    }

    fn goes_down(&self) -> bool {
        matches!((&self.running, &self.wanted), (Some(running), Some(wanted)) if wanted < running)
    }
}

// === impl Mesh ===

impl Mesh {
    /// The versions of one component.
    pub fn of(&self, component: Component) -> &Standing {
        match component {
            Component::ControlPlane => &self.control_plane,
            Component::Cni => &self.cni,
            Component::ZTunnel => &self.ztunnel,
        }
    }

    /// The changes that can be made one after the other without a forbidden pair in between: as many as
    /// possible, the control plane's among them if possible, in the order of an up- or downgrade.
    fn plan(&self) -> Vec<Component> {
        let down = |component: &Component| self.of(*component).goes_down();
        let downward = Component::ALL.into_iter().rev().filter(down);
        let upward = Component::ALL.into_iter().filter(|one| !down(one));
        let changes = downward
            .chain(upward)
            .filter(|component| self.of(*component).change().is_some())
            .collect::<Vec<_>>();
        let running = Component::ALL.map(|component| self.of(component).running.as_ref());
        self.longest(running, &changes)
    }

    /// As [`Self::plan`], from these versions and with these changes left, of which there are three at
    /// most.
    fn longest(&self, running: [Option<&Number>; 3], changes: &[Component]) -> Vec<Component> {
        let mut best = Vec::new();
        for component in changes {
            let Some(wanted) = self.of(*component).change() else {
                continue;
            };
            let agrees = |other: &Component| {
                running[*other as usize].is_none_or(|its| agree(*component, wanted, *other, its))
            };
            let others = || Component::ALL.iter().filter(|other| *other != component);
            if !others().all(agrees) {
                continue;
            }
            let mut then = running;
            then[*component as usize] = Some(wanted);
            let rest = changes.iter().copied().filter(|other| other != component);
            let mut plan = vec![*component];
            plan.extend(self.longest(then, &rest.collect::<Vec<_>>()));
            if worth(&plan) > worth(&best) {
                best = plan;
            }
        }
        best
    }

    /// Whether the version agrees with what the others run and with what is wanted of them.
    fn fits_with_all(&self, component: Component, version: &Number) -> bool {
        let mut others = Component::ALL
            .into_iter()
            .filter(|other| *other != component);
        others.all(|other| {
            let its = self.of(other);
            let versions = its.running.iter().chain(&its.wanted);
            let mut versions = versions.map(|its| agree(component, version, other, its));
            versions.all(|agrees| agrees)
        })
    }

    /// The component whose rollout has to come to its end before this one may change.
    fn unfinished_before(&self, component: Component, wanted: &Number) -> Option<Component> {
        let own = self.of(component);
        let installs = own.running.is_none();
        let minor = own
            .running
            .as_ref()
            .is_none_or(|running| wanted.minors_ahead_of(running) != 0);
        let mut others = Component::ALL
            .into_iter()
            .filter(|other| *other != component);
        others.find(|other| {
            let its = self.of(*other);
            if its.running.is_none() {
                return false;
            }
            // Pods of an older rollout may be of any version that was allowed before.
            let concerns =
                component == Component::ControlPlane || *other == Component::ControlPlane;
            let mixed = minor && concerns && !its.uniform;
            let before = if own.goes_down() {
                *other > component && !its.uniform
            } else {
                *other < component && !its.ready
            };
            mixed || (before && !installs)
        })
    }

    fn wait(&self, first: Component, wanted: &Number) -> Wait {
        let its = self.of(first);
        let version = its.wanted.as_ref().or(its.running.as_ref());
        Wait {
            first,
            version: version.unwrap_or(wanted).clone(),
            begun: its.change().is_none(),
        }
    }

    /// What stands against the version: what runs, or what is wanted.
    fn skew(&self, component: Component, wanted: &Number) -> Skew {
        let others = Component::ALL
            .into_iter()
            .filter(|other| *other != component);
        let running = others
            .clone()
            .filter_map(|other| Some((other, self.of(other).running.as_ref()?)));
        let asked = others.filter_map(|other| Some((other, self.of(other).wanted.as_ref()?)));
        let mut against = running
            .chain(asked)
            .filter(|(other, its)| !agree(component, wanted, *other, its));
        let (other, version) = match against.next() {
            Some((other, version)) => (other, version.clone()),
            // A change that no plan contains disagrees with somebody; say at least what is wanted.
            None => (Component::ControlPlane, wanted.clone()),
        };
        Skew {
            component,
            wanted: wanted.clone(),
            other,
            version,
        }
    }
}

/// More changes are better, and the control plane's is worth two: the others follow it.
fn worth(plan: &[Component]) -> usize {
    let control_plane = plan.contains(&Component::ControlPlane);
    plan.len() + usize::from(control_plane) * 2
}

// === impl Wait ===

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, version, .. } = self;
        if self.begun {
            write!(f, "waiting for {first} to be rolled out at v{version}")
        } else {
            write!(f, "waiting for {first} to change to v{version} first")
        }
    }
}

// === impl Skew ===

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            component,
            wanted,
            other,
            version,
        } = self;
        write!(
            f,
            "v{wanted} of {component} does not go with v{version} of {other}: what runs on the nodes is of \
             the control plane's minor version or the one before; "
        )?;
        let Number { major, minor, .. } = wanted;
        let resource = other.resource();
        let control_plane = *component == Component::ControlPlane;
        match (control_plane, wanted > version) {
            (true, true) => write!(
                f,
                "go up one minor version at a time, and set spec.version of {resource} to v{major}.{} first",
                minor.saturating_sub(1)
            ),
            (true, false) => write!(
                f,
                "set spec.version of {resource} to v{wanted} or older first"
            ),
            (false, true) => write!(
                f,
                "set spec.version of {resource} to v{major}.{minor} first"
            ),
            (false, false) => write!(
                f,
                "ask for a version from v{}.{} on",
                version.major,
                version.minor.saturating_sub(1)
            ),
        }
    }
}
