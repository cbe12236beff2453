//! Accesses to memory that a device, or whoever stands for one, may touch at the same moment: volatile
//! copies, real atomics, no reference and no slice. For the NIC in software and for `SharedMr`.

use crate::sync::{Ordering, fence};

#[cfg(loom)]
mod model;

/// Atomics at an address. A device's have to be the CPU's own: not loom's, but for words of a model.
#[cfg(loom)]
pub(crate) use model::{AtomicU64, model};
#[cfg(loom)]
use model::{load, store};

#[cfg(not(loom))]
mod memory {
    pub(crate) use std::sync::atomic::AtomicU64;

    /// In a model, these zeroed bytes are accessed as loom knows it.
    pub(crate) fn model(_addr: *mut u8, _length: usize) {}

    /// # Safety
    /// - **RAW-1** for a `T`, aligned for it.
    #[inline(always)]
    pub(super) unsafe fn load<T: Copy>(from: *const T) -> T {
        // SAFETY: RAW-1.
        unsafe { from.read_volatile() }
    }

    /// # Safety
    /// - **RAW-1** for a `T`, aligned for it.
    #[inline(always)]
    pub(super) unsafe fn store<T: Copy>(to: *mut T, item: T) {
        // SAFETY: RAW-1.
        unsafe { to.write_volatile(item) }
    }
}
#[cfg(not(loom))]
pub(crate) use memory::{AtomicU64, model};
#[cfg(not(loom))]
use memory::{load, store};

/// Bytes of the widest step, and of what atomics are of.
const WORD: usize = size_of::<u64>();

/// The side of a [`copy`] whose aligned words are accessed whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whole {
    /// The source's.
    From,
    /// The target's.
    To,
}

/// Copies `length` bytes in the widest steps, up to 8 bytes, that are aligned on the side `whole`:
/// there an aligned integer inside of the range is accessed by one instruction, or as part of a
/// wider one. In the order of the addresses as far as the compiler goes. If the two ranges overlap,
/// the target's bytes are unspecified.
///
/// # Safety
/// - **RAW-1**: `from` is valid for reads and `to` for writes of `length` bytes; others access them
///   meanwhile as AX-7 allows, or not at all.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, length: usize, whole: Whole) {
    let mut at = 0;
    while at < length {
        // SAFETY: RAW-1: `at` lies in both ranges.
        let (from, to) = unsafe { (from.add(at), to.add(at)) };
        let place = match whole {
            Whole::From => from.addr(),
            Whole::To => to.addr(),
        };
        // SAFETY: RAW-1: what is left of the ranges is at least that long.
        at += unsafe {
            match width(place, length - at) {
                WORD => steps::<u64>(from, to, (length - at) / WORD),
                4 => steps::<u32>(from, to, 1),
                2 => steps::<u16>(from, to, 1),
                _ => steps::<u8>(from, to, 1),
            }
        };
    }
}

/// The widest step from `place` on: aligned, and no more than `left`.
fn width(place: usize, left: usize) -> usize {
    let aligned = 1 << (place | 8).trailing_zeros();
    aligned.min(1 << left.ilog2())
}

/// Without alignment: still one instruction where the machine has one for it.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Copies `count` items of type `T`; gives how many bytes that were.
///
/// # Safety
/// - **RAW-1** for these bytes.
unsafe fn steps<T: Copy>(from: *const u8, to: *mut u8, count: usize) -> usize {
    let from_is_aligned = from.cast::<T>().is_aligned();
    let to_is_aligned = to.cast::<T>().is_aligned();
    // SAFETY: RAW-1, and aligned as was looked up.
    unsafe {
        match (from_is_aligned, to_is_aligned) {
            (true, true) => run(from.cast::<T>(), to.cast::<T>(), count, |item| item),
            (true, false) => run(from.cast::<T>(), to.cast(), count, Unaligned),
            (false, true) => run(from.cast(), to.cast::<T>(), count, |item| {
                let Unaligned(item) = item;
                item
            }),
            (false, false) => run(from.cast(), to.cast(), count, |item: Unaligned<T>| item),
        }
    }
    count * size_of::<T>()
}

