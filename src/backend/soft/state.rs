//! The state of a queue pair as its sides share it.

use crate::sync::{AtomicU64, Ordering};
use crate::work::QpState;

fn from_bits(bits: u64) -> QpState {
    QpState::from_raw(bits as u32)
}

/// The state as a word that the NIC, the posting threads and the owner share.
pub(super) struct AtomicState(AtomicU64);

impl AtomicState {
    pub(super) fn new(state: QpState) -> Self {
        AtomicState(AtomicU64::new(state as u64))
    }

    pub(super) fn get(&self) -> QpState {
        // Ordering: Acquire: pairs with the Release of `transition`: who sees RTR sees the peer's
        // number that was stored before.
        from_bits(self.0.load(Ordering::Acquire))
    }

    /// Moves on if it is in `from`; says in which state it is otherwise.
    pub(super) fn transition(&self, from: QpState, to: QpState) -> Result<(), QpState> {
        // Ordering: Release on success: pairs with the Acquire of `get`. Relaxed on failure: the
        // state is only reported.
        self.0
            .compare_exchange(from as u64, to as u64, Ordering::Release, Ordering::Relaxed)
            .map(drop)
            .map_err(from_bits)
    }

    /// To ERR, from wherever it is.
    pub(super) fn set_error(&self) {
        // Ordering: Relaxed: it hands nothing on; what is flushed is behind the queues' locks.
        self.0.store(QpState::Err as u64, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn transitions_start_where_they_say() {
        let state = AtomicState::new(QpState::Reset);
        assert_eq!(
            state.transition(QpState::Init, QpState::Rtr),
            Err(QpState::Reset)
        );
        assert_eq!(state.transition(QpState::Reset, QpState::Init), Ok(()));
        assert_eq!(state.get(), QpState::Init);
        state.set_error();
        assert_eq!(
            state.transition(QpState::Init, QpState::Rtr),
            Err(QpState::Err)
        );
        assert_eq!(state.get().to_string(), "ERR");
    }
}
