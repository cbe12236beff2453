//! How a lease begins, in the forms of R18.

use std::ops::RangeBounds;
use std::time::{Duration, Instant, SystemTime};

use super::Lease;
use crate::error::{Error, Result};
use crate::gate::Holder;
use crate::mr::{MrAccess, MrToken, Part};
use crate::op::{Hold, HoldFuture, begin_part, begin_part_with, require, try_begin_part};
use crate::registration::Access;
use crate::sync::{now, unblock};

/// Lending bytes of a region, a slice or a part to peers: in the forms of R18.
///
/// `range` counts from the start of what it is called on; `access` are the peers' rights:
/// [`REMOTE_READ`](Access::REMOTE_READ), [`REMOTE_WRITE`](Access::REMOTE_WRITE),
/// [`REMOTE_ATOMIC`](Access::REMOTE_ATOMIC), or several of them; `ttl` is how long the lease lasts at
/// most, from when it is granted (see [`reap`](super::reap)). The region's own rights need not contain
/// them.
///
/// All of them fail with [`Error::RangeOutside`], [`Error::EmptyRange`]; [`Error::NothingLent`] if
/// `access` has no right for peers; [`Error::MissingRight`] if peers may write and the region lacks
/// LOCAL_WRITE; [`Error::DeadlineOverflow`]; [`Error::Closed`] after
/// [`shutdown`](crate::LocalMr::shutdown); [`Error::Register`] with what the provider said. Nothing is
/// held and nothing registered then.
///
/// Costs a hold (2 RMWs on the region's line), a registration (`ibv_reg_mr`, which blocks in the kernel),
/// and 3 allocations.
pub trait Lend: MrAccess {
    /// Lends the bytes. Blocks the thread while the region is held otherwise.
    ///
    /// # Errors
    /// See the trait.
    fn lease(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
        ttl: Duration,
    ) -> Result<Lease> {
        let terms = Terms::new(self.part(), range, access, ttl)?;
        terms
            .offer
            .sign(begin_part(terms.part, terms.holder(), None)?)
    }

    /// As [`lease`](Self::lease). Does not wait for the region; blocks in the kernel.
    ///
    /// # Errors
    /// [`Error::Held`] with who has it, and see the trait.
    fn try_lease(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
        ttl: Duration,
    ) -> Result<Lease> {
        let terms = Terms::new(self.part(), range, access, ttl)?;
        terms
            .offer
            .sign(try_begin_part(terms.part, terms.holder())?)
    }

    /// As [`lease`](Self::lease), waiting for the region at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`] with who has it, and see the trait.
    fn lease_until(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Lease> {
        let terms = Terms::new(self.part(), range, access, ttl)?;
        let hold = begin_part(terms.part, terms.holder(), Some(deadline))?;
        terms.offer.sign(hold)
    }

    /// As [`lease`](Self::lease), calling `progress` over and over while the region is held otherwise.
    ///
    /// # Errors
    /// See the trait.
    fn lease_with(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
        ttl: Duration,
        progress: impl FnMut(),
    ) -> Result<Lease> {
        let terms = Terms::new(self.part(), range, access, ttl)?;
        let hold = begin_part_with(terms.part, terms.holder(), progress)?;
        terms.offer.sign(hold)
    }

    /// As [`lease`](Self::lease), as a future. Needs no runtime; registers on a thread that may block (of
    /// the `blocking` crate's pool). Dropped, it lends nothing.
    ///
    /// # Errors
    /// See the trait.
    fn lease_async(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
        ttl: Duration,
    ) -> impl Future<Output = Result<Lease>> + Send {
        let terms = Terms::new(self.part(), range, access, ttl);
        async move {
            let terms = terms?;
            let hold = HoldFuture::new(terms.part, terms.holder(), None).await?;
            unblock(move || terms.offer.sign(hold)).await
        }
    }
}

impl<T: MrAccess + ?Sized> Lend for T {}

/// What is asked for, as far as it could be checked.
#[derive(Clone, Copy)]
struct Terms<'a> {
    part: Part<'a>,
    offer: Offer,
}

/// What a hold on the region is turned into.
#[derive(Clone, Copy)]
struct Offer {
    /// In bytes from the start of the region.
    start: usize,
    length: usize,
    rights: Access,
    ttl: Duration,
}

impl<'a> Terms<'a> {
    fn new(
        part: Part<'a>,
        range: impl RangeBounds<usize>,
        access: Access,
        ttl: Duration,
    ) -> Result<Self> {
        let rights = access & Access::REMOTE;
        if rights.is_empty() {
            return Err(Error::NothingLent { access });
        }
        let bytes = part.slice(range)?;
        let offer = Offer {
            start: bytes.addr.as_ptr() as usize - part.region().addr.as_ptr() as usize,
            length: bytes.length,
            rights,
            ttl,
        };
        let terms = Terms { part, offer };
        require(
            part.region().registration().inner().access(),
            terms.holder(),
        )?;
        Ok(terms)
    }

    fn holder(&self) -> Holder {
        match self.offer.rights.lets_peers_write() {
            true => Holder::NicWrite,
            false => Holder::NicRead,
        }
    }
}

impl Offer {
    /// Registers the bytes of the region that is held.
    fn sign(self, hold: Hold) -> Result<Lease> {
        let mut access = self.rights;
        // What every provider demands.
        access.set(Access::LOCAL_WRITE, access.lets_peers_write());
        let part = hold.region();
        let part = part.slice(self.start..self.start + self.length)?;
        let expires = now().checked_add(self.ttl);
        let deadline = SystemTime::now().checked_add(self.ttl);
        let (Some(expires), Some(deadline)) = (expires, deadline) else {
            return Err(Error::DeadlineOverflow);
        };
        let registration = part.region().registration();
        // SAFETY: REG-4: the hold keeps the memory registered, hence allocated; it is given back when
        // the handle has deregistered (LEASE-1), and until then here.
        let registered = unsafe { registration.register(part.addr, part.length, access) }?;
        let token = MrToken::new(part, registered.rkey, self.rights, deadline);
        Ok(Lease::new(hold, registered, token, expires))
    }
}
