use mesh_render::PlatformKind;
use serde::Deserialize as _;
use serde_json::Value;

use super::*;

const MESH: &str = "
apiVersion: sailoperator.io/v1
kind: Istio
metadata:
  name: default
spec:
  profile: ambient
---
# The agent.
apiVersion: sailoperator.io/v1
kind: IstioCNI
metadata: {name: default}
---
apiVersion: sailoperator.io/v1
kind: ZTunnel
metadata: {name: default}
spec:
  namespace: node-proxies
  targetRef: {kind: Istio, name: default}
";

fn on(kind: PlatformKind) -> Platform {
    Platform {
        kind,
        ..Platform::default()
    }
}

fn rendered(text: &str) -> Output {
    render(text, on(PlatformKind::OpenShift)).unwrap()
}

fn refusal(text: &str) -> String {
    render(text, Platform::default()).unwrap_err().to_string()
}

fn names(output: &Output, kind: &str) -> Vec<String> {
    let documents = serde_yaml_ng::Deserializer::from_str(&output.yaml);
    let objects = documents.map(|document| Value::deserialize(document).unwrap());
    let objects = objects.filter(|object| object["kind"] == kind);
    objects
        .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_resources_of_a_mesh_become_all_of_its_objects() {
    let output = rendered(MESH);
    assert_eq!(output.notes, [""; 0]);
    assert_eq!(names(&output, "Deployment"), ["istiod"]);
    assert_eq!(names(&output, "DaemonSet"), ["istio-cni-node", "ztunnel"]);
    let constraints = names(&output, "SecurityContextConstraints");
    assert_eq!(constraints, ["lateen-cni", "lateen-ztunnel"]);
    let vanilla = render(MESH, Platform::default()).unwrap();
    assert_eq!(names(&vanilla, "SecurityContextConstraints"), [""; 0]);
}

#[test]
fn the_control_plane_trusts_the_ztunnel_of_the_same_input() {
    let output = rendered(MESH);
    assert!(
        output.yaml.contains("value: node-proxies/ztunnel"),
        "{}",
        output.yaml
    );
}

#[test]
fn revisions_are_named_as_the_operator_names_them() {
    let istio = "{apiVersion: sailoperator.io/v1, kind: Istio, metadata: {name: mesh}, spec:
        {version: v1.30-latest, updateStrategy: {type: RevisionBased}}}\n";
    let tag =
        "---\n{apiVersion: sailoperator.io/v1, kind: IstioRevisionTag, metadata: {name: prod},
        spec: {targetRef: {kind: Istio, name: mesh}}}\n";
    let output = rendered(&format!("{istio}{tag}"));
    let services = names(&output, "Service");
    assert_eq!(
        services,
        ["istiod-mesh-v1-30-latest", "istiod-revision-tag-prod"]
    );
}

#[test]
fn what_has_no_effect_is_told_with_its_document() {
    let text = format!("{MESH}  values: {{ztunnel: {{logLevl: debug}}}}\n  unknown: 1\n");
    let output = rendered(&text);
    assert_eq!(
        output.notes,
        [
            "document 3 (ZTunnel default): spec.unknown is not known and has no effect",
            "document 3 (ZTunnel default): spec.values.ztunnel.logLevl is not known and has no effect",
        ]
    );
}

#[test]
fn what_cannot_be_rendered_is_refused_with_document_field_and_remedy() {
    let resource =
        |kind: &str, rest: &str| format!("apiVersion: sailoperator.io/v1\nkind: {kind}\n{rest}");
    let named = |kind: &str, spec: &str| {
        resource(kind, &format!("metadata: {{name: default}}\nspec: {spec}"))
    };
    for (text, refused) in [
        (String::new(), "there is no resource in the input"),
        ("a: b\n---\n{".to_owned(), "document 1 is of no kind"),
        (
            resource("Istio", "spec: {}"),
            "document 1 (Istio ): metadata.name: is missing",
        ),
        (
            resource("ZTunnel", "metadata: {name: x}"),
            "document 1 (ZTunnel x): metadata.name: must be `default`",
        ),
        (
            named("Istio", "{version: v1.3.0}"),
            "document 1 (Istio default): spec.version: ",
        ),
        (
            named("Istio", "{profile: moon}"),
            "document 1 (Istio default): spec.profile: there is no profile `moon`",
        ),
        (
            named("Istio", "{updateStrategy: {type: Never}}"),
            "document 1 (Istio default): spec.updateStrategy.type: ",
        ),
        (
            named("Istio", "{values: {pilot: {autoscaleEnabled: 7}}}"),
            "document 1 (Istio default): spec.values.pilot.autoscaleEnabled: ",
        ),
        (
            named("Istio", "{values: {global: {istioNamespace: x}}}"),
            "document 1 (Istio default): spec.values.global.istioNamespace: must be spec.namespace",
        ),
        (
            named(
                "IstioRevision",
                "{version: v1.30.3, namespace: x, values: {revision: y}}",
            ),
            "document 1 (IstioRevision default): spec.values.revision: must be ``",
        ),
        (
            named("ZTunnel", "{targetRef: {kind: Istio, name: mesh}}"),
            "document 1 (ZTunnel default): spec.targetRef: there is no Istio `mesh` in the input: give it",
        ),
    ] {
        let error = refusal(&text);
        assert!(error.starts_with(refused), "{error}");
    }
    let error = refusal("apiVersion: v1\nkind: Pod\n");
    assert!(error.contains("kind Pod of v1: only Istio"), "{error}");
}

#[test]
fn the_older_version_of_ztunnel_is_taken() {
    let text = "apiVersion: sailoperator.io/v1alpha1\nkind: ZTunnel\nmetadata: {name: default}\n\
                spec: {profile: ambient}\n";
    assert_eq!(names(&rendered(text), "DaemonSet"), ["ztunnel"]);
}
