//! The commands of the guides, block by block as a reader pastes them.

use crate::kubectl::{Kubectl, root};

/// Pretends that the operator, or a controller, has done its part before a block is run.
async fn prepare(kubectl: &Kubectl, block: &str) {
    if block.contains("--for=condition=Available") {
        let status = r#"{"status":{"conditions":[{"type":"Available","status":"True"}]}}"#;
        patch_status(
            kubectl,
            "-n lateen-operator deployment/lateen-operator",
            status,
        )
        .await;
    }
    if block.contains("=Healthy") {
        for resource in ["istio/default", "istiocni/default", "ztunnel/default"] {
            patch_status(kubectl, resource, r#"{"status":{"state":"Healthy"}}"#).await;
        }
    }
    if block.contains("deployment/istiod") {
        kubectl
            .say("create -n istio-system deployment istiod --image=example/istiod")
            .await;
    }
    if block.contains("finalizers") {
        kubectl.say("apply -f manifests/operator.yaml").await;
        kubectl
            .say("wait --for=condition=Established --timeout=20s crd --all")
            .await;
        kubectl.say("apply -f manifests/ambient.yaml").await;
    }
}

async fn patch_status(kubectl: &Kubectl, resource: &str, status: &str) {
    let command = format!("patch {resource} --subresource=status --type=merge -p {status}");
    kubectl.say(&command).await;
}

/// The shell blocks of a guide, cut where a wait begins.
fn blocks(guide: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/guides").join(guide)).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| {
        rest.split("```")
            .next()
            .unwrap_or_default()
            .replace("oc ", "kubectl ")
    });
    // What happens between a command and the wait for it is the operator's part.
    let parts = blocks.flat_map(|block| {
        let parts = block.replace("\nkubectl wait", "\u{0}kubectl wait");
        parts.split('\u{0}').map(str::to_owned).collect::<Vec<_>>()
    });
    parts.collect()
}

async fn follow(kubectl: &Kubectl, guide: &str) {
    let blocks = blocks(guide);
    assert!(blocks.len() > 1, "{guide} has no commands");
    // Older ones wait for conditions only, and cannot pretend either.
    let waits = kubectl.minor().await >= 24;
    for block in blocks {
        if !waits && (block.contains("=Healthy") || block.contains("=Available")) {
            continue;
        }
        // The network of OpenShift is not here.
        if block.contains("network.operator") {
            continue;
        }
        prepare(kubectl, &block).await;
        let said = kubectl.shell(&block).await;
        assert!(said.ok, "{guide}: {block}\n{}{}", said.out, said.err);
    }
}

#[tokio::test]
async fn the_commands_of_the_guides_work() {
    let kubectl = Kubectl::start().await;
    for guide in [
        "install-kubernetes.md",
        "configuration.md",
        "upgrade.md",
        "uninstall.md",
    ] {
        follow(&kubectl, guide).await;
    }
}

#[tokio::test]
async fn the_commands_for_openshift_work() {
    let kubectl = Kubectl::start().await;
    kubectl.say("create namespace my-project").await;
    follow(&kubectl, "install-openshift.md").await;
}
