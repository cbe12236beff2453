//! Raw copies between registered memory, as a device makes them: volatile words, real atomics, no
//! reference and no slice.

// The device's atomics have to be the CPU's own, also where loom stands in for the crate's.
use std::sync::atomic::{AtomicU64, Ordering};

/// Copies `length` bytes in words of 8 that are aligned at the target, with single bytes before and
/// after them. An aligned word arrives whole. If the two ranges overlap, the target's bytes are
/// unspecified.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `length` bytes.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // `align_offset` may answer `usize::MAX`; then all goes byte by byte.
    let head = to.align_offset(size_of::<u64>()).min(length);
    let words = (length - head) / size_of::<u64>();
    let tail = head + words * size_of::<u64>();
    // SAFETY: `0..head` lies in the ranges that the caller vouches for.
    unsafe { bytes(from, to, 0, head) };
    // SAFETY: `head..tail` lies in them too, and `to + head` is aligned if there is a word.
    unsafe {
        let from = from.add(head);
        if from.cast::<u64>().is_aligned() {
            aligned_words(from.cast(), to.add(head).cast(), words);
        } else {
            shifted_words(from.cast(), to.add(head).cast(), words);
        }
    }
    // SAFETY: as does `tail..length`.
    unsafe { bytes(from, to, tail, length) };
}

/// # Safety
/// `start..end` from both pointers is valid for reads and writes respectively.
unsafe fn bytes(from: *const u8, to: *mut u8, start: usize, end: usize) {
    for i in start..end {
        // SAFETY: `i` lies in the range that the caller vouches for.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// # Safety
/// Both pointers are aligned and valid for `count` words.
unsafe fn aligned_words(from: *const u64, to: *mut u64, count: usize) {
    for i in 0..count {
        // SAFETY: `i` lies in the range that the caller vouches for, aligned.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// # Safety
/// Both pointers are valid for `count` words, and `to` is aligned.
unsafe fn shifted_words(from: *const [u8; 8], to: *mut u64, count: usize) {
    for i in 0..count {
        // SAFETY: `i` lies in the range that the caller vouches for; byte arrays need no alignment.
        unsafe {
            let word = u64::from_ne_bytes(from.add(i).read_volatile());
            to.add(i).write_volatile(word);
        }
    }
}

/// Adds to the integer there and returns what it was.
///
/// # Safety
/// `at` is 8-byte aligned and valid for reads and writes of 8 bytes.
pub(super) unsafe fn fetch_add(at: *mut u8, add: u64) -> u64 {
    // SAFETY: aligned and valid as the caller says; whoever else touches the word meanwhile does so
    // atomically or takes the race of a device upon himself (see the module `soft`).
    let word = unsafe { AtomicU64::from_ptr(at.cast()) };
    // Ordering: AcqRel: pairs with the CPU's atomics on the same word; on a device it is one
    // transaction.
    word.fetch_add(add, Ordering::AcqRel)
}

/// Stores `swap` if the integer there is `compare`; returns what it was.
///
/// # Safety
/// As [`fetch_add`].
pub(super) unsafe fn compare_swap(at: *mut u8, compare: u64, swap: u64) -> u64 {
    // SAFETY: as in `fetch_add`.
    let word = unsafe { AtomicU64::from_ptr(at.cast()) };
    // Ordering: AcqRel, and Acquire on failure: as in `fetch_add`.
    match word.compare_exchange(compare, swap, Ordering::AcqRel, Ordering::Acquire) {
        Ok(before) | Err(before) => before,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn copies_every_alignment_and_nothing_beside() {
        const SIZE: usize = 64;
        for from_at in 0..9 {
            for to_at in 0..9 {
                for length in 0..40 {
                    let from: Vec<u8> = (0..SIZE as u8).map(|i| i.wrapping_mul(37) | 1).collect();
                    let mut to = vec![0_u8; SIZE];
                    // SAFETY: 8 + 39 bytes fit into 64.
                    unsafe {
                        copy(
                            from.as_ptr().add(from_at),
                            to.as_mut_ptr().add(to_at),
                            length,
                        );
                    }
                    let mut expected = vec![0_u8; SIZE];
                    expected[to_at..to_at + length]
                        .copy_from_slice(&from[from_at..from_at + length]);
                    assert_eq!(to, expected, "{from_at} {to_at} {length}");
                }
            }
        }
    }

    #[test]
    fn atomics_return_what_was_there() {
        let mut word = 5_u64;
        let at = (&raw mut word).cast::<u8>();
        // SAFETY: `at` points to an aligned u64 that nobody else uses.
        unsafe {
            assert_eq!(fetch_add(at, u64::MAX), 5);
            assert_eq!(compare_swap(at, 5, 9), 4);
            assert_eq!(compare_swap(at, 4, 9), 4);
        }
        assert_eq!(word, 9);
    }
}
