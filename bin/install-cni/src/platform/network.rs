//! The node's network: what keeps the kubelet's probes from pods in the mesh, and what takes the plugin's place.
//!
//! The kubelet probes a pod from its node. The mesh gives these packets a link-local source address on the
//! host, by which the pod knows them. A network that carries packets past the host's stack, or rewrites their
//! addresses itself, undoes that: pods in the mesh never become ready.

use serde_json::Value;

use super::{Cilium, Finding, Host, Reason};

/// The settings of Cilium that matter, by their keys in its ConfigMap.
pub(super) const CILIUM_SETTINGS: [&str; 6] = [
    EXCLUSIVE,
    BPF_MASQUERADE,
    LEGACY_ROUTING,
    REPLACES_KUBE_PROXY,
    HOST_NAMESPACE_ONLY,
    "tunnel-protocol",
];
const EXCLUSIVE: &str = "cni-exclusive";
const BPF_MASQUERADE: &str = "enable-bpf-masquerade";
const LEGACY_ROUTING: &str = "enable-host-legacy-routing";
const REPLACES_KUBE_PROXY: &str = "kube-proxy-replacement";
const HOST_NAMESPACE_ONLY: &str = "bpf-lb-sock-hostns-only";

/// The first version of Calico whose eBPF data plane lets probes with a link-local source through.
const CALICO_BPF_SINCE: (u32, u32) = (3, 29);
/// On nodes of OVN-Kubernetes: how its gateways work, as JSON by network.
const OVN_GATEWAY: &str = "k8s.ovn.org/l3-gateway-config";
/// On nodes of EKS whose pods may have security groups of their own.
const TRUNK: &str = "vpc.amazonaws.com/has-trunk-attached";
/// On nodes of GKE whose pods run in gVisor.
const SANDBOX: &str = "sandbox.gke.io/runtime";

/// What is to be said about the network.
pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(cilium(host));
    findings.extend(calico(host));
    findings.extend(shared_gateway(host));
    findings.extend(branch_interfaces(host));
    findings.extend(sandboxed(host));
    findings.extend(multus(host));
    findings.extend(other_mesh(host));
    findings
}

fn cilium(host: &Host) -> Vec<Finding> {
    let renamed = host.conf_files.iter();
    let renamed = renamed.filter(|file| file.name.ends_with(".cilium_bak"));
    let has_renamed = renamed.count() > 0;
    let settings = host.cilium.as_ref().map(|Cilium { settings }| settings);
    let Some(Some(settings)) = settings else {
        // Cilium runs, or has run, and does not tell how.
        let runs = settings.is_some() || host.has_plugin("cilium-cni");
        return (runs && has_renamed).then(exclusive).into_iter().collect();
    };
    let is = |key: &str, value: &str| settings.get(key).is_some_and(|found| found == value);
    let replaces = is(REPLACES_KUBE_PROXY, "true") || is(REPLACES_KUBE_PROXY, "strict");
    let masquerades = is(BPF_MASQUERADE, "true");
    let mut findings = Vec::new();
    // Cilium's own default is to be exclusive.
    if !is(EXCLUSIVE, "false") {
        findings.push(exclusive());
    }
    if masquerades {
        findings.push(Finding::new(
            Reason::CiliumMasquerade,
            "Cilium masquerades in BPF, which changes the source address by which pods in the mesh know the \
             kubelet's probes",
            helm("bpf.masquerade=false"),
        ));
    }
    if masquerades && replaces && !is(LEGACY_ROUTING, "true") {
        findings.push(Finding::new(
            Reason::CiliumHostRouting,
            "Cilium routes packets in BPF, past the host's rules that mark the kubelet's probes",
            helm("bpf.hostLegacyRouting=true"),
        ));
    }
    if replaces && !is(HOST_NAMESPACE_ONLY, "true") {
        findings.push(Finding::new(
            Reason::CiliumSocketBalancing,
            "Cilium chooses the endpoint of a service within the pod, before the mesh sees which service is \
             meant",
            helm("socketLB.hostNamespaceOnly=true"),
        ));
    }
    findings
}

fn exclusive() -> Finding {
    Finding::new(
        Reason::CiliumExclusive,
        "Cilium removes the CNI configurations of others, the mesh's among them, so that new pods start \
         outside of the mesh",
        helm("cni.exclusive=false"),
    )
}

