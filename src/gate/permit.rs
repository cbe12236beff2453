//! A hold that borrows its gate.

use std::mem::ManuallyDrop;

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

    /// For a reader of the CPU's who has been let in, at that place if it is not counted.
    #[inline(always)] // as in `mr::forms`
    pub(super) fn reader(gate: &'g Gate, place: Option<&'static Place>) -> Self {
        Permit {
            gate,
            place,
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

/// The end of a permit: of one that is published at `place`, or counted as that kind.
///
/// # Safety
/// - **GATE-1**: the caller is that permit, as it is dropped.
#[inline(always)] // as in `mr::forms`
unsafe fn leave(gate: &Gate, place: Option<&Place>, kind: Kind) {
    if let Some(place) = place {
        return gate.take_out(place);
    }
    // SAFETY: GATE-1, as required of the caller. The gate is borrowed, so it is not orphaned and
    // nobody has to free.
    let _ = unsafe { Gate::release(gate, kind) };
}

impl Drop for Permit<'_> {
    #[inline(always)] // as in `mr::forms`
    fn drop(&mut self) {
        // SAFETY: GATE-1: the permit is the hold.
        unsafe { leave(self.gate, self.place, self.kind) };
    }
}

/// A permit of the CPU's to read. Its kind is its type: where it is dropped there is so little
/// code that it is inlined also where a panic would drop it; otherwise whatever has such a permit would be
/// kept in memory for the sake of that panic.
#[derive(Debug)]
pub struct Reading<'g> {
    gate: &'g Gate,
    place: Option<&'static Place>,
}

/// A permit of the CPU's to write. As [`Reading`].
#[derive(Debug)]
pub struct Writing<'g> {
    gate: &'g Gate,
}

impl<'g> From<Permit<'g>> for Reading<'g> {
    #[inline(always)] // as in `mr::forms`
    fn from(permit: Permit<'g>) -> Self {
        assert!(permit.kind == Kind::CpuRead);
        let Permit { gate, place, .. } = *ManuallyDrop::new(permit);
        Reading { gate, place }
    }
}

impl<'g> From<Permit<'g>> for Writing<'g> {
    #[inline(always)] // as in `mr::forms`
    fn from(permit: Permit<'g>) -> Self {
        assert!(permit.kind == Kind::CpuWrite);
        let Permit { gate, .. } = *ManuallyDrop::new(permit);
        Writing { gate }
    }
}

impl Drop for Reading<'_> {
    #[inline(always)] // as in `mr::forms`
    fn drop(&mut self) {
        // SAFETY: GATE-1: the permit is the hold.
        unsafe { leave(self.gate, self.place, Kind::CpuRead) };
    }
}

impl Drop for Writing<'_> {
    #[inline(always)] // as in `mr::forms`
    fn drop(&mut self) {
        // SAFETY: GATE-1: the permit is the hold.
        unsafe { leave(self.gate, None, Kind::CpuWrite) };
    }
}
