//! The states of a queue pair: connecting two by hand, and into ERR.

use std::mem;
use std::sync::atomic::Ordering;

use rdma_sys::{
    ibv_access_flags, ibv_gid, ibv_modify_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_init_attr,
    ibv_qp_state, ibv_query_qp,
};

use super::qp::{ACK_TIMEOUT, MAX_RD_ATOMIC, QpAddress, QueuePair, RETRIES, RNR_RETRIES};
use super::{AtomicCap, Context, Port, check, invalid};
use crate::error::Result;
use crate::work::QpState;

/// Attributes of which none is set.
pub(super) fn no_attributes() -> ibv_qp_attr {
    // SAFETY: all zeros is a valid `ibv_qp_attr`, which is plain numbers.
    unsafe { mem::zeroed() }
}

/// What peers may do through a queue pair of this device; the rights proper are those of the keys.
pub(super) fn remote_access(context: &Context) -> u32 {
    let mut access =
        ibv_access_flags::IBV_ACCESS_REMOTE_WRITE | ibv_access_flags::IBV_ACCESS_REMOTE_READ;
    if context.limits().atomic_cap != AtomicCap::None {
        access |= ibv_access_flags::IBV_ACCESS_REMOTE_ATOMIC;
    }
    access.0
}

/// How many READs and atomics (served, under way) a queue pair of this device is given.
pub(super) fn rd_atomic(context: &Context) -> (u8, u8) {
    let limits = context.limits();
    let clamp = |max: u32| max.min(MAX_RD_ATOMIC) as u8;
    (
        clamp(limits.max_qp_rd_atom),
        clamp(limits.max_qp_init_rd_atom),
    )
}

impl QueuePair {
    fn context(&self) -> &Context {
        self.send_cq().context()
    }