fn helm(value: &str) -> String {
    format!("Whoever runs Cilium installs it with the Helm value `{value}`")
}

fn calico(host: &Host) -> Option<Finding> {
    if host.calico_bpf != Some(true) {
        return None;
    }
    let remedy = "Whoever runs Calico updates it to 3.29 or later, or sets `bpfEnabled` of its \
                  FelixConfiguration to false";
    let images = host.node.iter().flat_map(|node| &node.images);
    match images.filter_map(|image| calico_version(image)).max() {
        Some(version) if version >= CALICO_BPF_SINCE => None,
        Some((major, minor)) => Some(Finding::new(
            Reason::CalicoBpf,
            format!(
                "Calico {major}.{minor} runs its eBPF data plane, which drops the kubelet's probes of pods in \
                 the mesh"
            ),
            remedy,
        )),
        None => Some(Finding::new(
            Reason::CalicoBpfVersion,
            "Calico runs its eBPF data plane, which before Calico 3.29 drops the kubelet's probes of pods in \
             the mesh; its version could not be told",
            remedy,
        )),
    }
}

/// The version in the name of an image of Calico's agent, such as `docker.io/calico/node:v3.28.1`.
fn calico_version(image: &str) -> Option<(u32, u32)> {
    let (name, tag) = image.rsplit_once(':')?;
    if !name.ends_with("calico/node") && !name.ends_with("calico-node") {
        return None;
    }
    let mut numbers = tag.strip_prefix('v')?.split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

fn shared_gateway(host: &Host) -> Option<Finding> {
    let gateways: Value = serde_json::from_str(host.annotation(OVN_GATEWAY)?).ok()?;
    let mut networks = gateways.as_object()?.values();
    if !networks.any(|network| network["mode"] == "shared") {
        return None;
    }
    Some(Finding::new(
        Reason::SharedGatewayMode,
        "OVN-Kubernetes runs in shared gateway mode, in which the kubelet's probes do not reach pods in the \
         mesh",
        "A cluster administrator sets spec.defaultNetwork.ovnKubernetesConfig.gatewayConfig.routingViaHost of \
         networks.operator.openshift.io `cluster` to true, which restarts the network node by node and ends \
         hardware offload",
    ))
}

/// Probes of a pod with an interface of its own come back by that interface; early demultiplexing takes them
/// for packets of another connection.
fn branch_interfaces(host: &Host) -> Option<Finding> {
    let early = host.sysctl("net.ipv4.tcp_early_demux") == Some("1");
    if host.label(TRUNK) != Some("true") || !early {
        return None;
    }
    Some(Finding::new(
        Reason::BranchInterfaces,
        "Pods on this node may have security groups of their own (branch interfaces) while the sysctl \
         net.ipv4.tcp_early_demux is 1: the kubelet's probes of such pods are lost",
        "Set DISABLE_TCP_EARLY_DEMUX of the init container of the DaemonSet kube-system/aws-node to true, and \
         POD_SECURITY_GROUP_ENFORCING_MODE to standard",
    ))
}

fn sandboxed(host: &Host) -> Option<Finding> {
    let runtime = host.label(SANDBOX)?;
    Some(Finding::new(
        Reason::SandboxedPods,
        format!(
            "Pods on this node run in {runtime}, with a network stack of their own that the mesh's rules do \
             not reach: their traffic passes the mesh by"
        ),
        "Keep pods that belong in the mesh off these nodes",
    ))
}

fn multus(host: &Host) -> Option<Finding> {
    if !host.chained || !host.has_plugin("multus") {
        return None;
    }
    Some(Finding::new(
        Reason::MultusChained,
        "Multus calls the plugin once for each network of a pod whose configuration it is chained to; the \
         agent takes the repetitions for one",
        "Nothing has to be done; with `cni.provider=multus` and `cni.chained=false` it is called once, for pods \
         that ask for it",
    ))
}

fn other_mesh(host: &Host) -> Option<Finding> {
    let others = [
        ("linkerd-cni", "Linkerd"),
        ("kuma-cni", "Kuma"),
        ("consul-cni", "Consul"),
    ];
    let (_, name) = others.into_iter().find(|(kind, _)| host.has_plugin(kind))?;
    Some(Finding::new(
        Reason::OtherMesh,
        format!("{name}'s plugin is called for the pods of this node as well"),
        "A pod belongs to one mesh: keep the labels of the two apart",
    ))
}
