//! The constraints against the pods, by OpenShift's own rules of admission: enough, and not more.

use mesh_api::sail::{IstioCNISpec, ZTunnelSpec};
use serde_json::{Value, json};

use super::REQUIRED;
use crate::{Platform, PlatformKind, Rendered, Settings, cni, ztunnel};

const SWITCHES: [&str; 7] = [
    "allowPrivilegedContainer",
    "allowPrivilegeEscalation",
    "allowHostDirVolumePlugin",
    "allowHostNetwork",
    "allowHostPID",
    "allowHostIPC",
    "allowHostPorts",
];

fn settings() -> Settings {
    Settings {
        platform: Platform {
            kind: PlatformKind::OpenShift,
            ..Platform::default()
        },
        release: "1.30.3".to_owned(),
        ..Settings::default()
    }
}

fn agent(values: &Value) -> Rendered {
    let spec = IstioCNISpec {
        namespace: "istio-cni".to_owned(),
        values: values.as_object().unwrap().clone(),
        ..IstioCNISpec::default()
    };
    cni::render(&spec, &settings()).unwrap()
}

fn proxy(values: &Value) -> Rendered {
    let spec = ZTunnelSpec {
        namespace: "ztunnel".to_owned(),
        values: values.as_object().unwrap().clone(),
        ..ZTunnelSpec::default()
    };
    ztunnel::render(&spec, None, &settings()).unwrap()
}

/// Both programs as they are, and with values that change what their pods need.
fn all() -> Vec<Rendered> {
    let istio = json!({"global": {"distribution": "istio"}});
    vec![
        agent(&json!({})),
        agent(&istio),
        agent(&json!({"cni": {"ambient": {"shareHostNetworkNamespace": true}}})),
        agent(&json!({"cni": {"seccompProfile": {"type": "Unconfined"}}})),
        agent(
            &json!({"cni": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}}),
        ),
        agent(&json!({"cni": {"seLinuxOptions": {"type": "own_t", "level": "s0:c1,c2"}}})),
        proxy(&json!({})),
        proxy(&istio),
        proxy(&json!({"ztunnel": {
            "volumes": [
                {"name": "spire", "csi": {"driver": "csi.spiffe.io"}},
                {"name": "key", "secret": {"secretName": "key"}},
            ],
        }})),
    ]
}

fn find<'a>(rendered: &'a Rendered, kind: &str) -> &'a Value {
    let mut objects = rendered.objects.iter();
    &objects
        .find(|object| object.kind.kind == kind)
        .unwrap()
        .body
}

fn constraints(rendered: &Rendered) -> &Value {
    find(rendered, "SecurityContextConstraints")
}

fn template(rendered: &Rendered) -> &Value {
    &find(rendered, "DaemonSet")["spec"]["template"]
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().into_iter().flatten().collect()
}

/// Why OpenShift would refuse or change the pod under the constraints.
fn objection(constraints: &Value, pod: &Value) -> Option<String> {
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    let may = |switch: &str| constraints[switch] == true;
    let wants = |value: &Value| *value == true;
    let host_network = wants(&pod["hostNetwork"]);
    let switches = [
        ("allowPrivilegedContainer", wants(&context["privileged"])),
        (
            "allowPrivilegeEscalation",
            context["allowPrivilegeEscalation"] != false,
        ),
        ("allowHostNetwork", host_network),
        ("allowHostPID", wants(&pod["hostPID"])),
        ("allowHostIPC", wants(&pod["hostIPC"])),
        // In the host's network every port of a container is one of the host's.
        (
            "allowHostPorts",
            host_network && !list(&container["ports"]).is_empty(),
        ),
    ];
    let denied = switches
        .into_iter()
        .find(|(switch, wanted)| *wanted && !may(switch));
    denied
        .map(|(switch, _)| switch.to_owned())
        .or_else(|| capabilities(constraints, context))
        .or_else(|| volumes(constraints, pod))
        .or_else(|| identity(constraints, context))
}

