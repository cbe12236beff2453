//! A work request between prepare and commit (rule R10).

use std::fmt;
use std::mem::ManuallyDrop;
use std::pin::Pin;

use super::ticket::Ticket;
use crate::op::Poster;
use crate::op::gather::Holding;
use crate::op::number::OpId;
use crate::work::Sge;

/// What a work request that was not posted is given back to. Sealed.
pub trait Take {
    /// The latest one, or any one of those whose completions come in any order. Nobody touches its
    /// ticket any more.
    fn take_back(&mut self, id: OpId, ticket: Option<Pin<&Ticket>>);
}

/// A work request that is about to be posted. Dropped, it is taken back, and the holds are released
/// (rule R10).
#[must_use = "dropping it takes the work request back"]
pub struct Prepared<'p, H: Holding, P: Take = Poster> {
    poster: &'p mut P,
    holds: ManuallyDrop<H>,
    id: OpId,
    inline: bool,
    /// Found in the slot until this is taken back.
    ticket: Option<Pin<&'p Ticket>>,
}

impl<'p, H: Holding, P: Take> Prepared<'p, H, P> {
    #[inline]
    pub(in crate::op) fn new(
        poster: &'p mut P,
        holds: H,
        id: OpId,
        inline: bool,
        ticket: Option<Pin<&'p Ticket>>,
    ) -> Self {
        Prepared {
            poster,
            holds: ManuallyDrop::new(holds),
            id,
            inline,
            ticket,
        }
    }

    /// The operation's name.
    #[must_use]
    #[inline]
    pub fn id(&self) -> OpId {
        self.id
    }

    /// The work request's `wr_id`.
    #[must_use]
    #[inline]
    pub fn wr_id(&self) -> u64 {
        self.id.wr_id()
    }

    /// The work request's scatter/gather list.
    #[must_use]
    #[inline]
    pub fn sges(&self) -> &[Sge] {
        self.holds.sges()
    }

    /// It was posted: the holds are kept until it is over, or released if it is inline.
    #[inline]
    pub fn commit(self) -> OpId {
        let mut prepared = ManuallyDrop::new(self);
        if prepared.inline {
            // SAFETY: PREPARED-1: `prepared` is not dropped.
            unsafe { ManuallyDrop::drop(&mut prepared.holds) };
        }
        prepared.id
    }

    /// It was not posted: gives the holds back.
    pub fn take_back(self) -> H {
        let mut prepared = ManuallyDrop::new(self);
        let (id, ticket) = (prepared.id, prepared.ticket);
        prepared.poster.take_back(id, ticket);
        // SAFETY: PREPARED-1: `prepared` is not dropped.
        unsafe { ManuallyDrop::take(&mut prepared.holds) }
    }
}

impl<H: Holding, P: Take> Drop for Prepared<'_, H, P> {
    fn drop(&mut self) {
        self.poster.take_back(self.id, self.ticket);
        // SAFETY: PREPARED-1: this is the drop.
        unsafe { ManuallyDrop::drop(&mut self.holds) };
    }
}

impl<H: Holding, P: Take> fmt::Debug for Prepared<'_, H, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared").field(&self.id()).finish()
    }
}
