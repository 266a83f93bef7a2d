//! `operator render`: custom resources in, the objects of the mesh out, without a cluster.
//!
//! Resources may refer to each other within what is given: a ZTunnel to its Istio, a tag to its revision, the
//! control plane to the ZTunnel that it trusts. What comes out is what the operator applies, but for the
//! labels and owner references by which it knows its objects again.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::sail::{
    Istio, IstioCNI, IstioRevision, IstioRevisionTag, TargetReference, Values, ZTunnel, version,
};
use mesh_render::{
    Platform, Rendered, Settings, cni,
    istiod::{self, Revision},
    ztunnel,
};

use crate::{args::Rendering, reconcile::istio::active_name};

mod read;

/// The most that is read, in bytes: many times what the API server would take.
pub const MAX_SIZE: usize = 8 << 20;

/// Why nothing is rendered. The author of the resources can repair it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// More text than any set of resources has.
    #[error("the resources have {0} bytes, {MAX_SIZE} at most")]
    TooLarge(usize),
    /// There is nothing to render.
    #[error(
        "there is no resource in the input: give an Istio, IstioCNI or ZTunnel as YAML or JSON"
    )]
    Empty,
    /// A document is not YAML.
    #[error("read document {number}")]
    Yaml {
        /// Which document, counted from 1.
        number: usize,
        /// What is wrong with it, and where.
        source: serde_yaml_ng::Error,
    },
    /// A document is of no kind that the operator reconciles.
    #[error(
        "document {number} is of {kind}: only Istio, IstioRevision, IstioRevisionTag, IstioCNI and ZTunnel of \
         sailoperator.io/v1 can be rendered"
    )]
    Kind {
        /// Which document, counted from 1.
        number: usize,
        /// What it says that it is.
        kind: String,
    },
    /// A field of a resource cannot be used.
    #[error("{place}: {field}: {problem}")]
    Field {
        /// The resource.
        place: Place,
        /// The path of the field.
        field: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A resource cannot be rendered.
    #[error("{place}: {problem}")]
    Render {
        /// The resource.
        place: Place,
        /// What is wrong, with the path of the value.
        problem: mesh_render::Error,
    },
}

/// A resource in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which document, counted from 1.
    pub number: usize,
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// What was rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The objects as a stream of YAML documents, in the order of the resources.
    pub yaml: String,
    /// What was given without effect, one line each.
    pub notes: Vec<String>,
}

/// A resource.
#[derive(Clone, Debug)]
enum Resource {
    Istio(Istio),
    Revision(IstioRevision),
    Tag(IstioRevisionTag),
    Cni(IstioCNI),
    Ztunnel(ZTunnel),
}

/// A revision, whichever kind of resource asks for it.
struct Control {
    version: String,
    name: String,
    namespace: String,
    values: Values,
}

/// All that was given.
struct Input {
    resources: Vec<(Place, Resource)>,
    platform: Platform,
}

/// Renders what a file, or standard input, has.
pub fn from_file(flags: &Rendering) -> Result<Output, Error> {
    let file = &flags.filename;
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(file)
    };
    let text = text.map_err(|source| Error::Read {
        file: file.clone(),
        source,
    })?;
    let platform = Platform {
        kind: flags.platform,
        fips: flags.fips,
        tls: None,
    };
    render(&text, platform)
}

/// Renders resources written in YAML or JSON for a cluster.
pub fn render(text: &str, platform: Platform) -> Result<Output, Error> {
    let mut notes = Vec::new();
    let resources = read::resources(text, &mut notes)?;
    if resources.is_empty() {
        return Err(Error::Empty);
    }
    let input = Input {
        resources,
        platform,
    };
    let mut output = Output {
        notes,
        ..Output::default()
    };
    for (place, resource) in &input.resources {
        let rendered = input.rendered(place, resource)?;
        output.yaml.push_str(&rendered.to_yaml());
        let notes = rendered.notes.iter();
        output
            .notes
            .extend(notes.map(|note| format!("{place}: {note}")));
    }
    Ok(output)
}