fn capabilities(constraints: &Value, context: &Value) -> Option<String> {
    let allowed = list(&constraints["allowedCapabilities"]);
    let mut added = list(&context["capabilities"]["add"]).into_iter();
    let denied = added.find(|capability| !allowed.contains(capability));
    denied.map(|capability| format!("capability {capability}"))
}

fn volumes(constraints: &Value, pod: &Value) -> Option<String> {
    let allowed = list(&constraints["volumes"]);
    let own = list(&pod["volumes"]).into_iter().flat_map(|volume| {
        let fields = volume.as_object().unwrap().keys();
        fields.filter(|field| *field != "name").cloned()
    });
    let token = (pod["automountServiceAccountToken"] != false).then(|| "projected".to_owned());
    own.chain(token).find_map(|kind| {
        let host = kind == "hostPath" && constraints["allowHostDirVolumePlugin"] != true;
        let listed = allowed.contains(&&json!(kind));
        (host || !listed).then(|| format!("volume {kind}"))
    })
}

fn identity(constraints: &Value, context: &Value) -> Option<String> {
    let user = &constraints["runAsUser"];
    if user["type"] != "RunAsAny" && user["uid"] != context["runAsUser"] {
        return Some("user".to_owned());
    }
    if constraints["readOnlyRootFilesystem"] == true && context["readOnlyRootFilesystem"] != true {
        return Some("root file system".to_owned());
    }
    let se_linux = &constraints["seLinuxContext"];
    let wanted = &se_linux["seLinuxOptions"];
    // Without a level the namespace's is taken, which is another one.
    let compared = wanted["level"]
        .as_str()
        .is_some_and(|level| !level.is_empty());
    if se_linux["type"] != "RunAsAny" && !(compared && *wanted == context["seLinuxOptions"]) {
        return Some("SELinux context".to_owned());
    }
    let profile = match context["seccompProfile"]["type"].as_str() {
        Some("RuntimeDefault") => "runtime/default".to_owned(),
        Some("Unconfined") => "unconfined".to_owned(),
        Some("Localhost") => {
            format!(
                "localhost/{}",
                context["seccompProfile"]["localhostProfile"].as_str()?
            )
        }
        _ => return Some("no seccomp profile".to_owned()),
    };
    let profiles = list(&constraints["seccompProfiles"]);
    (!profiles.contains(&&json!(profile))).then(|| format!("seccomp profile {profile}"))
}

/// The constraints with one privilege less each, and what that is.
fn narrower(constraints: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for switch in SWITCHES
        .into_iter()
        .filter(|switch| constraints[switch] == true)
    {
        let mut less = constraints.clone();
        less[switch] = false.into();
        all.push((switch.to_owned(), less));
    }
    for field in ["allowedCapabilities", "volumes", "seccompProfiles"] {
        for (at, entry) in list(&constraints[field]).into_iter().enumerate() {
            let mut less = constraints.clone();
            less[field].as_array_mut().unwrap().remove(at);
            all.push((format!("{field} {entry}"), less));
        }
    }
    if constraints["readOnlyRootFilesystem"] != true {
        let mut less = constraints.clone();
        less["readOnlyRootFilesystem"] = true.into();
        all.push(("readOnlyRootFilesystem".to_owned(), less));
    }
    all
}

#[test]
fn the_constraints_admit_the_pods() {
    for rendered in all() {
        let (constraints, template) = (constraints(&rendered), template(&rendered));
        assert_eq!(objection(constraints, &template["spec"]), None);
        let required = &template["metadata"]["annotations"][REQUIRED];
        assert_eq!(*required, constraints["metadata"]["name"]);
    }
}

