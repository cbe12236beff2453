//! Something that one thread at a time may use, behind a gate of its own. For what is rare: who finds
//! it in use waits.

use std::fmt;
use std::ptr::NonNull;

use super::{Gate, Holder, Kind};
use crate::counts;
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
        // SAFETY: LOCKED-2: borrowed.
        unsafe { Self::with_at(NonNull::from(self), f) }
    }

    /// As [`with`](Self::with), if nobody uses it.
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let kind = counts::attempt(self.gate.try_enter(Holder::CpuWrite))?;
        // SAFETY: LOCKED-2: borrowed, and entered just now.
        Some(unsafe { Self::use_at(NonNull::from(self), kind, f) })
    }

    /// As [`with`](Self::with), of what may be freed by whoever uses it next: it is not touched after its
    /// gate was left.
    ///
    /// # Safety
    /// - **LOCKED-2**: it lives until `f` has returned.
    pub(crate) unsafe fn with_at<R>(this: NonNull<Self>, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: LOCKED-2.
        let entered = unsafe { this.as_ref() }.gate.enter(Holder::CpuWrite, None);
        let kind = entered.expect("only the NIC's operations are refused");
        // SAFETY: LOCKED-2, and entered just now.
        unsafe { Self::use_at(this, kind, f) }
    }

    /// # Safety
    /// - **LOCKED-2**, and its gate was entered for this, as that.
    unsafe fn use_at<R>(this: NonNull<Self>, kind: Kind, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: LOCKED-2.
        let Locked { gate, value } = unsafe { this.as_ref() };
        let _entered = Entered { gate, kind };
        value.get_mut().with(|value| {
            // SAFETY: LOCKED-1: the gate is left after `f` has returned.
            f(unsafe { &mut *value })
        })
    }
}

/// Leaves the gate when it is dropped, also if `f` has panicked. No [`Permit`](super::Permit): that borrows it.
struct Entered {
    gate: *const Gate,
    kind: Kind,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: GATE-1: entered by who has made this. Of a gate that is never orphaned nobody has to free.
        let _ = unsafe { Gate::release(self.gate, self.kind) };
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locked").field(&self.gate).finish()
    }
}
