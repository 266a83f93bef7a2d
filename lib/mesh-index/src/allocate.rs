//! Virtual addresses for ServiceEntries that have none.
//!
//! A host gets one address of each family, in ranges that are never routed. The choice begins at a hash
//! of who the host is and goes on to the next free address, so that it hardly ever depends on what came
//! first; what the status of an entry holds is kept, unless an older entry holds it too. The leader
//! writes; every replica publishes what is written.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    object::Key,
    output::AllocatedAddress,
    record::{
        Age,
        entry::{Resolution, ServiceEntry},
    },
    settings::Settings,
};

/// Who holds which address, and what has been promised to whom.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    /// By address: those whose status holds it, the oldest first.
    held: HashMap<IpAddr, BTreeSet<Claim>>,
    /// What was allocated and has not been seen in a status yet, both ways.
    promised: HashMap<IpAddr, (Key, Arc<str>)>,
    promises: HashMap<Key, Vec<AllocatedAddress>>,
}

/// A host whose entry's status holds an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    age: Age,
    key: Key,
    host: Arc<str>,
}

/// The two ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// First address of 240.240.0.0/16, the range Istio uses.
const V4: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 0);
/// First address of 2001:2::/48, the range Istio uses.
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
/// Addresses of the IPv4 range, of which the first and the last are left out. As many are used of the
/// IPv6 range.
const RANGE: u32 = 1 << 16;

/// Whether an entry is to have addresses: it takes connections by address, states none, and does not
/// object.
pub(crate) fn wanted(settings: &Settings, entry: &ServiceEntry) -> bool {
    settings.allocate_addresses
        && !entry.opted_out
        && !entry.addressed
        && entry.resolution != Resolution::None
}

/// The addresses that a status holds for a host, as far as they are of our ranges.
pub(crate) fn of_host<'a>(
    entry: &'a ServiceEntry,
    host: &'a str,
) -> impl Iterator<Item = IpAddr> + 'a {
    let of_host = entry.allocated.iter().filter(move |a| *a.host == *host);
    let ours = of_host.filter(|a| Family::of(a.value).is_some());
    ours.map(|allocated| allocated.value)
}

/// Whether a host of the entry can be reached by address. A wildcard cannot, unless a waypoint finds out
/// which name is meant.
fn addressable(entry: &ServiceEntry, host: &str) -> bool {
    !ServiceEntry::is_wildcard(host) || entry.resolution == Resolution::DynamicDns
}

// === impl Allocator ===

impl Allocator {
    /// Replaces what the status of an entry holds. Returns the other entries that this concerns: those
    /// that hold the same addresses.
    pub(crate) fn hold(
        &mut self,
        key: &Key,
        before: Option<&ServiceEntry>,
        now: Option<&ServiceEntry>,
    ) -> Vec<Key> {
        let mut concerned = Vec::new();
        let claims = |entry: &ServiceEntry| {
            let claim = |allocated: &AllocatedAddress| {
                let claim = Claim {
                    age: entry.age,
                    key: key.clone(),
                    host: allocated.host.clone(),
                };
                (allocated.value, claim)
            };
            entry.allocated.iter().map(claim).collect::<Vec<_>>()
        };
        for (address, claim) in before.map(claims).unwrap_or_default() {
            if let Some(holders) = self.held.get_mut(&address) {
                holders.remove(&claim);
                concerned.extend(holders.iter().map(|holder| holder.key.clone()));
                if holders.is_empty() {
                    self.held.remove(&address);
                }
            }
        }
        for (address, claim) in now.map(claims).unwrap_or_default() {
            let holders = self.held.entry(address).or_default();
            concerned.extend(holders.iter().map(|holder| holder.key.clone()));
            holders.insert(claim);
        }
        if now.is_none() {
            self.forget(key);
        }
        concerned.retain(|other| other != key);
        concerned
    }

