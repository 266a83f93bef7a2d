//! Responses as bytes of the wire: the frame of gRPC, and in it the message, a piece at a time.
//!
//! The whole mesh in one message is tens of megabytes for each client that connects. So the message never
//! exists as a whole: its length is computed, and its bytes are made when the transport asks for them.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    catalog::{VERSION_LEN, Version},
    response::{Item, Response, TooLarge},
};

/// The bytes of one response, in chunks of at most 16 KiB. Between two of them it holds the
/// handles of the response, and less than one resource's names.
#[derive(Debug)]
pub struct Chunks {
    response: Response,
    at: At,
    /// What is left of a content that does not fit into one chunk.
    content: Bytes,
    /// What is left of the names that did not fit into the last chunk.
    carry: Vec<u8>,
    /// Bytes of the message.
    len: u32,
    /// Bytes that are still to come, the prefix included.
    left: u64,
}

/// What is to be written next.
#[derive(Clone, Copy, Debug)]
enum At {
    Prefix,
    /// Up to the content of the resource with this index.
    Head(usize),
    /// What follows the content.
    Foot(usize),
    /// The fields that a response has once.
    Fields,
    Removed(usize),
    End,
}

/// Most bytes in a chunk: with the nine bytes of its HTTP/2 frame's head, one full record of TLS.
pub(super) const CHUNK: usize = 16 * 1024 - 9;

/// Room for what a chunk gets beyond its end, and the next one begins with.
const SLACK: usize = 512;

/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: u64 = 5;

/// Numbers of the fields of `DeltaDiscoveryResponse`.
mod response {
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED: u32 = 6;
}

/// Numbers of the fields of `Resource`.
mod resource {
    pub(super) const VERSION: u32 = 1;
    pub(super) const RESOURCE: u32 = 2;
    pub(super) const NAME: u32 = 3;
    pub(super) const ALIASES: u32 = 4;
}

/// Numbers of the fields of `google.protobuf.Any`.
mod any {
    pub(super) const TYPE_URL: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

// === impl Chunks ===

impl Chunks {
    pub(super) fn new(response: Response) -> Result<Self, TooLarge> {
        let len = message_len(&response);
        Ok(Self {
            at: At::Prefix,
            content: Bytes::new(),
            carry: Vec::new(),
            len: u32::try_from(len).map_err(|_beyond| TooLarge(len))?,
            left: PREFIX + len,
            response,
        })
    }

    /// Writes what is next. Only the rest of a content knows where the chunk ends.
    fn write(&mut self, chunk: &mut Vec<u8>) {
        if !self.content.is_empty() {
            let room = CHUNK.saturating_sub(chunk.len());
            let part = self.content.split_to(room.min(self.content.len()));
            chunk.put(part);
            return;
        }
        self.at = match self.at {
            At::Prefix => {
                chunk.put_u8(0);
                chunk.put_u32(self.len);
                At::Head(0)
            }
            At::Head(index) => match self.response.item(index) {
                Some(item) => {
                    put_head(&self.response.type_url, item, chunk);
                    let content = &item.published.body;
                    if chunk.len() + content.len() <= CHUNK {
                        chunk.put_slice(content);
                    } else {
                        self.content = content.clone();
                    }
                    At::Foot(index)
                }
                None => At::Fields,
            },
            At::Foot(index) => {
                if let Some(item) = self.response.item(index) {
                    put_foot(item, chunk);
                }
                At::Head(index + 1)
            }
            At::Fields => {
                put_text(response::TYPE_URL, &self.response.type_url, chunk);
                put_text(response::NONCE, &self.response.nonce, chunk);
                At::Removed(0)
            }
            At::Removed(index) => match self.response.removed.get(index) {
                Some(name) => {
                    put_element(response::REMOVED, name, chunk);
                    At::Removed(index + 1)
                }
                None => At::End,
            },
            At::End => At::End,
        };
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        if len == 0 {
            return None;
        }
        // A buffer of its own for each, lest the stream keeps what the transport has long sent.
        let mut chunk = Vec::with_capacity(if len < CHUNK { len } else { CHUNK + SLACK });
        chunk.append(&mut self.carry);
        while chunk.len() < len && !matches!(self.at, At::End) {
            self.write(&mut chunk);
        }
        debug_assert!(chunk.len() >= len, "the length is that of what is written");
        self.carry.extend(chunk.drain(len.min(chunk.len())..));
        self.left -= len as u64;
        Some(chunk.into())
    }
}

// === lengths, in the order of the wire ===

fn message_len(response: &Response) -> u64 {
    let type_url = &response.type_url;
    let resources = response.items();
    let resources = resources.map(|item| field_len(resource_len(type_url, item)) as u64);
    let removed = response.removed.iter();
    let removed = removed.map(|name| field_len(name.len()) as u64);
    let fields = text_len(type_url) + text_len(&response.nonce);
    resources.sum::<u64>() + fields as u64 + removed.sum::<u64>()
}

fn resource_len(type_url: &str, item: Item<'_>) -> usize {
    let aliases = item.aliases.iter();
    let aliases: usize = aliases.map(|alias| field_len(alias.len())).sum();
    field_len(VERSION_LEN)
        + field_len(any_len(type_url, item.published.body.len()))
        + text_len(item.name)
        + aliases
}

fn any_len(type_url: &str, content: usize) -> usize {
    text_len(type_url) + if content == 0 { 0 } else { field_len(content) }
}

/// A field that is left out when it is empty.
fn text_len(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        field_len(text.len())
    }
}

/// A field with so many bytes in it. The key takes one, since all numbers are below 16.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

// === fields ===

/// A resource up to its content.
fn put_head(type_url: &str, item: Item<'_>, chunk: &mut Vec<u8>) {
    let content = item.published.body.len();
    put_key(response::RESOURCES, resource_len(type_url, item), chunk);
    put_version(item.published.version, chunk);
    put_key(resource::RESOURCE, any_len(type_url, content), chunk);
    put_text(any::TYPE_URL, type_url, chunk);
    if content > 0 {
        put_key(any::VALUE, content, chunk);
    }
}

/// A resource from its content on.
fn put_foot(item: Item<'_>, chunk: &mut Vec<u8>) {
    put_text(resource::NAME, item.name, chunk);
    for alias in item.aliases {
        put_element(resource::ALIASES, alias, chunk);
    }
}

fn put_version(version: Version, chunk: &mut Vec<u8>) {
    put_key(resource::VERSION, VERSION_LEN, chunk);
    chunk.put_slice(&version.digits());
}

/// A text that is left out when it is empty.
fn put_text(number: u32, text: &str, chunk: &mut Vec<u8>) {
    if !text.is_empty() {
        put_key(number, text.len(), chunk);
        chunk.put_slice(text.as_bytes());
    }
}

/// One of several texts.
fn put_element(number: u32, text: &Arc<str>, chunk: &mut Vec<u8>) {
    put_key(number, text.len(), chunk);
    chunk.put_slice(text.as_bytes());
}

fn put_key(number: u32, len: usize, chunk: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, chunk);
    encode_varint(len as u64, chunk);
}

#[cfg(test)]
mod tests;
