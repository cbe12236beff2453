//! How a connection comes about: what is pending until both sides have agreed.

use std::ffi::c_int;
use std::fmt;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdma_sys::{
    ibv_qp_attr_mask, ibv_qp_state, rdma_accept, rdma_cm_event_type as event, rdma_conn_param,
    rdma_connect, rdma_establish, rdma_init_qp_attr, rdma_resolve_addr, rdma_resolve_route,
};

use super::super::connect::{no_attributes, rd_atomic, remote_access};
use super::super::qp::{ACK_TIMEOUT, RETRIES, RNR_RETRIES};
use super::super::{CompletionQueue, ProtectionDomain, QueuePair, invalid, os};
use super::id::{CmId, EventChannel, Limit, returned};
use super::{Config, Connection, Link, MAX_ACCEPT_DATA, MAX_CONNECT_DATA};
use crate::error::Result;
use crate::work::QueuePair as _;

pub(super) fn data_len(call: &'static str, data: &[u8], max: usize) -> Result<u8> {
    match u8::try_from(data.len()) {
        Ok(len) if data.len() <= max => Ok(len),
        _ => {
            let why = format!("{} bytes of private data: it carries {max}", data.len());
            Err(invalid(call, why))
        }
    }
}

/// An id of which the device is known that leads to the address.
pub(super) fn resolve_addr(addr: SocketAddr, limit: &Limit) -> Result<CmId> {
    let id = CmId::new(Arc::new(EventChannel::new()?))?;
    let mut c = os::CAddr::from(addr);
    let call = "rdma_resolve_addr";
    // SAFETY: the id is alive, and the address for the call.
    returned(call, unsafe {
        rdma_resolve_addr(id.as_raw(), ptr::null_mut(), c.as_mut_ptr(), limit.millis())
    })?;
    id.expect(call, event::RDMA_CM_EVENT_ADDR_RESOLVED, addr, limit)?;
    Ok(id)
}

/// A connection that does not stand yet: the queue pair is in INIT and takes receives. Dropping it
/// gives up.
#[derive(Debug)]
pub struct Pending {
    /// Sent to the peer by [`establish`](Self::establish); from the [`Config`] at first.
    pub private_data: Vec<u8>,
    qp: QueuePair,
    pd: Arc<ProtectionDomain>,
    send_cq: Arc<CompletionQueue>,
    recv_cq: Arc<CompletionQueue>,
    peer: SocketAddr,
    peer_data: Vec<u8>,
    passive: bool,
    responder_resources: u8,
    initiator_depth: u8,
    id: Arc<CmId>,
}

impl fmt::Debug for CmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CmId")
    }
}

