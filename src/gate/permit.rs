//! A hold that borrows its gate.

use super::slots::Place;
use super::{Gate, Holder, Kind};

/// A hold on a [`Gate`]: given back when dropped. Forgetting it keeps the gate held for ever and
/// does no other harm.
#[must_use = "a permit that is dropped at once holds nothing"]
#[derive(Debug)]
pub struct Permit<'g> {
    gate: &'g Gate,
    /// Where a reader is published that is not counted in the word.
    place: Option<&'static Place>,
    kind: Kind,
}

impl<'g> Permit<'g> {
    /// For who has entered `gate` as that.
    #[inline]
    pub(super) fn new(gate: &'g Gate, kind: Kind) -> Self {
        Permit {
            gate,
            place: None,
            kind,
        }
    }

    /// For a reader who has been let in at that place.
    #[inline]
    pub(super) fn published(gate: &'g Gate, place: &'static Place) -> Self {
        Permit {
            gate,
            place: Some(place),
            kind: Kind::CpuRead,
        }
    }

    /// What it holds as.
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.kind.holder()
    }

    /// Whether it is a hold on `gate`.
    #[must_use]
    pub fn is_of(&self, gate: &Gate) -> bool {
        std::ptr::eq(self.gate, gate)
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(place) = self.place {
            return self.gate.take_out(place);
        }
        // SAFETY: GATE-1: the permit is the hold. The gate is borrowed, so it is not orphaned and
        // nobody has to free.
        let _ = unsafe { Gate::release(self.gate, self.kind) };
    }
}
