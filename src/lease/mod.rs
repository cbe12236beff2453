//! Bytes lent to peers: rights that end when this side says so (rules R4, R5).
//!
//! A lease is an operation in flight that the peer carries out: it holds the region from the grant to the
//! end of its registration. [`Lend`] is how one begins, [`Lease`] what is had then, [`reap`] and
//! [`Reaper`] what ends those whose time has come.

mod lend;
mod reaper;

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Instant;

pub use lend::Lend;
pub use reaper::{Lent, Reaped, Reaper, lent, reap};

use crate::counts;
use crate::error::{Error, Result};
use crate::gate::Locked;
use crate::mr::MrToken;
use crate::op::Hold;
use crate::registration::{Deregister, Registered};
use crate::sync::unblock;
use crate::trace;

/// Some bytes of a region, lent to peers: a registration of its own over exactly these bytes, with its own
/// remote key and the rights that were asked for. `'static`: it keeps the memory registered, also when
/// the region's handle is dropped meanwhile.
///
/// While it lasts the region is held as by an operation of the NIC: as one that reads if peers may only
/// READ, as one that writes if they may WRITE or use atomics. So `as_slice` waits while peers may
/// write, and sees what they wrote once the lease is over (a [`SharedMr`](crate::SharedMr) is only kept
/// registered). It counts as an operation in [`retire`](crate::LocalMr::retire), too.
///
/// Only the end of the registration takes the bytes back: [`revoke`](Self::revoke), the drop of the
/// lease, or [`reap`] once its time has passed. Nothing that a peer does or leaves undone, no deadline that
/// nobody looks at and no token that is dropped ends it. Forgotten, it lasts until it is reaped.
///
/// The key is the NIC's to choose: a device uses each again after some hundred thousand registrations
/// (soft-RoCE after 525,279), so a peer that keeps an old token for that long may hit somebody else's
/// lease, within that one's rights. A queue pair per peer, in a protection domain of its own, is
/// what keeps peers apart for good.
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::prelude::*;
/// use rdma_mr::work::{QpCaps, WcStatus};
/// use rdma_mr::RemoteMr;
///
/// # let nic = Nic::new();
/// # let pd = nic.alloc_pd();
/// # let (cq_a, cq_b) = (nic.create_cq(128)?, nic.create_cq(128)?);
/// # let a = pd.create_qp(&cq_a, &cq_a, QpCaps::default())?;
/// # let b = pd.create_qp(&cq_b, &cq_b, QpCaps::default())?;
/// # QueuePair::connect_pair(&a, &b)?;
/// # let mut peer = Endpoint::new(a);
/// let mr = LocalMr::alloc(&pd, 4096)?;
/// let lease = mr.lease(64..128, Access::REMOTE_WRITE, Duration::from_secs(10))?;
/// assert!(mr.try_as_slice().is_none()); // the peer may write
///
/// // The peer, which got `lease.token()` by a message:
/// let mut remote = RemoteMr::new(lease.token())?;
/// let theirs = LocalMr::register(&pd, vec![7; 64])?;
/// peer.write(theirs.begin_read()?, &mut remote, None)?;
/// while peer.poll(|done| assert_eq!(done.status, WcStatus::Success))? == 0 {}
///
/// lease.revoke()?; // the NIC refuses that key from here on
/// assert_eq!(mr.as_slice()[64..128], [7; 64]);
/// peer.write(theirs.begin_read()?, &mut remote, None)?;
/// while peer.poll(|done| assert_eq!(done.status, WcStatus::RemAccessErr))? == 0 {}
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use = "a lease that is dropped is revoked"]
pub struct Lease(Arc<Shared>);

/// What the lease and the list of all leases share.
struct Shared {
    grant: Locked<Option<Grant>>,
    token: MrToken,
    /// The address of the region's gate.
    gate: usize,
    expires: Instant,
}

/// What peers have: taken back by [`end`](Self::end); dropped without, it stays theirs for good.
struct Grant {
    registration: Box<dyn Deregister>,
    /// LEASE-1: given back only when the registration has ended.
    hold: ManuallyDrop<Hold>,
}

