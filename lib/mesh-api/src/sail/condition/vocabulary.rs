//! Which conditions each kind has, and which reasons these: what the reference says and users script against.

use super::{
    DEPENDENCIES_HEALTHY, IN_USE, PLATFORM_SUPPORTED, READY, RECONCILED, UNINSTALLED,
    VALUES_RECOGNIZED, reason,
};

/// A condition of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its type.
    pub type_: &'static str,
    /// What it says if it holds.
    pub holds: &'static str,
    /// Why it may not hold, or why that cannot be told.
    pub reasons: &'static [(&'static str, &'static str)],
}

/// The conditions of a kind of [`GROUP`](crate::sail::GROUP), in the order in which they are shown; none of
/// another.
pub fn conditions_of(kind: &str) -> &'static [Meaning] {
    match kind {
        "Istio" => ISTIO,
        "IstioRevision" => REVISION,
        "IstioRevisionTag" => TAG,
        "IstioCNI" => CNI,
        "ZTunnel" => ZTUNNEL,
        _ => &[],
    }
}

const ISTIO: &[Meaning] = &[
    RECONCILED_ISTIO,
    Meaning {
        type_: READY,
        holds: "The active revision's control plane is rolled out.",
        reasons: &[
            (
                reason::RECONCILE_ERROR,
                "It cannot be told: see Reconciled.",
            ),
            (
                reason::ACTIVE_REVISION_NOT_FOUND,
                "The active revision does not exist.",
            ),
            (
                reason::FAILED_TO_GET_ACTIVE_REVISION,
                "The active revision cannot be read.",
            ),
            ISTIOD,
            READINESS_CHECK,
        ],
    },
    DEPENDENCIES,
    VALUES,
    PLATFORM,
];

const REVISION: &[Meaning] = &[
    RECONCILED_ISTIO,
    Meaning {
        type_: READY,
        holds: "The control plane is rolled out.",
        reasons: &[ISTIOD, READINESS_CHECK],
    },
    USE,
    DEPENDENCIES,
    VALUES,
    PLATFORM,
];

const TAG: &[Meaning] = &[
    Meaning {
        type_: RECONCILED,
        holds: "The tag stands for its revision.",
        reasons: &[
            ERROR,
            NAME_TAKEN,
            (
                reason::REF_NOT_FOUND,
                "What `targetRef` names does not exist, or has no active revision yet.",
            ),
        ],
    },
    USE,
];

const CNI: &[Meaning] = &[
    Meaning {
        type_: RECONCILED,
        holds: "All objects are applied.",
        reasons: &[ERROR, SKEW, CONTROL_PLANE_FIRST, ZTUNNEL_FIRST],
    },
    READY_ON_NODES,
    VALUES,
    PLATFORM,
    UNINSTALL,
];

const ZTUNNEL: &[Meaning] = &[
    Meaning {
        type_: RECONCILED,
        holds: "All objects are applied.",
        reasons: &[ERROR, SKEW, CONTROL_PLANE_FIRST, CNI_FIRST],
    },
    READY_ON_NODES,
    VALUES,
    PLATFORM,
    UNINSTALL,
];

const RECONCILED_ISTIO: Meaning = Meaning {
    type_: RECONCILED,
    holds: "All objects are applied.",
    reasons: &[ERROR, NAME_TAKEN, SKEW, CNI_FIRST, ZTUNNEL_FIRST],
};

const READY_ON_NODES: Meaning = Meaning {
    type_: READY,
    holds: "It runs, in the version that is asked for, on all nodes.",
    reasons: &[
        (
            reason::DAEMON_SET_NOT_READY,
            "The DaemonSet is missing or not rolled out; the message has the pod's reason.",
        ),
        READINESS_CHECK,
    ],
};

const USE: Meaning = Meaning {
    type_: IN_USE,
    holds: "A namespace, pod or tag refers to it; the reason is ReferencedByWorkloads.",
    reasons: &[
        (reason::NOT_REFERENCED_BY_ANYTHING, "Nothing refers to it."),
        (reason::USAGE_CHECK_FAILED, "It cannot be told."),
    ],
};