impl Pending {
    /// Finds the device and the route to a listener (`rdma_resolve_addr`, `rdma_resolve_route`) and
    /// makes the queue pair. Blocks for `timeout` at most.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub fn resolve(addr: SocketAddr, config: &Config, timeout: Duration) -> Result<Pending> {
        Self::resolve_within(addr, config, &Limit::new(timeout))
    }

    pub(super) fn resolve_within(
        addr: SocketAddr,
        config: &Config,
        limit: &Limit,
    ) -> Result<Pending> {
        let id = resolve_addr(addr, limit)?;
        let call = "rdma_resolve_route";
        // SAFETY: the id is alive and its address resolved.
        returned(call, unsafe {
            rdma_resolve_route(id.as_raw(), limit.millis())
        })?;
        id.expect(call, event::RDMA_CM_EVENT_ROUTE_RESOLVED, addr, limit)?;
        Pending::new(Arc::new(id), addr, config)
    }

    /// The passive side's, for a peer that asks for so many READs and atomics (served by us, under
    /// way from us).
    pub(super) fn for_request(
        id: Arc<CmId>,
        peer: SocketAddr,
        config: &Config,
        (responder_resources, initiator_depth): (u8, u8),
        peer_data: Vec<u8>,
    ) -> Result<Pending> {
        let mut pending = Pending::new(Arc::clone(&id), peer, config)
            .map_err(|error| id.explain(error, peer, true))?;
        pending.passive = true;
        pending.responder_resources = pending.responder_resources.min(responder_resources);
        pending.initiator_depth = pending.initiator_depth.min(initiator_depth);
        pending.peer_data = peer_data;
        Ok(pending)
    }

    fn new(id: Arc<CmId>, peer: SocketAddr, config: &Config) -> Result<Pending> {
        let context = match &config.pd {
            Some(pd) => pd.context().clone(),
            None => Arc::clone(&id).context()?,
        };
        // SAFETY: the id is alive and bound to a device; the field does not change any more.
        if context.as_raw() != unsafe { (*id.as_raw()).verbs } {
            let why = "Config::pd is not of the device context of the connection: see cm::context";
            return Err(invalid("ibv_create_qp", why));
        }
        let pd = match &config.pd {
            Some(pd) => Arc::clone(pd),
            None => context.alloc_pd()?,
        };
        let cq = |given: &Option<Arc<CompletionQueue>>, outstanding: u32| {
            if let Some(cq) = given {
                return Ok(Arc::clone(cq));
            }
            // The provider may give the queue pair more than asked, up to the next power of two.
            let room = outstanding.max(1).saturating_add(1).saturating_mul(2);
            let room = room.min(context.limits().max_cqe);
            if config.channels {
                context.create_cq_with_channel(room)
            } else {
                context.create_cq(room)
            }
        };
        let send_cq = cq(&config.send_cq, config.caps.max_send_wr)?;
        let recv_cq = cq(&config.recv_cq, config.caps.max_recv_wr)?;
        let qp = pd.create_qp(&send_cq, &recv_cq, config.caps)?;
        let (responder_resources, initiator_depth) = rd_atomic(&context);
        let pending = Pending {
            private_data: config.private_data.clone(),
            qp,
            pd,
            send_cq,
            recv_cq,
            peer,
            peer_data: Vec::new(),
            passive: false,
            responder_resources,
            initiator_depth,
            id,
        };
        pending.modify(ibv_qp_state::IBV_QPS_INIT)?;
        Ok(pending)
    }

    /// The queue pair; post receives on it.
    #[must_use]
    pub fn qp(&self) -> &QueuePair {
        &self.qp
    }

    /// The protection domain, to register memory in.
    #[must_use]
    pub fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    /// Where sends will complete.
    #[must_use]
    pub fn send_cq(&self) -> &Arc<CompletionQueue> {
        &self.send_cq
    }

    /// Where receives will complete.
    #[must_use]
    pub fn recv_cq(&self) -> &Arc<CompletionQueue> {
        &self.recv_cq
    }

    /// Brings the queue pair into `state` with what the connection manager knows.
    fn modify(&self, state: ibv_qp_state::Type) -> Result<()> {
        let mut attr = no_attributes();
        attr.qp_state = state;
        let mut mask: c_int = 0;
        // SAFETY: the id is alive, and the two results for the call.
        returned("rdma_init_qp_attr", unsafe {
            rdma_init_qp_attr(self.id.as_raw(), &mut attr, &mut mask)
        })?;
        match state {
            ibv_qp_state::IBV_QPS_INIT => attr.qp_access_flags = remote_access(self.pd.context()),
            ibv_qp_state::IBV_QPS_RTR => {
                // What the manager says may be less, if the peer agreed to less.
                attr.max_dest_rd_atomic = attr.max_dest_rd_atomic.min(self.responder_resources);
            }
            _ => {
                attr.max_rd_atomic = attr.max_rd_atomic.min(self.initiator_depth);
                attr.timeout = ACK_TIMEOUT;
                attr.retry_cnt = RETRIES;
                attr.rnr_retry = RNR_RETRIES;
            }
        }
        // Bits that old kernels set by mistake; librdmacm masks them, too.
        let known = 2 * ibv_qp_attr_mask::IBV_QP_DEST_QPN.0 - 1;
        self.qp.modify(&mut attr, mask as u32 & known)
    }

    fn ready(&self) -> Result<()> {
        self.modify(ibv_qp_state::IBV_QPS_RTR)?;
        self.modify(ibv_qp_state::IBV_QPS_RTS)
    }

    /// Agrees with the peer (`rdma_connect` and `rdma_establish`, or `rdma_accept`). Blocks for
    /// `timeout` at most.
    ///
    /// # Errors
    /// As [`Connection::connect`]; the connection is given up then.
    pub fn establish(self, timeout: Duration) -> Result<Connection> {
        self.establish_within(&Limit::new(timeout))
    }

    pub(super) fn establish_within(self, limit: &Limit) -> Result<Connection> {
        let (id, peer, passive) = (Arc::clone(&self.id), self.peer, self.passive);
        self.agree(limit)
            .map_err(|error| id.explain(error, peer, passive))
    }

    fn agree(mut self, limit: &Limit) -> Result<Connection> {
        let (call, max) = match self.passive {
            true => ("rdma_accept", MAX_ACCEPT_DATA),
            false => ("rdma_connect", MAX_CONNECT_DATA),
        };
        let mut param = rdma_conn_param {
            private_data: self.private_data.as_ptr().cast(),
            private_data_len: data_len(call, &self.private_data, max)?,
            responder_resources: self.responder_resources,
            initiator_depth: self.initiator_depth,
            flow_control: 1,
            retry_count: RETRIES,
            rnr_retry_count: RNR_RETRIES,
            srq: 0,
            qp_num: self.qp.qp_num(),
        };
        if self.passive {
            self.ready()?;
            // SAFETY: the id is alive, and so are the parameters and the data for the call.
            returned(call, unsafe { rdma_accept(self.id.as_raw(), &mut param) })?;
            let wanted = event::RDMA_CM_EVENT_ESTABLISHED;
            self.id.expect(call, wanted, self.peer, limit)?;
        } else {
            // SAFETY: as above.
            returned(call, unsafe { rdma_connect(self.id.as_raw(), &mut param) })?;
            let wanted = event::RDMA_CM_EVENT_CONNECT_RESPONSE;
            let event = self.id.expect(call, wanted, self.peer, limit)?;
            self.peer_data = event.private_data;
            self.ready()?;
            // SAFETY: the id is alive, has no queue pair of its own, and the peer has responded.
            returned("rdma_establish", unsafe {
                rdma_establish(self.id.as_raw())
            })?;
        }
        Ok(Connection {
            link: Link::new(self.id, self.peer_data),
            qp: self.qp,
            pd: self.pd,
            send_cq: self.send_cq,
            recv_cq: self.recv_cq,
        })
    }
}
