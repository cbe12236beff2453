//! One queue pair, its completion queue, and the holds of what is outstanding on it, in one hand:
//! posting needs no `unsafe`, and no hold is released before its operation is over.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;

use super::Hold;
use crate::error::{Error, Rejected, Result};
use crate::gate::Holder;
use crate::leaks;
use crate::work::{
    CompletionQueue, QpCaps, QueuePair, RecvWr, RemoteAddr, SendFlags, SendOp, SendWr, WcStatus,
    WorkCompletion,
};

/// Names an operation of one endpoint, from its post on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

/// Sets the receives' numbers apart from the sends'.
const RECV: u64 = 1 << 63;

impl OpId {
    /// Whether it is a receive.
    #[must_use]
    pub fn is_recv(self) -> bool {
        self.0 & RECV != 0
    }

    /// The number of the operation within its queue, from 0.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0 & !RECV
    }
}

/// An operation that is over; its hold has been released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// Which one.
    pub id: OpId,
    /// How it ended. If not by success, the bytes that it was to write are unspecified (R12).
    pub status: WcStatus,
    /// Bytes received or read.
    pub byte_len: u32,
    /// Immediate data that came with a receive.
    pub imm: Option<u32>,
}

/// A queue pair with its completion queue, and the holds of what is outstanding.
///
/// Belongs to one thread at a time (`&mut self`); no lock, no allocation per operation. Dropped, it
/// destroys the queue pair, and only then releases what was outstanding (rule R11); if the provider
/// refuses to destroy it, those holds are leaked and counted in [`leaks`](crate::leaks()).
///
/// ```
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::op::{Begin, Endpoint};
/// use rdma_mr::work::{QpCaps, WcStatus};
/// use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};
///
/// let nic = Nic::new();
/// let pd = nic.alloc_pd();
/// let (cq_a, cq_b) = (nic.create_cq(128)?, nic.create_cq(128)?);
/// let a = pd.create_qp(&cq_a, &cq_a, QpCaps::default())?;
/// let b = pd.create_qp(&cq_b, &cq_b, QpCaps::default())?;
/// QueuePair::connect_pair(&a, &b)?;
/// let (mut a, mut b) = (Endpoint::new(a, cq_a), Endpoint::new(b, cq_b));
///
/// let (mut from, to) = (LocalMr::alloc(&pd, 64)?, LocalMr::alloc(&pd, 64)?);
/// from.as_mut_slice()[..5].copy_from_slice(b"hello");
/// b.recv(to.begin_write()?)?;
/// a.send(from.begin_read()?, None)?;
///
/// assert!(to.try_as_slice().is_none() || to.state().is_free()); // held until the completion
/// let bytes = to.as_slice_with(|| { b.poll(|done| assert_eq!(done.status, WcStatus::Success)).unwrap(); });
/// assert_eq!(&bytes[..5], b"hello");
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct Endpoint<Q: QueuePair, C: CompletionQueue> {
    qp: ManuallyDrop<Q>,
    cq: C,
    sends: Outstanding,
    recvs: Outstanding,
}

impl<Q: QueuePair, C: CompletionQueue> Endpoint<Q, C> {
    /// Takes over `qp`, whose completions of both kinds arrive at `cq`, and on which nothing is
    /// outstanding ([POST-3](QueuePair)). `cq` is to be polled by this endpoint alone: a completion
    /// that somebody else takes keeps its region held.
    ///
    /// Allocates, once, what the queue pair's capacity asks for.
    pub fn new(qp: Q, cq: C) -> Self {
        let QpCaps {
            max_send_wr,
            max_recv_wr,
            ..
        } = qp.caps();
        Endpoint {
            qp: ManuallyDrop::new(qp),
            cq,
            sends: Outstanding::new(max_send_wr, 0),
            recvs: Outstanding::new(max_recv_wr, RECV),
        }
    }

    /// The queue pair.
    pub fn qp(&self) -> &Q {
        &self.qp
    }

    /// The completion queue.
    pub fn cq(&self) -> &C {
        &self.cq
    }

    /// How many operations are outstanding: sends and receives.
    #[must_use]
    pub fn outstanding(&self) -> (usize, usize) {
        (self.sends.holds.len(), self.recvs.holds.len())
    }

    /// SEND: the bytes go to the peer's next receive. Does not wait.
    ///
    /// # Errors
    /// The hold, as it was, with what [`post`](Self::post) says.
    pub fn send(&mut self, from: Hold, imm: Option<u32>) -> Result<OpId, Rejected<Hold>> {
        self.post(from, SendOp::Send { imm }, SendFlags::SIGNALED)
    }

