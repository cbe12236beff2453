//! The hold of an operation: `'static`, counted in the region's word, released by the completion.

use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::gate::{Acquire, Holder};
use crate::mr::{LocalMrReadAccess, Part, RegionRef};
use crate::registration::Access;
use crate::work::Sge;

/// A region, or some of its bytes, held for an operation of the NIC (rules R9, R13).
///
/// It does not borrow the region: it keeps the memory registered, even when the region's handle is
/// dropped meanwhile. Beginning and ending cost one RMW each, on the region's line; no allocation.
///
/// Dropping it gives the region back: that is right before the work request is posted (roll back)
/// and after its completion was polled, and wrong in between. Whoever posts a work request
/// over its bytes says so in an `unsafe` block ([`POST-1`](crate::work::QueuePair::post_send));
/// [`Endpoint`](super::Endpoint) does that for you. Forgetting it keeps the region held for ever,
/// and does no other harm.
///
/// ```
/// use rdma_mr::op::Begin;
/// use rdma_mr::{LocalMr, LocalMrReadAccess, MrAccess, backend::soft::Nic};
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 4096)?;
/// let hold = mr.get(..512)?.begin_write()?;
/// assert_eq!((hold.sge().addr, hold.sge().length), (mr.addr() as u64, 512));
/// assert!(mr.try_as_slice().is_none()); // the NIC may write
/// drop(hold);
/// assert!(mr.try_as_slice().is_some());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use = "a hold that is dropped at once holds nothing"]
pub struct Hold {
    word: HoldWord,
    /// Of length 0 if it was a `wr_id` in between.
    sge: Sge,
}

/// A hold as one number: the address of the region, and in its lowest bit the kind.
#[derive(Clone, Copy)]
pub struct HoldWord(u64);

impl HoldWord {
    const WRITE: u64 = 1;
    /// No hold.
    pub(super) const NONE: HoldWord = HoldWord(0);
    /// Bits that are always zero, for the marks of who keeps it.
    pub(super) const SPARE: u64 = 0b11_1110;

    #[inline]
    pub(super) fn new(region: RegionRef, holder: Holder) -> Self {
        const { assert!(RegionRef::ALIGN as u64 > Self::WRITE | Self::SPARE) };
        let kind = match holder {
            Holder::NicWrite => Self::WRITE,
            _ => 0,
        };
        HoldWord(region.to_bits() as u64 | kind)
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// The hold that was made these bits, without the marks in them; `None` if there is none.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let bits = bits & !Self::SPARE;
        (bits != 0).then_some(HoldWord(bits))
    }

    pub(super) fn holder(self) -> Holder {
        match self.0 & Self::WRITE {
            0 => Holder::NicRead,
            _ => Holder::NicWrite,
        }
    }

    /// # Safety
    /// - **HOLD-2**: the caller owns the hold, so that the region lives.
    unsafe fn region(self) -> RegionRef {
        // SAFETY: REGION-2 by HOLD-2.
        unsafe { RegionRef::from_bits((self.0 & !Self::WRITE) as usize) }
    }

    /// Gives the hold back.
    ///
    /// # Safety
    /// - **HOLD-2**, and the hold is the caller's no more.
    #[inline]
    pub(super) unsafe fn release(self) {
        // SAFETY: REGION-6 by HOLD-2.
        unsafe { self.region().release(self.holder()) }
    }
}

impl Hold {
    /// # Safety
    /// - **HOLD-1**: the caller has entered the part's gate as `holder`; the hold takes that over.
    #[inline]
    pub(super) unsafe fn new(part: Part<'_>, holder: Holder) -> Self {
        Hold {
            word: HoldWord::new(part.region, holder),
            sge: element(part),
        }
    }

    /// The bytes as a scatter/gather element, with the local key in force when the hold began.
    #[must_use]
    #[inline]
    pub fn sge(&self) -> Sge {
        if self.sge.length != 0 {
            return self.sge;
        }
        // SAFETY: REGION-3 by HOLD-1: this is a hold, and it keeps the region alive.
        element(unsafe { Part::whole(self.word.region()) })
    }

    /// Makes [`as_sges`](Self::as_sges) right, if it was a `wr_id` in between.
    #[inline]
    pub(super) fn complete_sge(&mut self) {
        if self.sge.length == 0 {
            self.look_up_sge();
        }
    }