/// # Safety
/// - **RAW-1** for `count` items, which are aligned for their types.
unsafe fn run<F: Copy, T: Copy>(from: *const F, to: *mut T, count: usize, turn: impl Fn(F) -> T) {
    for i in 0..count {
        // SAFETY: RAW-1: `i` lies in the range, aligned.
        unsafe { store(to.add(i), turn(load(from.add(i)))) };
    }
}

/// Adds to the integer there and returns what it was.
///
/// # Safety
/// - **RAW-2**: `at` is 8-byte aligned and valid for reads and writes of 8 bytes; others access them
///   meanwhile as AX-7 allows.
pub(crate) unsafe fn fetch_add(at: *mut u8, add: u64) -> u64 {
    // SAFETY: RAW-2.
    let word = unsafe { AtomicU64::from_ptr(at.cast()) };
    // Ordering: AcqRel: pairs with the atomics of the CPU and of the NIC in software on the same
    // word; on a device it is one transaction.
    word.fetch_add(add, Ordering::AcqRel)
}

/// Stores `swap` if the integer there is `compare`; returns what it was.
///
/// # Safety
/// - **RAW-2**.
pub(crate) unsafe fn compare_swap(at: *mut u8, compare: u64, swap: u64) -> u64 {
    // SAFETY: RAW-2.
    let word = unsafe { AtomicU64::from_ptr(at.cast()) };
    // Ordering: AcqRel, and Acquire on failure: as in `fetch_add`.
    match word.compare_exchange(compare, swap, Ordering::AcqRel, Ordering::Acquire) {
        Ok(before) | Err(before) => before,
    }
}

/// Between two accesses of this thread to such memory: whoever sees what comes after it can see what
/// came before it, and what is read after it is no older than what was read before it (AX-7).
pub(crate) fn barrier() {
    // Ordering: AcqRel: pairs with the barrier of who accesses the same bytes in the other order,
    // and with a device as AX-7 says.
    fence(Ordering::AcqRel);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn copies_every_alignment_and_nothing_beside() {
        const SIZE: usize = 64;
        let step = if cfg!(miri) { 7 } else { 1 };
        for (from_at, to_at) in (0..81).step_by(step).map(|n| (n / 9, n % 9)) {
            for (length, whole) in (0..80)
                .step_by(step)
                .map(|n| (n / 2, [Whole::From, Whole::To][n % 2]))
            {
                let from: Vec<u8> = (0..SIZE as u8).map(|i| i.wrapping_mul(37) | 1).collect();
                let mut to = vec![0_u8; SIZE];
                // SAFETY: RAW-1: 8 + 39 bytes fit into 64.
                unsafe {
                    let to = to.as_mut_ptr().add(to_at);
                    copy(from.as_ptr().add(from_at), to, length, whole);
                }
                let mut expected = vec![0_u8; SIZE];
                expected[to_at..to_at + length].copy_from_slice(&from[from_at..from_at + length]);
                assert_eq!(to, expected, "{from_at} {to_at} {length} {whole:?}");
            }
        }
    }

    #[test]
    fn steps_are_as_wide_as_alignment_and_length_allow() {
        let wide = [(0, 8), (8, 100), (4096, 9)];
        assert!(wide.iter().all(|&(place, left)| width(place, left) == 8));
        for (place, left, is) in [(0, 7, 4), (4, 8, 4), (12, 5, 4), (2, 8, 2), (8, 3, 2)] {
            assert_eq!(width(place, left), is, "{place} {left}");
        }
        assert_eq!((width(1, 100), width(7, 8), width(0, 1)), (1, 1, 1));
    }

    #[test]
    fn atomics_return_what_was_there() {
        let mut word = 5_u64;
        let at = (&raw mut word).cast::<u8>();
        // SAFETY: RAW-2: `at` points to an aligned u64 that nobody else uses.
        unsafe {
            assert_eq!(fetch_add(at, u64::MAX), 5);
            assert_eq!(compare_swap(at, 5, 9), 4);
            assert_eq!(compare_swap(at, 4, 9), 4);
        }
        assert_eq!(word, 9);
    }
}
