//! The mesh configuration from YAML, field by field, so that every error has a path.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_yaml_ng::Value;

use super::{
    CaCertificate, Error, MeshConfig, Parsed, Problem, ServiceEntryVisibility, ServiceScope,
    Visibility, VisibilityPolicy, Warning, fields,
};
use crate::selector::Selector;

/// Largest configuration, in bytes: that of a ConfigMap.
const MAX_SIZE: usize = 1 << 20;
/// Most entries of one list.
const MAX_ENTRIES: usize = 1024;

/// A value and where it stands.
struct Node<'a> {
    path: String,
    value: &'a Value,
}

/// The fields of an object, taken one after the other.
struct Object<'a> {
    path: String,
    fields: BTreeMap<String, &'a Value>,
}

/// Reads a mesh configuration. An empty text is one in which everything has its default.
pub fn parse(text: &str) -> Result<Parsed, Error> {
    if text.len() > MAX_SIZE {
        return Err(Error::TooLarge(text.len()));
    }
    let root: Value = serde_yaml_ng::from_str(text)?;
    let mut object = Object::new(Node {
        path: String::new(),
        value: &root,
    })?;
    let mut parsed = Parsed::default();
    let Parsed { config, warnings } = &mut parsed;
    mesh(config, &mut object, warnings)?;
    object.finish(fields::MESH, warnings);
    Ok(parsed)
}

fn mesh(
    config: &mut MeshConfig,
    object: &mut Object<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    if let Some(domain) = object.text("trustDomain", trust_domain)? {
        config.trust_domain = domain;
    }
    if let Some(namespace) = object.text("rootNamespace", namespace)? {
        config.root_namespace = namespace;
    }
    config.trust_domain_aliases =
        object.list("trustDomainAliases", |node| node.text(trust_domain))?;
    config.discovery_selectors = object.list("discoverySelectors", label_selector)?;
    let roots = object.list("caCertificates", ca_certificate)?;
    for root in roots {
        match root {
            Ok(root) => config.ca_certificates.push(root),
            Err(warning) => warnings.push(warning),
        }
    }
    config.service_scopes = object.list("serviceScopeConfigs", service_scope)?;
    if let Some(node) = object.take("defaultConfig") {
        let mut proxy = Object::new(node)?;
        config.discovery_address = proxy.text("discoveryAddress", address)?;
        proxy.finish(fields::PROXY, warnings);
    }
    if let Some(node) = object.take("serviceEntryVisibility") {
        config.service_entry_visibility = service_entry_visibility(node, warnings)?;
    }
    Ok(())
}

/// The root, or a warning that it is not trusted.
fn ca_certificate(node: Node<'_>) -> Result<Result<CaCertificate, Warning>, Error> {
    let mut object = Object::new(node)?;
    let trust_domains = object.list("trustDomains", |node| node.text(trust_domain))?;
    let pem = object.text("pem", Ok)?;
    Ok(match pem {
        Some(pem) => Ok(CaCertificate { pem, trust_domains }),
        None => Err(Warning::Bundle(object.path)),
    })
}

fn service_scope(node: Node<'_>) -> Result<ServiceScope, Error> {
    let mut object = Object::new(node)?;
    let choice = |value: String| match value.as_str() {
        "GLOBAL" => Ok(true),
        "LOCAL" => Ok(false),
        _ => Err(Problem::Choice {
            value,
            allowed: "LOCAL and GLOBAL",
        }),
    };
    Ok(ServiceScope {
        services: object
            .take("servicesSelector")
            .map(label_selector)
            .transpose()?,
        namespaces: object
            .take("namespaceSelector")
            .map(label_selector)
            .transpose()?,
        global: object.text("scope", choice)?.unwrap_or_default(),
    })
}

fn service_entry_visibility(
    node: Node<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<ServiceEntryVisibility, Error> {
    let mut object = Object::new(node)?;
    let read = ServiceEntryVisibility {
        default: object
            .text("defaultVisibility", visibility)?
            .unwrap_or_default(),
        policies: object.list("policies", visibility_policy)?,
    };
    object.finish(&["applyToSidecars"], warnings);
    Ok(read)
}

fn visibility_policy(node: Node<'_>) -> Result<VisibilityPolicy, Error> {
    let mut object = Object::new(node)?;
    Ok(VisibilityPolicy {
        visibility: object.text("visibility", visibility)?.unwrap_or_default(),
        namespaces: object.list("matchingRules", matching_rule)?,
    })
}

/// A rule that matches by something else than the namespace is not known, and must not match everything.
fn matching_rule(node: Node<'_>) -> Result<LabelSelector, Error> {
    let mut object = Object::new(node)?;
    let path = object.path.clone();
    let expected = "an object with `namespaceSelector`";
    let node = object.take("namespaceSelector");
    label_selector(node.ok_or_else(|| Error::at(path, Problem::Kind { expected }))?)
}

fn visibility(value: String) -> Result<Visibility, Problem> {
    match value.as_str() {
        "PUBLIC" | "VISIBILITY_UNSPECIFIED" => Ok(Visibility::Public),
        "NAMESPACE" => Ok(Visibility::Namespace),
        "NONE" => Ok(Visibility::None),
        _ => Err(Problem::Choice {
            value,
            allowed: "PUBLIC, NAMESPACE and NONE",
        }),
    }
}

fn label_selector(node: Node<'_>) -> Result<LabelSelector, Error> {
    let mut object = Object::new(node)?;
    let path = object.path.clone();
    let labels = object.take("matchLabels").map(labels).transpose()?;
    let requirements = object.list("matchExpressions", |node| {
        let mut object = Object::new(node)?;
        Ok(LabelSelectorRequirement {
            key: object.text("key", Ok)?.unwrap_or_default(),
            operator: object.text("operator", Ok)?.unwrap_or_default(),
            values: Some(object.list("values", |node| node.text(Ok))?),
        })
    })?;
    let selector = LabelSelector {
        match_labels: labels,
        match_expressions: Some(requirements).filter(|list| !list.is_empty()),
    };
    match Selector::try_new(&selector) {
        Ok(_) => Ok(selector),
        Err(error) => Err(Error::at(path, error)),
    }
}

fn labels(node: Node<'_>) -> Result<BTreeMap<String, String>, Error> {
    let object = Object::exact(node)?;
    let path = object.path;
    let texts = object.fields.into_iter().map(|(key, value)| {
        let node = Node {
            path: format!("{path}.{key}"),
            value,
        };
        Ok((key, node.text(Ok)?))
    });
    texts.collect()
}

fn trust_domain(value: String) -> Result<String, Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if value.is_empty() || value.len() > 255 || !value.chars().all(allowed) {
        return Err(Problem::TrustDomain(quote(&value)));
    }
    Ok(value)
}

