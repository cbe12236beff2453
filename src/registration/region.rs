//! A region as its registration knows it: its gate, its bytes, its neighbours.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use bitflags::bitflags;

use super::roll::Member;
use super::{Registration, RegistrationRef};
use crate::gate::Gate;

/// In two lines: the gate's word is at the end of the first one, which goes from core to core with each guard
/// and operation; what those look at but never change is in the second one, which all cores keep. In front of
/// it is room for [`FRONT`](Self::FRONT) bytes of whatever it lies in.
#[repr(C)]
pub(crate) struct Region {
    member: Member,
    pub(crate) addr: NonNull<u8>,
    pub(crate) length: usize,
    pub(crate) registered: RegistrationRef,
}

bitflags! {
    /// What is said of a region for good, in its gate's [label](Gate::label).
    #[derive(Clone, Copy)]
    pub(crate) struct Traits: u8 {
        /// Peers write the bytes at any time (rule R3, SHARED-1): holds keep them registered and exclude
        /// nobody.
        const SHARED = 1;
        /// Peers may be let write for good.
        const REMOTE_WRITE_GRANTED = 1 << 1;
        /// It is a slot of a pool.
        const POOLED = 1 << 2;
    }
}

// SAFETY: REGION-1: a region's parts are Send and Sync (the gate's atomics, the registration that it leads to),
// links, which are used by who has the roll (ROLL-2), or plain addresses of bytes that the gate guards.
unsafe impl Send for Region {}
// SAFETY: REGION-1: as above.
unsafe impl Sync for Region {}

/// How many bytes go from core to core at a time.
const LINE: usize = 64;

// The border between the lines is in the gate.
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(Region::FRONT + Region::GATE + Gate::UNWRITTEN == LINE);

// The roll finds it by the member.
const _: () = assert!(std::mem::offset_of!(Region, member) == 0);

impl Region {
    /// How a region's lines are aligned: a hold keeps what it is in the low bits of their address.
    pub(crate) const LINES: usize = 2 * LINE;
    /// How far its gate is behind the start.
    pub(crate) const GATE: usize = std::mem::offset_of!(Region, member.gate);
    /// Where in its lines it begins.
    pub(crate) const FRONT: usize = 2 * size_of::<usize>();

    /// Such lines, of that many bytes.
    pub(crate) const fn lines(bytes: usize) -> Layout {
        match Layout::from_size_align(bytes, Self::LINES) {
            Ok(lines) => lines,
            Err(_) => panic!("128 is a power of two"),
        }
    }

    /// Allocates what [`lines`](Self::lines) gave.
    pub(crate) fn allocate(lines: Layout) -> NonNull<u8> {
        assert!(lines.size() >= Self::FRONT);
        // SAFETY: REGION-8: it is of some size.
        NonNull::new(unsafe { alloc(lines) }).unwrap_or_else(|| handle_alloc_error(lines))
    }

    /// A region of those bytes of the registration's.
    pub(crate) fn new(
        mut gate: Gate,
        traits: Traits,
        (addr, length): (NonNull<u8>, usize),
        registered: RegistrationRef,
    ) -> Self {
        gate.label = traits.bits();
        Region {
            member: Member::new(gate),
            addr,
            length,
            registered,
        }
    }

    #[inline]
    pub(crate) fn gate(&self) -> &Gate {
        &self.member.gate
    }

    #[inline]
    pub(crate) fn registration(&self) -> &Registration {
        // SAFETY: REGN-2: this is a region of it.
        unsafe { self.registered.get() }
    }

    #[inline]
    pub(crate) fn traits(&self) -> Traits {
        Traits::from_bits_retain(self.gate().label)
    }
}