    /// RDMA WRITE of the bytes to the peer's memory. Does not wait.
    ///
    /// # Errors
    /// The hold, as it was, with what [`post`](Self::post) says.
    pub fn write(
        &mut self,
        from: Hold,
        remote: RemoteAddr,
        imm: Option<u32>,
    ) -> Result<OpId, Rejected<Hold>> {
        self.post(from, SendOp::Write { remote, imm }, SendFlags::SIGNALED)
    }

    /// RDMA READ of the peer's memory into the bytes. Does not wait.
    ///
    /// # Errors
    /// The hold, as it was, with what [`post`](Self::post) says.
    pub fn read(&mut self, into: Hold, remote: RemoteAddr) -> Result<OpId, Rejected<Hold>> {
        self.post(into, SendOp::Read { remote }, SendFlags::SIGNALED)
    }

    /// FETCH_ADD on the peer's integer; its value before comes into the 8 bytes. Does not wait.
    ///
    /// # Errors
    /// The hold, as it was, with what [`post`](Self::post) says.
    pub fn fetch_add(
        &mut self,
        into: Hold,
        remote: RemoteAddr,
        add: u64,
    ) -> Result<OpId, Rejected<Hold>> {
        self.post(into, SendOp::FetchAdd { remote, add }, SendFlags::SIGNALED)
    }

    /// CMP_SWAP on the peer's integer; its value before comes into the 8 bytes. Does not wait.
    ///
    /// # Errors
    /// The hold, as it was, with what [`post`](Self::post) says.
    pub fn compare_swap(
        &mut self,
        into: Hold,
        remote: RemoteAddr,
        compare: u64,
        swap: u64,
    ) -> Result<OpId, Rejected<Hold>> {
        let op = SendOp::CompareSwap {
            remote,
            compare,
            swap,
        };
        self.post(into, op, SendFlags::SIGNALED)
    }

    /// Posts any operation to the send queue (`ibv_post_send`). Does not wait. One that is not
    /// [`SIGNALED`](SendFlags::SIGNALED) is over when a later one that is has completed; an
    /// [`INLINE`](SendFlags::INLINE) one gives its hold back before this returns.
    ///
    /// # Errors
    /// The hold, as it was, with [`Error::QueueFull`], [`Error::InvalidWorkRequest`] if it is not of
    /// the kind that the operation needs (R13), or what the provider says. Nothing was posted.
    pub fn post(
        &mut self,
        hold: Hold,
        op: SendOp,
        flags: SendFlags,
    ) -> Result<OpId, Rejected<Hold>> {
        let needs = if op.writes_locally() {
            Holder::NicWrite
        } else {
            Holder::NicRead
        };
        let qp = &self.qp;
        self.sends.post(hold, needs, |wr_id, hold| {
            let sge = [hold.sge()];
            let wr = SendWr {
                wr_id,
                sge: &sge,
                op,
                flags,
            };
            // SAFETY: POST-1: the hold is of the kind that the operation needs, and is kept until
            // the work request is over; POST-3: all of this queue pair's posts come from here.
            unsafe { qp.post_send(&wr) }?;
            Ok(flags.contains(SendFlags::INLINE))
        })
    }

    /// Posts a receive (`ibv_post_recv`): the peer's next message, or the immediate data of its
    /// WRITE, goes there. Does not wait.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn recv(&mut self, into: Hold) -> Result<OpId, Rejected<Hold>> {
        let qp = &self.qp;
        self.recvs.post(into, Holder::NicWrite, |wr_id, hold| {
            let sge = [hold.sge()];
            // SAFETY: POST-2: the hold is exclusive and kept until the work request is over; POST-3
            // as in `post`.
            unsafe { qp.post_recv(&RecvWr { wr_id, sge: &sge }) }?;
            Ok(false)
        })
    }

    /// Takes the completions that are there, releases the holds of what is over, and tells `done` of
    /// each, in order. Returns how many operations that were. Does not wait.
    ///
    /// # Errors
    /// What [`CompletionQueue::poll`] says, or [`Error::UnknownCompletion`] for one that belongs to
    /// nothing outstanding here; it releases nothing, and those that came with it are not lost.
    pub fn poll(&mut self, mut done: impl FnMut(Done)) -> Result<usize> {
        let mut batch = [WorkCompletion::EMPTY; 16];
        let mut total = 0;
        let mut unknown = None;
        loop {
            let taken = self.cq.poll(&mut batch)?;
            for wc in &batch[..taken] {
                let queue = if OpId(wc.wr_id).is_recv() {
                    &mut self.recvs
                } else {
                    &mut self.sends
                };
                let ours = wc.qp_num == self.qp.qp_num();
                match ours.then(|| queue.complete(wc, &mut done)).flatten() {
                    Some(over) => total += over,
                    None => unknown = Some(Error::UnknownCompletion { wr_id: wc.wr_id }),
                }
            }
            if taken < batch.len() {
                return unknown.map_or(Ok(total), Err);
            }
        }
    }

    /// Destroys the queue pair (`ibv_destroy_qp`), then releases all that was outstanding. May block
    /// in the kernel.
    ///
    /// # Errors
    /// The endpoint, as it was, with what the provider said.
    pub fn close(self) -> Result<(), (Self, io::Error)> {
        let mut whole = ManuallyDrop::new(self);
        // SAFETY: ENDPOINT-1: `whole` is dropped or handed on only after each field that was taken
        // here has been put back or is known to be taken.
        let qp = unsafe { ManuallyDrop::take(&mut whole.qp) };
        match qp.destroy() {
            Ok(()) => {
                // SAFETY: ENDPOINT-1: `qp` is gone, the others are dropped here and nowhere else.
                // QP-4: the NIC carries out none of its work requests, so their holds may go.
                unsafe {
                    std::ptr::drop_in_place(&raw mut whole.cq);
                    std::ptr::drop_in_place(&raw mut whole.sends);
                    std::ptr::drop_in_place(&raw mut whole.recvs);
                }
                Ok(())
            }
            Err((qp, error)) => {
                whole.qp = ManuallyDrop::new(qp);
                Err((ManuallyDrop::into_inner(whole), error))
            }
        }
    }
}

