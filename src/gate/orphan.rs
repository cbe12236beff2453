//! A gate whose handle is gone.

use super::Gate;
use super::word::Word;
use crate::sync::Ordering;

impl Gate {
    /// The handle is gone: no acquisition comes any more, and the last release returns `true`. If
    /// there is no hold now, this returns `true` itself. A pointer for the reason given at `release`.
    ///
    /// # Safety
    /// - **GATE-2**: the gate lives; the caller acquires it no more, nor does anybody else.
    pub(crate) unsafe fn orphan(gate: *const Gate) -> bool {
        let bits = Word::CLOSED | Word::ORPHANED;
        // SAFETY: GATE-2: the gate lives; nobody acquires it any more.
        unsafe { &*gate }.count_forgotten();
        // SAFETY: GATE-2: the gate lives until the RMW, since it is not orphaned before.
        let word = unsafe { &(*gate).word };
        // Ordering: Acquire pairs with the Release of the releases before it, for a caller that
        // frees; Release pairs with the fence in `release`, for the holder that frees later.
        Word::from_bits(word.fetch_or(bits, Ordering::AcqRel)).is_free()
    }

    /// There is a handle again, of a region that is used once more. For who was told that nobody holds
    /// it and that its handle is gone; what is being retired stays marked.
    pub(crate) fn reopen(&self) {
        let bits = Word::CLOSED | Word::ORPHANED;
        // Ordering: Relaxed. Whoever hands the region on publishes this with it; an RMW, so that marks of
        // a retirement beside it are not lost, and what the former holders released goes on to whoever
        // acquires it.
        self.word.fetch_and(!bits, Ordering::Relaxed);
    }
}
