//! What the plugin may say. The agent makes file names and paths of it.

use mesh_cni::protocol::{Attachment, IstioAdd, Valid};

/// Why a request cannot be used. The plugin, or whoever speaks in its place, is at fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum Invalid {
    /// The body is not what this path takes.
    #[error("read the request")]
    Json(#[source] serde_json::Error),
    /// A field holds what the CNI specification or Kubernetes do not allow there.
    #[error("{field}=`{value}` is not {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// There is more of something than a node can have.
    #[error("{field} has {count} entries, more than {most}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// Addresses of one interface, of both families.
const MOST_ADDRESSES: usize = 64;
/// Attachments of one node.
const MOST_ATTACHMENTS: usize = 16 * 1024;
/// Longest path that Linux takes.
const MOST_PATH: usize = 4096;

pub(super) fn attachment(pod: &Attachment) -> Result<(), Invalid> {
    named(pod)?;
    netns(&pod.netns)?;
    kubernetes("podName", &pod.pod_name, 253)?;
    kubernetes("podNamespace", &pod.pod_namespace, 63)
}

/// A deletion may come after the namespace has gone, and from a runtime that does not tell of the pod.
pub(super) fn deleted(pod: &Attachment) -> Result<(), Invalid> {
    named(pod)?;
    if !pod.netns.is_empty() {
        netns(&pod.netns)?;
    }
    Ok(())
}

fn named(pod: &Attachment) -> Result<(), Invalid> {
    container(&pod.container_id)?;
    interface(&pod.interface)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let uid = pod.pod_uid.len() <= 64 && pod.pod_uid.chars().all(plain);
    expect(uid, "podUid", &pod.pod_uid, "a UID, or nothing")?;
    expect(
        pod.network.len() <= 256,
        "network",
        &pod.network,
        "a short name",
    )?;
    bounded("addresses", pod.addresses.len(), MOST_ADDRESSES)
}

pub(super) fn valid(valid: &Valid) -> Result<(), Invalid> {
    bounded("attachments", valid.attachments.len(), MOST_ATTACHMENTS)?;
    for attachment in &valid.attachments {
        container(&attachment.container_id)?;
        interface(&attachment.interface)?;
    }
    Ok(())
}

pub(super) fn istio_add(pod: &IstioAdd) -> Result<(), Invalid> {
    netns(&pod.netns)?;
    kubernetes("PodName", &pod.pod_name, 253)?;
    kubernetes("PodNamespace", &pod.pod_namespace, 63)?;
    bounded("IPs", pod.ips.len(), MOST_ADDRESSES)
}

/// As the CNI specification has it.
fn container(id: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let valid = id.len() <= 200
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(allowed);
    expect(valid, "containerId", id, "a container's ID")
}

/// As Linux has it.
fn interface(name: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    let valid =
        (1..=15).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(allowed);
    expect(valid, "interface", name, "an interface's name")
}

fn netns(path: &str) -> Result<(), Invalid> {
    let valid = path.len() <= MOST_PATH
        && path.starts_with('/')
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "..");
    expect(valid, "netns", path, "an absolute path without `..`")
}

fn kubernetes(field: &'static str, name: &str, most: usize) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let valid = (1..=most).contains(&name.len()) && name.chars().all(allowed);
    expect(valid, field, name, "a name in Kubernetes")
}

fn expect(
    valid: bool,
    field: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<(), Invalid> {
    let invalid = || Invalid::Field {
        field,
        value: mesh_runtime::environment::shortened(value),
        expected,
    };
    valid.then_some(()).ok_or_else(invalid)
}

fn bounded(field: &'static str, count: usize, most: usize) -> Result<(), Invalid> {
    if count <= most {
        return Ok(());
    }
    Err(Invalid::TooMany { field, count, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Attachment {
        Attachment {
            container_id: "4a3b".to_owned(),
            interface: "eth0".to_owned(),
            netns: "/var/run/netns/cni-1".to_owned(),
            pod_name: "web-0".to_owned(),
            pod_namespace: "shop".to_owned(),
            ..Attachment::default()
        }
    }

    #[test]
    fn nothing_leads_out_of_a_directory() {
        assert!(attachment(&pod()).is_ok());
        let wrong: [fn(&mut Attachment); 10] = [
            |pod| pod.container_id = "../x".to_owned(),
            |pod| pod.container_id = String::new(),
            |pod| pod.container_id = "x".repeat(201),
            |pod| pod.interface = "..".to_owned(),
            |pod| pod.interface = "a/b".to_owned(),
            |pod| pod.interface = "x".repeat(16),
            |pod| pod.netns = "proc/1/ns/net".to_owned(),
            |pod| pod.netns = "/var/run/netns/../../../proc/1/ns/net".to_owned(),
            |pod| pod.pod_namespace = "Shop/x".to_owned(),
            |pod| pod.pod_uid = "../../etc".to_owned(),
        ];
        for (index, wrong) in wrong.into_iter().enumerate() {
            let mut pod = pod();
            wrong(&mut pod);
            assert!(attachment(&pod).is_err(), "{index}");
        }
    }

    #[test]
    fn a_deletion_may_know_little() {
        let mut pod = pod();
        pod.netns = String::new();
        pod.pod_name = String::new();
        assert!(deleted(&pod).is_ok());
        assert!(attachment(&pod).is_err());
        pod.netns = "..".to_owned();
        assert!(deleted(&pod).is_err());
    }
}