#[test]
fn no_privilege_can_be_taken_from_the_constraints() {
    for rendered in all() {
        let pod = &template(&rendered)["spec"];
        for (privilege, less) in narrower(constraints(&rendered)) {
            assert!(
                objection(&less, pod).is_some(),
                "{privilege} is granted and not needed"
            );
        }
        // A range of users or contexts would be more than the pod's own.
        assert_eq!(constraints(&rendered)["runAsUser"]["type"], "MustRunAs");
        assert_eq!(
            constraints(&rendered)["seLinuxContext"]["type"],
            "MustRunAs"
        );
    }
}

#[test]
fn nothing_is_privileged_and_the_host_s_processes_stay_out_of_reach() {
    for rendered in all() {
        for switch in ["allowPrivilegedContainer", "allowHostPID", "allowHostIPC"] {
            assert_eq!(constraints(&rendered)[switch], false, "{switch}");
        }
    }
    let [agent, proxy] = [agent(&json!({})), proxy(&json!({}))];
    let expected = json!([
        "DAC_OVERRIDE",
        "NET_ADMIN",
        "NET_RAW",
        "SYS_ADMIN",
        "SYS_PTRACE"
    ]);
    assert_eq!(constraints(&agent)["allowedCapabilities"], expected);
    let expected = json!(["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]);
    assert_eq!(constraints(&proxy)["allowedCapabilities"], expected);
    for rendered in [agent, proxy] {
        assert_eq!(constraints(&rendered)["allowHostNetwork"], false);
        assert_eq!(constraints(&rendered)["readOnlyRootFilesystem"], true);
    }
}

#[test]
fn each_privilege_has_its_reason_beside_it() {
    for rendered in all() {
        let constraints = constraints(&rendered);
        let text = constraints["metadata"]["annotations"]["kubernetes.io/description"].as_str();
        let lines: Vec<_> = text.unwrap().lines().collect();
        let has = |privilege: &str| lines.iter().any(|line| line.starts_with(privilege));
        for capability in list(&constraints["allowedCapabilities"]) {
            let capability = capability.as_str().unwrap();
            assert!(has(&format!("{capability}: ")), "{capability}");
        }
        assert!(!text.unwrap().contains("asked for by spec.values"));
        let named = [
            ("allowPrivilegeEscalation", "Privilege escalation: "),
            ("allowHostDirVolumePlugin", "Folders of the host: "),
            ("allowHostNetwork", "Network and ports of the host: "),
        ];
        for (switch, line) in named
            .into_iter()
            .filter(|(switch, _)| constraints[switch] == true)
        {
            assert!(has(line), "{switch}");
        }
    }
}

#[test]
fn the_pods_account_alone_may_use_them() {
    for rendered in all() {
        let name = constraints(&rendered)["metadata"]["name"].clone();
        let pod = &template(&rendered)["spec"];
        let namespace = &find(&rendered, "DaemonSet")["metadata"]["namespace"];
        let of = |kind: &str| {
            let objects = rendered.objects.iter();
            let mut of = objects.filter(|object| object.kind.kind == kind && name == object.name);
            of.next().unwrap().body.clone()
        };
        assert_eq!(
            of("Role")["rules"],
            json!([{
                "apiGroups": ["security.openshift.io"], "resourceNames": [name],
                "resources": ["securitycontextconstraints"], "verbs": ["use"],
            }])
        );
        let subject = json!([{
            "kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": namespace,
        }]);
        assert_eq!(of("RoleBinding")["subjects"], subject);
        assert_eq!(constraints(&rendered)["users"], json!([]));
        assert_eq!(constraints(&rendered)["groups"], json!([]));
    }
}

#[test]
fn other_platforms_have_none() {
    let plain = Settings {
        platform: Platform::default(),
        ..settings()
    };
    let spec = ZTunnelSpec::default();
    let rendered = ztunnel::render(&spec, None, &plain).unwrap();
    let mut objects = rendered.objects.iter();
    assert!(objects.all(|object| object.kind.group != "security.openshift.io"));
    assert_eq!(
        template(&rendered)["metadata"]["annotations"][REQUIRED],
        Value::Null
    );
}
