//! What is the same in a program and under shuttle.

use std::time::{Duration, Instant};

use super::now;

/// A bounded time.
pub(crate) struct Timer {
    end: Instant,
}

impl Timer {
    pub(crate) fn after(limit: Duration) -> Self {
        Timer { end: now() + limit }
    }

    pub(crate) fn expired(&mut self) -> bool {
        now() >= self.end
    }

    pub(crate) fn end(&self) -> Instant {
        self.end
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