fn namespace(value: String) -> Result<String, Problem> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if value.is_empty() || value.len() > 63 || !value.chars().all(allowed) {
        return Err(Problem::Namespace(quote(&value)));
    }
    Ok(value)
}

fn address(value: String) -> Result<String, Problem> {
    let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(Problem::Address(quote(&value)));
    }
    Ok(value)
}

/// A foreign text for a message, cut where it would be too long.
fn quote(value: &str) -> String {
    value.chars().take(64).collect()
}

/// `trust_domain` as `trustDomain`: Istio takes both.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            camel.extend(c.to_uppercase());
        } else {
            camel.push(c);
        }
    }
    camel
}

// === impl Error ===

impl Error {
    fn at(path: String, problem: impl Into<Problem>) -> Self {
        let root = path.is_empty().then(|| "the mesh configuration".to_owned());
        Self::Field {
            path: root.unwrap_or(path),
            problem: problem.into(),
        }
    }
}

// === impl Node ===

impl Node<'_> {
    fn text<T>(&self, check: impl FnOnce(String) -> Result<T, Problem>) -> Result<T, Error> {
        let expected = "a text";
        let text = self.value.as_str().ok_or(Problem::Kind { expected });
        text.and_then(|text| check(text.to_owned()))
            .map_err(|problem| Error::at(self.path.clone(), problem))
    }

    fn list(self) -> Result<Vec<Self>, Error> {
        let Value::Sequence(values) = self.value else {
            let expected = "a list";
            return Err(Error::at(self.path, Problem::Kind { expected }));
        };
        if values.len() > MAX_ENTRIES {
            let (count, most) = (values.len(), MAX_ENTRIES);
            return Err(Error::at(self.path, Problem::TooMany { count, most }));
        }
        let nodes = values.iter().enumerate();
        let node = |(i, value)| Node {
            path: format!("{}[{i}]", self.path),
            value,
        };
        Ok(nodes.map(node).collect())
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// The fields of an object; nothing has none.
    fn new(node: Node<'a>) -> Result<Self, Error> {
        Self::read(node, camel_case)
    }

    /// The same with names as they are written.
    fn exact(node: Node<'a>) -> Result<Self, Error> {
        Self::read(node, str::to_owned)
    }

    fn read(node: Node<'a>, rename: fn(&str) -> String) -> Result<Self, Error> {
        let wrong = |expected| Error::at(node.path.clone(), Problem::Kind { expected });
        let mut fields = BTreeMap::new();
        match node.value {
            Value::Null => {}
            Value::Mapping(mapping) => {
                for (key, value) in mapping {
                    let key = key.as_str().ok_or_else(|| wrong("texts as names"))?;
                    if fields.insert(rename(key), value).is_some() {
                        let path = child(&node.path, key);
                        return Err(Error::at(path, Problem::Twice));
                    }
                }
            }
            _ => return Err(wrong("an object")),
        }
        Ok(Self {
            path: node.path,
            fields,
        })
    }

    /// The field, unless it is absent or null.
    fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let value = self.fields.remove(name).filter(|value| !value.is_null())?;
        Some(Node {
            path: child(&self.path, name),
            value,
        })
    }

    /// A field's text; an empty one is as if it were absent.
    fn text<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(String) -> Result<T, Problem>,
    ) -> Result<Option<T>, Error> {
        let node = self
            .take(name)
            .filter(|node| node.value.as_str() != Some(""));
        node.map(|node| node.text(check)).transpose()
    }

    fn list<T>(
        &mut self,
        name: &str,
        entry: impl Fn(Node<'a>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let Some(node) = self.take(name) else {
            return Ok(Vec::new());
        };
        node.list()?.into_iter().map(entry).collect()
    }

    /// Warns of the fields that are left, unless they are among those that nobody needs to read.
    fn finish(self, unread: &[&str], warnings: &mut Vec<Warning>) {
        let names = self.fields.keys();
        let unknown = names.filter(|name| !unread.contains(&name.as_str()));
        warnings.extend(unknown.map(|name| Warning::Unknown(child(&self.path, &quote(name)))));
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        return name.to_owned();
    }
    format!("{path}.{name}")
}
