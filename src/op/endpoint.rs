//! One queue pair, its completion queue, and the holds of what is outstanding on it, in one hand:
//! posting needs no `unsafe`, and no hold is released before its operation is over.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;

use super::Hold;
use super::outstanding::{Done, Numbers, OpId, Outstanding};
use crate::error::{Error, Rejected, Result};
use crate::gate::Holder;
use crate::work::{
    CompletionQueue, QueuePair, RecvWr, RemoteAddr, SendFlags, SendOp, SendWr, WorkCompletion,
};

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
/// assert!(to.try_as_slice().is_none()); // held until the completion has been polled
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
        (self.sends.len(), self.recvs.len())
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
    /// [`SIGNALED`](SendFlags::SIGNALED) is over when a later one that is has completed, so a queue
    /// must never be filled with unsignalled ones alone: it stays full then. An
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
    /// each, in order. Returns how many operations that were. Does not wait. If `done` panics, what
    /// was taken with it is released all the same, and not told of.
    ///
    /// After an operation that failed the queue pair is in ERR: close the endpoint or drop it. Not
    /// every device completes what is posted from then on (rule R16), so a wait for one of those
    /// regions might not end otherwise.
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
            let mut rest = Rest {
                endpoint: self,
                batch: batch[..taken].iter(),
            };
            for wc in rest.batch.by_ref() {
                match rest.endpoint.complete(wc, done) {
                    Some(over) => total += over,
                    None => *unknown = Some(wc.wr_id),
                }
            }
            drop(rest);
            if taken < batch.len() {
                return Ok(total);
            }
        }
    }

    /// Releases what is over by `wc`; `None` if it belongs to nothing outstanding here.
    fn complete(&mut self, wc: &WorkCompletion, done: &mut impl FnMut(Done)) -> Option<usize> {
        if wc.qp_num != self.qp.qp_num() {
            return None;
        }
        let queue = if OpId::of(wc.wr_id).is_recv() {
            &mut self.recvs
        } else {
            &mut self.sends
        };
        queue.complete(wc, done)
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

/// Completions that were taken off the queue and not dealt with yet. If `done` panics, they are dealt
/// with as the stack unwinds, without being told of: they come from no queue a second time.
struct Rest<'a, Q: QueuePair> {
    endpoint: &'a mut Endpoint<Q>,
    batch: std::slice::Iter<'a, WorkCompletion>,
}

impl<Q: QueuePair> Drop for Rest<'_, Q> {
    fn drop(&mut self) {
        for wc in self.batch.by_ref() {
            let _ = self.endpoint.complete(wc, &mut |_| ());
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
