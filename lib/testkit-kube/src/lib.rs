//! An embedded Kubernetes API server for tests and the lab: in memory, over HTTPS, for kube-rs and kubectl.
//!
//! [`ApiServer`](server::ApiServer) is the way in: start one, take a client or a kubeconfig from it, and
//! talk to it as to a cluster. The parts below it are pure: [`store`] remembers, [`registry`] knows which
//! resources exist, [`schema`], [`patch`] and [`apply`] work on JSON values, [`auth`] decides who may do what.

pub mod apply;
pub mod auth;
pub mod cluster;
pub mod convert;
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
