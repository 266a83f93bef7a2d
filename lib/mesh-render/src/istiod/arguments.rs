//! The control plane's command line and environment.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::EnvVar;
use mesh_api::control_plane::{self, MONITORING_PORT, Refusal};
use serde_json::Value;

use super::Plan;
use crate::{
    Error, PlatformKind,
    pod::env::{self, field, resource, text},
};

/// What the program knows itself by. With other values it would read another revision's configuration, keep
/// its root where nobody looks, or share a lock with another replica.
const NEEDED: [&str; 4] = ["POD_NAME", "POD_NAMESPACE", "REVISION", "SERVICE_ACCOUNT"];

/// How the program is started.
pub(super) struct Arguments {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<EnvVar>,
}

/// The namespace of ztunnels where neither the values nor a ZTunnel name one: the default of a ZTunnel.
const ZTUNNEL_NAMESPACE: &str = "ztunnel";

/// The command line and the environment. What would keep the program from starting is an error here, where it
/// can be told with the path of the value.
pub(super) fn arguments(plan: &mut Plan<'_>) -> Result<Arguments, Error> {
    if !plan.is_istio() {
        require_istiod_certificates(plan)?;
    }
    Ok(Arguments {
        args: args(plan),
        env: environment(plan)?,
    })
}

fn require_istiod_certificates(plan: &Plan<'_>) -> Result<(), Error> {
    match plan.values.global.pilot_cert_provider.as_deref() {
        None | Some("" | "istiod") => Ok(()),
        Some(other) => Err(Error::Value {
            path: "global.pilotCertProvider".to_owned(),
            problem: format!("`{other}` is not supported by this control plane: use istiod"),
        }),
    }
}

fn args(plan: &mut Plan<'_>) -> Vec<String> {
    let (pilot, global) = (&plan.values.pilot, &plan.values.global);
    let domain = global.proxy.cluster_domain.as_deref();
    let level = global.logging.level.as_deref();
    let mut args = vec![
        "discovery".to_owned(),
        format!("--monitoringAddr=:{MONITORING_PORT}"),
        format!(
            "--log_output_level={}",
            filled(level).unwrap_or("default:info")
        ),
        format!("--domain={}", filled(domain).unwrap_or("cluster.local")),
    ];
    if global.log_as_json == Some(true) {
        args.push("--log_as_json".to_owned());
    }
    let age = filled(pilot.keepalive_max_server_connection_age.as_deref());
    args.extend(age.map(|age| format!("--keepaliveMaxServerConnectionAge={age}")));
    if plan.is_istio() {
        args.extend(tls(plan));
        args.extend(plan.values.pilot.extra_container_args.iter().cloned());
    } else {
        args.extend(known_arguments(plan));
    }
    args
}

/// The user's further arguments without those that this distribution's program would refuse.
fn known_arguments(plan: &mut Plan<'_>) -> Vec<String> {
    let extra = std::mem::take(&mut plan.values.pilot.extra_container_args);
    let mut known = Vec::new();
    let mut belongs_to_refused = false;
    for (at, argument) in extra.into_iter().enumerate() {
        let taken = match argument.strip_prefix("--") {
            Some(flag) => {
                let name = flag.split('=').next().unwrap_or_default();
                control_plane::FLAGS.contains(&name)
            }
            None => !belongs_to_refused,
        };
        belongs_to_refused = !taken;
        if taken {
            known.push(argument);
        } else {
            let why = "this control plane has no such flag and would not start with it";
            plan.note(format!("pilot.extraContainerArgs[{at}]"), why);
        }
    }
    known
}

/// What the cluster demands of TLS, unless the user's arguments say something about it.
fn tls(plan: &Plan<'_>) -> Vec<String> {
    let Some(tls) = &plan.settings.platform.tls else {
        return Vec::new();
    };
    let extra = &plan.values.pilot.extra_container_args;
    let said = |flag: &str| extra.iter().any(|argument| argument.starts_with(flag));
    let mut args = Vec::new();
    if !said("--tls-min-version") {
        let version = if tls.min_version == "TLSV1_3" {
            "1.3"
        } else {
            "1.2"
        };
        args.push(format!("--tls-min-version={version}"));
    }
    if tls.min_version != "TLSV1_3" && !tls.ciphers.is_empty() && !said("--tls-cipher-suites") {
        args.push(format!("--tls-cipher-suites={}", tls.ciphers.join(",")));
    }
    args
}