    /// The addresses that the status of an entry should hold, in the order of its hosts. A host gets
    /// none once the range is full.
    pub(crate) fn allocate(
        &mut self,
        settings: &Settings,
        key: &Key,
        entry: &ServiceEntry,
    ) -> Vec<AllocatedAddress> {
        let before = self.forget(key);
        if !wanted(settings, entry) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for host in entry.hosts.iter().filter(|host| addressable(entry, host)) {
            for family in [Family::V4, Family::V6] {
                let kept = (entry.allocated.iter().chain(&before))
                    .filter(|a| a.host == *host && Family::of(a.value) == Some(family))
                    .map(|allocated| allocated.value)
                    .find(|address| self.is_first(*address, entry.age, key, host));
                let value = kept.or_else(|| self.free(family, key, host));
                all.extend(value.map(|value| {
                    self.promised.insert(value, (key.clone(), host.clone()));
                    AllocatedAddress {
                        host: host.clone(),
                        value,
                    }
                }));
            }
        }
        if !all.is_empty() {
            self.promises.insert(key.clone(), all.clone());
        }
        all
    }

    /// Takes back what was promised to an entry.
    fn forget(&mut self, key: &Key) -> Vec<AllocatedAddress> {
        let before = self.promises.remove(key).unwrap_or_default();
        for allocated in &before {
            let promised = self.promised.get(&allocated.value);
            if promised.is_some_and(|(holder, _)| holder == key) {
                self.promised.remove(&allocated.value);
            }
        }
        before
    }

    /// Whether nobody has a better claim to an address: one that holds it for longer, or to whom it is
    /// promised.
    fn is_first(&self, address: IpAddr, age: Age, key: &Key, host: &Arc<str>) -> bool {
        let own = Claim {
            age,
            key: key.clone(),
            host: host.clone(),
        };
        match self.held.get(&address).and_then(BTreeSet::first) {
            Some(first) => *first == own,
            None => !self.promised.contains_key(&address),
        }
    }

    fn free(&self, family: Family, key: &Key, host: &str) -> Option<IpAddr> {
        let start = hash(&[&key.namespace, &key.name, host]) % RANGE;
        let numbers = (start..RANGE).chain(0..start);
        let usable = numbers.filter(|number| (1..RANGE - 1).contains(number));
        let mut addresses = usable.map(|number| family.address(number));
        addresses.find(|address| {
            !self.held.contains_key(address) && !self.promised.contains_key(address)
        })
    }
}

// === impl Family ===

impl Family {
    /// The family of an address of our ranges.
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) if v4.octets()[..2] == V4.octets()[..2] => Some(Self::V4),
            IpAddr::V6(v6) if v6.segments()[..3] == V6.segments()[..3] => Some(Self::V6),
            _ => None,
        }
    }

    fn address(self, number: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(V4.to_bits() | number).into(),
            Self::V6 => Ipv6Addr::from_bits(V6.to_bits() | u128::from(number)).into(),
        }
    }
}

