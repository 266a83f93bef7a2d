//! What a plugin says of a sandbox's network: results, in each of the three forms that they have had.
//!
//! Ours changes nothing of what the plugins before it said. It passes that on, field by field, also fields that
//! we do not know, and translates only between forms.
//!
//! ```text
//! 0.1.0, 0.2.0          ip4, ip6: one address each, with its routes
//! 0.3.0, 0.3.1, 0.4.0   interfaces, ips (each with its family), routes
//! 1.0.0                 the same, addresses without their family
//! 1.1.0                 the same, interfaces and routes say more
//! ```

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Code, Coded, Version};

/// What 1.1.0 says more of an interface.
const NEW_OF_INTERFACES: [&str; 3] = ["mtu", "socketPath", "pciID"];

/// What 1.1.0 says more of a route.
const NEW_OF_ROUTES: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// A sandbox's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    version: Version,
    fields: Map<String, Value>,
}

/// Why a result cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is not what the specification says. The fault of a plugin before ours, or of the runtime.
    #[error("read the result of the plugins before: {field} must be {wanted}")]
    Field {
        /// Where.
        field: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// It is of a version that we do not speak. The fault of the runtime.
    #[error("read the result of the plugins before: it is of CNI version `{found}`")]
    Version {
        /// What it says.
        found: String,
    },
}

// === impl Outcome ===

impl Outcome {
    /// Reads a result. One that does not say its version is of the configuration's.
    pub fn parse(value: Value, configured: Version) -> Result<Self, Error> {
        let Value::Object(mut fields) = value else {
            return Err(field("prevResult", "an object"));
        };
        let version = match fields.remove("cniVersion") {
            None => configured,
            Some(Value::String(text)) if text.is_empty() => configured,
            Some(Value::String(text)) => Version::parse(&text).ok_or_else(|| Error::Version {
                found: text.chars().take(32).collect(),
            })?,
            Some(_) => return Err(field("prevResult.cniVersion", "a text")),
        };
        let outcome = Self { version, fields };
        outcome.validate()?;
        Ok(outcome)
    }

    /// What is said if nothing was done before: nothing.
    pub fn empty(version: Version) -> Self {
        let mut fields = Map::new();
        if Form::of(version) != Form::ByFamily {
            fields.insert("dns".to_owned(), json!({}));
        }
        Self { version, fields }
    }

    /// The same, as this version says it. What the version cannot say is lost.
    #[must_use]
    pub fn into_version(self, version: Version) -> Self {
        let from = Form::of(self.version);
        let mut fields = self.fields;
        if from == Form::ByFamily && Form::of(version) != Form::ByFamily {
            fields = to_list(fields);
        }
        match Form::of(version) {
            Form::ByFamily if from != Form::ByFamily => fields = to_families(fields),
            Form::ByFamily => {}
            Form::WithFamily => {
                each(&mut fields, "ips", with_family);
                forget_new(&mut fields);
            }
            Form::List => {
                each(&mut fields, "ips", without_family);
                forget_new(&mut fields);
            }
            Form::Extended => each(&mut fields, "ips", without_family),
        }
        Self { version, fields }
    }

    /// The addresses in the sandbox, each once.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let texts = match Form::of(self.version) {
            Form::ByFamily => ["ip4", "ip6"]
                .iter()
                .filter_map(|family| self.fields.get(*family)?.get("ip")?.as_str())
                .collect(),
            _ => self.inside(),
        };
        for address in texts.into_iter().filter_map(address_of) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// The addresses as they are written, without those of interfaces that are outside of the sandbox.
    fn inside(&self) -> Vec<&str> {
        let interfaces = self.fields.get("interfaces");
        let ips = self.fields.get("ips").and_then(Value::as_array);
        ips.into_iter()
            .flatten()
            .filter(|ip| !is_outside(ip, interfaces))
            .filter_map(|ip| ip.get("address")?.as_str())
            .collect()
    }

    /// What goes to standard output.
    pub fn to_json(&self) -> String {
        let mut fields = self.fields.clone();
        fields.insert("cniVersion".to_owned(), self.version.as_str().into());
        Value::Object(fields).to_string()
    }

    /// Lists that are lists of objects, and addresses that are addresses: what we look into.
    fn validate(&self) -> Result<(), Error> {
        if Form::of(self.version) == Form::ByFamily {
            for family in ["ip4", "ip6"] {
                let ip = match self.fields.get(family) {
                    None | Some(Value::Null) => continue,
                    Some(Value::Object(fields)) => fields.get("ip").and_then(Value::as_str),
                    Some(_) => return Err(field(family, "an object")),
                };
                if ip.and_then(address_of).is_none() {
                    return Err(field(family, "an object with an address"));
                }
            }
            return Ok(());
        }
        for (name, wanted) in [
            ("interfaces", "interfaces"),
            ("ips", "ips"),
            ("routes", "routes"),
        ] {
            match self.fields.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Array(items)) if items.iter().all(Value::is_object) => {}
                Some(_) => return Err(field(wanted, "a list of objects")),
            }
        }
        match self
            .inside()
            .into_iter()
            .find(|text| address_of(text).is_none())
        {
            Some(_) => Err(field(
                "ips[].address",
                "an address with the length of its prefix",
            )),
            None => Ok(()),
        }
    }
}

/// The forms of results, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    ByFamily,
    WithFamily,
    List,
    Extended,
}

