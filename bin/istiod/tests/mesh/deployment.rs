//! The Deployment that the operator renders, as the program is started by it.

use istiod::{
    args::{Cli, Command},
    config::Config,
};
use mesh_api::{control_plane::FLAGS, sail::version};
use mesh_render::{
    Object, Platform, PlatformKind, Rendered, Settings, TlsProfile,
    istiod::{Revision, control_plane},
};
use mesh_runtime::{environment::Environment, log::Format};
use serde_json::{Value, json};

use super::cluster::SYSTEM;

/// The newest release on a cluster, rendered.
pub(crate) fn rendered(name: &str, values: &Value, platform: Platform) -> Rendered {
    let release = version::resolve(version::default_version()).unwrap();
    let revision = Revision {
        name,
        namespace: SYSTEM,
        values: values.as_object().unwrap(),
    };
    control_plane(revision, &Settings::released(release, platform)).unwrap()
}

/// What the program makes of the arguments and variables of its Deployment.
fn configuration(objects: &[Object]) -> Config {
    let mut deployments = objects
        .iter()
        .filter(|object| object.kind.kind == "Deployment");
    let pod = &deployments.next().unwrap().body["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let words = [vec!["istiod".to_owned()], texts(&container["args"])].concat();
    let Command::Discovery(flags) = <Cli as clap::Parser>::try_parse_from(words)
        .unwrap()
        .command
    else {
        panic!("the Deployment does not ask for discovery");
    };
    let environment: Environment = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| {
            let name = variable["name"].as_str().unwrap();
            // What comes from the pod's own fields is filled in as the kubelet does it.
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.namespace") => SYSTEM,
                Some(_) => "istiod-0",
                None => variable["value"].as_str().unwrap(),
            };
            (name, value)
        })
        .collect();
    Config::try_new(&flags, &environment).unwrap()
}

#[test]
fn the_program_starts_with_what_its_deployment_gives_it() {
    let openshift = Platform {
        kind: PlatformKind::OpenShift,
        fips: true,
        tls: Some(TlsProfile {
            min_version: "TLSV1_2".to_owned(),
            ciphers: vec!["ECDHE-RSA-AES128-GCM-SHA256".to_owned()],
        }),
    };
    for profile in mesh_render::layers::PROFILES {
        for platform in [Platform::default(), openshift.clone()] {
            let values = json!({"profile": profile});
            let config = configuration(&rendered("default", &values, platform).objects);
            assert_eq!(config.revision, "");
            assert_eq!(&*config.pod.namespace, SYSTEM);
            assert_eq!(config.callers.trusted_node_accounts, ["ztunnel/ztunnel"]);
            assert_eq!(config.authority.directory.to_str(), Some("/etc/cacerts"));
            assert_eq!(config.kubeconfig, None);
        }
    }
}

#[test]
fn what_the_values_say_reaches_the_program() {
    let values = json!({
        "revision": "canary",
        "global": {
            "logAsJson": true,
            "logging": {"level": "default:info,ca:debug"},
            "multiCluster": {"clusterName": "east"},
            "proxy": {"clusterDomain": "corp.example"},
        },
        "pilot": {
            "env": {"WAYPOINT_UNREADY": "bypass", "PILOT_ENABLE_AMBIENT": "false"},
            "extraContainerArgs": ["--tls-min-version=1.3", "--keepaliveInterval=30s"],
            "keepaliveMaxServerConnectionAge": "10m",
            "trustedZtunnelNamespace": "kube-system",
        },
    });
    let config = configuration(&rendered("canary", &values, Platform::default()).objects);
    assert_eq!(config.revision, "canary");
    assert_eq!(&*config.cluster_id, "east");
    assert_eq!(&*config.domain, "corp.example");
    assert_eq!(
        config.callers.trusted_node_accounts,
        ["kube-system/ztunnel"]
    );
    assert_eq!(config.streams.max_age.as_secs(), 600);
    assert!(config.features.bypass_unready_waypoints);
    assert_eq!(config.log.format, Format::Json);
    assert_eq!(
        config.log.filter,
        "info,mesh_identity=debug,istiod::ca=debug"
    );
}

#[test]
fn the_flags_that_are_rendered_are_those_that_the_program_has() {
    let command = <Cli as clap::CommandFactory>::command();
    let discovery = command.find_subcommand("discovery").unwrap();
    let mut flags: Vec<_> = discovery
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    flags.retain(|flag| *flag != "help");
    let mut known = FLAGS.to_vec();
    flags.sort_unstable();
    known.sort_unstable();
    assert_eq!(flags, known);
}
