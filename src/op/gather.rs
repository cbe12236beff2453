//! Holds over several regions for one work request: its scatter/gather list.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::Hold;
use super::begin::{checked, try_enter};
use super::hold::{HoldWord, element_for};
use crate::error::{Error, Result};
use crate::gate::{Acquire, Gate, Holder, Kind};
use crate::mr::{MrAccess, Part};
use crate::work::Sge;

mod sealed {
    use super::{HoldWord, Holder};

    /// What a ring has to know of holds.
    pub trait Words {
        /// Each region once.
        fn words(&self) -> &[HoldWord];
        /// `None`: no bytes.
        fn kind(&self) -> Option<Holder>;
        /// Before its scatter/gather elements are used.
        fn refresh(&mut self) {}
    }
}
pub(super) use sealed::Words;

/// The holds of one work request: a [`Hold`], [`Holds`] over several regions, or `()` for one without
/// bytes. Sealed.
pub trait Holding: sealed::Words {
    /// The scatter/gather list, in the order in which it was asked for.
    fn sges(&self) -> &[Sge];
}

impl sealed::Words for Hold {
    #[inline]
    fn words(&self) -> &[HoldWord] {
        std::slice::from_ref(self.word())
    }

    #[inline]
    fn kind(&self) -> Option<Holder> {
        Some(self.holder())
    }

    #[inline]
    fn refresh(&mut self) {
        self.complete_sge();
    }
}

impl Holding for Hold {
    #[inline]
    fn sges(&self) -> &[Sge] {
        self.as_sges()
    }
}

impl sealed::Words for () {
    fn words(&self) -> &[HoldWord] {
        &[]
    }

    fn kind(&self) -> Option<Holder> {
        None
    }
}

impl Holding for () {
    fn sges(&self) -> &[Sge] {
        &[]
    }
}

/// Refuses holds of the wrong kind.
#[inline]
pub(super) fn check_kind(holds: &impl Holding, needs: Holder) -> Result<()> {
    if holds.kind().is_none_or(|kind| kind == needs) {
        return Ok(());
    }
    let reason = match needs {
        Holder::NicWrite => "the NIC writes these bytes: hold them with begin_write",
        _ => "the NIC reads these bytes: hold them with begin_read",
    };
    Err(Error::InvalidWorkRequest { reason })
}

/// Up to `N` regions, or bytes of them, held for one operation of the NIC: each region once, however
/// many of its ranges are in the list. Made by [`Gather`]. Dropping it gives all of them back; what is
/// said of [`Hold`] holds here too. No allocation.
#[must_use = "holds that are dropped at once hold nothing"]
pub struct Holds<const N: usize> {
    words: [HoldWord; N],
    count: usize,
    sges: [Sge; N],
}

impl<const N: usize> Holds<N> {
    /// The scatter/gather list, with the local keys in force when the holds began.
    #[must_use]
    pub fn sges(&self) -> &[Sge] {
        &self.sges
    }
}

impl<const N: usize> sealed::Words for Holds<N> {
    fn words(&self) -> &[HoldWord] {
        &self.words[..self.count]
    }

    fn kind(&self) -> Option<Holder> {
        self.words().first().map(|word| word.holder())
    }
}

impl<const N: usize> Holding for Holds<N> {
    fn sges(&self) -> &[Sge] {
        &self.sges
    }
}

impl<const N: usize> Drop for Holds<N> {
    fn drop(&mut self) {
        while let Some(last) = self.count.checked_sub(1) {
            self.count = last;
            // SAFETY: HOLD-2 by HOLD-1: `Gather` entered this gate, and it is counted no more.
            unsafe { self.words[last].release() };
        }
    }
}

impl<const N: usize> fmt::Debug for Holds<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holds")
            .field("holder", &self.kind())
            .field("regions", &self.count)
            .field("sges", &self.sges)
            .finish()
    }
}

