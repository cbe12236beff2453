//! The hold of an operation: `'static`, counted in the region's word, released by the completion.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::error::{Error, Result};
use crate::gate::{Holder, Kind};
use crate::mr::{Part, RegionRef};
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

/// A hold as one number: the address of the region, and in its lowest bits how it is counted.
#[derive(Clone, Copy)]
pub struct HoldWord(u64);

impl HoldWord {
    const WRITE: u64 = Kind::NicWrite as u64;
    const NEW_READ: u64 = Kind::NewRead as u64;
    const KIND: u64 = Self::WRITE | Self::NEW_READ;
    /// No hold.
    pub(super) const NONE: HoldWord = HoldWord(0);
    /// Bits that are always zero, for the marks of who keeps it.
    pub(super) const SPARE: u64 = 0b11_1110;

    #[inline]
    pub(super) fn new(region: RegionRef, kind: Kind) -> Self {
        const { assert!(RegionRef::ALIGN as u64 > Self::KIND | Self::SPARE) };
        HoldWord(region.to_bits() as u64 | kind as u64)
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

    /// The address of the region's gate; the region need not live.
    pub(super) fn gate(self) -> usize {
        (self.0 & !Self::KIND) as usize + RegionRef::GATE
    }

    /// # Safety
    /// - **HOLD-2**: the caller owns the hold, so that the region lives.
    unsafe fn region(self) -> RegionRef {
        // SAFETY: REGION-2 by HOLD-2.
        unsafe { RegionRef::from_bits((self.0 & !Self::KIND) as usize) }
    }

    /// Gives a hold back that is for nothing: other rights were put in force while it was waited for.
    ///
    /// # Safety
    /// - **HOLD-2**, and the hold is the caller's no more.
    #[cold]
    unsafe fn refuse(self, access: Access) -> Error {
        // SAFETY: HOLD-2, as required of the caller.
        unsafe { self.release() };
        Error::MissingRight {
            needed: Access::LOCAL_WRITE,
            access,
        }
    }

    /// The whole region.
    ///
    /// # Safety
    /// - **HOLD-2** for `'a`.
    pub(super) unsafe fn whole<'a>(self) -> Part<'a> {
        // SAFETY: REGION-3 by HOLD-2: the hold keeps the region alive, and as it is.
        unsafe { Part::whole(self.region()) }
    }

    /// The whole region as a scatter/gather element.
    ///
    /// # Safety
    /// - **HOLD-2**.
    #[cold]
    unsafe fn element(self) -> Sge {
        // SAFETY: HOLD-2, as required of the caller.
        let part = unsafe { self.whole() };
        let (lkey, _) = part.region().registration().inner().local();
        element_with(part, lkey)
    }

    /// As [`element`](Self::element), as address and the rest: in registers, lest that of a hold which has one is kept
    /// in memory for it.
    ///
    /// # Safety
    /// - **HOLD-2**.
    #[cold]
    unsafe fn packed_element(self) -> (u64, u64) {
        // SAFETY: HOLD-2, as required of the caller.
        let Sge { addr, length, lkey } = unsafe { self.element() };
        (addr, u64::from(lkey) << 32 | u64::from(length))
    }

    /// Gives the hold back.
    ///
    /// # Safety
    /// - **HOLD-2**, and the hold is the caller's no more.
    #[inline]
    pub(super) unsafe fn release(self) {
        // SAFETY: HOLD-2, as required of the caller.
        let region = unsafe { self.region() };
        let kind = match self.0 & Self::KIND {
            Self::WRITE => {
                // SAFETY: REGION-6 by HOLD-2.
                return unsafe { region.release(Kind::NicWrite) };
            }
            0 => Kind::NicRead,
            Self::NEW_READ => Kind::NewRead,
            _ => Kind::SharedWrite,
        };
        // SAFETY: REGION-6 by HOLD-2.
        unsafe { region.release(kind) }
    }
}

impl Hold {
    /// # Safety
    /// - **HOLD-1**: the caller has entered the part's gate as that; the hold takes that over.
    #[inline]
    pub(super) unsafe fn new(part: Part<'_>, holder: Holder, kind: Kind) -> Result<Self> {
        // Now that it has been entered, the key is not retired before the hold is released.
        let (lkey, access) = part.region().registration().inner().local();
        let word = HoldWord::new(part.region, kind);
        if holder == Holder::NicWrite && !access.contains(Access::LOCAL_WRITE) {
            // SAFETY: HOLD-2 by HOLD-1.
            return Err(unsafe { word.refuse(access) });
        }
        Ok(Hold {
            word,
            sge: element_with(part, lkey),
        })
    }

    /// For an operation that writes bytes of a shared region, which it enters. What a part is made of by itself,
    /// lest those of all regions are kept in memory for it.
    ///
    /// # Errors
    /// Those of [`Begin`](super::Begin).
    #[cold]
    pub(super) fn of_shared(region: RegionRef, addr: NonNull<u8>, length: usize) -> Result<Self> {
        let part = Part {
            region,
            addr,
            length,
            handle: PhantomData,
        };
        let kind = part.enter_shared()?;
        // SAFETY: HOLD-1: entered just now.
        unsafe { Self::new(part, Holder::NicWrite, kind) }
    }

    /// The bytes as a scatter/gather element, with the local key in force when the hold began.
    #[must_use]
    #[inline]
    pub fn sge(&self) -> Sge {
        if self.sge.length != 0 {
            return self.sge;
        }
        // SAFETY: HOLD-2 by HOLD-1: this is the hold.
        let (addr, rest) = unsafe { self.word.packed_element() };
        Sge {
            addr,
            length: rest as u32,
            lkey: (rest >> 32) as u32,
        }
    }

    /// Makes [`as_sges`](Self::as_sges) right, if it was a `wr_id` in between.
    #[inline]
    pub(super) fn complete_sge(&mut self) {
        if self.sge.length == 0 {
            // SAFETY: HOLD-2 by HOLD-1: this is the hold.
            self.sge = unsafe { self.word.element() };
        }
    }

    #[inline]
    pub(super) fn as_sges(&self) -> &[Sge] {
        std::slice::from_ref(&self.sge)
    }

    /// The whole region that it is a hold on.
    pub(crate) fn region(&self) -> Part<'_> {
        // SAFETY: HOLD-2 by HOLD-1: this is the hold.
        unsafe { self.word.whole() }
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

/// The part as a scatter/gather element with the local key in force, if the rights that it comes with
/// are enough: others may have been put in force while the gate was waited for.
#[inline]
pub(super) fn element_for(part: Part<'_>, holder: Holder) -> Result<Sge> {
    let (lkey, access) = part.region().registration().inner().local();
    require(access, holder)?;
    Ok(element_with(part, lkey))
}

#[inline]
fn element_with(part: Part<'_>, lkey: u32) -> Sge {
    Sge {
        addr: part.addr.as_ptr() as u64,
        length: length_of_sge(part).unwrap_or(u32::MAX),
        lkey,
    }
}

#[inline]
pub(crate) fn require(access: Access, holder: Holder) -> Result<()> {
    match holder {
        Holder::NicWrite => access.require(Access::LOCAL_WRITE),
        _ => Ok(()),
    }
}

#[inline]
pub(super) fn length_of_sge(part: Part<'_>) -> Result<u32> {
    u32::try_from(part.length).map_err(|_| Error::InvalidWorkRequest {
        reason: "a scatter/gather element is shorter than 4 GiB: hold a slice of the region",
    })
}
