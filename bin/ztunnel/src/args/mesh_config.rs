//! The part of Istio's `ProxyConfig` that concerns a node proxy, from `PROXY_CONFIG` and from the
//! mesh file. Other fields belong to other proxies and are passed over.

use std::{collections::BTreeMap, io::ErrorKind, path::Path};

use serde::Deserialize;

use super::Error;

/// What is taken from a `ProxyConfig`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<String>,
    pub(super) proxy_admin_port: Option<u16>,
    pub(super) stats_port: Option<u16>,
    pub(super) concurrency: Option<usize>,
    pub(super) proxy_metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: ProxyConfig,
}

/// `PROXY_CONFIG` over the mesh file's `defaultConfig`. A mesh file that is not there is empty.
pub(super) fn load(variable: Option<&str>, mesh_file: &Path) -> Result<ProxyConfig, Error> {
    let mesh: MeshConfig = match std::fs::read_to_string(mesh_file) {
        Ok(text) => parse(&text, &mesh_file.display().to_string())?,
        Err(error) if error.kind() == ErrorKind::NotFound => MeshConfig::default(),
        Err(source) => {
            return Err(Error::MeshFile {
                path: mesh_file.to_owned(),
                source,
            });
        }
    };
    let over: ProxyConfig = variable.map_or_else(
        || Ok(ProxyConfig::default()),
        |text| parse(text, "PROXY_CONFIG"),
    )?;
    let mut under = mesh.default_config;
    under.proxy_metadata.extend(over.proxy_metadata);
    Ok(ProxyConfig {
        discovery_address: over.discovery_address.or(under.discovery_address),
        proxy_admin_port: over.proxy_admin_port.or(under.proxy_admin_port),
        stats_port: over.stats_port.or(under.stats_port),
        concurrency: over.concurrency.or(under.concurrency),
        proxy_metadata: under.proxy_metadata,
    })
}

fn parse<T: Default + for<'de> Deserialize<'de>>(text: &str, origin: &str) -> Result<T, Error> {
    let value: Option<T> = serde_yaml_ng::from_str(text).map_err(|source| Error::ProxyConfig {
        origin: origin.to_owned(),
        source,
    })?;
    Ok(value.unwrap_or_default())
}
