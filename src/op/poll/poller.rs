//! One completion queue and all that completes there.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use arrayvec::ArrayVec;
use event_listener::EventListener;

use super::table::{Found, Table};
use super::turn::{BATCH, InTable, Left, Turn, Turns};
use crate::error::{Error, Result};
use crate::op::Completer;
use crate::op::number::Numbers;
use crate::op::queue::done::{Done, Over};
use crate::op::queue::slots::SlotCompleter;
use crate::sync::{AtomicU64, Event, Ordering, fence};
use crate::trace;
use crate::work::{CompletionQueue, WorkCompletion};

/// Polls a completion queue, releases the holds of what is over, wakes the futures that wait for it. A
/// handle: clones are the same poller.
///
/// Any number of threads may poll; one at a time does, and who comes meanwhile returns at once. So
/// every wait can drive it: `mr.as_slice_with(|| poller.progress())`. No lock is taken and nothing is
/// allocated on the way; posting goes on beside it.
///
/// ```
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::op::{Begin, Endpoint, Poller};
/// use rdma_mr::work::QpCaps;
/// use rdma_mr::{LocalMr, LocalMrReadAccess};
///
/// let nic = Nic::new();
/// let pd = nic.alloc_pd();
/// let cq = nic.create_cq(256)?;
/// let poller = Poller::new(cq.clone());
/// let a = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// let b = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// QueuePair::connect_pair(&a, &b)?;
/// let (mut a, mut b) = (Endpoint::attach(a, &poller)?, Endpoint::attach(b, &poller)?);
///
/// let (from, to) = (LocalMr::alloc(&pd, 64)?, LocalMr::alloc(&pd, 64)?);
/// b.recv(to.begin_write()?)?;
/// a.send(from.begin_read()?, None)?;
/// let bytes = to.as_slice_with(|| poller.progress());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct Poller<C: CompletionQueue> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    cq: C,
    turns: Turns,
    /// Told after operations have ended: there is room in queues.
    ended: Event,
    /// Set by who listens to that. While nobody does, a poll takes no lock of the event's.
    listening: AtomicU64,
    /// Set when polling has failed.
    broken: AtomicU64,
    unknown: AtomicU64,
}