/// The variables in Istio's order: what identifies the pod, whom it trusts, the user's, the rest. The user's
/// win, since they are the only way to reach most settings, but for [`NEEDED`].
fn environment(plan: &mut Plan<'_>) -> Result<Vec<EnvVar>, Error> {
    let mut env = vec![
        text("REVISION", plan.revision()),
        text("PILOT_CERT_PROVIDER", "istiod"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        text("CLUSTER_ID", cluster(plan)),
        text("CA_TRUSTED_NODE_ACCOUNTS", trusted_accounts(plan)),
    ];
    if plan.is_istio() {
        env.extend(istios(plan));
    } else {
        env.push(text("ROOT_CA_DIR", super::deployment::PLUGGED_PATH));
    }
    if plan.values.pilot.taint.enabled == Some(true) {
        env.extend(untainting(plan));
    }
    let users = users(plan)?;
    let named: BTreeSet<_> = users.iter().map(|variable| variable.name.clone()).collect();
    env.retain(|variable| !named.contains(&variable.name));
    env.extend(users);
    if plan.is_istio() {
        return Ok(env);
    }
    for refusal in control_plane::REFUSED {
        if let Some(variable) = env.iter().find(|variable| variable.name == refusal.name) {
            accept(refusal, variable)?;
        }
    }
    Ok(env)
}

/// What the user wrote, without what the program needs to be ours. That ambient is off cannot be had of this
/// distribution; it stays on.
fn users(plan: &mut Plan<'_>) -> Result<Vec<EnvVar>, Error> {
    const AMBIENT: &str = "PILOT_ENABLE_AMBIENT";
    let off = |value: &String| ["false", "0"].contains(&value.as_str());
    if plan.values.pilot.env.get(AMBIENT).is_some_and(off) {
        let why = "the mesh is ambient, and nothing else is deployed";
        plan.note(format!("pilot.env.{AMBIENT}"), why);
        if !plan.is_istio() {
            let on = "true".to_owned();
            plan.values.pilot.env.insert(AMBIENT.to_owned(), on);
        }
    }
    let pilot = &plan.values.pilot;
    let (mut env, mut notes) = (Vec::new(), Vec::new());
    for (name, value) in &pilot.env {
        if NEEDED.contains(&name.as_str()) {
            notes.push(env::needed(format!("pilot.env.{name}")));
        } else {
            env.push(text(name, value));
        }
    }
    for (at, variable) in pilot.env_var_from.iter().enumerate() {
        let path = format!("pilot.envVarFrom[{at}]");
        if NEEDED.contains(&variable.name.as_str()) {
            notes.push(env::needed(path));
        } else if env.iter().any(|earlier| earlier.name == variable.name) {
            let problem = format!("`{}` is set already: name it once", variable.name);
            return Err(Error::Value { path, problem });
        } else {
            env.push(variable.clone());
        }
    }
    plan.notes.extend(notes);
    Ok(env)
}

/// An error if the program would not start with a variable.
fn accept(refusal: &Refusal, variable: &EnvVar) -> Result<(), Error> {
    let value = variable.value.as_deref().unwrap_or_default();
    if refusal.accepted.contains(&value) {
        return Ok(());
    }
    let problem = format!(
        "`{value}` is not supported by this control plane: {}",
        refusal.remedy
    );
    let path = match refusal.name {
        "PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS" => "pilot.taint.enabled".to_owned(),
        name => format!("pilot.env.{name}"),
    };
    Err(Error::Value { path, problem })
}

/// Variables that only Istio's control plane reads.
fn istios(plan: &Plan<'_>) -> Vec<EnvVar> {
    let global = &plan.values.global;
    let analysis = plan.at("/global/istiod/enableAnalysis");
    let analysis = analysis.and_then(Value::as_bool) == Some(true);
    let sampling = plan.at("/pilot/traceSampling").and_then(Value::as_f64);
    let sampling = sampling.unwrap_or(1.0);
    let mut env = vec![
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        text("KUBECONFIG", "/var/run/secrets/remote/config"),
        text("PILOT_TRACE_SAMPLING", sampling.to_string()),
        text("PILOT_ENABLE_ANALYSIS", analysis.to_string()),
        resource("GOMEMLIMIT", "limits.memory"),
        resource("GOMAXPROCS", "limits.cpu"),
    ];
    let platform = global.platform.as_deref();
    if platform.and_then(PlatformKind::named) == Some(PlatformKind::OpenShift) {
        env.push(text("PLATFORM", "openshift"));
    }
    let port = plan.at("/global/sts/servicePort").and_then(Value::as_i64);
    if let Some(port) = port.filter(|port| *port > 0) {
        env.push(text("TOKEN_ISSUER_STS_PORT", port.to_string()));
    }
    env
}

/// Nodes lose their taint when their agent is ready.
fn untainting(plan: &Plan<'_>) -> Vec<EnvVar> {
    let namespace = plan.values.pilot.taint.namespace.as_deref();
    let namespace =
        filled(namespace).map(|namespace| text("PILOT_NODE_UNTAINT_NAMESPACE", namespace));
    let mut env = vec![text("PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS", "true")];
    env.extend(namespace);
    env
}

fn cluster<'p>(plan: &'p Plan<'_>) -> &'p str {
    let name = plan.values.global.multi_cluster.cluster_name.as_deref();
    filled(name).unwrap_or("Kubernetes")
}

/// Who gets certificates for the pods of its node: the cluster's ztunnels, wherever they run.
fn trusted_accounts(plan: &Plan<'_>) -> String {
    let pilot = &plan.values.pilot;
    let namespace = filled(pilot.trusted_ztunnel_namespace.as_deref())
        .or_else(|| filled(plan.settings.ztunnel_namespace.as_deref()))
        .unwrap_or(ZTUNNEL_NAMESPACE);
    let name = filled(pilot.trusted_ztunnel_name.as_deref()).unwrap_or("ztunnel");
    format!("{namespace}/{name}")
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}
