//! The attributes of netlink: length, type, value, padded to four bytes.

/// Room that a value is padded to.
const ALIGNMENT: usize = 4;
/// Length and type.
const HEADER: usize = 4;
/// In the type: the value is attributes itself.
const NESTED: u16 = 0x8000;
/// The type without [`NESTED`] and the mark for network byte order.
const TYPE: u16 = 0x3fff;

/// Writes attributes.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

/// The attributes of one level, as they came.
#[derive(Debug)]
pub(super) struct Attributes<'a>(Vec<(u16, &'a [u8])>);

// === impl Writer ===

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.write(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// A number in network byte order, as nf_tables has nearly all of its numbers.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A text with the zero that ends it.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.write(kind, |writer| {
            writer.bytes.extend_from_slice(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    pub(super) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        self.write(kind | NESTED, inside);
    }

    fn write(&mut self, kind: u16, value: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        value(self);
        // The vocabulary is closed: the longest, the list of a rule's expressions, has a few hundred
        // bytes. The kernel refuses a message whose lengths do not fit.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        let end = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(end, 0);
    }
}

// === impl Attributes ===

impl<'a> Attributes<'a> {
    /// Splits bytes; none if they are not attributes from beginning to end.
    pub(super) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut attributes = Vec::new();
        while !bytes.is_empty() {
            let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
            let [l0, l1, t0, t1] = *header;
            let length = usize::from(u16::from_ne_bytes([l0, l1])).checked_sub(HEADER)?;
            attributes.push((u16::from_ne_bytes([t0, t1]) & TYPE, rest.get(..length)?));
            // The last one may come without its padding.
            bytes = rest
                .get(length.next_multiple_of(ALIGNMENT)..)
                .unwrap_or_default();
        }
        Some(Self(attributes))
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        let mut found = self.0.iter().filter(|(k, _)| *k == kind);
        found.next().map(|(_, value)| *value)
    }

    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn text(&self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.get(kind)?.strip_suffix(&[0])?).ok()
    }

    pub(super) fn nested(&self, kind: u16) -> Option<Self> {
        Attributes::parse(self.get(kind)?)
    }

    /// The values of all attributes of a list, in order.
    pub(super) fn list(&self, kind: u16) -> impl Iterator<Item = &'a [u8]> {
        let of_it = move |(k, value): &(u16, &'a [u8])| (*k == kind).then_some(*value);
        self.0.iter().filter_map(of_it)
    }

    /// Whether nothing is said beside these. What a later kernel adds counts only if it is not zero, so
    /// not the default.
    pub(super) fn nothing_but(&self, known: &[u16]) -> bool {
        let tolerable =
            |(kind, value): &(u16, &[u8])| known.contains(kind) || value.iter().all(|b| *b == 0);
        self.0.iter().all(tolerable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(written in prop::collection::vec((1..64_u16, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut writer = Writer::default();
            writer.nest(7, |writer| {
                for (kind, value) in &written {
                    writer.put(*kind, value);
                }
            });
            let bytes = writer.into_bytes();
            let outer = Attributes::parse(&bytes).unwrap();
            let inner = outer.nested(7).unwrap();
            let read: Vec<_> = inner.0.iter().map(|(kind, value)| (*kind, value.to_vec())).collect();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            Attributes::parse(&bytes);
        }
    }

    #[test]
    fn lengths_beyond_the_end_or_below_the_header_are_refused() {
        for damaged in [&[9, 0, 1, 0, 0, 0, 0, 0][..], &[3, 0, 1, 0], &[4, 0, 1]] {
            assert!(Attributes::parse(damaged).is_none(), "{damaged:?}");
        }
    }

    #[test]
    fn what_a_later_kernel_adds_counts_unless_it_is_zero() {
        let mut writer = Writer::default();
        writer.number(1, 5);
        writer.number(9, 0);
        let bytes = writer.into_bytes();
        assert!(Attributes::parse(&bytes).unwrap().nothing_but(&[1]));
        assert!(!Attributes::parse(&bytes).unwrap().nothing_but(&[9]));
    }
}