impl<Q: QueuePair, C: CompletionQueue> Drop for Endpoint<Q, C> {
    fn drop(&mut self) {
        // SAFETY: ENDPOINT-1: the field is not used after this; `close` never gets here with it taken.
        let qp = unsafe { ManuallyDrop::take(&mut self.qp) };
        if let Err((qp, _)) = qp.destroy() {
            // The NIC may go on: neither the queue pair nor the regions may be let go.
            std::mem::forget(qp);
            self.sends.leak();
            self.recvs.leak();
        }
    }
}

impl<Q: QueuePair, C: CompletionQueue> fmt::Debug for Endpoint<Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sends, recvs) = self.outstanding();
        f.debug_struct("Endpoint")
            .field("qp_num", &self.qp.qp_num())
            .field("sends", &sends)
            .field("recvs", &recvs)
            .finish()
    }
}

/// What is outstanding on one queue, in order, from the post to the completion.
struct Outstanding {
    /// `None`: posted inline, released already, its place in the queue still taken.
    holds: VecDeque<Option<Hold>>,
    capacity: u32,
    /// The sequence number of the front.
    first: u64,
    /// Or-ed to sequence numbers.
    kind: u64,
}

impl Outstanding {
    fn new(capacity: u32, kind: u64) -> Self {
        Outstanding {
            holds: VecDeque::with_capacity(capacity as usize),
            capacity,
            first: 0,
            kind,
        }
    }

    /// Takes `hold` in if `post` succeeds; `post` says whether it may be released at once.
    fn post(
        &mut self,
        hold: Hold,
        needs: Holder,
        post: impl FnOnce(u64, &Hold) -> Result<bool>,
    ) -> Result<OpId, Rejected<Hold>> {
        if hold.holder() != needs {
            let reason = match needs {
                Holder::NicWrite => "the NIC writes these bytes: hold them with begin_write",
                _ => "the NIC reads these bytes: hold them with begin_read",
            };
            return Err(Rejected::new(hold, Error::InvalidWorkRequest { reason }));
        }
        if self.holds.len() >= self.capacity as usize {
            let capacity = self.capacity;
            return Err(Rejected::new(hold, Error::QueueFull { capacity }));
        }
        let wr_id = (self.first + self.holds.len() as u64) | self.kind;
        match post(wr_id, &hold) {
            Ok(over) => {
                self.holds.push_back((!over).then_some(hold));
                Ok(OpId(wr_id))
            }
            Err(error) => Err(Rejected::new(hold, error)),
        }
    }

    /// Releases what is over by `wc`: it, and what was posted before it to the same queue. `None` if
    /// it belongs to nothing outstanding.
    fn complete(&mut self, wc: &WorkCompletion, done: &mut impl FnMut(Done)) -> Option<usize> {
        let sequence = OpId(wc.wr_id).sequence();
        let before = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        if before >= self.holds.len() {
            return None;
        }
        for _ in 0..=before {
            // Released before `done` is told, so that it finds the bytes free.
            drop(self.holds.pop_front());
            let id = OpId(self.first | self.kind);
            self.first += 1;
            let last = self.first > sequence;
            done(Done {
                id,
                status: if last { wc.status } else { WcStatus::Success },
                byte_len: if last { wc.byte_len } else { 0 },
                imm: wc.imm.filter(|_| last),
            });
        }
        Some(before + 1)
    }

    fn leak(&mut self) {
        for hold in self.holds.drain(..).flatten() {
            std::mem::forget(hold);
            leaks::hold();
        }
    }
}
