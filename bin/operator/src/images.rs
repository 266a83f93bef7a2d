//! Images that whoever deploys the operator puts in the place of the released ones.
//!
//! Two forms are read: `RELATED_IMAGE_ZTUNNEL` or `RELATED_IMAGE_V1_30_3_ZTUNNEL` in the environment, as
//! operator catalogues mirror them, and `images.v1_30_3.ztunnel=…` in a properties file, as Sail has it.

use std::collections::BTreeMap;

/// A program with an image of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The control plane.
    Istiod,
    /// The CNI agent.
    Cni,
    /// The node proxy.
    Ztunnel,
}

/// The images by release and component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// For one release, by its version with underscores, such as `1_30_3`.
    of_release: BTreeMap<(String, Component), String>,
    /// For every other.
    of_all: BTreeMap<Component, String>,
}

// === impl Component ===

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Istiod, Self::Cni, Self::Ztunnel];

    /// The name in properties; in capitals, that in variables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Istiod => "istiod",
            Self::Cni => "cni",
            Self::Ztunnel => "ztunnel",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|component| component.name().eq_ignore_ascii_case(name))
    }
}

// === impl Overrides ===

impl Overrides {
    /// The image that replaces `component`'s of `release`, such as `1.30.3` or `v1.30.3`.
    pub fn get(&self, release: &str, component: Component) -> Option<&str> {
        let found = self.of_release.get(&(release_key(release), component));
        let found = found.or_else(|| self.of_all.get(&component));
        found.map(String::as_str)
    }

    /// Sets the image of `component` for one release, or for all that have none of their own.
    pub fn set(&mut self, release: Option<&str>, component: Component, image: impl Into<String>) {
        let image = image.into();
        match release {
            Some(release) => self
                .of_release
                .insert((release_key(release), component), image),
            None => self.of_all.insert(component, image),
        };
    }

    /// Takes a variable whose name goes on with `rest` after `RELATED_IMAGE_`. False for one that is not
    /// about our components.
    pub fn take_variable(&mut self, rest: &str, image: &str) -> bool {
        let (release, component) = match rest.rsplit_once('_') {
            Some((release, component)) => (Some(release), component),
            None => (None, rest),
        };
        self.take(release, component, image)
    }

    /// Takes a property such as `images.v1_30_3.ztunnel`. False for one that is not about our components.
    pub fn take_property(&mut self, name: &str, image: &str) -> bool {
        let mut parts = name.splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("images"), Some(release), Some(component)) => {
                self.take(Some(release), component, image)
            }
            _ => false,
        }
    }

    fn take(&mut self, release: Option<&str>, component: &str, image: &str) -> bool {
        let component = Component::named(component);
        if let Some(component) = component.filter(|_| !image.is_empty()) {
            self.set(release, component, image);
        }
        component.is_some()
    }
}

fn release_key(release: &str) -> String {
    let number = release.trim_start_matches(['v', 'V']);
    number.to_ascii_lowercase().replace(['.', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_one_release_wins_over_that_of_all() {
        let mut images = Overrides::default();
        assert!(images.take_variable("ZTUNNEL", "all"));
        assert!(images.take_variable("V1_30_3_ZTUNNEL", "one"));
        assert!(images.take_property("images.v1_30_2.cni", "property"));
        assert!(!images.take_property("images.v1_30_2.proxy", "sidecar"));
        assert!(!images.take_property("other", "x"));
        assert!(!images.take_variable("POSTGRES", "x"));
        assert_eq!(images.get("1.30.3", Component::Ztunnel), Some("one"));
        assert_eq!(images.get("v1.30.3", Component::Ztunnel), Some("one"));
        assert_eq!(images.get("v1.30.2", Component::Ztunnel), Some("all"));
        assert_eq!(images.get("v1.30.2", Component::Cni), Some("property"));
        assert_eq!(images.get("v1.30.3", Component::Cni), None);
    }

    #[test]
    fn nothing_replaces_nothing() {
        let mut images = Overrides::default();
        assert!(images.take_variable("ZTUNNEL", ""));
        assert_eq!(images, Overrides::default());
    }
}
