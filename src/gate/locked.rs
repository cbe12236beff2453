//! Something that one thread at a time may use, behind a gate of its own. For what is rare: who finds
//! it in use waits.

use std::fmt;

use super::{Gate, Holder, Permit};
use crate::sync::UnsafeCell;

pub(crate) struct Locked<T> {
    gate: Gate,
    value: UnsafeCell<T>,
}

// SAFETY: LOCKED-1: the value is used by one thread at a time, and handed on by the gate.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    pub(crate) fn new(value: T) -> Self {
        Locked {
            gate: Gate::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Uses it; not from inside of `f`. Waits while another thread does.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let permit = self.gate.acquire(Holder::CpuWrite);
        let permit = permit.expect("only the NIC's operations are refused");
        self.use_under(permit, f)
    }

    /// As [`with`](Self::with), if nobody uses it.
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let permit = self.gate.try_acquire(Holder::CpuWrite).ok()?;
        Some(self.use_under(permit, f))
    }

    fn use_under<R>(&self, _permit: Permit<'_>, f: impl FnOnce(&mut T) -> R) -> R {
        self.value.get_mut().with(|value| {
            // SAFETY: LOCKED-1: the permit is out until `f` has returned.
            f(unsafe { &mut *value })
        })
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locked").field(&self.gate).finish()
    }
}
