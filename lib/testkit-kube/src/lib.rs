//! An embedded Kubernetes API server for tests and the lab: in memory, over HTTPS, for kube-rs and kubectl.
//!
//! [`ApiServer`](server::ApiServer) is the way in: start one, take a client or a kubeconfig from it, and
//! talk to it as to a cluster. The parts below it are pure: [`store`] remembers, [`registry`] knows which
//! resources exist, [`cluster`] holds the rules of writing, [`schema`], [`patch`] and [`apply`] work on JSON
//! values, [`auth`] decides who may do what. [`wait`] is for tests that wait for a change.
//!
//! ```no_run
//! # use testkit_kube::server::{ApiServer, Options};
//! # async fn example() -> Result<(), testkit_kube::server::Error> {
//! let server = ApiServer::start(Options::default()).await?;
//! let client = server.admin_client().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is there
//! - The verbs with their parameters: get, list (at a version, in pages), watch (selectors, bookmarks, initial
//!   events), create, update, the four patches, delete (preconditions, propagation, finalizers), collections.
//! - Resource versions, uids, generations, expiry with 410, dry runs, field validation, `Status` for every
//!   refusal, tables and metadata-only objects, discovery in both forms, OpenAPI.
//! - The built-in resources of the table in [`registry`], with `status`, and `scale`, `log`, `token` and
//!   `finalize` where they belong. CRDs with schemas, defaults, pruning, CEL, printer columns, selectable
//!   fields, several versions.
//! - Controllers for namespaces, their service account and root certificate, owners and dependents, CRDs,
//!   aggregated roles. They run within the write that concerns them, so nothing has to be waited for; a
//!   cluster takes its time, and code under test must not rely on this.
//! - Authentication by certificate, token and impersonation; RBAC for everything; the reviews.
//!
//! # What is not
//! A request for a resource or subresource of this list is answered with 501 and its name, unless it says
//! otherwise.
//! - CBOR, and answers in protobuf: 415 and 406, so that clients speak JSON. Bodies in protobuf are [read](protobuf)
//!   for the kinds in its table. Compression of answers.
//! - `exec`, `attach`, `portforward`, `proxy`, `eviction`, `binding`, `resize`, `ephemeralcontainers`; `scale` of
//!   custom resources; `log` unless a [`NodeAgent`](server::NodeAgent) is registered.
//! - PersistentVolumes, ReplicationControllers, PodTemplates; the API groups apiregistration, certificates,
//!   storage, node, flowcontrol and resource.k8s.io. LimitRanges are answered with 404, because
//!   kubectl asks for them in passing.
//! - ResourceQuotas are stored and not enforced.
//! - Webhooks and admission policies are stored and not called. CRDs convert with strategy `None` only, and
//!   objects are not pruned or defaulted again when they are read in another version.
//! - Nothing makes pods of Deployments, endpoints of Services or jobs of CronJobs, and nothing schedules. Pods
//!   get neither a token volume nor tolerations. There is no `kubernetes` Service.
//! - A pod is deleted at once unless a node agent is registered. A namespace that cannot be emptied does not
//!   say why in its conditions.
//! - Duplicate keys are reported in objects, not in patches. Field validation of a patch looks at the object
//!   that the patch makes.
//! - Audit, priority and fairness, storage on disk: there is one server with its memory.

pub mod apply;
pub mod auth;
pub mod cluster;
pub mod convert;
pub mod kubectl;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod server;
pub mod status;
pub mod store;
pub mod table;
pub mod wait;