impl Grant {
    /// Ends the registration. `Err`: it is in force as before.
    fn end(&mut self) -> Result<()> {
        self.registration.deregister().map_err(Error::Deregister)
    }
}

impl Shared {
    /// Ends the lease, unless that has been done: `false`. Whoever comes while another does so waits for
    /// that.
    fn revoke(&self) -> Result<bool> {
        let revoked = self.grant.with(|grant| -> Result<bool> {
            let Some(in_force) = grant.as_mut() else {
                return Ok(false);
            };
            in_force.end()?;
            let ended = grant.take().expect("it was there");
            // Before anybody is told that it is over: they find the region free.
            drop(ManuallyDrop::into_inner(ended.hold));
            Ok(true)
        });
        let revoked = revoked.inspect_err(|error| {
            self.tell(|addr, length, rkey| trace::revocation_refused(addr, length, rkey, error));
        })?;
        if revoked {
            reaper::strike(self);
            self.tell(trace::revoked);
        }
        Ok(revoked)
    }

    /// Gives up a lease that the provider refuses to end: the peers keep it, and the region stays held.
    fn abandon(&self) {
        if self.grant.with(Option::take).is_some() {
            counts::leaked_registration(self.token.length() as usize);
            counts::leaked_hold();
            reaper::strike(self);
            self.tell(trace::leaked_lease);
        }
    }

    /// Tells of these bytes and their key.
    fn tell(&self, event: impl FnOnce(usize, usize, u32)) {
        let token = self.token;
        event(token.addr() as usize, token.length() as usize, token.rkey());
    }
}

impl Lease {
    fn new(hold: Hold, registered: Registered, token: MrToken, expires: Instant) -> Self {
        let gate = hold.region().gate_address();
        let grant = Grant {
            registration: registered.handle,
            hold: ManuallyDrop::new(hold),
        };
        let lease = Lease(Arc::new(Shared {
            grant: Locked::new(Some(grant)),
            token,
            gate,
            expires,
        }));
        reaper::enlist(&lease.0);
        lease.0.tell(|addr, length, rkey| {
            trace::granted(gate, addr, length, rkey, token.access());
        });
        lease
    }

    /// What to tell a peer: address and length of the bytes, the key, the rights, and the deadline by the
    /// system's clock.
    #[must_use]
    pub fn token(&self) -> MrToken {
        self.0.token
    }

    /// When [`reap`] will revoke it.
    #[must_use]
    pub fn expires(&self) -> Instant {
        self.0.expires
    }

    /// Whether it is over. Waits for somebody who is just revoking it.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.0.grant.with(|grant| grant.is_none())
    }

    /// Ends the lease (`ibv_dereg_mr`) and gives the region back. When this returns `Ok`, the NIC touches
    /// the bytes no more for whoever has the token, and readers see all that it has written. What a peer
    /// posts afterwards ends with [`RemAccessErr`](crate::work::WcStatus::RemAccessErr) on its side. Does
    /// nothing if it is over already. Blocks in the kernel.
    ///
    /// # Errors
    /// [`Error::Deregister`] with what the provider said: the lease is in force as before. Try again.
    pub fn revoke(&self) -> Result<()> {
        self.0.revoke().map(drop)
    }

    /// As [`revoke`](Self::revoke), on a thread that may block (of the `blocking` crate's pool), as a
    /// future that needs no runtime and borrows nothing. Dropped before it is done, it may or may not
    /// have revoked the lease.
    ///
    /// # Errors
    /// Those of [`revoke`](Self::revoke).
    pub fn revoke_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let shared = Arc::clone(&self.0);
        async move { unblock(move || shared.revoke().map(drop)).await }
    }
}

impl Drop for Lease {
    /// Revokes it. Blocks in the kernel. If the provider refuses, region and registration are leaked and
    /// counted ([`leaks`](crate::leaks())).
    fn drop(&mut self) {
        if self.revoke().is_err() {
            self.0.abandon();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("token", &self.0.token)
            .field("expires", &self.0.expires)
            .finish_non_exhaustive()
    }
}
