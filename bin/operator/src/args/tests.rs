//! Command lines as Deployments have them.

use super::*;
use crate::images::Component;

fn read(words: &[&str], env: &[(&str, &str)]) -> Result<Config, Error> {
    let flags = flags(words);
    Config::try_new(&flags, &env.iter().copied().collect())
}

fn flags(words: &[&str]) -> Flags {
    let words = ["operator"].iter().chain(words);
    let cli = Cli::try_parse_from(words).unwrap();
    match cli.command {
        Some(Command::Run(flags)) => *flags,
        _ => cli.flags,
    }
}

#[test]
fn the_arguments_of_sails_deployment_are_taken() {
    let words = [
        "--metrics-bind-address=:8443",
        "--health-probe-bind-address=:8081",
        "--config-file=/dev/null",
        "--resource-directory=/var/lib/sail-operator/resources",
        "--max-concurrent-reconciles=3",
        "--leader-elect",
        "--log-api-requests=false",
        "--zap-log-level=debug",
        "--zap-encoder=json",
    ];
    let config = read(&words, &[("POD_NAMESPACE", "mesh"), ("POD_NAME", "op-1")]).unwrap();
    assert_eq!(
        config.listen.metrics.map(|address| address.port()),
        Some(8443)
    );
    assert_eq!(config.listen.probes.port(), 8081);
    assert_eq!((config.workers, config.elect), (3, true));
    assert_eq!(
        (config.pod.as_str(), config.defaults.namespace.as_str()),
        ("op-1", "mesh")
    );
    assert_eq!(
        (config.log.filter.as_str(), config.log.format),
        ("debug", log::Format::Json)
    );
}

#[test]
fn flags_without_effect_are_said() {
    let flags = flags(&["run", "--resource-directory=/x", "--zap-devel"]);
    assert_eq!(
        flags.without_effect(),
        ["--resource-directory", "--zap-devel"]
    );
}

#[test]
fn metrics_and_the_election_can_be_switched_off() {
    let config = read(&["--metrics-bind-address=0", "--leader-elect=false"], &[]).unwrap();
    assert!(config.listen.metrics.is_none() && !config.elect);
}

#[test]
fn a_wrong_value_names_its_flag() {
    let error = read(&["--metrics-bind-address=nowhere"], &[]).unwrap_err();
    let expected = "--metrics-bind-address=`nowhere`: expected `:port` or `address:port`";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn images_come_from_a_file_and_from_the_environment_which_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.properties");
    let text = "kubectl.kubernetes.io/default-container=\"operator\"\n\
                images.v1_30_3.cni=\"example.com/cni@sha256:1\"\n# comment\n\
                images.v1_30_3.ztunnel=example.com/ztunnel:1\n";
    fs::write(&file, text).unwrap();
    let flag = format!("--config-file={}", file.display());
    let env = [
        ("RELATED_IMAGE_V1_30_3_ZTUNNEL", "mirror/ztunnel:1"),
        ("RELATED_IMAGE_X", "y"),
    ];
    let images = read(&[&flag], &env).unwrap().defaults.images;
    assert_eq!(
        images.get("v1.30.3", Component::Cni),
        Some("example.com/cni@sha256:1")
    );
    assert_eq!(
        images.get("v1.30.3", Component::Ztunnel),
        Some("mirror/ztunnel:1")
    );

    fs::write(&file, "images\n").unwrap();
    let error = read(&[&flag], &[]).unwrap_err().to_string();
    assert!(
        error.contains("line 1 is not of the form name=value"),
        "{error}"
    );
    let error = read(&["--config-file=/nowhere/at/all"], &[]).unwrap_err();
    assert!(matches!(error, Error::Properties { .. }), "{error}");
}
