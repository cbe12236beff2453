//! What is the same in a program and under shuttle.

use std::time::{Duration, Instant};

use super::now;

/// A bounded time.
pub(crate) struct Timer {
    limit: Duration,
    /// Known from the first look at the clock on.
    end: Option<Instant>,
    /// How often it was asked since the last look at the clock.
    asked: u32,
}

impl Timer {
    /// To look at the clock takes as long as some looks at a word do: once in so many times, and not at
    /// first.
    const LOOKS: u32 = 8;

    pub(crate) fn after(limit: Duration) -> Self {
        Timer {
            limit,
            end: None,
            asked: 0,
        }
    }

    pub(crate) fn expired(&mut self) -> bool {
        self.asked += 1;
        if self.asked < Self::LOOKS && !self.limit.is_zero() {
            return false;
        }
        self.asked = 0;
        let end = self.end();
        now() >= end
    }

    pub(crate) fn end(&mut self) -> Instant {
        *self.end.get_or_insert_with(|| now() + self.limit)
    }
}

/// Nobody watches but loom.
pub(crate) struct Watches;

impl Watches {
    pub(crate) fn new(_slots: usize) -> Self {
        Watches
    }

    #[inline]
    pub(crate) fn read(&self, _at: usize) {}

    #[inline]
    pub(crate) fn write(&self, _at: usize) {}
}