    #[cold]
    fn look_up_sge(&mut self) {
        self.sge = self.sge();
    }

    #[inline]
    pub(super) fn as_sges(&self) -> &[Sge] {
        std::slice::from_ref(&self.sge)
    }

    /// [`Holder::NicRead`] or [`Holder::NicWrite`].
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.word.holder()
    }

    #[inline]
    pub(super) fn word(&self) -> &HoldWord {
        &self.word
    }

    /// The hold as a number to post as `wr_id`: nothing else is needed to release it. Free of cost.
    /// Until [`from_wr_id`](Self::from_wr_id) the region stays held.
    #[must_use = "only this number releases the hold"]
    #[inline]
    pub fn into_wr_id(self) -> u64 {
        ManuallyDrop::new(self).word.to_bits()
    }

    /// The hold that was made this number. Its [`sge`](Self::sge) is that of the whole region. Free of
    /// cost.
    ///
    /// # Safety
    /// - **WRID-1**: `wr_id` came from [`into_wr_id`](Self::into_wr_id) in this process.
    /// - **WRID-2**: it is turned back once: not for a second completion of the same work request.
    /// - **WRID-3**: the work request is over (rule R11): its completion, or a later one of the same
    ///   send queue, was polled, the post failed, or the queue pair was destroyed.
    #[inline]
    pub unsafe fn from_wr_id(wr_id: u64) -> Self {
        // HOLD-1 by WRID-1 and WRID-2: it was a hold, and is one again.
        Hold {
            word: HoldWord(wr_id),
            sge: Sge::default(),
        }
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: HOLD-2 by HOLD-1: this is the hold.
        unsafe { self.word.release() }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("holder", &self.holder())
            .field("sge", &self.sge())
            .finish()
    }
}

/// The part as a scatter/gather element, with the local key in force.
#[inline]
pub(super) fn element(part: Part<'_>) -> Sge {
    let (lkey, _) = part.region().registration.inner().keys();
    Sge {
        addr: part.addr.as_ptr() as u64,
        length: length_of_sge(part).unwrap_or(u32::MAX),
        lkey,
    }
}

#[inline]
fn length_of_sge(part: Part<'_>) -> Result<u32> {
    u32::try_from(part.length).map_err(|_| Error::InvalidWorkRequest {
        reason: "a scatter/gather element is shorter than 4 GiB: hold a slice of the region",
    })
}

#[inline]
pub(super) fn checked<T: LocalMrReadAccess + ?Sized>(mr: &T, holder: Holder) -> Result<Part<'_>> {
    if holder == Holder::NicWrite {
        mr.access().require(Access::LOCAL_WRITE)?;
    }
    length_of_sge(mr.part())?;
    Ok(mr.part())
}

/// Beginning an operation of the NIC on a region, a slice or a part: in the forms of R18.
///
/// `begin_read`: the NIC will read the bytes (SEND, the source of a WRITE); any number at a time,
/// beside readers. `begin_write`: the NIC will write them (RECV, READ, the result of an atomic); one
/// at a time, and nobody beside it.
///
/// All of them fail with [`Error::Closed`] after [`shutdown`](crate::LocalMr::shutdown), with
/// [`Error::MissingRight`] if the NIC shall write and the region lacks LOCAL_WRITE, and with
/// [`Error::InvalidWorkRequest`] over 4 GiB or more. One RMW if nobody is in the way.
///
/// # Panics
/// With 2²⁷ operations that read one region at a time.
pub trait Begin: LocalMrReadAccess {
    /// Holds the bytes for an operation that reads them. Blocks the thread while they are written.
    ///
    /// # Errors
    /// See the trait.
    fn begin_read(&self) -> Result<Hold> {
        begin(self, Holder::NicRead, None)
    }

    /// As [`begin_read`](Self::begin_read). Never waits.
    ///
    /// # Errors
    /// [`Error::Held`] with who has them, and see the trait.
    fn try_begin_read(&self) -> Result<Hold> {
        try_begin(self, Holder::NicRead)
    }

    /// As [`begin_read`](Self::begin_read), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`] with who has them, and see the trait.
    fn begin_read_until(&self, deadline: Instant) -> Result<Hold> {
        begin(self, Holder::NicRead, Some(deadline))
    }

