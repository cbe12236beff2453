//! The bytes.

use std::ptr::NonNull;

/// How many.
pub const LENGTH: usize = 256;

/// The memory that all registrations are of; seen by pointer only.
pub struct Memory(NonNull<u8>);

impl Memory {
    pub fn new() -> Self {
        let mut words = vec![0_u64; LENGTH / 8];
        for (at, word) in words.iter_mut().enumerate() {
            *word = 0x0101_0101_0101_0101_u64.wrapping_mul(at as u64 + 1);
        }
        Memory(NonNull::from(words.leak()).cast())
    }

    pub fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < LENGTH);
        // SAFETY: inside.
        unsafe { self.0.add(offset) }
    }

    pub fn addr(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    /// The bytes; the NIC acts in steps only, so it is not at work.
    pub fn bytes(&self) -> Vec<u8> {
        (0..LENGTH)
            // SAFETY: inside, and nobody writes.
            .map(|at| unsafe { self.at(at).read_volatile() })
            .collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let words = std::ptr::slice_from_raw_parts_mut(self.0.as_ptr().cast::<u64>(), LENGTH / 8);
        // SAFETY: it was leaked from a vector of so many words, and the registrations have ended.
        drop(unsafe { Box::from_raw(words) });
    }
}
