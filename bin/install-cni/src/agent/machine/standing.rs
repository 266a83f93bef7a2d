//! Where a pod stands, for those who look at it.

use std::time::Duration;

use mesh_net::netns::NetNsId;
use serde::Serialize;

use super::{Desired, Enrolment, Held, Machine, Proxy, Step};

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not in the mesh, and nothing of the mesh in it.
    Outside,
    /// On its way out of the mesh.
    Leaving,
    /// It belongs in the mesh; there is nothing to do until it has a network, or ztunnels may be told.
    Waiting,
    /// On its way into the mesh; this step comes next.
    Entering(Step),
    /// In the mesh.
    Enrolled,
}

/// What the pod's annotation should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// What it says.
    Leave,
    /// Nothing.
    Clear,
    /// The rules are in, ztunnel does not serve it.
    Pending,
    /// It is in the mesh.
    Enabled,
}

/// Waits double from the first to [`LONGEST`], and then are [`STEADY`].
const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(5);
const STEADY: Duration = Duration::from_secs(15);

/// Failures in a row after which a pod's annotation no longer says that it is in the mesh: fewer may be a
/// moment's trouble, which is not worth two writes.
pub(super) const TELLING: u32 = 3;

impl Machine {
    /// Whether the pod is in the mesh, in the namespace that the runtime gave it, and has just been found
    /// to be.
    pub(crate) fn is_enrolled_in(&self, netns: NetNsId) -> bool {
        self.is_at(netns) && matches!(self.rules, Held::Rules(_)) && self.is_enrolled()
    }

    fn is_enrolled(&self) -> bool {
        let (Desired::InMesh(enrolment), Some(netns)) = (&self.desired, self.netns()) else {
            return false;
        };
        self.holds_rules(enrolment) && self.is_served(netns) && self.probes == enrolment.addresses
    }

    fn holds_rules(&self, enrolment: &Enrolment) -> bool {
        match &self.rules {
            Held::Rules(held) | Held::Unknown(Some(held)) => *held == enrolment.options,
            _ => false,
        }
    }

    /// Whether the first look at the pod is over: what its namespace holds is known, or cannot be.
    pub(crate) fn is_surveyed(&self) -> bool {
        self.failure.is_some() || self.next().is_none()
    }

    /// Where the pod stands.
    pub(crate) fn phase(&self) -> Phase {
        match (&self.desired, self.next()) {
            (Desired::Outside(_), None) => Phase::Outside,
            (Desired::Outside(_), Some(_)) => Phase::Leaving,
            (Desired::InMesh(_), _) if self.is_enrolled() => Phase::Enrolled,
            (Desired::InMesh(_), None) => Phase::Waiting,
            (Desired::InMesh(_), Some(action)) => Phase::Entering(action.step()),
        }
    }

    /// What the annotation should say. In doubt it stays as it is.
    pub(crate) fn report(&self) -> Report {
        let phase = self.phase();
        if phase == Phase::Enrolled {
            return Report::Enabled;
        }
        if phase == Phase::Outside {
            return Report::Clear;
        }
        let failure = self.failure.as_ref().filter(|f| f.attempts >= TELLING);
        match (&self.desired, failure.map(|failure| failure.step)) {
            (Desired::InMesh(_), Some(Step::Namespace | Step::Rules)) => Report::Clear,
            (Desired::InMesh(enrolment), Some(Step::Ztunnel | Step::Probes)) => {
                let told = matches!(self.proxy, Proxy::Told(_));
                let pending = told && self.holds_rules(enrolment);
                if pending {
                    Report::Pending
                } else {
                    Report::Leave
                }
            }
            _ => Report::Leave,
        }
    }

    /// How long to wait before the next attempt, if the last one failed.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let attempts = self.failure.as_ref()?.attempts;
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
        let wait = if doubled > LONGEST.saturating_mul(2) {
            STEADY
        } else {
            doubled.min(LONGEST)
        };
        Some(wait)
    }
}