    /// Which state it is in now (`ibv_query_qp`); a system call.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn state(&self) -> Result<QpState> {
        let mut attr = no_attributes();
        // SAFETY: all zeros is a valid `ibv_qp_init_attr`: numbers, and pointers that may be null.
        let mut init: ibv_qp_init_attr = unsafe { mem::zeroed() };
        let mask = ibv_qp_attr_mask::IBV_QP_STATE.0 as i32;
        // SAFETY: the queue pair is alive, and so are the two results, for the call.
        check("ibv_query_qp", unsafe {
            ibv_query_qp(self.as_raw(), &mut attr, mask, &mut init)
        })?;
        Ok(QpState::from_raw(attr.qp_state))
    }

    /// Brings it into state ERR (`ibv_modify_qp`): outstanding work requests are flushed.
    ///
    /// This alone says nothing about the bytes: the NIC may go on for a while (rule R11), and a
    /// receive that is posted later may get no completion (rule R16).
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn modify_to_error(&self) -> Result<()> {
        let mut attr = no_attributes();
        attr.qp_state = ibv_qp_state::IBV_QPS_ERR;
        self.modify(&mut attr, ibv_qp_attr_mask::IBV_QP_STATE.0)
    }

    /// `ibv_modify_qp` with `mask`, which names the state; remembers it.
    pub(super) fn modify(&self, attr: &mut ibv_qp_attr, mask: u32) -> Result<()> {
        // SAFETY: the queue pair is alive, `attr` is alive for the call.
        check("ibv_modify_qp", unsafe {
            ibv_modify_qp(self.as_raw(), attr, mask as i32)
        })?;
        // Ordering: Relaxed, see `need`.
        self.known_state()
            .fetch_max(attr.qp_state, Ordering::Relaxed);
        Ok(())
    }

    /// From RESET into INIT on the first port that is up, so that receives can be posted before
    /// it is [connected](Self::connect).
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn init(&self) -> Result<()> {
        self.init_on(&self.context().active_port()?)
    }

    fn init_on(&self, port: &Port) -> Result<()> {
        let mut attr = no_attributes();
        attr.qp_state = ibv_qp_state::IBV_QPS_INIT;
        attr.port_num = port.number;
        attr.qp_access_flags = remote_access(self.context());
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_PKEY_INDEX
            | ibv_qp_attr_mask::IBV_QP_PORT
            | ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS;
        self.modify(&mut attr, mask.0)
    }

    /// What the peer needs for [`connect`](Self::connect). `gid_index` is
    /// [`Context::best_gid`] unless given.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn address(&self, gid_index: Option<u32>) -> Result<QpAddress> {
        use crate::work::QueuePair as _;

        let port = self.context().active_port()?;
        let index = gid_index.map_or_else(|| self.context().best_gid(&port), Ok)?;
        Ok(QpAddress {
            qp_num: self.qp_num(),
            psn: self.psn(),
            lid: port.lid,
            gid: self.context().gid(port.number, index)?,
            mtu: port.active_mtu,
        })
    }

    /// Connects it to the peer's queue pair: through INIT, unless it is there already, RTR and RTS.
    /// The peer has to do the same with this side's [`address`](Self::address).
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn connect(&self, peer: &QpAddress, gid_index: Option<u32>) -> Result<()> {
        use ibv_qp_attr_mask as mask;

        let context = self.context();
        let port = context.active_port()?;
        let index = gid_index.map_or_else(|| context.best_gid(&port), Ok)?;
        let sgid_index = u8::try_from(index)
            .map_err(|_| invalid("ibv_modify_qp", format!("no GID has index {index}")))?;
        let (served, under_way) = rd_atomic(context);
        // Ordering: Relaxed, see `need`.
        if self.known_state().load(Ordering::Relaxed) == ibv_qp_state::IBV_QPS_RESET {
            self.init_on(&port)?;
        }

        let mut attr = no_attributes();
        attr.qp_state = ibv_qp_state::IBV_QPS_RTR;
        attr.path_mtu = port.active_mtu.min(peer.mtu);
        attr.dest_qp_num = peer.qp_num;
        attr.rq_psn = peer.psn;
        attr.max_dest_rd_atomic = served;
        attr.min_rnr_timer = 12; // 0.64 ms
        attr.ah_attr.port_num = port.number;
        attr.ah_attr.dlid = peer.lid;
        if port.ethernet || peer.lid == 0 {
            attr.ah_attr.is_global = 1;
            attr.ah_attr.grh.dgid = ibv_gid { raw: peer.gid };
            attr.ah_attr.grh.sgid_index = sgid_index;
            attr.ah_attr.grh.hop_limit = 64;
        }
        let rtr = mask::IBV_QP_STATE
            | mask::IBV_QP_AV
            | mask::IBV_QP_PATH_MTU
            | mask::IBV_QP_DEST_QPN
            | mask::IBV_QP_RQ_PSN
            | mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | mask::IBV_QP_MIN_RNR_TIMER;
        self.modify(&mut attr, rtr.0)?;

        let mut attr = no_attributes();
        attr.qp_state = ibv_qp_state::IBV_QPS_RTS;
        attr.sq_psn = self.psn();
        attr.timeout = ACK_TIMEOUT;
        attr.retry_cnt = RETRIES;
        attr.rnr_retry = RNR_RETRIES;
        attr.max_rd_atomic = under_way;
        let rts = mask::IBV_QP_STATE
            | mask::IBV_QP_SQ_PSN
            | mask::IBV_QP_TIMEOUT
            | mask::IBV_QP_RETRY_CNT
            | mask::IBV_QP_RNR_RETRY
            | mask::IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(&mut attr, rts.0)
    }

    /// Connects two queue pairs of this process to each other, for tests and benchmarks; both may
    /// be on one device.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn connect_loopback(a: &QueuePair, b: &QueuePair, gid_index: Option<u32>) -> Result<()> {
        a.connect(&b.address(gid_index)?, gid_index)?;
        b.connect(&a.address(gid_index)?, gid_index)
    }
}
