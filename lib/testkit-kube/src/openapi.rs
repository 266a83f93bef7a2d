//! The documents below `/openapi`, from which kubectl learns what exists and how it looks.

use std::sync::Arc;

use bytes::Bytes;

use crate::registry::Resource;

/// One document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its body.
    pub body: Bytes,
}

/// Answers `GET path` for a path at or below `/openapi/v2` or `/openapi/v3`; `accept` is the header or empty.
/// `None` means that there is no such document (404).
pub fn respond(path: &str, accept: &str, resources: &[Arc<Resource>]) -> Option<Document> {
    let _ = (path, accept, resources);
    None
}
