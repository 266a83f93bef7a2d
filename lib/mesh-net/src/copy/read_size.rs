//! How much to allocate for the next read.

/// The sizes a read buffer takes, in bytes.
///
/// The first fits a message of an interactive protocol; the second is a TLS record and an HTTP/2
/// frame; the last two spare system calls on bulk transfers.
const STEPS: [usize; 4] = [1024, 16 * 1024, 64 * 1024, 256 * 1024];

/// The size of the next read buffer. It grows when a read fills its buffer, for then more was there,
/// and shrinks when two reads in a row would have fitted into the size below: one small read is often
/// only the end of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadSize {
    step: u8,
    small: bool,
}

// === impl ReadSize ===

impl ReadSize {
    /// Bytes to allocate.
    pub(super) fn bytes(self) -> usize {
        STEPS[usize::from(self.step)]
    }

    /// Takes notice of how much the last read brought.
    pub(super) fn record(&mut self, read: usize) {
        let step = usize::from(self.step);
        if read >= STEPS[step] {
            self.small = false;
            if step + 1 < STEPS.len() {
                self.step += 1;
            }
        } else if step > 0 && read <= STEPS[step - 1] {
            if self.small {
                self.step -= 1;
            }
            self.small = !self.small;
        } else {
            self.small = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(reads: &[usize]) -> usize {
        let mut size = ReadSize::default();
        for read in reads {
            size.record(*read);
        }
        size.bytes()
    }

    #[test]
    fn full_reads_climb_to_the_largest_buffer_and_stay() {
        let k = 1024;
        assert_eq!(after(&[]), k);
        assert_eq!(after(&[k]), 16 * k);
        assert_eq!(after(&[k, 16 * k]), 64 * k);
        assert_eq!(after(&[k, 16 * k, 64 * k]), 256 * k);
        assert_eq!(after(&[k, 16 * k, 64 * k, 256 * k]), 256 * k);
    }

    #[test]
    fn one_small_read_changes_nothing_and_the_second_in_a_row_shrinks() {
        let k = 1024;
        assert_eq!(after(&[k, 10]), 16 * k);
        assert_eq!(after(&[k, 10, 2 * k, 10]), 16 * k);
        assert_eq!(after(&[k, 10, 10]), k);
    }

    proptest! {
        #[test]
        fn traffic_that_stops_brings_the_smallest_buffer_back(reads in prop::collection::vec(0..300_000_usize, 0..50)) {
            let mut size = ReadSize::default();
            for read in reads {
                size.record(read.min(size.bytes()));
            }
            // Two small reads for each step down.
            for _ in 0..2 * STEPS.len() {
                size.record(1);
            }
            prop_assert_eq!(size.bytes(), STEPS[0]);
        }
    }
}
