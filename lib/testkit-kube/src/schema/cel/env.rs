//! The environment in which rules run: the standard library and what Kubernetes adds.

use std::sync::{Arc, LazyLock};

use cel::{Env, extensions};

use super::function;

/// Functions that rules may call beside operators and macros: the standard library, the extensions of
/// strings and lists, optional values, and Kubernetes' own.
pub(super) const FUNCTIONS: &[&str] = &[
    "size",
    "has",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "type",
    "dyn",
    "duration",
    "timestamp",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "join",
    "format",
    "reverse",
    "strings.quote",
    "quote",
    "slice",
    "flatten",
    "distinct",
    "sort",
    "range",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "ofNonZeroValue",
    "of",
    "none",
    "hasValue",
    "value",
    "or",
    "orValue",
    "isSorted",
    "sum",
    "min",
    "max",
    "find",
    "findAll",
    "isURL",
    "url",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "getQuery",
    "isIP",
    "ip",
    "ip.isCanonical",
    "isCanonical",
    "family",
    "isLoopback",
    "isUnspecified",
    "isCIDR",
    "cidr",
    "containsIP",
    "containsCIDR",
    "prefixLength",
    "isQuantity",
    "quantity",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "asInteger",
    "isInteger",
    "sign",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "equivalent",
    "intersects",
];

/// The environment; built once, which costs about as much as parsing a hundred rules.
pub(super) fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        let extensions = [extensions::strings, extensions::lists, function::extension];
        for extension in extensions {
            if let Err(error) = env.add_extension(extension) {
                // Two names collide, which a test would show; the rest of the environment still serves.
                tracing::error!(%error, "declaring an extension of the rule language");
            }
        }
        Arc::new(env)
    });
    ENVIRONMENT.clone()
}
