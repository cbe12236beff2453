//! Random numbers from a seed.

use std::ops::Range;
use std::str::FromStr;
use std::time::SystemTime;

/// SplitMix64.
pub struct Random(pub u64);

/// A number that the environment gives.
#[allow(dead_code, reason = "each test uses a part of it")]
pub fn from_env<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .ok()
            .unwrap_or_else(|| panic!("{name}={value}: a number")),
    )
}

/// `RDMA_MR_SEED`, or one by the clock.
#[allow(dead_code, reason = "each test uses a part of it")]
pub fn seed() -> u64 {
    let now = || SystemTime::UNIX_EPOCH.elapsed();
    from_env("RDMA_MR_SEED").unwrap_or_else(|| now().map_or(1, |now| now.as_nanos() as u64))
}

#[allow(dead_code, reason = "each test uses a part of it")]
impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// One time in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn within(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_ne_bytes()[..chunk.len()]);
        }
    }
}
