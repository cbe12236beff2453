//! One queue pair, its completion queue, and the holds of what is outstanding on it, in one hand:
//! posting needs no `unsafe`, and no hold is released before its operation is over.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Hold;
use crate::error::{Error, Rejected, Result};
use crate::gate::Holder;
use crate::leaks;
use crate::work::{
    CompletionQueue, QueuePair, RecvWr, RemoteAddr, SendFlags, SendOp, SendWr, WcStatus,
    WorkCompletion,
};

/// Names an operation of one endpoint, from its post on: it is the work request's `wr_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

impl OpId {
    /// Whether it is a receive.
    #[must_use]
    pub fn is_recv(self) -> bool {
        self.0 & Numbers::RECV != 0
    }

    /// The number of the operation within its queue, from 0; starts anew after 2⁴⁸.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0 & Numbers::SEQUENCE
    }
}

/// The `wr_id`s of one queue: `RECV` (1 bit), the endpoint's number (15), the sequence (48). With the
/// endpoint's number in them, a completion that an earlier owner of the queue pair's number left
/// behind is not taken for one of ours.
#[derive(Clone, Copy)]
struct Numbers(u64);

impl Numbers {
    const RECV: u64 = 1 << 63;
    const SEQUENCE: u64 = (1 << 48) - 1;

    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Ordering: Relaxed. Only that the numbers differ matters.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Numbers((number << 48) & !Self::RECV)
    }

    fn of_receives(self) -> Self {
        Numbers(self.0 | Self::RECV)
    }

    fn id(self, sequence: u64) -> OpId {
        OpId(self.0 | (sequence & Self::SEQUENCE))
    }

    /// How many operations lie between the one with sequence `first` and the one with that `wr_id`.
    fn distance(self, first: u64, wr_id: u64) -> Option<usize> {
        let ours = wr_id & !Self::SEQUENCE == self.0;
        let distance = wr_id.wrapping_sub(first) & Self::SEQUENCE;
        usize::try_from(distance).ok().filter(|_| ours)
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
/// let (mut a, mut b) = (Endpoint::new(a), Endpoint::new(b));
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
pub struct Endpoint<Q: QueuePair> {
    qp: ManuallyDrop<Q>,
    one_cq: bool,
    sends: Outstanding,
    recvs: Outstanding,
}

impl<Q: QueuePair> Endpoint<Q> {
    /// Takes over `qp`, on which nothing is outstanding ([POST-3](QueuePair)). Its completion queues
    /// are to be polled by this endpoint alone: a completion that somebody else takes keeps its
    /// region held.
    ///
    /// Allocates, once, what the queue pair's capacity asks for.
    pub fn new(qp: Q) -> Self {
        let caps = qp.caps();
        let numbers = Numbers::new();
        Endpoint {
            one_cq: qp.send_cq().is_same_as(qp.recv_cq()),
            qp: ManuallyDrop::new(qp),
            sends: Outstanding::new(caps.max_send_wr, numbers),
            recvs: Outstanding::new(caps.max_recv_wr, numbers.of_receives()),
        }
    }

    /// The queue pair.
    pub fn qp(&self) -> &Q {
        &self.qp
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
        let mut unknown = None;
        let mut total = self.poll_one(Q::send_cq, &mut unknown, &mut done)?;
        if !self.one_cq {
            total += self.poll_one(Q::recv_cq, &mut unknown, &mut done)?;
        }
        match unknown {
            None => Ok(total),
            Some(wr_id) => Err(Error::UnknownCompletion { wr_id }),
        }
    }

    fn poll_one(
        &mut self,
        cq: fn(&Q) -> &Q::Cq,
        unknown: &mut Option<u64>,
        done: &mut impl FnMut(Done),
    ) -> Result<usize> {
        let mut batch = [WorkCompletion::EMPTY; 16];
        let mut total = 0;
        loop {
            let taken = cq(&self.qp).poll(&mut batch)?;
            for wc in &batch[..taken] {
                let queue = if OpId(wc.wr_id).is_recv() {
                    &mut self.recvs
                } else {
                    &mut self.sends
                };
                let ours = wc.qp_num == self.qp.qp_num();
                match ours.then(|| queue.complete(wc, done)).flatten() {
                    Some(over) => total += over,
                    None => *unknown = Some(wc.wr_id),
                }
            }
            if taken < batch.len() {
                return Ok(total);
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

impl<Q: QueuePair> Drop for Endpoint<Q> {
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

impl<Q: QueuePair> fmt::Debug for Endpoint<Q> {
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
    numbers: Numbers,
}

impl Outstanding {
    fn new(capacity: u32, numbers: Numbers) -> Self {
        Outstanding {
            holds: VecDeque::with_capacity(capacity as usize),
            capacity,
            first: 0,
            numbers,
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
        let id = self.numbers.id(self.first + self.holds.len() as u64);
        match post(id.0, &hold) {
            Ok(over) => {
                self.holds.push_back((!over).then_some(hold));
                Ok(id)
            }
            Err(error) => Err(Rejected::new(hold, error)),
        }
    }

    /// Releases what is over by `wc`: it, and what was posted before it to the same queue. `None` if
    /// it belongs to nothing outstanding.
    fn complete(&mut self, wc: &WorkCompletion, done: &mut impl FnMut(Done)) -> Option<usize> {
        let before = self.numbers.distance(self.first, wc.wr_id)?;
        if before >= self.holds.len() {
            return None;
        }
        for left in (0..=before).rev() {
            // Released before `done` is told, so that it finds the bytes free.
            drop(self.holds.pop_front());
            let id = self.numbers.id(self.first);
            self.first += 1;
            let last = left == 0;
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
