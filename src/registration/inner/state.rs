//! What is published, and when it is freed.

use crossbeam_epoch::Shared;

use super::LocalMrInner;
#[cfg(crossbeam_loom)]
use crate::sync::UnsafeCell;

pub(super) struct State {
    inner: LocalMrInner,
    /// In a model of the epochs: whether it is freed. Loom tells who reads it while that is written.
    #[cfg(crossbeam_loom)]
    freed: UnsafeCell<bool>,
}

// SAFETY: that it is used in order is what loom is asked.
#[cfg(crossbeam_loom)]
unsafe impl Sync for State {}

impl State {
    pub(super) fn new(inner: LocalMrInner) -> Self {
        State {
            inner,
            #[cfg(crossbeam_loom)]
            freed: UnsafeCell::new(false),
        }
    }

    pub(super) fn copy(&self) -> LocalMrInner {
        #[cfg(crossbeam_loom)]
        self.freed.with(|freed| {
            // SAFETY: as for Sync above.
            assert!(!unsafe { *freed }, "a state that is no more");
        });
        self.inner
    }

    /// Frees it. A model takes note of that and keeps the memory: what is read of freed memory is garbage,
    /// and no finding.
    ///
    /// # Safety
    /// - **INNER-1** or **INNER-2**: nobody reads it any more; this is done once.
    pub(super) unsafe fn free(state: Shared<'_, Self>) {
        #[cfg(crossbeam_loom)]
        // SAFETY: the memory is kept.
        unsafe { state.deref() }.freed.with_mut(|freed| {
            // SAFETY: as for Sync above.
            assert!(!unsafe { freed.replace(true) }, "it was freed before");
        });
        #[cfg(not(crossbeam_loom))]
        // SAFETY: INNER-1 or INNER-2, as required of the caller; it was made as an `Owned`.
        drop(unsafe { state.into_owned() });
    }
}
