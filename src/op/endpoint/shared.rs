//! A shared receive queue and the holds of its receives in one hand.

use std::fmt;
use std::io;

use crate::error::{Rejected, Result};
use crate::gate::Holder;
use crate::op::gather::{Holding, check_kind};
use crate::op::number::OpId;
use crate::op::poll::poller::Poller;
use crate::op::queue::slots::{SlotCompleter, SlotPoster, recv_slots};
use crate::work::{CompletionQueue, RecvWr, SharedRecvQueue};

/// A shared receive queue with the holds of its receives, which end in any order, at the completion
/// queues of the queue pairs that take from it.
///
/// Posting belongs to one thread at a time; completions are taken by the pollers, on any thread. A
/// receive costs two RMWs besides those of its region. Dropped, it destroys the queue, and only then
/// releases what was outstanding; if the provider refuses, which it does while a queue pair takes from
/// it, those holds are leaked and counted in [`leaks`](crate::leaks()). So drop the endpoints first.
///
/// A receive whose message broke off (the sender died, its queue pair went to ERR) may never complete, on
/// soft-RoCE it never does: bytes were written there, and it stays held until the queue is destroyed.
pub struct SharedRecv<S: SharedRecvQueue, C: CompletionQueue> {
    /// There until it is destroyed.
    srq: Option<S>,
    poster: SlotPoster,
    completer: SlotCompleter,
    pollers: Vec<Poller<C>>,
}

impl<S: SharedRecvQueue, C: CompletionQueue> SharedRecv<S, C> {
    /// Takes over `srq`, on which nothing is outstanding. Its receives complete where the queue pairs
    /// complete that take from it: [`attach`](Self::attach) all of those pollers before the first one
    /// is posted.
    ///
    /// Allocates, once, what the queue's capacity asks for.
    pub fn new(srq: S) -> Self {
        let (poster, completer) = recv_slots(srq.capacity(), srq.max_sge());
        SharedRecv {
            srq: Some(srq),
            poster,
            completer,
            pollers: Vec::new(),
        }
    }

    /// Receives may complete at this poller as well. Waits at most for another thread's poll.
    ///
    /// # Errors
    /// [`Error::PollerFull`](crate::Error::PollerFull).
    pub fn attach(&mut self, poller: &Poller<C>) -> Result<()> {
        poller.attach_shared(self.completer.clone())?;
        self.pollers.push(poller.clone());
        Ok(())
    }

    /// The queue.
    pub fn srq(&self) -> &S {
        self.srq.as_ref().expect(ALIVE)
    }

    /// How many receives are outstanding; looks at every slot.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.completer.outstanding()
    }

    /// Posts a receive (`ibv_post_srq_recv`): the next message of any of the queue pairs goes there.
    /// Does not wait.
    ///
    /// # Errors
    /// The holds, as they were, with [`Error::QueueFull`](crate::Error::QueueFull),
    /// [`Error::InvalidWorkRequest`](crate::Error::InvalidWorkRequest) if they were begun to read, or
    /// what the provider says.
    pub fn recv<H: Holding>(&mut self, into: H) -> Result<OpId, Rejected<H>> {
        if let Err(error) = check_kind(&into, Holder::NicWrite) {
            return Err(Rejected::new(into, error));
        }
        let srq = self.srq.as_ref().expect(ALIVE);
        let prepared = self.poster.prepare(into)?;
        let wr = RecvWr {
            wr_id: prepared.wr_id(),
            sge: prepared.sges(),
        };
        // SAFETY: POST-2: the holds are exclusive and kept until the work request is over; POST-3: all
        // posts to this queue come from here.
        match unsafe { srq.post_recv(&wr) } {
            Ok(()) => Ok(prepared.commit()),
            Err(error) => Err(Rejected::new(prepared.take_back(), error)),
        }
    }

    /// Destroys the queue (`ibv_destroy_srq`), then releases all that was outstanding.
    ///
    /// # Errors
    /// The queue, as it was, with what the provider said.
    #[allow(
        clippy::result_large_err,
        reason = "rare, and it is all that was handed in"
    )]
    pub fn close(mut self) -> Result<(), (Self, io::Error)> {
        match self.end() {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(srq) = self.srq.take() else {
            return Ok(());
        };
        if let Err((srq, error)) = srq.destroy() {
            self.srq = Some(srq);
            return Err(error);
        }
        self.leave();
        // SAFETY: COMPLETE-2 by SRQ-3: it was destroyed; nothing is prepared, since that borrows `self`.
        unsafe { self.completer.release_all() };
        Ok(())
    }

    fn leave(&mut self) {
        for poller in self.pollers.drain(..) {
            poller.detach_shared(self.completer.number());
        }
    }
}

const ALIVE: &str = "the shared receive queue is there until it is closed";

impl<S: SharedRecvQueue, C: CompletionQueue> Drop for SharedRecv<S, C> {
    fn drop(&mut self) {
        if self.end().is_err() {
            // The NIC may go on.
            std::mem::forget(self.srq.take());
            self.leave();
            self.completer.leak_all();
        }
    }
}

impl<S: SharedRecvQueue, C: CompletionQueue> fmt::Debug for SharedRecv<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRecv")
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}
