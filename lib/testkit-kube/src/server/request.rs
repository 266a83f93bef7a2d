//! What a request is about: its path, its query and the form of the answer that it accepts.

use std::num::ParseIntError;

use http::{HeaderMap, Method, StatusCode, header};

use crate::{registry::Registry, status::Status};

/// A path, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` and `/apis/GROUP/VERSION`
    Resources {
        /// Empty for core.
        group: String,
        /// `v1`
        version: String,
    },
    /// An object, a collection or a subresource.
    Resource(Location),
    /// Anything else.
    Other,
}

/// Where a resource is in the API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Location {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) plural: String,
    pub(super) name: String,
    pub(super) subresource: String,
}

/// The query's parameters.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Whole.
    Object,
    /// As rows for kubectl, in a version of meta.k8s.io.
    Table(&'static str),
    /// Their metadata alone, in a version of meta.k8s.io.
    Metadata(&'static str),
    /// Discovery in one document.
    Aggregated(&'static str),
}

// === impl Path ===

impl Path {
    /// Takes a path apart.
    pub(super) fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version, rest @ ..] => Self::within("", version, rest),
            ["apis", group, version, rest @ ..] => Self::within(group, version, rest),
            _ => Self::Other,
        }
    }

    fn within(group: &str, version: &str, rest: &[&str]) -> Self {
        let at = |namespace: &str, plural: &str, name: &str, sub: &[&str]| {
            Self::Resource(Location {
                group: group.to_owned(),
                version: version.to_owned(),
                namespace: namespace.to_owned(),
                plural: plural.to_owned(),
                name: name.to_owned(),
                subresource: sub.join("/"),
            })
        };
        match rest {
            [] => Self::Resources {
                group: group.to_owned(),
                version: version.to_owned(),
            },
            ["namespaces", name] => at("", "namespaces", name, &[]),
            ["namespaces", name, sub @ ("status" | "finalize")] => {
                at("", "namespaces", name, &[sub])
            }
            ["namespaces", namespace, plural] => at(namespace, plural, "", &[]),
            ["namespaces", namespace, plural, name, sub @ ..] => at(namespace, plural, name, sub),
            [plural] => at("", plural, "", &[]),
            [plural, name, sub @ ..] => at("", plural, name, sub),
        }
    }
}

// === impl Location ===

impl Location {
    /// The verb of a request, as RBAC names it.
    pub(super) fn verb(&self, method: &Method, query: &Query) -> Option<&'static str> {
        let one = !self.name.is_empty();
        match *method {
            Method::GET | Method::HEAD if query.flag("watch") => Some("watch"),
            Method::GET | Method::HEAD if one => Some("get"),
            Method::GET | Method::HEAD => Some("list"),
            Method::POST => Some("create"),
            Method::PUT => Some("update"),
            Method::PATCH => Some("patch"),
            Method::DELETE if one => Some("delete"),
            Method::DELETE => Some("deletecollection"),
            _ => None,
        }
    }
}

// === impl Query ===

impl Query {
    pub(super) fn parse(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// A parameter, empty when it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map_or("", |(_, value)| value)
    }

    /// Whether a parameter is set.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "True" | "t")
    }

    /// A number, if the parameter is there.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error: ParseIntError| {
                Status::bad_request(format!("{name}: {text:?}: {error}"))
            }),
        }
    }
}

// === impl Form ===

impl Form {
    /// The first form of an `Accept` header that we have.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, Status> {
        let accept = headers.get_all(header::ACCEPT).iter();
        let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
        if accept.is_empty() {
            return Ok(Self::Object);
        }
        let mut offers = accept.iter().flat_map(|value| value.split(','));
        offers.find_map(Self::offered).ok_or_else(|| {
            Status::new(
                StatusCode::NOT_ACCEPTABLE,
                "NotAcceptable",
                "only the following media types are accepted: application/json, \
                 application/json;stream=watch",
            )
        })
    }

    fn offered(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(
            media,
            "application/json" | "application/*" | "*/*" | "text/plain"
        ) {
            return None;
        }
        let (mut shape, mut version) = ("", "");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => shape = value,
                Some(("v", value)) => version = value,
                _ => {}
            }
        }
        let version = match version {
            "" | "v1" => "v1",
            "v1beta1" => "v1beta1",
            "v2" => "v2",
            "v2beta1" => "v2beta1",
            _ => return None,
        };
        match shape {
            "" => Some(Self::Object),
            "Table" => Some(Self::Table(version)),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Self::Metadata(version)),
            "APIGroupDiscoveryList" => Some(Self::Aggregated(version)),
            _ => None,
        }
    }
}

/// What a cluster has there and this server has not.
pub(super) fn missing_feature(registry: &Registry, at: &Location) -> Option<String> {
    let known = match (&*at.group, &*at.plural, &*at.subresource) {
        ("", "pods", sub) => matches!(
            sub.split('/').next(),
            Some(
                "exec"
                    | "attach"
                    | "portforward"
                    | "proxy"
                    | "eviction"
                    | "binding"
                    | "ephemeralcontainers"
                    | "resize"
            )
        ),
        ("", "services" | "nodes", sub) => sub.split('/').next() == Some("proxy"),
        (group, plural, "scale") => {
            let resource = registry.find(group, &at.version, plural);
            resource.is_some_and(|resource| resource.is_custom())
        }
        // LimitRanges are not found: `kubectl describe namespace` asks for them, and bears with that alone.
        ("", plural, "") => matches!(
            plural,
            "persistentvolumes"
                | "replicationcontrollers"
                | "podtemplates"
                | "componentstatuses"
                | "bindings"
                | "watch"
        ),
        (
            "apiregistration.k8s.io"
            | "certificates.k8s.io"
            | "storage.k8s.io"
            | "node.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "resource.k8s.io",
            _,
            _,
        ) => true,
        _ => false,
    };
    let sub = if at.subresource.is_empty() {
        String::new()
    } else {
        format!("/{}", at.subresource)
    };
    known.then(|| format!("{}{sub}", at.plural))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(path: &str) -> Location {
        match Path::parse(path) {
            Path::Resource(location) => location,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(Path::parse("/api"), Path::CoreVersions);
        assert_eq!(Path::parse("/apis/apps"), Path::Group("apps".to_owned()));
        assert_eq!(Path::parse("/healthz"), Path::Other);
        let pod = location("/api/v1/namespaces/a/pods/b/log");
        assert_eq!(
            (&*pod.namespace, &*pod.plural, &*pod.name, &*pod.subresource),
            ("a", "pods", "b", "log")
        );
        let namespace = location("/api/v1/namespaces/a");
        assert_eq!(
            (&*namespace.namespace, &*namespace.plural, &*namespace.name),
            ("", "namespaces", "a")
        );
        let status = location("/api/v1/namespaces/a/status");
        assert_eq!(
            (&*status.plural, &*status.name, &*status.subresource),
            ("namespaces", "a", "status")
        );
        let all = location("/apis/apps/v1/deployments");
        assert_eq!(
            (&*all.group, &*all.plural, &*all.name),
            ("apps", "deployments", "")
        );
    }

    #[test]
    fn the_first_form_that_we_have_is_taken() {
        let negotiate = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::negotiate(&headers)
        };
        assert_eq!(negotiate("application/json").unwrap(), Form::Object);
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            Form::Object
        );
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(kubectl).unwrap(), Form::Table("v1"));
        let refused = negotiate("application/vnd.kubernetes.protobuf").unwrap_err();
        assert_eq!(refused.code, StatusCode::NOT_ACCEPTABLE);
    }
}