/// Regions, slices and parts whose bytes are to be one scatter/gather list, in this order.
///
/// Their gates are entered in the order of their addresses, each once: two lists that are begun at
/// the same time don't wait for each other in a ring, and two ranges of one region are no conflict.
/// A list of `N` costs up to `N` RMWs to begin and as many to end, and no allocation. The forms are
/// those of [`Begin`](super::Begin), with its errors; if one fails, nothing is held.
///
/// ```
/// use rdma_mr::op::Gather;
/// use rdma_mr::{LocalMr, LocalMrReadAccess, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let (header, body) = (LocalMr::alloc(&pd, 64)?, LocalMr::alloc(&pd, 4096)?);
/// let (ping, pong) = (body.get(..100)?, body.get(200..300)?);
/// let holds = Gather::new([&header, &pong, &ping]).begin_write()?;
/// assert_eq!(holds.sges().iter().map(|sge| sge.length).sum::<u32>(), 64 + 100 + 100);
/// assert!(header.try_as_slice().is_none() && body.try_as_slice().is_none());
/// drop(holds);
/// assert!(body.try_as_slice().is_some());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Gather<'a, const N: usize> {
    mrs: [&'a dyn MrAccess; N],
    /// Places in `mrs`, by the address of the gate.
    order: [usize; N],
}

impl<'a, const N: usize> Gather<'a, N> {
    /// The list of these.
    #[must_use]
    pub fn new(mrs: [&'a dyn MrAccess; N]) -> Self {
        let mut order = std::array::from_fn(|at| at);
        order.sort_unstable_by_key(|at| std::ptr::from_ref(mrs[*at].part().gate()) as usize);
        Gather { mrs, order }
    }

    /// Holds all of them for an operation that reads. Blocks the thread while one is written.
    ///
    /// # Errors
    /// As for [`Begin::begin_read`](super::Begin::begin_read).
    pub fn begin_read(&self) -> Result<Holds<N>> {
        self.enter(Holder::NicRead, |gate, holder| gate.enter(holder, None))
    }

    /// As [`begin_read`](Self::begin_read). Never waits.
    ///
    /// # Errors
    /// As for [`Begin::try_begin_read`](super::Begin::try_begin_read).
    pub fn try_begin_read(&self) -> Result<Holds<N>> {
        self.enter(Holder::NicRead, try_enter)
    }

    /// As [`begin_read`](Self::begin_read), at most until `deadline`.
    ///
    /// # Errors
    /// As for [`Begin::begin_read_until`](super::Begin::begin_read_until).
    pub fn begin_read_until(&self, deadline: Instant) -> Result<Holds<N>> {
        self.enter(Holder::NicRead, |gate, holder| {
            gate.enter(holder, Some(deadline))
        })
    }

    /// As [`begin_read`](Self::begin_read), calling `progress` over and over while one is written.
    ///
    /// # Errors
    /// As for [`Begin::begin_read_with`](super::Begin::begin_read_with).
    pub fn begin_read_with(&self, mut progress: impl FnMut()) -> Result<Holds<N>> {
        self.enter(Holder::NicRead, |gate, holder| {
            gate.enter_with(holder, &mut progress)
        })
    }

    /// As [`begin_read`](Self::begin_read), as a future. Needs no runtime.
    pub fn begin_read_async(self) -> GatherFuture<'a, N> {
        GatherFuture::new(self, Holder::NicRead)
    }

    /// Holds all of them for an operation that writes. Blocks the thread while anybody has one.
    ///
    /// # Errors
    /// As for [`Begin::begin_write`](super::Begin::begin_write).
    pub fn begin_write(&self) -> Result<Holds<N>> {
        self.enter(Holder::NicWrite, |gate, holder| gate.enter(holder, None))
    }

    /// As [`begin_write`](Self::begin_write). Never waits.
    ///
    /// # Errors
    /// As for [`Begin::try_begin_write`](super::Begin::try_begin_write).
    pub fn try_begin_write(&self) -> Result<Holds<N>> {
        self.enter(Holder::NicWrite, try_enter)
    }

    /// As [`begin_write`](Self::begin_write), at most until `deadline`.
    ///
    /// # Errors
    /// As for [`Begin::begin_write_until`](super::Begin::begin_write_until).
    pub fn begin_write_until(&self, deadline: Instant) -> Result<Holds<N>> {
        self.enter(Holder::NicWrite, |gate, holder| {
            gate.enter(holder, Some(deadline))
        })
    }