// === impl Form ===

impl Form {
    fn of(version: Version) -> Self {
        match version {
            Version::V0_1_0 | Version::V0_2_0 => Self::ByFamily,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Self::WithFamily,
            Version::V1_0_0 => Self::List,
            Version::V1_1_0 => Self::Extended,
        }
    }
}

/// Whether an address is of an interface that is not in the sandbox, such as the bridge.
fn is_outside(ip: &Value, interfaces: Option<&Value>) -> bool {
    let index = ip.get("interface").and_then(Value::as_u64);
    let index = index.and_then(|index| usize::try_from(index).ok());
    let interface = index.and_then(|index| interfaces?.get(index));
    let sandbox = |interface: &Value| interface.get("sandbox")?.as_str().map(str::to_owned);
    interface.is_some_and(|interface| sandbox(interface).unwrap_or_default().is_empty())
}

/// `ip4` and `ip6` become entries of `ips`, their routes those of all.
fn to_list(mut fields: Map<String, Value>) -> Map<String, Value> {
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    // In a result of this form these mean nothing; in the other they would.
    for meaningless in ["interfaces", "routes"] {
        fields.remove(meaningless);
    }
    for family in ["ip4", "ip6"] {
        let Some(Value::Object(mut ip)) = fields.remove(family) else {
            continue;
        };
        let gateway = ip.remove("gateway").filter(|gateway| !gateway.is_null());
        if let Some(Value::Array(of_this)) = ip.remove("routes") {
            routes.extend(
                of_this
                    .into_iter()
                    .map(|route| with_gateway(route, gateway.as_ref())),
            );
        }
        let mut entry = Map::new();
        entry.extend(
            ip.remove("ip")
                .map(|address| ("address".to_owned(), address)),
        );
        entry.extend(gateway.map(|gateway| ("gateway".to_owned(), gateway)));
        ips.push(Value::Object(entry));
    }
    fields.insert("ips".to_owned(), ips.into());
    if !routes.is_empty() {
        fields.insert("routes".to_owned(), routes.into());
    }
    fields.entry("dns").or_insert_with(|| json!({}));
    fields
}

/// A route of an address went by the address's gateway unless it named another one.
fn with_gateway(mut route: Value, gateway: Option<&Value>) -> Value {
    if let (Some(fields), Some(gateway)) = (route.as_object_mut(), gateway) {
        fields.entry("gw").or_insert_with(|| gateway.clone());
    }
    route
}

/// The sandbox's first address of each family, with the routes of that family.
fn to_families(mut fields: Map<String, Value>) -> Map<String, Value> {
    let list = |value: Option<Value>| match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let mut ips = list(fields.remove("ips"));
    let routes = list(fields.remove("routes"));
    let interfaces = fields.remove("interfaces");
    ips.retain(|ip| !is_outside(ip, interfaces.as_ref()));
    for (family, v6) in [("ip4", false), ("ip6", true)] {
        // In a result of the other form it means nothing.
        fields.remove(family);
        let is_of = |item: &Value, name: &str| {
            let address = item.get(name).and_then(Value::as_str).and_then(address_of);
            address.is_some_and(|address| address.is_ipv6() == v6)
        };
        let Some(ip) = ips.iter().find(|ip| is_of(ip, "address")) else {
            continue;
        };
        let of_this: Vec<_> = routes.iter().filter(|route| is_of(route, "dst")).collect();
        let mut entry = json!({"ip": ip.get("address")});
        if let Some(gateway) = ip.get("gateway") {
            entry["gateway"] = gateway.clone();
        }
        if !of_this.is_empty() {
            entry["routes"] = json!(of_this);
        }
        fields.insert(family.to_owned(), entry);
    }
    fields
}

fn with_family(ip: &mut Map<String, Value>) {
    let address = ip
        .get("address")
        .and_then(Value::as_str)
        .and_then(raw_address);
    let family = if address.is_some_and(|a| a.is_ipv6()) {
        "6"
    } else {
        "4"
    };
    ip.insert("version".to_owned(), family.into());
}

fn without_family(ip: &mut Map<String, Value>) {
    ip.remove("version");
}

fn forget_new(fields: &mut Map<String, Value>) {
    let forget = |names: &'static [&str]| {
        move |item: &mut Map<String, Value>| item.retain(|name, _| !names.contains(&name.as_str()))
    };
    each(fields, "interfaces", forget(&NEW_OF_INTERFACES));
    each(fields, "routes", forget(&NEW_OF_ROUTES));
}

fn each(fields: &mut Map<String, Value>, list: &str, change: impl Fn(&mut Map<String, Value>)) {
    let items = fields.get_mut(list).and_then(Value::as_array_mut);
    for item in items.into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            change(item);
        }
    }
}

fn raw_address(text: &str) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (prefix.parse::<u8>().ok()? <= longest).then_some(address)
}

/// The address of a text with the length of its prefix; an IPv4 address in IPv6's form is one of IPv4.
fn address_of(text: &str) -> Option<IpAddr> {
    raw_address(text).map(|address| address.to_canonical())
}

fn field(field: &'static str, wanted: &'static str) -> Error {
    Error::Field { field, wanted }
}

// === impl Error ===

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::Field { .. } => Code::Decoding,
            Self::Version { .. } => Code::IncompatibleVersion,
        }
    }
}

#[cfg(test)]
mod tests;
