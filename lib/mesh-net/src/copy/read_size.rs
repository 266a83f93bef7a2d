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