    /// As [`begin_write`](Self::begin_write), calling `progress` over and over while anybody has one.
    ///
    /// # Errors
    /// As for [`Begin::begin_write_with`](super::Begin::begin_write_with).
    pub fn begin_write_with(&self, mut progress: impl FnMut()) -> Result<Holds<N>> {
        self.enter(Holder::NicWrite, |gate, holder| {
            gate.enter_with(holder, &mut progress)
        })
    }

    /// As [`begin_write`](Self::begin_write), as a future. Needs no runtime.
    pub fn begin_write_async(self) -> GatherFuture<'a, N> {
        GatherFuture::new(self, Holder::NicWrite)
    }

    /// The part whose gate is the `n`th to be entered; `None` if it is the one before it.
    fn nth(&self, n: usize) -> Option<Part<'a>> {
        let part = self.mrs[self.order[n]].part();
        let before = n.checked_sub(1).map(|n| self.mrs[self.order[n]].part());
        (before.map(|before| before.region) != Some(part.region)).then_some(part)
    }

    /// None held yet; fails if the NIC may not do that with them.
    fn start(&self, holder: Holder) -> Result<Holds<N>> {
        let holds = Holds {
            words: [HoldWord::NONE; N],
            count: 0,
            sges: [Sge::default(); N],
        };
        for mr in self.mrs {
            checked(mr, holder)?;
        }
        Ok(holds)
    }

    fn enter(
        &self,
        holder: Holder,
        mut enter: impl FnMut(&Gate, Holder) -> Result<Kind>,
    ) -> Result<Holds<N>> {
        let mut holds = self.start(holder)?;
        for part in (0..N).filter_map(|n| self.nth(n)) {
            let kind = part.enter(holder, |gate| enter(gate, holder))?;
            holds.entered(part, kind);
        }
        self.keys_of_now(&mut holds, holder)?;
        Ok(holds)
    }

    /// The keys in force when the last hold began.
    fn keys_of_now(&self, holds: &mut Holds<N>, holder: Holder) -> Result<()> {
        for (sge, mr) in holds.sges.iter_mut().zip(self.mrs) {
            *sge = element_for(mr.part(), holder)?;
        }
        Ok(())
    }
}

impl<const N: usize> Holds<N> {
    /// Takes over that `part`'s gate has been entered.
    fn entered(&mut self, part: Part<'_>, kind: Kind) {
        self.words[self.count] = HoldWord::new(part.region, kind);
        self.count += 1;
    }
}

impl<const N: usize> fmt::Debug for Gather<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.mrs.iter().map(|mr| (mr.addr(), mr.length()));
        f.debug_list().entries(parts).finish()
    }
}

/// The future of [`Gather::begin_read_async`] and [`Gather::begin_write_async`]. Dropping it gives back
/// what it has got; forgetting it keeps that held.
#[must_use = "futures do nothing unless polled"]
pub struct GatherFuture<'a, const N: usize> {
    gather: Gather<'a, N>,
    holder: Holder,
    /// What is held so far, or why not; taken when it has been told.
    holds: Option<Result<Holds<N>>>,
    /// Which gate comes next.
    next: usize,
    acquire: Option<Acquire<'a>>,
}

impl<'a, const N: usize> GatherFuture<'a, N> {
    fn new(gather: Gather<'a, N>, holder: Holder) -> Self {
        GatherFuture {
            holds: Some(gather.start(holder)),
            gather,
            holder,
            next: 0,
            acquire: None,
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(Ok(holds)) = &mut self.holds else {
            return Poll::Ready(Ok(()));
        };
        while self.next < N {
            if let Some(part) = self.gather.nth(self.next) {
                let acquire = || part.gate().acquire_async(part.counts(self.holder));
                let acquire = self.acquire.get_or_insert_with(acquire);
                let entered = ready!(acquire.poll_enter(cx));
                self.acquire = None;
                holds.entered(part, part.told(self.holder, entered?));
            }
            self.next += 1;
        }
        Poll::Ready(self.gather.keys_of_now(holds, self.holder))
    }
}

impl<const N: usize> Future for GatherFuture<'_, N> {
    type Output = Result<Holds<N>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let entered = ready!(self.poll_all(cx));
        let holds = self.holds.take().expect("polled after completion");
        Poll::Ready(entered.and(holds))
    }
}

impl<const N: usize> fmt::Debug for GatherFuture<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherFuture")
            .field("gather", &self.gather)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}
