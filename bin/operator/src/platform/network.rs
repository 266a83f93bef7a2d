//! Networks that need a setting before pods in the mesh work on them.
//!
//! The kubelet's probes are the common trouble. The CNI agent gives them a link-local source address on the
//! host, by which the pod knows them. A network that carries packets past the host's stack, or rewrites
//! their addresses itself, undoes that: pods in the mesh never become ready.

use super::{Finding, NODE, Reason, facts::Facts};
use crate::images::Component;

const CNI: &[Component] = &[Component::Cni];

/// What is to be said about the cluster's network.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(gateway_mode(facts));
    findings.extend(microshift(facts));
    findings.extend(cilium(facts));
    findings
}

fn gateway_mode(facts: &Facts) -> Option<Finding> {
    if facts.routing_via_host()? {
        return None;
    }
    let mut remedy = String::from(
        "A cluster administrator sets spec.defaultNetwork.ovnKubernetesConfig.gatewayConfig.\
         routingViaHost of networks.operator.openshift.io `cluster` to true, which restarts the network \
         node by node and ends hardware offload; the operator never changes it",
    );
    if facts.is_hosted() {
        remedy
            .push_str(". In a cluster with a hosted control plane its provider may have to do it");
    }
    Some(Finding {
        reason: Reason::SharedGatewayMode,
        concerns: NODE,
        message: "OVN-Kubernetes runs in shared gateway mode, in which the kubelet's probes do not reach \
                  pods in the mesh"
            .to_owned(),
        remedy,
    })
}

fn microshift(facts: &Facts) -> Option<Finding> {
    facts.microshift.as_ref()?;
    Some(Finding {
        reason: Reason::MicroShiftFolders,
        concerns: CNI,
        message: "MicroShift keeps its CNI folders elsewhere than OpenShift, and calls additional \
                  plugins only if Multus is installed (package microshift-multus)"
            .to_owned(),
        remedy:
            "Set cni.cniBinDir and cni.cniConfDir to the folders of CRI-O (`crio config` shows \
                 plugin_dirs and network_dir), and without Multus cni.provider to `default` and \
                 cni.chained to true"
                .to_owned(),
    })
}

/// Settings of Cilium by their keys in its ConfigMap.
fn cilium(facts: &Facts) -> Vec<Finding> {
    let Some(settings) = &facts.cilium else {
        return Vec::new();
    };
    let is = |key: &str, value: &str| settings.get(key).is_some_and(|found| found == value);
    let mut findings = Vec::new();
    // Cilium's own default is to be exclusive.
    if !is("cni-exclusive", "false") {
        findings.push(Finding {
            reason: Reason::CiliumExclusive,
            concerns: CNI,
            message: "Cilium removes the CNI configurations of others, the mesh's among them"
                .to_owned(),
            remedy: helm("cni.exclusive=false"),
        });
    }
    if is("enable-bpf-masquerade", "true") {
        findings.push(Finding {
            reason: Reason::CiliumMasquerade,
            concerns: NODE,
            message:
                "Cilium masquerades in BPF, which changes the source address by which pods in the \
                      mesh know the kubelet's probes"
                    .to_owned(),
            remedy: helm("bpf.masquerade=false"),
        });
    }
    let replaces = is("kube-proxy-replacement", "true") || is("kube-proxy-replacement", "strict");
    if replaces && !is("bpf-lb-sock-hostns-only", "true") {
        findings.push(Finding {
            reason: Reason::CiliumSocketBalancing,
            concerns: NODE,
            message:
                "Cilium chooses the endpoint of a service within the pod, before the mesh sees \
                      which service is meant"
                    .to_owned(),
            remedy: helm("socketLB.hostNamespaceOnly=true"),
        });
    }
    findings
}

fn helm(value: &str) -> String {
    format!("Whoever runs Cilium installs it with the Helm value `{value}`")
}