impl<C: CompletionQueue> Clone for Poller<C> {
    fn clone(&self) -> Self {
        Poller {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C: CompletionQueue> Poller<C> {
    /// A poller of this queue, which nobody else is to poll: a completion that somebody else takes
    /// keeps its region held.
    #[must_use]
    pub fn new(cq: C) -> Self {
        Poller {
            shared: Arc::new(Shared {
                cq,
                turns: Turns::new(Table::default()),
                ended: Event::new(),
                listening: AtomicU64::new(0),
                broken: AtomicU64::new(0),
                unknown: AtomicU64::new(0),
            }),
        }
    }

    /// The completion queue.
    #[must_use]
    pub fn cq(&self) -> &C {
        &self.shared.cq
    }

    /// Whether the two are the same poller.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Takes the completions that are there, releases the holds of what is over, and wakes the futures
    /// that wait for it. Returns how many operations that were; 0 also if another thread polls. Does
    /// not wait.
    ///
    /// # Errors
    /// What [`CompletionQueue::poll`] says: then no completion may come any more, futures that wait get
    /// [`Error::CompletionsLost`], and only the end of the queue pairs releases what is outstanding.
    /// Or [`Error::UnknownCompletion`] for one that belongs to nothing outstanding here; it releases
    /// nothing, and those that came with it are dealt with all the same.
    pub fn poll(&self) -> Result<usize> {
        self.poll_with(|_| ())
    }

    /// As [`poll`](Self::poll), and tells `done` of each operation, in the order of the completions. If
    /// `done` panics, what was taken with it is released all the same, and not told of.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_with(&self, mut done: impl FnMut(Done)) -> Result<usize> {
        self.poll_turns(|| self.shared.turns.try_take(), &mut done)
    }

    /// [`poll`](Self::poll) for the waits that take a closure. An error is not lost: a queue that failed
    /// says so at the next poll, too, and unknown completions are [counted](Self::unknown).
    pub fn progress(&self) {
        let _ = self.poll();
    }

    /// How many completions came that belonged to nothing outstanding.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        // Ordering: Relaxed. A counter for people.
        self.shared.unknown.load(Ordering::Relaxed)
    }

    pub(in crate::op) fn poll_turns<'a>(
        &'a self,
        turn: impl Fn() -> Option<Turn<'a>>,
        done: &mut impl FnMut(Done),
    ) -> Result<usize> {
        let mut total = 0;
        let mut unknown = None;
        while let Some(mut turn) = turn() {
            let (table, batch) = turn.table_and_batch();
            let taken = match self.shared.cq.poll(batch) {
                Ok(0) => break,
                Ok(taken) => taken,
                Err(error) => {
                    self.give_up(turn);
                    trace::polling_failed(&error);
                    return Err(error);
                }
            };
            let mut over = ArrayVec::<Over, BATCH>::new();
            let mut wakers = Wakers(ArrayVec::new());
            let mut rest = Rest {
                table,
                completions: batch[..taken].iter(),
            };
            for wc in rest.completions.by_ref() {
                let wake = &mut |waker| wakers.push(waker);
                // SAFETY: COMPLETE-1: polled just now.
                match unsafe { rest.table.finish(wc, wake) } {
                    Found::Over(one) => over.push(one),
                    Found::Late => {}
                    Found::Nothing => unknown = Some(wc.wr_id),
                }
            }
            std::mem::forget(rest); // none is left
            // What is called from here on may poll, post, or end queue pairs.
            drop(turn);
            self.tell_ended();
            wakers.wake();
            for over in &over {
                total += over.count();
                over.trace();
                over.tell(done);
            }
            if taken < BATCH {
                break;
            }
        }
        match unknown {
            None => Ok(total),
            Some(wr_id) => {
                // Ordering: Relaxed. A counter for people.
                self.shared.unknown.fetch_add(1, Ordering::Relaxed);
                trace::unknown(wr_id);
                Err(Error::UnknownCompletion { wr_id })
            }
        }
    }

    /// Polling has failed: tells the futures that wait.
    #[cold]
    fn give_up(&self, mut turn: Turn<'_>) {
        // Ordering: Relaxed, made visible by the fence, which pairs with the one in `is_broken`: either
        // this sees a future's operation in its ring, or the future sees this.
        self.shared.broken.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut wakers = Vec::new();
        turn.tell_all_lost(&mut |waker| wakers.push(waker));
        drop(turn);
        self.shared.ended.notify(usize::MAX);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether polling has failed, for who has posted something to wait for.
    pub(in crate::op) fn is_broken(&self) -> bool {
        // Ordering: SeqCst pairs with the fence in `give_up`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed, see the fence.
        self.shared.broken.load(Ordering::Relaxed) != 0
    }

    /// To be told when operations have ended. Who has called this looks once more before it sleeps: it
    /// is told only of what ends after that look.
    pub(in crate::op) fn listen(&self) -> EventListener {
        let listener = self.shared.ended.listen();
        // Ordering: Release pairs with the fence of `notify` in `tell_ended`: the listener is on the list.
        self.shared.listening.store(1, Ordering::Release);
        // Ordering: SeqCst pairs with the fence of `tell_ended`.
        fence(Ordering::SeqCst);
        listener
    }

    /// Tells those who listen, if any: operations have ended.
    #[inline]
    fn tell_ended(&self) {
        let listening = &self.shared.listening;
        // Ordering: SeqCst pairs with the fence of `listen`: either this sees that somebody listens, or
        // that one, who looks once more, sees what has ended.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed, see the fence.
        if listening.load(Ordering::Relaxed) != 0 {
            // Before it tells: who sets it later is on the list for the next time, or sees what ended.
            // Ordering: Relaxed. `notify` starts with a SeqCst fence.
            listening.swap(0, Ordering::Relaxed);
            self.shared.ended.notify(usize::MAX);
        }
    }

    /// Whose turn it is to poll.
    pub(in crate::op) fn turns(&self) -> &Turns {
        &self.shared.turns
    }

    /// The turn, waited for.
    fn turn(&self) -> Result<Turn<'_>> {
        let reason =
            "called from inside of this poller's poll, by a waker or by memory that is freed";
        let refused = Error::InvalidWorkRequest { reason };
        self.shared.turns.take().ok_or(refused)
    }

