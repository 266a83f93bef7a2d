//! From values to HTTP responses.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

use crate::status::Status;

/// The body of a response, whole or as it comes.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Objects that are written into one piece of a list.
const PIECE: usize = 64;

/// An object within a list. Those of built-in kinds leave kind and version to the list.
pub(super) struct Item {
    pub(super) object: Arc<Value>,
    pub(super) bare: bool,
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(fields) = self.object.as_object().filter(|_| self.bare) else {
            return self.object.serialize(serializer);
        };
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in fields {
            if key != "kind" && key != "apiVersion" {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// A JSON document.
pub(super) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    bytes(code, "application/json", Bytes::from(value.to_string()))
}

/// A document that is encoded already.
pub(super) fn bytes(code: StatusCode, content_type: &str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = code;
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// A request that did not end well.
pub(super) fn status(status: &Status) -> Response<Body> {
    let mut response = json(status.code, &status.to_value());
    if let Some(seconds) = status.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A document that comes in pieces.
pub(super) fn stream(
    content_type: &'static str,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let mut response = Response::new(http_body_util::BodyExt::boxed_unsync(StreamBody::new(
        frames,
    )));
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// A list, written while it is sent so that a long one neither takes much memory nor holds up others.
/// `head` is the list without its items, which go into `field`.
pub(super) fn list<S: Serialize + Send + 'static>(
    head: &Value,
    field: &str,
    items: impl Iterator<Item = S> + Send + 'static,
) -> Response<Body> {
    let mut start = head.to_string();
    // `{...}` becomes `{...,"items":[`
    start.pop();
    start.push_str(",\"");
    start.push_str(field);
    start.push_str("\":[");
    let mut items = items.peekable();
    let pieces = std::iter::from_fn(move || {
        items.peek()?;
        let mut piece = Vec::new();
        for item in items.by_ref().take(PIECE) {
            // Writing a JSON value to memory cannot fail.
            let _written = serde_json::to_writer(&mut piece, &item);
            piece.push(b',');
        }
        if items.peek().is_none() {
            piece.pop();
        }
        Some(Bytes::from(piece))
    });
    let pieces = std::iter::once(Bytes::from(start))
        .chain(pieces)
        .chain(std::iter::once(Bytes::from_static(b"]}\n")));
    stream("application/json", futures::stream::iter(pieces))
}

/// Adds `Warning` headers.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
