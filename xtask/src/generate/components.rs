//! The components of a mesh without an operator: what it would apply for `manifests/ambient.yaml` on a cluster
//! of no special kind.

use std::path::PathBuf;

use mesh_api::sail::{IstioCNISpec, Values, ZTunnelSpec, version};
use mesh_render::{
    Platform, Rendered, Settings, cni,
    istiod::{self, Revision},
    ztunnel,
};

use super::Generated;

/// The folder, which holds nothing else.
pub(super) const COMPONENTS: &str = "manifests/components";

/// One file for each component, with its namespace.
pub(super) fn files() -> anyhow::Result<Vec<Generated>> {
    let release = version::resolve(version::default_version())?;
    let settings = Settings::released(release, Platform::default());
    let values =
        istiod::revision_values(Some("ambient"), &Values::new(), "default", "istio-system");
    let revision = Revision {
        name: "default",
        namespace: "istio-system",
        values: &values,
    };
    let agent = IstioCNISpec {
        version: release.name.clone(),
        namespace: "istio-cni".to_owned(),
        profile: Some("ambient".to_owned()),
        ..IstioCNISpec::default()
    };
    let proxy = ZTunnelSpec {
        version: release.name.clone(),
        namespace: "ztunnel".to_owned(),
        ..ZTunnelSpec::default()
    };
    Ok(vec![
        file(
            "istiod",
            "istio-system",
            false,
            &istiod::control_plane(revision, &settings)?,
        ),
        file("cni", "istio-cni", true, &cni::render(&agent, &settings)?),
        file(
            "ztunnel",
            "ztunnel",
            true,
            &ztunnel::render(&proxy, Some(&values), &settings)?,
        ),
    ])
}

/// A component. Pods of nodes need host paths and capabilities, which their namespace has to admit.
fn file(name: &str, namespace: &str, of_nodes: bool, rendered: &Rendered) -> Generated {
    let admission = if of_nodes {
        "  labels:\n    pod-security.kubernetes.io/enforce: privileged\n"
    } else {
        ""
    };
    let text = format!(
        "# Written by `cargo xtask gen` from lib/mesh-render.\n\
         ---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n{admission}{}",
        rendered.to_yaml()
    );
    (PathBuf::from(COMPONENTS).join(format!("{name}.yaml")), text)
}
