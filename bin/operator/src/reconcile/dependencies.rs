//! What a control plane needs beside itself: the CNI agent and the node proxy.

use mesh_api::sail::{
    IstioCNI, IstioRevision, Values,
    condition::{self, HEALTHY, StatusCondition, reason},
};
use serde_json::Value;

use super::serving::{self, THE_ONE};
use crate::world::View;

/// Profiles of the ambient mesh.
const AMBIENT: &[&str] = &["ambient", "openshift-ambient"];

/// Whether what the control plane needs is there and healthy.
pub(super) fn condition(
    view: &View<'_>,
    revision: &IstioRevision,
    openshift: bool,
) -> StatusCondition {
    let values = &revision.spec.values;
    let fails = |reason, message: String| {
        StatusCondition::fails(condition::DEPENDENCIES_HEALTHY, reason, message)
    };
    if needs_cni(values, openshift) {
        let cni = view.get::<IstioCNI>(THE_ONE);
        let state = cni.map(|cni| cni.status.as_ref().map(|status| status.state.as_str()));
        match state {
            None => {
                return fails(reason::ISTIO_CNI_NOT_FOUND, missing("IstioCNI"));
            }
            Some(Some(HEALTHY)) => {}
            Some(state) => {
                return fails(reason::ISTIO_CNI_NOT_HEALTHY, unhealthy("IstioCNI", state));
            }
        }
    }
    if is_ambient(values) {
        let ztunnel = serving::ztunnel(view);
        let state =
            ztunnel.map(|ztunnel| ztunnel.status.as_ref().map(|status| status.state.as_str()));
        match state {
            None => return fails(reason::ZTUNNEL_NOT_FOUND, missing("ZTunnel")),
            Some(Some(HEALTHY)) => {}
            Some(state) => {
                return fails(reason::ZTUNNEL_NOT_HEALTHY, unhealthy("ZTunnel", state));
            }
        }
    }
    StatusCondition::holds(condition::DEPENDENCIES_HEALTHY)
}

/// The conditions that make up the state. That something is still missing which the author of the revision
/// did not ask for in so many words is said by its condition alone: installing a mesh begins with the
/// control plane, and that one is healthy before the rest is there.
pub(super) fn state_order(
    conditions: &[StatusCondition],
    values: &Values,
) -> &'static [&'static str] {
    let known = conditions
        .iter()
        .find(|known| known.type_ == condition::DEPENDENCIES_HEALTHY);
    let missing = known.is_some_and(|known| {
        [reason::ISTIO_CNI_NOT_FOUND, reason::ZTUNNEL_NOT_FOUND].contains(&known.reason.as_str())
    });
    if missing && asks_for_cni(values) != Some(true) {
        &[condition::RECONCILED, condition::READY]
    } else {
        condition::STATE_OF_REVISION
    }
}

fn needs_cni(values: &Values, openshift: bool) -> bool {
    asks_for_cni(values).unwrap_or_else(|| openshift || is_ambient(values))
}

fn asks_for_cni(values: &Values) -> Option<bool> {
    values.get("pilot")?.get("cni")?.get("enabled")?.as_bool()
}

fn is_ambient(values: &Values) -> bool {
    let profile = values.get("profile").and_then(Value::as_str);
    let enabled = || {
        let enabled = values
            .get("pilot")?
            .get("env")?
            .get("PILOT_ENABLE_AMBIENT")?;
        Some(enabled == "true" || enabled == true)
    };
    profile.is_some_and(|profile| AMBIENT.contains(&profile)) || enabled().unwrap_or_default()
}

fn missing(kind: &str) -> String {
    format!("there is no {kind} named \"{THE_ONE}\": create it, the mesh does not work without it")
}

fn unhealthy(kind: &str, state: Option<&str>) -> String {
    let state = state.filter(|state| !state.is_empty());
    let state = state.unwrap_or("not known yet");
    format!("{kind} \"{THE_ONE}\" is not healthy, its state is {state}: see its conditions")
}
