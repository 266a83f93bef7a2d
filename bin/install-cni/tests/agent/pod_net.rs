//! Networks of pods, which are real.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt as _};

use mesh_cni::protocol::Attachment;
use mesh_net::netns::NetNsId;
use testkit_net::Namespace;

/// A pod's network.
pub(crate) struct Net {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
}

// === impl Net ===

impl Net {
    /// A network namespace with this address.
    pub(crate) fn new(address: &str) -> Self {
        let namespace = Namespace::new("pod").unwrap();
        namespace
            .ip(&format!("addr add {address}/32 dev lo"))
            .unwrap();
        Self {
            namespace,
            address: address.parse().unwrap(),
        }
    }

    pub(crate) fn id(&self) -> NetNsId {
        self.namespace.handle().id()
    }

    /// How many descriptors of this process hold it open. One of them is this value's.
    pub(crate) fn descriptors(&self) -> usize {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        // Others come and go meanwhile.
        let files = open.filter_map(|entry| fs::metadata(entry.path()).ok());
        let ids = files.map(|file| NetNsId {
            dev: file.dev(),
            ino: file.ino(),
        });
        ids.filter(|id| *id == self.id()).count()
    }

    /// What the plugin says of it.
    pub(crate) fn attachment(&self, name: &str, uid: &str) -> Attachment {
        Attachment {
            network: "cluster".to_owned(),
            container_id: format!("c{}", self.id().ino),
            interface: "eth0".to_owned(),
            netns: self.namespace.path().to_str().unwrap().to_owned(),
            pod_name: name.to_owned(),
            pod_namespace: "demo".to_owned(),
            pod_uid: uid.to_owned(),
            addresses: vec![self.address],
        }
    }
}
