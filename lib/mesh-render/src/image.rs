//! Which image a component runs, and whose it is.

use crate::Error;

/// Whose components run. They differ in rights and arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// This one.
    #[default]
    Lateen,
    /// Istio's, or one that is built from it.
    Istio,
}

/// Where Istio's images, or ones built from them, are known to lie.
const ISTIO: &[&str] = &[
    "istio/",
    "docker.io/istio/",
    "index.docker.io/istio/",
    "registry.istio.io/",
    "gcr.io/istio-",
    "registry.redhat.io/openshift-service-mesh/",
];

/// What the values say about an image; the component's own before those of `global`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// A name, or a whole reference if it has a slash.
    pub image: Option<&'a str>,
    /// Registry and path.
    pub hub: Option<&'a str>,
    /// The tag, or a digest `sha256:…`.
    pub tag: Option<&'a str>,
    /// A suffix of the tag, such as `distroless`. Only Istio's images have variants.
    pub variant: Option<&'a str>,
    /// `global.distribution`.
    pub distribution: Option<&'a str>,
}

/// An image's reference, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The whole reference.
    pub reference: String,
    /// Whose it is.
    pub distribution: Distribution,
}

// === impl Image ===

impl Image {
    /// The image that is `wanted`. `default` is the release's, a whole reference; `name` is what the
    /// component's image is called in any registry, and `release` the tag where a hub but no tag is wanted.
    pub fn choose(
        wanted: Wanted<'_>,
        default: &str,
        name: &str,
        release: &str,
    ) -> Result<Self, Error> {
        let composed = match wanted.image {
            Some(whole) if whole.contains('/') => {
                return Self::of(whole.to_owned(), wanted)?.checked();
            }
            Some(_) => true,
            None => wanted.hub.is_some() || wanted.tag.is_some(),
        };
        if !composed {
            return Self::of(default.to_owned(), wanted);
        }
        let name = wanted.image.unwrap_or(name);
        let hub = wanted.hub.unwrap_or_else(|| hub_of(default));
        let tag = wanted.tag.unwrap_or(release);
        let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
        let mut image = Self::of(format!("{hub}/{name}{separator}{tag}"), wanted)?;
        if let (Distribution::Istio, Some(variant), ':') =
            (image.distribution, wanted.variant, separator)
        {
            image.reference.push('-');
            image.reference.push_str(variant);
        }
        image.checked()
    }

    /// Whose image it is: as the values say, or by where it lies.
    fn of(reference: String, wanted: Wanted<'_>) -> Result<Self, Error> {
        let istios = || ISTIO.iter().any(|place| reference.starts_with(place));
        let distribution = match wanted.distribution {
            Some("lateen") => Distribution::Lateen,
            Some("istio") => Distribution::Istio,
            Some(unknown) => {
                return Err(Error::Value {
                    path: "global.distribution".to_owned(),
                    problem: format!("`{unknown}` is neither `lateen` nor `istio`"),
                });
            }
            None if istios() => Distribution::Istio,
            None => Distribution::Lateen,
        };
        Ok(Self {
            reference,
            distribution,
        })
    }

    /// Refuses here what a kubelet would refuse pod by pod.
    fn checked(self) -> Result<Self, Error> {
        if is_reference(&self.reference) {
            return Ok(self);
        }
        Err(Error::Value {
            path: "image, hub, tag or variant".to_owned(),
            problem: format!("`{}` is not the reference of an image", self.reference),
        })
    }
}

/// Longest reference that is taken: a name of 255 bytes, a tag of 128 and a digest, which is what registries
/// take.
const LONGEST: usize = 512;

/// Whether `text` can be the reference of an image.
fn is_reference(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LONGEST
        && text.chars().all(allowed)
        && text.starts_with(ends)
        && text.ends_with(ends)
        && !text.contains("//")
}

/// Registry and path of a whole reference.
fn hub_of(reference: &str) -> &str {
    reference.rsplit_once('/').map_or("", |(hub, _)| hub)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "registry.example/lateen/pilot@sha256:aa";

    fn choose(wanted: Wanted<'_>) -> (String, Distribution) {
        let image = Image::choose(wanted, OURS, "pilot", "1.30.3").unwrap();
        (image.reference, image.distribution)
    }

    #[test]
    fn without_a_wish_the_image_is_the_release_s() {
        assert_eq!(
            choose(Wanted::default()),
            (OURS.to_owned(), Distribution::Lateen)
        );
        let wanted = Wanted {
            variant: Some("distroless"),
            ..Wanted::default()
        };
        assert_eq!(choose(wanted).0, OURS);
    }

    #[test]
    fn what_is_no_reference_of_an_image_is_refused() {
        for image in ["a b", "a\nb", "registry.example//x", "registry.example/x:"] {
            let wanted = Wanted {
                image: Some(image),
                ..Wanted::default()
            };
            let refused = Image::choose(wanted, OURS, "pilot", "1.30.3");
            assert!(refused.is_err(), "{image:?} became {refused:?}");
        }
    }

    #[test]
    fn hub_tag_and_variant_make_istios_reference() {
        let wanted = Wanted {
            hub: Some("docker.io/istio"),
            variant: Some("distroless"),
            ..Wanted::default()
        };
        let expected = "docker.io/istio/pilot:1.30.3-distroless".to_owned();
        assert_eq!(choose(wanted), (expected, Distribution::Istio));
        let wanted = Wanted {
            tag: Some("sha256:bb"),
            ..wanted
        };
        assert_eq!(choose(wanted).0, "docker.io/istio/pilot@sha256:bb");
    }

    #[test]
    fn a_mirror_of_our_images_has_no_variants() {
        let wanted = Wanted {
            hub: Some("mirror.example/lateen"),
            tag: Some("1.30.3-2"),
            variant: Some("distroless"),
            ..Wanted::default()
        };
        let expected = "mirror.example/lateen/pilot:1.30.3-2".to_owned();
        assert_eq!(choose(wanted), (expected, Distribution::Lateen));
    }

    #[test]
    fn an_image_with_a_slash_is_the_whole_reference() {
        let wanted = Wanted {
            image: Some("mirror.example/istio/pilot:1.29.0"),
            hub: Some("docker.io/istio"),
            distribution: Some("istio"),
            variant: Some("distroless"),
            ..Wanted::default()
        };
        let expected = "mirror.example/istio/pilot:1.29.0".to_owned();
        assert_eq!(choose(wanted), (expected, Distribution::Istio));
        let named = Wanted {
            image: Some("istiod"),
            ..Wanted::default()
        };
        assert_eq!(choose(named).0, "registry.example/lateen/istiod:1.30.3");
    }

    #[test]
    fn an_unknown_distribution_is_refused() {
        let wanted = Wanted {
            distribution: Some("other"),
            ..Wanted::default()
        };
        let error = Image::choose(wanted, OURS, "pilot", "1.30.3").unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.values.global.distribution: `other` is neither `lateen` nor `istio`"
        );
    }
}
