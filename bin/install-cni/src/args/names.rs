//! The names of flags and variables.

/// A flag.
pub(super) struct Flag {
    /// Its name, without the dashes.
    pub(super) name: &'static str,
    /// What follows it.
    pub(super) form: Form,
    /// What it is for; nothing for one that is accepted without effect.
    pub(super) help: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Nothing, or `=BOOL`.
    Switch,
    /// A text of this name.
    Text(&'static str),
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    let form = Form::Switch;
    Flag { name, form, help }
}

const fn text(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    let form = Form::Text(value);
    Flag { name, form, help }
}

/// All flags. Those without help have no effect.
pub(super) const FLAGS: &[Flag] = &[
    text(
        "mounted-cni-net-dir",
        "DIRECTORY",
        "The node's CNI configuration [default: /host/etc/cni/net.d]",
    ),
    text(
        "cni-agent-run-dir",
        "DIRECTORY",
        "Sockets and files of agent and plugin [default: /var/run/istio-cni]",
    ),
    text(
        "cni-conf-name",
        "FILE",
        "The CNI configuration to use [default: the first that is there]",
    ),
    switch(
        "chained-cni-plugin",
        "Add the plugin to another network's chain [default: true]",
    ),
    switch(
        "istio-owned-cni-config",
        "Write a CNI configuration of our own [default: false]",
    ),
    text(
        "istio-owned-cni-config-filename",
        "FILE",
        "Its name [default: 02-istio-cni.conflist]",
    ),
    text(
        "istio-owned-cni-conf-filename",
        "FILE",
        "As --istio-owned-cni-config-filename",
    ),
    switch(
        "cni-conf-group-read",
        "Let the group read files that we make [default: false]",
    ),
    text(
        "monitoring-port",
        "PORT",
        "Port of the metrics; 0 for none [default: 15014]",
    ),
    text(
        "ztunnel-uds-address",
        "PATH",
        "Where ztunnels connect [default: /var/run/ztunnel/ztunnel.sock]",
    ),
    switch("ambient-enabled", "Must be true, or left out"),
    text(
        "ctrlz_port",
        "PORT",
        "Port of the debug views; 0 for none [default: 9876]",
    ),
    text(
        "ctrlz_address",
        "ADDRESS",
        "Address of the debug views [default: localhost]",
    ),
    text(
        "log_output_level",
        "LEVELS",
        "Log levels, as `level` or `scope:level,…` [default: info]",
    ),
    switch("log_as_json", "Write logs as JSON"),
    text(
        "kubeconfig",
        "FILE",
        "Kubeconfig of the API server [default: the pod's service account]",
    ),
    text("kubeconfig-mode", "MODE", ""),
    text("kube-ca-file", "FILE", ""),
    switch("skip-tls-verify", ""),
    switch("enable-ambient-detection-retry", ""),
    text("log-level", "LEVEL", ""),
    text("cni-network-config", "TEXT", ""),
    text("cni-network-config-file", "FILE", ""),
    text("log_target", "PATHS", ""),
    text("log_caller", "SCOPES", ""),
    text("log_stacktrace_level", "LEVELS", ""),
    text("log_rotate", "PATH", ""),
    text("log_rotate_max_age", "DAYS", ""),
    text("log_rotate_max_backups", "NUMBER", ""),
    text("log_rotate_max_size", "MEGABYTES", ""),
    switch("repair-enabled", ""),
    switch("repair-delete-pods", ""),
    switch("repair-label-pods", ""),
    switch("repair-repair-pods", ""),
    text("repair-broken-pod-label-key", "KEY", ""),
    text("repair-broken-pod-label-value", "VALUE", ""),
    text("repair-node-name", "NODE", ""),
    text("repair-sidecar-annotation", "ANNOTATION", ""),
    text("repair-init-container-name", "NAME", ""),
    text("repair-init-container-termination-message", "TEXT", ""),
    text("repair-init-container-exit-code", "CODE", ""),
    text("repair-label-selectors", "SELECTORS", ""),
    text("repair-field-selectors", "SELECTORS", ""),
];

/// Variables that ask for something and have no effect, and why.
pub(super) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("KUBECONFIG_MODE", NO_CREDENTIALS),
    ("KUBE_CA_FILE", NO_CREDENTIALS),
    ("SKIP_TLS_VERIFY", NO_CREDENTIALS),
    (
        "ENABLE_AMBIENT_DETECTION_RETRY",
        "a pod that may belong in the mesh never starts outside of it",
    ),
    ("REPAIR_ENABLED", NO_SIDECARS),
    (
        "AMBIENT_USE_SCOPED_XTABLES_LOCKING",
        "the agent locks what it changes itself",
    ),
    ("LOG_LEVEL", "use --log_output_level"),
    (
        "CNI_NETWORK_CONFIG",
        "the plugin's configuration is written by the agent alone",
    ),
    (
        "CNI_NETWORK_CONFIG_FILE",
        "the plugin's configuration is written by the agent alone",
    ),
    ("LOG_TARGET", STANDARD_OUTPUT),
    ("LOG_CALLER", STANDARD_OUTPUT),
    ("LOG_STACKTRACE_LEVEL", STANDARD_OUTPUT),
    ("LOG_ROTATE", STANDARD_OUTPUT),
    ("DRY_RUN_FILE_PATH", "rules are always applied"),
];

const NO_CREDENTIALS: &str =
    "the plugin asks the agent instead of the API server and needs no credentials";
const NO_SIDECARS: &str = "there are no sidecars to repair: see cni.repair of Istio's image";
const STANDARD_OUTPUT: &str = "logs go to standard output, one line per event";

/// The variable that a flag stands for.
pub(super) fn variable(flag: &str) -> String {
    flag.replace('-', "_").to_ascii_uppercase()
}
