//! The same through the crate: with holds as the work requests' ids on the bare queues, for those who
//! keep their own; and by endpoints.

use rdma_mr::gate::Holder;
use rdma_mr::op::{Begin, Endpoint, Hold};
use rdma_mr::work::{SendFlags, SendOp};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

use crate::contest::{NUMBER, Pending, Side, check};
use crate::wire::{Wire, failed};
use crate::{Failure, Options};

/// What both have of each side.
struct Regions {
    from: LocalMr,
    to: LocalMr,
    inline: bool,
    pending: Pending,
}

impl Regions {
    fn new<W: Wire>(wire: &W, options: &Options) -> Result<Self, Failure> {
        Ok(Regions {
            from: LocalMr::alloc(wire.pd(), options.size)?,
            to: LocalMr::alloc(wire.pd(), options.size)?,
            inline: options.inline,
            pending: Pending::default(),
        })
    }

    /// `try`: the completions have been polled, so that a wait here would be one for ever.
    #[inline]
    fn write(&mut self, number: u64) -> Result<(), Failure> {
        let mut bytes = self.from.try_as_mut_slice().ok_or("still being sent")?;
        bytes[..NUMBER].copy_from_slice(&number.to_ne_bytes());
        Ok(())
    }

    #[inline]
    fn check(&self, number: u64) -> Result<(), Failure> {
        let bytes = self.to.try_as_slice().ok_or("still being received")?;
        check(&bytes[..NUMBER], number)
    }
}

/// The `wr_id` of a SEND that is inline: nothing is held until its completion. A hold is never 0.
const NO_HOLD: u64 = 0;

pub struct HoldAsId(Regions);

impl HoldAsId {
    pub fn new<W: Wire>(wire: &W, options: &Options) -> Result<Self, Failure> {
        Regions::new(wire, options).map(HoldAsId)
    }
}

/// Posts with the hold as the `wr_id`; it is given back if the post fails.
#[inline]
fn post(hold: Hold, post: impl FnOnce(u64) -> Result<(), Failure>) -> Result<(), Failure> {
    let wr_id = hold.into_wr_id();
    post(wr_id).inspect_err(|_| {
        // SAFETY: WRID-1, WRID-2: made just now, and turned back here alone; WRID-3: not posted.
        drop(unsafe { Hold::from_wr_id(wr_id) });
    })
}

impl<W: Wire> Side<W> for HoldAsId {
    #[inline]
    fn pending(&mut self) -> &mut Pending {
        &mut self.0.pending
    }

    #[inline]
    fn expect(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure> {
        let hold = self.0.to.try_begin_write()?;
        let sge = hold.sge();
        // SAFETY: POST-2: the hold is kept until the completion; POST-3: it is an address.
        post(hold, |wr_id| unsafe {
            W::post_recv(endpoint.qp(), wr_id, sge)
        })
    }

    #[inline]
    fn send(&mut self, endpoint: &mut Endpoint<W::Qp>, number: u64) -> Result<(), Failure> {
        self.0.write(number)?;
        let hold = self.0.from.try_begin_read()?;
        let sge = hold.sge();
        if self.0.inline {
            // SAFETY: POST-1: the hold is kept over the post, and then it is over; POST-3.
            let posted = unsafe { W::post_send(endpoint.qp(), NO_HOLD, sge, true) };
            drop(hold);
            return posted;
        }
        // SAFETY: POST-1: the hold is kept until the completion; POST-3: it is an address.
        post(hold, |wr_id| unsafe {
            W::post_send(endpoint.qp(), wr_id, sge, false)
        })
    }

    #[inline]
    fn poll(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure> {
        let pending = &mut self.0.pending;
        W::poll(endpoint.qp(), |wr_id| {
            if wr_id == NO_HOLD {
                pending.send = false;
                return;
            }
            // SAFETY: WRID-1, WRID-2: `post` made it one, and it has one completion; WRID-3: polled
            // just now.
            let hold = unsafe { Hold::from_wr_id(wr_id) };
            match hold.holder() {
                Holder::NicRead => pending.send = false,
                _ => pending.recv = false,
            }
        })
    }

    #[inline]
    fn check(&mut self, number: u64) -> Result<(), Failure> {
        self.0.check(number)
    }
}

pub struct ByEndpoint(Regions);

impl ByEndpoint {
    pub fn new<W: Wire>(wire: &W, options: &Options) -> Result<Self, Failure> {
        Regions::new(wire, options).map(ByEndpoint)
    }
}

impl<W: Wire> Side<W> for ByEndpoint {
    #[inline]
    fn pending(&mut self) -> &mut Pending {
        &mut self.0.pending
    }

    #[inline]
    fn expect(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure> {
        endpoint.recv(self.0.to.try_begin_write()?)?;
        Ok(())
    }

    #[inline]
    fn send(&mut self, endpoint: &mut Endpoint<W::Qp>, number: u64) -> Result<(), Failure> {
        self.0.write(number)?;
        let mut flags = SendFlags::SIGNALED;
        flags.set(SendFlags::INLINE, self.0.inline);
        let hold = self.0.from.try_begin_read()?;
        endpoint.post(hold, SendOp::Send { imm: None }, flags)?;
        Ok(())
    }

    #[inline]
    fn poll(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure> {
        let pending = &mut self.0.pending;
        let mut bad = None;
        endpoint.poll(|done| {
            match done.id.is_recv() {
                true => pending.recv = false,
                false => pending.send = false,
            }
            if !done.status.is_success() {
                bad = bad.or(Some(done.status));
            }
        })?;
        bad.map_or(Ok(()), |status| Err(failed(status)))
    }

    #[inline]
    fn check(&mut self, number: u64) -> Result<(), Failure> {
        self.0.check(number)
    }
}
