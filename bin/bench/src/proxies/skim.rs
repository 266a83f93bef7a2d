//! Reads responses without keeping them: of large ones only how many resources they bring.

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use mesh_proto::{
    discovery::{DeltaDiscoveryResponse, Resource},
    workload::{Address, address},
};
use prost::{Message as _, encoding::decode_varint};

/// A sequence of responses as it arrives.
#[derive(Debug, Default)]
pub(super) struct Skim {
    arrived: BytesMut,
    /// Bytes of a resource that are not looked at.
    skip: usize,
    /// Bytes of the response that are left, if one has begun.
    left: Option<usize>,
    response: Skimmed,
    keep: bool,
}

/// What is noticed of a response.
#[derive(Debug, Default)]
pub(super) struct Skimmed {
    pub(super) type_url: String,
    pub(super) nonce: String,
    pub(super) resources: usize,
    /// The numbers of the marked changes, in small responses.
    pub(super) marks: Vec<u32>,
    /// The resources, if they are to be kept.
    pub(super) kept: Vec<Resource>,
}

/// Responses up to this size are decoded.
const SMALL: usize = 64 * 1024;

/// Bytes of a field's key and length, at most.
const KEY: usize = 6;

// === impl Skim ===

impl Skim {
    /// Keeps resources from now on.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    pub(super) fn push(&mut self, mut data: &[u8]) {
        let skipped = self.skip.min(data.len());
        data.advance(skipped);
        self.skip -= skipped;
        self.left = self.left.map(|left| left - skipped);
        self.arrived.extend_from_slice(data);
    }

    /// The next response, if it is complete.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Skimmed>> {
        if self.left.is_none() && self.arrived.len() >= 5 {
            let _compressed = self.arrived.get_u8();
            self.left = Some(self.arrived.get_u32().try_into()?);
        }
        let Some(left) = self.left else {
            return Ok(None);
        };
        if self.keep || self.response.resources == 0 && left <= SMALL {
            return self.whole(left);
        }
        while self.skip == 0 && self.left != Some(0) {
            if !self.field()? {
                return Ok(None);
            }
        }
        Ok((self.skip == 0).then(|| self.end()))
    }

    fn end(&mut self) -> Skimmed {
        self.left = None;
        std::mem::take(&mut self.response)
    }

    fn whole(&mut self, len: usize) -> anyhow::Result<Option<Skimmed>> {
        if self.arrived.len() < len {
            return Ok(None);
        }
        let message = self.arrived.split_to(len).freeze();
        let message = DeltaDiscoveryResponse::decode(message)?;
        self.response = Skimmed {
            resources: message.resources.len(),
            marks: message.resources.iter().filter_map(mark).collect(),
            type_url: message.type_url,
            nonce: message.nonce,
            kept: message.resources,
        };
        Ok(Some(self.end()))
    }

    /// One field of a large response; says whether it has arrived.
    fn field(&mut self) -> anyhow::Result<bool> {
        let left = self.left.unwrap_or_default();
        if self.arrived.len() < left.min(KEY) {
            return Ok(false);
        }
        let mut rest = self.arrived.as_ref();
        let key = decode_varint(&mut rest)?;
        let len = usize::try_from(decode_varint(&mut rest)?)?;
        let head = self.arrived.len() - rest.len();
        match key >> 3 {
            2 => {
                self.response.resources += 1;
                let skipped = len.min(rest.len());
                self.skip = len - skipped;
                self.take(head + skipped)
            }
            _ if rest.len() < len => Ok(false),
            number => {
                let text = rest.get(..len).context("a field is cut short")?;
                let text = String::from_utf8(text.to_vec())?;
                match number {
                    4 => self.response.type_url = text,
                    5 => self.response.nonce = text,
                    _ => {}
                }
                self.take(head + len)
            }
        }
    }

    fn take(&mut self, len: usize) -> anyhow::Result<bool> {
        let left = self.left.and_then(|left| left.checked_sub(len));
        if left.is_none() {
            bail!("a field is longer than its response");
        }
        self.left = left;
        self.arrived.advance(len);
        Ok(true)
    }
}

/// The number of a marked change.
fn mark(resource: &Resource) -> Option<u32> {
    let body = resource.resource.as_ref()?.value.clone();
    let address::Type::Workload(workload) = Address::decode(body).ok()?.r#type? else {
        return None;
    };
    workload
        .canonical_revision
        .strip_prefix("seq-")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(resources: usize, nonce: &str) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            resources: vec![
                Resource {
                    name: "n".repeat(300),
                    ..Resource::default()
                };
                resources
            ],
            type_url: "t".into(),
            nonce: nonce.into(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    #[test]
    fn responses_are_counted_however_they_arrive() {
        let mut bytes = Vec::new();
        for (resources, nonce) in [(3, "1"), (1000, "2"), (0, "3"), (500, "4")] {
            let message = response(resources, nonce).encode_to_vec();
            bytes.push(0);
            bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            bytes.extend(message);
        }
        for part in [1, 7, 301, 16_384, usize::MAX] {
            let mut skim = Skim::default();
            let mut seen = Vec::new();
            for data in bytes.chunks(part) {
                skim.push(data);
                while let Some(one) = skim.next().unwrap() {
                    assert_eq!(one.type_url, "t");
                    seen.push((one.resources, one.nonce));
                }
            }
            let expected = [(3, "1"), (1000, "2"), (0, "3"), (500, "4")];
            assert_eq!(seen, expected.map(|(n, nonce)| (n, nonce.to_owned())));
        }
    }
}