    /// As [`begin_read`](Self::begin_read), calling `progress` over and over while they are written.
    ///
    /// # Errors
    /// See the trait.
    fn begin_read_with(&self, progress: impl FnMut()) -> Result<Hold>
    where
        Self: Sized,
    {
        begin_with(self, Holder::NicRead, progress)
    }

    /// As [`begin_read`](Self::begin_read), as a future. Needs no runtime.
    fn begin_read_async(&self) -> HoldFuture<'_> {
        HoldFuture::new(self, Holder::NicRead)
    }

    /// Holds the bytes for an operation that writes them. Blocks the thread while anybody has them.
    ///
    /// # Errors
    /// See the trait.
    fn begin_write(&self) -> Result<Hold> {
        begin(self, Holder::NicWrite, None)
    }

    /// As [`begin_write`](Self::begin_write). Never waits.
    ///
    /// # Errors
    /// [`Error::Held`] with who has them, and see the trait.
    fn try_begin_write(&self) -> Result<Hold> {
        try_begin(self, Holder::NicWrite)
    }

    /// As [`begin_write`](Self::begin_write), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`] with who has them, and see the trait.
    fn begin_write_until(&self, deadline: Instant) -> Result<Hold> {
        begin(self, Holder::NicWrite, Some(deadline))
    }

    /// As [`begin_write`](Self::begin_write), calling `progress` over and over while anybody has
    /// them.
    ///
    /// # Errors
    /// See the trait.
    fn begin_write_with(&self, progress: impl FnMut()) -> Result<Hold>
    where
        Self: Sized,
    {
        begin_with(self, Holder::NicWrite, progress)
    }

    /// As [`begin_write`](Self::begin_write), as a future. Needs no runtime.
    fn begin_write_async(&self) -> HoldFuture<'_> {
        HoldFuture::new(self, Holder::NicWrite)
    }
}

impl<T: LocalMrReadAccess + ?Sized> Begin for T {}

#[inline]
fn try_begin<T: LocalMrReadAccess + ?Sized>(mr: &T, holder: Holder) -> Result<Hold> {
    let part = checked(mr, holder)?;
    if !part.gate().try_enter(holder) {
        return Err(part.gate().refusal(holder));
    }
    // SAFETY: HOLD-1: entered just now.
    Ok(unsafe { Hold::new(part, holder) })
}

#[inline]
fn begin<T: LocalMrReadAccess + ?Sized>(
    mr: &T,
    holder: Holder,
    deadline: Option<Instant>,
) -> Result<Hold> {
    let part = checked(mr, holder)?;
    part.gate().enter(holder, deadline)?;
    // SAFETY: HOLD-1: entered just now.
    Ok(unsafe { Hold::new(part, holder) })
}

fn begin_with<T: LocalMrReadAccess + ?Sized>(
    mr: &T,
    holder: Holder,
    progress: impl FnMut(),
) -> Result<Hold> {
    let part = checked(mr, holder)?;
    part.gate().enter_with(holder, progress)?;
    // SAFETY: HOLD-1: entered just now.
    Ok(unsafe { Hold::new(part, holder) })
}

/// The future of [`begin_read_async`](Begin::begin_read_async) and
/// [`begin_write_async`](Begin::begin_write_async). Dropping or forgetting it abandons the wish and
/// nothing else.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct HoldFuture<'a> {
    /// What is waited for, or why not; the reason is taken when it has been told.
    acquire: Result<Acquire<'a>, Option<Error>>,
    part: Part<'a>,
    holder: Holder,
}

impl<'a> HoldFuture<'a> {
    fn new<T: LocalMrReadAccess + ?Sized>(mr: &'a T, holder: Holder) -> Self {
        HoldFuture {
            acquire: match checked(mr, holder) {
                Ok(part) => Ok(part.gate().acquire_async(holder)),
                Err(error) => Err(Some(error)),
            },
            part: mr.part(),
            holder,
        }
    }
}

impl Future for HoldFuture<'_> {
    type Output = Result<Hold>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (part, holder) = (self.part, self.holder);
        match &mut self.acquire {
            Ok(acquire) => acquire.poll_enter(cx).map(|entered| {
                entered?;
                // SAFETY: HOLD-1: entered just now.
                Ok(unsafe { Hold::new(part, holder) })
            }),
            Err(refused) => Poll::Ready(Err(refused.take().expect("polled after completion"))),
        }
    }
}
