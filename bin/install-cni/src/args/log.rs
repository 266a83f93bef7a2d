//! Log levels, by the names of Istio's scopes.

use mesh_runtime::{
    environment::{self, Environment},
    log::{Config, Format},
};

use super::{Error, switch};

/// The variable of `--log_output_level`.
const LEVELS: &str = "LOG_OUTPUT_LEVEL";
/// The scope of the plugin, whose lines are logged by the agent.
const PLUGIN: &str = "cni-plugin";

pub(super) fn log(env: &Environment) -> Result<Config, Error> {
    let filter = match env.filled("RUST_LOG") {
        Some(filter) => filter.to_owned(),
        None => filter(env.filled(LEVELS).unwrap_or("info"))?,
    };
    let format = Format::json_if(switch(env, "LOG_AS_JSON", false)?);
    Ok(Config { filter, format })
}

/// The level at which the plugin should log: that of its scope, or else that of everything.
pub(super) fn plugin_level(env: &Environment) -> Result<String, Error> {
    let mut level = "info";
    let mut of_plugin = None;
    for (scope, given) in scopes(env.filled(LEVELS).unwrap_or("info"))? {
        match scope {
            "default" | "all" => level = given,
            PLUGIN => of_plugin = Some(given),
            _ => {}
        }
    }
    Ok(of_plugin.unwrap_or(level).to_owned())
}

/// Istio's scopes in terms of ours. A scope that this program does not have is passed over.
fn filter(levels: &str) -> Result<String, Error> {
    let directive = |(scope, level)| {
        let level = if level == "none" { "off" } else { level };
        match scope {
            "default" | "all" => level.to_owned(),
            PLUGIN => format!("{PLUGIN}={level}"),
            "cni-agent" | "cni" => format!("install_cni={level}"),
            "install" | "installer" => format!("install_cni::installer={level}"),
            "ztunnel" | "zds" => format!("mesh_zds={level}"),
            "iptables" | "nftables" | "ambient" => format!("install_cni::kernel={level}"),
            "kube" | "klog" | "controllers" => format!("mesh_kube={level},kube={level}"),
            _ => String::new(),
        }
    };
    let directives = scopes(levels)?.into_iter().map(directive);
    let directives: Vec<_> = directives.filter(|text| !text.is_empty()).collect();
    Ok(if directives.is_empty() {
        "info".to_owned()
    } else {
        directives.join(",")
    })
}

/// Scopes and their levels; one without a scope is for everything.
fn scopes(levels: &str) -> Result<Vec<(&str, &str)>, Error> {
    let found: Option<Vec<_>> = levels.split(',').map(scope).collect();
    Ok(found.ok_or_else(|| {
        let expected = "`level` or `scope:level`, with a level of none, error, warn, info or debug";
        environment::Error::new(LEVELS, levels, expected)
    })?)
}

fn scope(part: &str) -> Option<(&str, &str)> {
    let part = part.trim();
    let (scope, level) = part.rsplit_once(':').unwrap_or(("default", part));
    let known = ["none", "error", "warn", "info", "debug"].contains(&level);
    known.then_some((scope, level))
}