const DEPENDENCIES: Meaning = Meaning {
    type_: DEPENDENCIES_HEALTHY,
    holds: "The IstioCNI and ZTunnel that the mesh needs are healthy.",
    reasons: &[
        (
            reason::ISTIO_CNI_NOT_FOUND,
            "The mesh needs an IstioCNI named `default`.",
        ),
        (
            reason::ISTIO_CNI_NOT_HEALTHY,
            "The IstioCNI is not healthy.",
        ),
        (
            reason::ZTUNNEL_NOT_FOUND,
            "The mesh needs a ZTunnel named `default`.",
        ),
        (reason::ZTUNNEL_NOT_HEALTHY, "The ZTunnel is not healthy."),
        (reason::DEPENDENCY_CHECK_FAILED, "It cannot be told."),
    ],
};

const VALUES: Meaning = Meaning {
    type_: VALUES_RECOGNIZED,
    holds: "Every value has an effect. Does not count for the state.",
    reasons: &[
        (
            reason::UNKNOWN_VALUES,
            "Some values are misspelt, or of a newer version: one line for each.",
        ),
        (
            reason::VALUES_WITHOUT_EFFECT,
            "Some values of Istio's do nothing here: one line for each, with the reason.",
        ),
    ],
};

const PLATFORM: Meaning = Meaning {
    type_: PLATFORM_SUPPORTED,
    holds: "The mesh can work on this cluster as it is; the message may have advice. Does not count for the state.",
    reasons: &[
        (
            "SharedGatewayMode",
            "OVN-Kubernetes moves packets past the host, and with them the kubelet's probes.",
        ),
        (
            "VersionTooOld",
            "Kubernetes or OpenShift is older than what the mesh is made for.",
        ),
        (
            "OtherOperator",
            "An operator for the same resources runs beside this one.",
        ),
        (
            "OtherAgent",
            "A CNI agent of another installation runs on the nodes.",
        ),
        (
            "OtherProxy",
            "A node proxy of another installation runs on the nodes.",
        ),
        (
            "CiliumExclusive",
            "Cilium takes the plugin's configuration away.",
        ),
        (
            "CiliumMasquerade",
            "Cilium's masquerading in BPF breaks the kubelet's probes.",
        ),
        (
            "CiliumSocketBalancing",
            "Cilium chooses endpoints before the mesh sees the service.",
        ),
        (
            "ArchitectureWithoutImage",
            "Nodes have a processor for which there is no image.",
        ),
        (
            "NotReadable",
            "Something could not be read that decides whether the mesh works.",
        ),
    ],
};

const UNINSTALL: Meaning = Meaning {
    type_: UNINSTALLED,
    holds: "Shown only while it does not hold: the resource is gone then.",
    reasons: &[(
        reason::UNINSTALL_BLOCKED,
        "Pods are still in the mesh; the message names them and what to do.",
    )],
};

const ERROR: (&str, &str) = (
    reason::RECONCILE_ERROR,
    "It cannot be applied; the message says why and what to do.",
);
const NAME_TAKEN: (&str, &str) = (
    reason::NAME_ALREADY_EXISTS,
    "An older IstioRevision or IstioRevisionTag has the name.",
);
const SKEW: (&str, &str) = (
    reason::VERSION_SKEW,
    "The version does not fit those of the other components. What runs stays as it is.",
);
const CONTROL_PLANE_FIRST: (&str, &str) = (
    reason::WAITING_FOR_CONTROL_PLANE,
    "The control plane has to be of the new version first.",
);
const CNI_FIRST: (&str, &str) = (
    reason::WAITING_FOR_CNI,
    "The IstioCNI has to be of the new version first.",
);
const ZTUNNEL_FIRST: (&str, &str) = (
    reason::WAITING_FOR_ZTUNNEL,
    "On the way to an older version, the ZTunnel has to be of it first.",
);
const ISTIOD: (&str, &str) = (
    reason::ISTIOD_NOT_READY,
    "The Deployment is missing or not rolled out.",
);
const READINESS_CHECK: (&str, &str) = (reason::READINESS_CHECK_FAILED, "It cannot be told.");