/// FNV-1a: the same in every replica and every version. The parts are kept apart by a byte that none of
/// them holds.
fn hash(parts: &[&str]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Kind, record::Reader, text::Texts};

    fn read(
        name: &str,
        second: u8,
        spec: &Value,
        status: &[AllocatedAddress],
    ) -> (Key, ServiceEntry) {
        let status: Vec<_> = (status.iter())
            .map(|a| json!({"host": &*a.host, "value": a.value.to_string()}))
            .collect();
        let object = json!({
            "metadata": {
                "name": name, "namespace": "shop",
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": spec,
            "status": {"addresses": status},
        });
        let key = Key::new("shop", name);
        let mut texts = Texts::default();
        let mut reader = Reader::new(&mut texts, Kind::ServiceEntry, &key);
        let object = serde_json::from_value(object).unwrap();
        let entry = ServiceEntry::read(&object, &mut reader).unwrap();
        (key, entry)
    }

    fn dns(hosts: &[&str]) -> Value {
        json!({"hosts": hosts, "resolution": "DNS"})
    }

    fn allocate(
        allocator: &mut Allocator,
        (key, entry): &(Key, ServiceEntry),
    ) -> Vec<AllocatedAddress> {
        allocator.allocate(&Settings::default(), key, entry)
    }

    #[test]
    fn each_host_gets_one_address_of_each_family_and_always_the_same() {
        let entry = read("a", 1, &dns(&["x.example", "y.example"]), &[]);
        let first = allocate(&mut Allocator::default(), &entry);
        assert_eq!(first.len(), 4);
        let families: Vec<_> = first.iter().map(|a| Family::of(a.value).unwrap()).collect();
        assert_eq!(families, [Family::V4, Family::V6, Family::V4, Family::V6]);
        assert_eq!(allocate(&mut Allocator::default(), &entry), first);
    }

    #[test]
    fn none_is_given_where_none_is_wanted() {
        for (hosts, resolution, more) in [
            (json!(["x.example"]), "NONE", json!({})),
            (json!(["*.example"]), "DNS", json!({})),
            (
                json!(["x.example"]),
                "DNS",
                json!({"addresses": ["192.0.2.1"]}),
            ),
            (
                json!(["x.example"]),
                "DNS",
                json!({"addresses": ["nonsense"]}),
            ),
        ] {
            let mut spec = json!({"hosts": hosts, "resolution": resolution});
            if let Some(addresses) = more.get("addresses") {
                spec["addresses"] = addresses.clone();
            }
            let entry = read("a", 1, &spec, &[]);
            assert_eq!(allocate(&mut Allocator::default(), &entry), [], "{spec}");
        }
        let dynamic = json!({"hosts": ["*.example"], "resolution": "DYNAMIC_DNS"});
        assert_eq!(
            allocate(&mut Allocator::default(), &read("a", 1, &dynamic, &[])).len(),
            2
        );
        let (key, mut entry) = read("a", 1, &dns(&["x.example"]), &[]);
        entry.opted_out = true;
        assert_eq!(allocate(&mut Allocator::default(), &(key, entry)), []);
    }

    #[test]
    fn what_a_status_holds_is_kept_and_of_two_the_older_entry_keeps_it() {
        let held = [AllocatedAddress {
            host: "x.example".into(),
            value: "240.240.7.7".parse().unwrap(),
        }];
        let old = read("z", 1, &dns(&["x.example"]), &held);
        let young = read("a", 2, &dns(&["x.example"]), &held);
        let mut allocator = Allocator::default();
        assert_eq!(allocator.hold(&young.0, None, Some(&young.1)), []);
        let concerned = allocator.hold(&old.0, None, Some(&old.1));
        assert_eq!(concerned.iter().collect::<Vec<_>>(), [&young.0]);
        assert_eq!(allocate(&mut allocator, &old)[0], held[0]);
        assert_ne!(allocate(&mut allocator, &young)[0], held[0]);
        let concerned = allocator.hold(&old.0, Some(&old.1), None);
        assert_eq!(concerned.iter().collect::<Vec<_>>(), [&young.0]);
        assert_eq!(allocate(&mut allocator, &young)[0], held[0]);
    }

    #[test]
    fn an_address_that_is_promised_is_not_given_twice() {
        let mut allocator = Allocator::default();
        let mut given = std::collections::HashSet::new();
        let hosts: Vec<_> = (0..250).map(|i| format!("h{i}.example")).collect();
        let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
        for number in 0..40 {
            let entry = read(&format!("e{number}"), 1, &dns(&hosts), &[]);
            let all = allocate(&mut allocator, &entry);
            assert_eq!(all.len(), 500);
            assert!(
                all.iter().all(|a| given.insert(a.value)),
                "each is given once"
            );
        }
        assert_eq!(allocator.promised.len(), 40 * 500);
        for number in 0..40 {
            allocator.hold(&Key::new("shop", format!("e{number}")), None, None);
        }
        assert!(allocator.promised.is_empty() && allocator.promises.is_empty());
    }
}