// === impl Input ===

impl Input {
    fn rendered(&self, place: &Place, resource: &Resource) -> Result<Rendered, Error> {
        let rendered = match resource {
            Resource::Istio(istio) => self.control(place, &Control::of_istio(istio))?,
            Resource::Revision(revision) => self.control(place, &Control::of_revision(revision))?,
            Resource::Tag(tag) => {
                let control = self.target(place, &tag.spec.target_ref)?;
                let settings = self.settings(place, &control.version)?;
                istiod::revision_tag(&place.name, control.revision(), &settings)
            }
            Resource::Cni(agent) => {
                let settings = self.settings(place, &agent.spec.version)?;
                cni::render(&agent.spec, &settings)
            }
            Resource::Ztunnel(proxy) => {
                let settings = self.settings(place, &proxy.spec.version)?;
                let target = proxy.spec.target_ref.as_ref();
                let target = target
                    .map(|target| self.target(place, target))
                    .transpose()?;
                let values = target.as_ref().map(|control| &control.values);
                ztunnel::render(&proxy.spec, values, &settings)
            }
        };
        rendered.map_err(|problem| place.error(problem))
    }

    fn control(
        &self,
        place: &Place,
        control: &Control,
    ) -> Result<Result<Rendered, mesh_render::Error>, Error> {
        let settings = self.settings(place, &control.version)?;
        Ok(istiod::control_plane(control.revision(), &settings))
    }

    /// The revision that a resource refers to.
    fn target(&self, place: &Place, target: &TargetReference) -> Result<Control, Error> {
        let is_target = |(place, _): &&(Place, Resource)| {
            place.kind == target.kind && place.name == target.name
        };
        let found = self.resources.iter().find(is_target);
        match found {
            Some((_, Resource::Istio(istio))) => Ok(Control::of_istio(istio)),
            Some((_, Resource::Revision(revision))) => Ok(Control::of_revision(revision)),
            _ => Err(place.field(
                "spec.targetRef",
                format!(
                    "there is no {} `{}` in the input: give it as a further document",
                    target.kind, target.name
                ),
            )),
        }
    }

    /// The release with its own images on the cluster, and where the ZTunnel of the input runs.
    fn settings(&self, place: &Place, version: &str) -> Result<Settings, Error> {
        let release = version::resolve(version)
            .map_err(|error| place.field("spec.version", error.to_string()))?;
        let mut proxies = self
            .resources
            .iter()
            .filter_map(|(_, resource)| match resource {
                Resource::Ztunnel(proxy) => Some(proxy.spec.namespace.clone()),
                _ => None,
            });
        let mut settings = Settings::released(release, self.platform.clone());
        settings.ztunnel_namespace = proxies.next_back();
        Ok(settings)
    }
}

// === impl Control ===

impl Control {
    fn of_istio(istio: &Istio) -> Self {
        let (spec, name) = (&istio.spec, active_name(istio));
        let profile = spec.profile.as_deref();
        Self {
            version: spec.version.clone(),
            values: istiod::revision_values(profile, &spec.values, &name, &spec.namespace),
            namespace: spec.namespace.clone(),
            name,
        }
    }

    fn of_revision(revision: &IstioRevision) -> Self {
        let spec = &revision.spec;
        Self {
            version: spec.version.clone(),
            name: name_of(&revision.metadata),
            namespace: spec.namespace.clone(),
            values: spec.values.clone(),
        }
    }

    fn revision(&self) -> Revision<'_> {
        Revision {
            name: &self.name,
            namespace: &self.namespace,
            values: &self.values,
        }
    }
}

fn name_of(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

// === impl Place ===

impl Place {
    fn error(&self, problem: mesh_render::Error) -> Error {
        Error::Render {
            place: self.clone(),
            problem,
        }
    }

    fn field(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::Field {
            place: self.clone(),
            field: field.to_owned(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {} ({} {})", self.number, self.kind, self.name)
    }
}

#[cfg(test)]
mod tests;