    /// A number for a queue pair whose completions come here.
    pub(in crate::op) fn attach(&self, qp_num: u32) -> Result<usize> {
        let max = Numbers::QUEUES;
        self.turn()?.insert(qp_num).ok_or(Error::PollerFull { max })
    }

    /// The completions of that queue of the queue pair come here.
    pub(in crate::op) fn add(&self, number: usize, completer: Completer) -> Result<()> {
        self.turn()?.add(number, completer);
        Ok(())
    }

    /// The queue pair with that number has come to its end: accounts for what is outstanding, and gives
    /// how many operations that were. Late completions are no surprise. Called from inside of this
    /// poller's poll, it leaves that to the poll.
    ///
    /// # Safety
    /// - **COMPLETE-2** if `destroyed`.
    pub(in crate::op) unsafe fn detach(&self, number: usize, destroyed: bool) -> usize {
        let Some(mut turn) = self.shared.turns.take() else {
            self.shared.turns.leave(Left { number, destroyed });
            return 0;
        };
        let queues = turn.remove(number);
        drop(turn);
        // SAFETY: COMPLETE-2, as required of the caller.
        queues.map_or(0, |mut queues| unsafe { queues.settle(destroyed) })
    }

    /// Takes a shared receive queue in.
    pub(in crate::op) fn attach_shared(&self, slots: SlotCompleter) -> Result<()> {
        let max = Numbers::QUEUES;
        let inserted = self.turn()?.insert_shared(slots);
        inserted.then_some(()).ok_or(Error::PollerFull { max })
    }

    /// Forgets the shared receive queue with that number.
    pub(in crate::op) fn detach_shared(&self, number: usize) {
        if let Some(mut turn) = self.shared.turns.take() {
            turn.remove_shared(number);
        }
    }
}

/// Wakers of futures that have been told. Dropped, it wakes them, also as the stack unwinds: nobody else
/// will.
struct Wakers(ArrayVec<Waker, BATCH>);

impl Wakers {
    fn push(&mut self, waker: Waker) {
        if let Err(full) = self.0.try_push(waker) {
            full.element().wake();
        }
    }

    #[inline]
    fn wake(&mut self) {
        if !self.0.is_empty() {
            self.0.drain(..).for_each(Waker::wake);
        }
    }
}

impl Drop for Wakers {
    #[inline]
    fn drop(&mut self) {
        self.wake();
    }
}

/// Completions that were taken off the queue and not dealt with yet. If a region's memory panics as it
/// is freed, the others are dealt with as the stack unwinds: they come from no queue a second time.
struct Rest<'a> {
    table: &'a mut Table,
    completions: std::slice::Iter<'a, WorkCompletion>,
}

impl Drop for Rest<'_> {
    #[cold]
    fn drop(&mut self) {
        for wc in self.completions.by_ref() {
            // SAFETY: COMPLETE-1: polled, and not dealt with yet.
            let _ = unsafe { self.table.finish(wc, &mut Waker::wake) };
        }
    }
}

impl<C: CompletionQueue> fmt::Debug for Poller<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("unknown", &self.unknown())
            .field(
                "outstanding",
                &InTable(self.turns(), |table: &Table, f: &mut fmt::Formatter<'_>| {
                    table.fmt(f)
                }),
            )
            .finish_non_exhaustive()
    }
}
