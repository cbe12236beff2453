//! An RDMA device, its queues used by the verbs alone: what a program without this crate would call.

use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::Arc;

use rdma_mr::backend::verbs::sys::{
    ibv_poll_cq, ibv_post_recv, ibv_post_send, ibv_recv_wr, ibv_send_flags, ibv_send_wr, ibv_sge,
    ibv_wc, ibv_wc_status, ibv_wr_opcode,
};
use rdma_mr::backend::verbs::{Context, ProtectionDomain, QueuePair};
use rdma_mr::work::{QpCaps, Sge, WcStatus};

use crate::Failure;
use crate::wire::{Bare, Wire, failed};

pub struct Device {
    context: Context,
    pd: Arc<ProtectionDomain>,
}

impl Device {
    pub fn open() -> Result<Self, Failure> {
        let context = Context::open(None)?;
        let pd = context.alloc_pd()?;
        Ok(Device { context, pd })
    }
}

impl Wire for Device {
    type Pd = ProtectionDomain;

    fn name(&self) -> String {
        self.context.name().to_string()
    }

    fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    fn pair(&self, caps: QpCaps) -> Result<[QueuePair; 2], Failure> {
        let end = || {
            let cq = self.context.create_cq(16)?;
            self.pd.create_qp(&cq, &cq, caps)
        };
        let pair = [end()?, end()?];
        QueuePair::connect_loopback(&pair[0], &pair[1], None)?;
        Ok(pair)
    }
}

impl Bare for Device {
    type Qp = QueuePair;

    #[inline]
    unsafe fn post_send(qp: &QueuePair, wr_id: u64, sge: Sge, inline: bool) -> Result<(), Failure> {
        let mut list = element(sge);
        // SAFETY: all zeros is a valid `ibv_send_wr`: numbers, and pointers that may be null.
        let mut wr: ibv_send_wr = unsafe { mem::zeroed() };
        wr.wr_id = wr_id;
        wr.sg_list = &mut list;
        wr.num_sge = 1;
        wr.opcode = ibv_wr_opcode::IBV_WR_SEND;
        wr.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
        if inline {
            wr.send_flags |= ibv_send_flags::IBV_SEND_INLINE.0;
        }
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive, and what is posted is copied before the call returns;
        // the bytes are POST-1 and POST-3, as required of the caller.
        posted(unsafe { ibv_post_send(qp.as_raw(), &mut wr, &mut bad) })
    }

    #[inline]
    unsafe fn post_recv(qp: &QueuePair, wr_id: u64, sge: Sge) -> Result<(), Failure> {
        let mut list = element(sge);
        let mut wr = ibv_recv_wr {
            wr_id,
            next: ptr::null_mut(),
            sg_list: &mut list,
            num_sge: 1,
        };
        let mut bad = ptr::null_mut();
        // SAFETY: as in `post_send`, by POST-2 and POST-3.
        posted(unsafe { ibv_post_recv(qp.as_raw(), &mut wr, &mut bad) })
    }

    #[inline]
    fn poll(qp: &QueuePair, mut each: impl FnMut(u64)) -> Result<(), Failure> {
        let mut batch = [const { MaybeUninit::<ibv_wc>::uninit() }; 2];
        // SAFETY: the queue is alive, and there is room for two.
        let taken = unsafe { ibv_poll_cq(qp.recv_cq().as_raw(), 2, batch.as_mut_ptr().cast()) };
        let taken = usize::try_from(taken).map_err(|_| "the completion queue can't be polled")?;
        let mut bad = None;
        for wc in &batch[..taken] {
            let wc = wc.as_ptr();
            // SAFETY: the provider has written these two fields, whatever the status.
            let (wr_id, status) = unsafe { ((*wc).wr_id, (*wc).status) };
            each(wr_id);
            if status != ibv_wc_status::IBV_WC_SUCCESS {
                bad = bad.or(Some(status));
            }
        }
        bad.map_or(Ok(()), |status| Err(failed(WcStatus::from_raw(status))))
    }
}

#[inline]
fn element(sge: Sge) -> ibv_sge {
    ibv_sge {
        addr: sge.addr,
        length: sge.length,
        lkey: sge.lkey,
    }
}

/// The error of a post is its value; `errno` is not set.
#[inline]
fn posted(ret: i32) -> Result<(), Failure> {
    match ret {
        0 => Ok(()),
        ret => Err(io::Error::from_raw_os_error(ret).into()),
    }
}
