//! A queue pair's place in the table of a poller.

use super::Completer;
use super::poller::Poller;
use crate::error::Result;
use crate::work::CompletionQueue;

/// Where completions come, and under which number. Dropped, it is free for others.
pub(super) struct Seat<C: CompletionQueue> {
    poller: Poller<C>,
    /// 0 once it has been left.
    number: usize,
}

impl<C: CompletionQueue> Seat<C> {
    pub(super) fn new(poller: &Poller<C>, qp_num: u32) -> Result<Self> {
        Ok(Seat {
            poller: poller.clone(),
            number: poller.attach(qp_num)?,
        })
    }

    pub(super) fn poller(&self) -> &Poller<C> {
        &self.poller
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The completions of that queue come here from now on.
    pub(super) fn add(&self, completer: Completer) -> Result<()> {
        self.poller.add(self.number, completer)
    }

    /// The queue pair has come to its end, `destroyed` or not: no completion comes here any more, and
    /// what is outstanding is accounted for. Gives how many operations that were.
    ///
    /// # Safety
    /// - **COMPLETE-2** if `destroyed`.
    pub(super) unsafe fn leave(&mut self, destroyed: bool) -> usize {
        let number = std::mem::take(&mut self.number);
        if number == 0 {
            return 0;
        }
        // SAFETY: COMPLETE-2, as required of the caller.
        unsafe { self.poller.detach(number, destroyed) }
    }
}

impl<C: CompletionQueue> Drop for Seat<C> {
    fn drop(&mut self) {
        // SAFETY: COMPLETE-2: nothing is said to be destroyed.
        unsafe { self.leave(false) };
    }
}
