//! Who it may be that changes our configuration back.

use mesh_cni::conflist::ConfigList;

use super::{listing::Listing, state::State};

/// Somebody who is known to write to the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    /// What people call it.
    pub(super) name: &'static str,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

/// Cilium renames the configurations of others, and its own is named in most clusters where it does.
const CILIUM: Rival = Rival {
    name: "Cilium",
    remedy: "install Cilium with the Helm value `cni.exclusive=false`",
};

/// Plugins whose installers are known to write their configuration again.
const KNOWN: [(&str, Rival); 4] = [
    ("cilium-cni", CILIUM),
    (
        "multus",
        Rival {
            name: "Multus",
            remedy: "let Multus call the plugin instead: `cni.provider=multus` and `cni.chained=false`",
        },
    ),
    (
        "calico",
        Rival {
            name: "Calico",
            remedy: "see why its container install-cni runs again and again, or keep the mesh in a file of its \
                     own: `cni.istioOwnedCNIConfig=true`",
        },
    ),
    (
        "linkerd-cni",
        Rival {
            name: "Linkerd",
            remedy: "remove one of the two meshes from this node",
        },
    ),
];

/// What is known of nobody in particular.
const SOMEBODY: Rival = Rival {
    name: "another program on the node",
    remedy: "find out who writes to the folder, or keep the mesh in a file of its own: \
             `cni.istioOwnedCNIConfig=true`",
};

/// What Cilium renames other configurations with.
const TAKEN: &str = ".cilium_bak";

/// The name of a configuration after Cilium has taken it away.
pub(super) fn taken_by_cilium(name: &str) -> String {
    format!("{name}{TAKEN}")
}

/// Who it seems to be, by what stands in the folder.
pub(super) fn suspect(state: &State) -> Rival {
    if state.conf.keys().any(|name| name.ends_with(TAKEN)) {
        return CILIUM;
    }
    let listing = Listing::of(state);
    let uses = |kind: &str| {
        let lists = listing.valid.iter().map(|listed| &listed.base);
        let mut plugins = lists.flat_map(ConfigList::plugins);
        plugins.any(|plugin| plugin.kind() == kind)
    };
    let known = KNOWN.iter().find(|(kind, _)| uses(kind));
    known.map_or(SOMEBODY, |(_, rival)| *rival)
}
