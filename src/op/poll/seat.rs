//! A queue pair's place in the table of a poller, and what an endpoint is made of beside it.

use std::fmt;

use super::poller::Poller;
use super::table::Table;
use super::turn::InTable;
use crate::error::Result;
use crate::op::number::Numbers;
use crate::op::queue::look::Described;
use crate::op::queue::ring::Ring;
use crate::op::{Completer, Poster};
use crate::work::{CompletionQueue, QueuePair};

/// Where completions come, and under which number. Dropped, it is free for others.
pub(in crate::op) struct Seat<C: CompletionQueue> {
    poller: Poller<C>,
    /// 0 once it has been left.
    number: usize,
}

impl<C: CompletionQueue> Seat<C> {
    pub(in crate::op) fn new(poller: &Poller<C>, qp_num: u32) -> Result<Self> {
        Ok(Seat {
            poller: poller.clone(),
            number: poller.attach(qp_num)?,
        })
    }

    pub(in crate::op) fn poller(&self) -> &Poller<C> {
        &self.poller
    }

    pub(in crate::op) fn number(&self) -> usize {
        self.number
    }

    /// The completions of that queue come here from now on.
    pub(in crate::op) fn add(&self, completer: Completer) -> Result<()> {
        self.poller.add(self.number, completer)
    }

    /// The queue pair has come to its end, `destroyed` or not: no completion comes here any more, and
    /// what is outstanding is accounted for. Gives how many operations that were.
    ///
    /// # Safety
    /// - **COMPLETE-2** if `destroyed`.
    pub(in crate::op) unsafe fn leave(&mut self, destroyed: bool) -> usize {
        let number = std::mem::take(&mut self.number);
        if number == 0 {
            return 0;
        }
        // SAFETY: COMPLETE-2, as required of the caller.
        unsafe { self.poller.detach(number, destroyed) }
    }
}

/// The `Debug` of one of the queues that complete there; never waits.
pub(in crate::op) struct QueueOf<'a, C: CompletionQueue> {
    pub(in crate::op) seat: &'a Seat<C>,
    pub(in crate::op) recv: bool,
}

impl<C: CompletionQueue> fmt::Debug for QueueOf<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let describe = |table: &Table, f: &mut fmt::Formatter<'_>| {
            let queue = table.queue(self.seat.number, self.recv);
            fmt::Debug::fmt(&queue.map(Described), f)
        };
        fmt::Debug::fmt(&InTable(self.seat.poller.turns(), describe), f)
    }
}

impl<C: CompletionQueue> Drop for Seat<C> {
    fn drop(&mut self) {
        // SAFETY: COMPLETE-2: nothing is said to be destroyed.
        unsafe { self.leave(false) };
    }
}

/// An endpoint without its queue pair.
pub(in crate::op) struct Parts<C: CompletionQueue> {
    pub(in crate::op) sends: Poster,
    pub(in crate::op) recvs: Poster,
    pub(in crate::op) send_seat: Seat<C>,
    /// `None`: the same.
    pub(in crate::op) recv_seat: Option<Seat<C>>,
}

impl<C: CompletionQueue> Parts<C> {
    pub(in crate::op) fn new<Q>(qp: &Q, sends: &Poller<C>, recvs: &Poller<C>) -> Result<Self>
    where
        Q: QueuePair<Cq = C>,
    {
        let caps = qp.caps();
        let send_seat = Seat::new(sends, qp.qp_num())?;
        let two = !sends.is_same_as(recvs);
        let recv_seat = two.then(|| Seat::new(recvs, qp.qp_num())).transpose()?;
        let seat = recv_seat.as_ref().unwrap_or(&send_seat);
        let numbers = Numbers::of_queue(send_seat.number(), false);
        let (sends, send_side) = Ring::sides(caps.max_send_wr, caps.max_send_sge, numbers);
        let numbers = Numbers::of_queue(seat.number(), true);
        let (recvs, recv_side) = Ring::sides(caps.max_recv_wr, caps.max_recv_sge, numbers);
        send_seat.add(send_side)?;
        seat.add(recv_side)?;
        Ok(Parts {
            sends,
            recvs,
            send_seat,
            recv_seat,
        })
    }
}
