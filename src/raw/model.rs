//! Under loom, the words of shared regions stand beside their memory: loom has no notion of a volatile
//! access, nor of an atomic at an address. A volatile access of an aligned word is a `Relaxed` one here,
//! which is what AX-7 says of it. Other memory is accessed as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, atomic};

use super::{Ordering, WORD};
use crate::sync;

type Words = Arc<[sync::AtomicU64]>;

loom::lazy_static! {
    /// By the address that they start at. The lock orders nothing for loom.
    static ref MODELLED: Mutex<BTreeMap<usize, Words>> = Mutex::default();
}

/// From here on these zeroed bytes are words of the model. By the thread that starts the others.
pub(crate) fn model(addr: *mut u8, length: usize) {
    assert!(addr.cast::<u64>().is_aligned());
    let words = (0..length.div_ceil(WORD)).map(|_| sync::AtomicU64::new(0));
    let words = words.collect::<Vec<_>>().into();
    let mut all = MODELLED.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(addr.addr(), words);
}

/// The words, and which of them an access there is to; `None` if they are memory.
fn find(addr: usize, size: usize) -> Option<(Words, usize)> {
    let all = MODELLED.lock().unwrap_or_else(PoisonError::into_inner);
    let (start, words) = all.range(..=addr).next_back()?;
    let at = (addr - start) / WORD;
    if at >= words.len() {
        return None;
    }
    assert!(size == WORD && addr % WORD == 0, "models know whole words");
    Some((Arc::clone(words), at))
}

/// # Safety
/// - **RAW-1** for a `T`, aligned for it.
pub(super) unsafe fn load<T: Copy>(from: *const T) -> T {
    match find(from.addr(), size_of::<T>()) {
        // Ordering: Relaxed. What is ordered is so by the barriers around, or by atomics.
        Some((words, at)) => {
            let word = words[at].load(Ordering::Relaxed);
            // SAFETY: RAW-1: `T` is an integer of 8 bytes, maybe without alignment: `find` has looked.
            unsafe { std::mem::transmute_copy(&word) }
        }
        // SAFETY: RAW-1.
        None => unsafe { from.read_volatile() },
    }
}

/// # Safety
/// - **RAW-1** for a `T`, aligned for it.
pub(super) unsafe fn store<T: Copy>(to: *mut T, item: T) {
    match find(to.addr(), size_of::<T>()) {
        Some((words, at)) => {
            // SAFETY: RAW-1: as in `load`.
            let word = unsafe { std::mem::transmute_copy(&item) };
            // Ordering: Relaxed, as in `load`.
            words[at].store(word, Ordering::Relaxed);
        }
        // SAFETY: RAW-1.
        None => unsafe { to.write_volatile(item) },
    }
}

/// The atomic at an address, of the model or of memory.
pub(crate) enum AtomicU64 {
    Modelled(Words, usize),
    /// For one access, during which it is valid.
    Real(&'static atomic::AtomicU64),
}

impl AtomicU64 {
    /// # Safety
    /// - **RAW-2**.
    pub(crate) unsafe fn from_ptr(at: *mut u64) -> Self {
        match find(at.addr(), WORD) {
            Some((words, at)) => Self::Modelled(words, at),
            // SAFETY: RAW-2.
            None => Self::Real(unsafe { atomic::AtomicU64::from_ptr(at) }),
        }
    }

    // Ordering: those of the caller, here and below.
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        match self {
            Self::Modelled(words, at) => words[*at].load(order),
            Self::Real(word) => word.load(order),
        }
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        match self {
            Self::Modelled(words, at) => words[*at].store(value, order),
            Self::Real(word) => word.store(value, order),
        }
    }

    pub(crate) fn fetch_add(&self, add: u64, order: Ordering) -> u64 {
        match self {
            Self::Modelled(words, at) => words[*at].fetch_add(add, order),
            Self::Real(word) => word.fetch_add(add, order),
        }
    }

    pub(crate) fn compare_exchange(
        &self,
        compare: u64,
        swap: u64,
        order: Ordering,
        failed: Ordering,
    ) -> Result<u64, u64> {
        match self {
            Self::Modelled(words, at) => words[*at].compare_exchange(compare, swap, order, failed),
            Self::Real(word) => word.compare_exchange(compare, swap, order, failed),
        }
    }
}
