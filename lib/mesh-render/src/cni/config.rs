//! What the agent is told, by the names of Istio's variables.

use mesh_api::labels::{DATAPLANE_MODE, dataplane_mode};
use serde_json::{Value, json};

use super::Agent;
use crate::{Note, meta::Texts, pod::env, yaml};

/// Namespaces whose pods are left alone if the values do not say which.
const EXCLUDED: &str = "kube-system";

impl Agent<'_> {
    /// The entries of the ConfigMap.
    pub(super) fn config(&self) -> Texts {
        let values = self.values;
        let mut config = Texts::new();
        let mut set = |name: &str, value: String| {
            config.insert(name.to_owned(), value);
        };
        let excluded = values.exclude_namespaces.as_ref();
        set("CURRENT_AGENT_VERSION", self.of.version.clone());
        set(
            "EXCLUDE_NAMESPACES",
            excluded.map_or_else(|| EXCLUDED.to_owned(), |names| names.join(",")),
        );
        set(
            "CHAINED_CNI_PLUGIN",
            values.chained.unwrap_or(true).to_string(),
        );
        set(
            "ISTIO_OWNED_CNI_CONFIG",
            values
                .istio_owned_cni_config
                .unwrap_or_default()
                .to_string(),
        );
        let optional = [
            ("CNI_CONF_NAME", &values.cni_conf_file_name),
            (
                "ISTIO_OWNED_CNI_CONFIG_FILENAME",
                &values.istio_owned_cni_config_file_name,
            ),
        ];
        for (name, value) in optional {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                set(name, value.clone());
            }
        }
        // Our own agent prefers nftables, unless somebody says otherwise.
        let native = self.global.native_nftables;
        if native.is_some() || self.is_istio() {
            set("NATIVE_NFTABLES", native.unwrap_or_default().to_string());
        }
        config.extend(self.ambient_config());
        config.extend(self.repair_config());
        let users = self.users_env();
        config.extend(users.map(|(name, value)| (name.clone(), value.clone())));
        config
    }

    /// The user's variables, but those that the agent needs to be ours.
    pub(super) fn users_env(&self) -> impl Iterator<Item = (&String, &String)> {
        let env = self.values.env.iter();
        env.filter(|(name, _)| !self.needs(name))
    }

    /// What the user's variables cannot change.
    pub(super) fn env_notes(&self) -> impl Iterator<Item = Note> {
        let needed = self.values.env.keys().filter(|name| self.needs(name));
        needed.map(|name| env::needed(format!("cni.env.{name}")))
    }

    /// Whether the agent does its work only with the value that a variable has here: what it knows of itself
    /// and of its node, and what its volumes and rights go with.
    fn needs(&self, variable: &str) -> bool {
        match variable {
            "AMBIENT_ENABLED"
            | "CURRENT_AGENT_VERSION"
            | "NODE_NAME"
            | "POD_NAME"
            | "POD_NAMESPACE" => true,
            "ALLOW_SWITCH_TO_HOST_NS" => self.ambient(),
            "REPAIR_NODE_NAME" | "REPAIR_RUN_AS_DAEMON" => self.is_istio(),
            _ => false,
        }
    }

    fn ambient_config(&self) -> Texts {
        let ambient = &self.values.ambient;
        let on = self.ambient();
        let flags = [
            ("AMBIENT_ENABLED", on),
            // Our proxy does not answer DNS yet: captured queries would get lost.
            (
                "AMBIENT_DNS_CAPTURE",
                on && ambient.dns_capture.unwrap_or_else(|| self.is_istio()),
            ),
            ("AMBIENT_IPV6", on && ambient.ipv6.unwrap_or(true)),
            (
                "AMBIENT_RECONCILE_POD_RULES_ON_STARTUP",
                on && ambient.reconcile_iptables_on_startup.unwrap_or(true),
            ),
            (
                "ENABLE_AMBIENT_DETECTION_RETRY",
                ambient.enable_ambient_detection_retry.unwrap_or_default(),
            ),
        ];
        let mut config: Texts = flags
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .into();
        let selectors = ambient.enablement_selectors.clone();
        let selectors = selectors.map_or_else(default_selectors, Value::Array);
        config.insert(
            "AMBIENT_ENABLEMENT_SELECTOR".to_owned(),
            yaml::text(&selectors),
        );
        config
    }

    fn repair_config(&self) -> Texts {
        let repair = &self.values.repair;
        let text = |value: &Option<String>, default: &str| {
            value.clone().unwrap_or_else(|| default.to_owned())
        };
        let flag = |value: Option<bool>, default| value.unwrap_or(default).to_string();
        let enabled = ("REPAIR_ENABLED", self.repairs().to_string());
        let details = [
            ("REPAIR_LABEL_PODS", flag(repair.label_pods, false)),
            ("REPAIR_DELETE_PODS", flag(repair.delete_pods, false)),
            ("REPAIR_REPAIR_PODS", flag(repair.repair_pods, true)),
            (
                "REPAIR_INIT_CONTAINER_NAME",
                text(&repair.init_container_name, "istio-validation"),
            ),
            (
                "REPAIR_BROKEN_POD_LABEL_KEY",
                text(&repair.broken_pod_label_key, "cni.istio.io/uninitialized"),
            ),
            (
                "REPAIR_BROKEN_POD_LABEL_VALUE",
                text(&repair.broken_pod_label_value, "true"),
            ),
        ];
        let details = details.into_iter().filter(|_| self.is_istio());
        let entries = std::iter::once(enabled).chain(details);
        entries
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// Pods with the label, and pods without it in namespaces with it.
fn default_selectors() -> Value {
    json!([
        { "podSelector": { "matchLabels": { DATAPLANE_MODE: dataplane_mode::AMBIENT } } },
        {
            "podSelector": { "matchExpressions": [{
                "key": DATAPLANE_MODE, "operator": "NotIn", "values": [dataplane_mode::NONE],
            }] },
            "namespaceSelector": { "matchLabels": { DATAPLANE_MODE: dataplane_mode::AMBIENT } },
        },
    ])
}
