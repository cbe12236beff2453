//! A queue pair's place in the table of a poller.

use super::Completer;
use super::poller::Poller;
use super::table::Queues;
use crate::error::Result;
use crate::work::CompletionQueue;

/// Where completions come, and under which number. Dropped, it is free for others.
pub(super) struct Seat<C: CompletionQueue> {
    poller: Poller<C>,
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
    pub(super) fn add(&self, completer: Completer) {
        self.poller.add(self.number, completer);
    }

    /// No completion comes here any more: gives the completing sides.
    pub(super) fn leave(&self) -> Option<Queues> {
        self.poller.detach(self.number)
    }
}

impl<C: CompletionQueue> Drop for Seat<C> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}
