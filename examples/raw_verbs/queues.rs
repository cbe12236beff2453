//! The program's own queues: rdma-sys and nothing else. Any code that makes queues will do in its place.

use std::io;
use std::mem::{self, MaybeUninit};
use std::process;
use std::ptr;
use std::sync::Arc;

use rdma_mr::backend::verbs::sys::{
    ibv_access_flags, ibv_alloc_pd, ibv_close_device, ibv_context, ibv_cq, ibv_create_cq,
    ibv_create_qp, ibv_dealloc_pd, ibv_destroy_cq, ibv_destroy_qp, ibv_free_device_list,
    ibv_get_device_list, ibv_gid, ibv_modify_qp, ibv_open_device, ibv_pd, ibv_poll_cq,
    ibv_port_attr, ibv_post_recv, ibv_post_send, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask as mask,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_query_gid, ibv_query_port, ibv_recv_wr,
    ibv_send_flags, ibv_send_wr, ibv_sge, ibv_wc, ibv_wr_opcode,
};
use rdma_mr::work::{Sge, WcStatus};

use crate::Failure;

/// The port that is used.
const PORT: u8 = 1;

/// An open device and a protection domain.
pub struct Device {
    context: *mut ibv_context,
    pd: *mut ibv_pd,
}

// SAFETY: the verbs may be called on both from any thread at the same time.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// The error of a call that sets `errno`.
fn last_error(call: &str) -> Failure {
    format!("{call}: {}", io::Error::last_os_error()).into()
}

/// The error of a call whose value is one.
fn check(call: &str, ret: i32) -> Result<(), Failure> {
    match ret {
        0 => Ok(()),
        ret => Err(format!("{call}: {}", io::Error::from_raw_os_error(ret)).into()),
    }
}

impl Device {
    /// The first one.
    pub fn open() -> Result<Arc<Self>, Failure> {
        // SAFETY: a null pointer may be given where the count would go. The list ends with a null
        // pointer, and an opened device does not need it.
        let context = unsafe {
            let list = ibv_get_device_list(ptr::null_mut());
            if list.is_null() {
                return Err(last_error("ibv_get_device_list"));
            }
            let context = (*list).as_mut().map(|device| ibv_open_device(device));
            ibv_free_device_list(list);
            context.ok_or("there is no RDMA device")?
        };
        if context.is_null() {
            return Err(last_error("ibv_open_device"));
        }
        // SAFETY: the device is open.
        let pd = unsafe { ibv_alloc_pd(context) };
        // Closes the device also if there is none.
        let device = Arc::new(Device { context, pd });
        match pd.is_null() {
            true => Err(last_error("ibv_alloc_pd")),
            false => Ok(device),
        }
    }

    pub fn pd(&self) -> *mut ibv_pd {
        self.pd
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: whoever uses them has an `Arc` of this: queues and regions are gone.
        unsafe {
            if !self.pd.is_null() && ibv_dealloc_pd(self.pd) != 0 {
                eprintln!("verbs: ibv_dealloc_pd refused, something is in it still");
            }
            ibv_close_device(self.context);
        }
    }
}

/// The first work request of a list that was not posted.
pub enum Bad {
    /// The one with that `wr_id`.
    At(u64),
    /// The provider did not say: rxe does not when it has put them into the queue and the kernel then
    /// refuses the doorbell. They may be carried out, so their holds are to be kept.
    Unknown,
}

/// How the two ends are connected.
#[derive(Clone, Copy)]
pub struct Way {
    /// The indices of the GIDs of both; by itself the first one that is an IPv4 address, for both.
    pub gids: Option<[u8; 2]>,
    /// How many READs and atomics are under way at once.
    pub rd_atomic: u8,
}

/// Two queue pairs that are connected with each other, and the completion queue of both.
pub struct Queues {
    cq: *mut ibv_cq,
    qps: [*mut ibv_qp; 2],
    max_send_sge: u32,
    /// Last: what is above goes before it.
    _device: Arc<Device>,
}

impl Queues {
    pub fn new(device: &Arc<Device>, depth: u32) -> Result<Self, Failure> {
        let way = Way {
            gids: None,
            rd_atomic: 1,
        };
        Self::by(device, depth, way)
    }

    pub fn by(device: &Arc<Device>, depth: u32, way: Way) -> Result<Self, Failure> {
        // Room for all that can be outstanding (rule R15): a queue that overruns loses completions, and
        // with them the knowledge that regions are free.
        let entries = 4 * depth as i32;
        let (user, channel) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the device is open; the pointers may be null.
        let cq = unsafe { ibv_create_cq(device.context, entries, user, channel, 0) };
        if cq.is_null() {
            return Err(last_error("ibv_create_cq"));
        }
        let mut queues = Queues {
            cq,
            qps: [ptr::null_mut(); 2],
            max_send_sge: 0,
            _device: Arc::clone(device),
        };
        for side in 0..2 {
            // SAFETY: all zeros is a valid one: numbers, and pointers that may be null.
            let mut attr: ibv_qp_init_attr = unsafe { mem::zeroed() };
            attr.send_cq = cq;
            attr.recv_cq = cq;
            attr.qp_type = ibv_qp_type::IBV_QPT_RC;
            attr.cap.max_send_wr = depth;
            attr.cap.max_recv_wr = depth;
            attr.cap.max_send_sge = 1;
            attr.cap.max_recv_sge = 1;
            // SAFETY: the protection domain and the queue are alive.
            queues.qps[side] = unsafe { ibv_create_qp(device.pd, &mut attr) };
            if queues.qps[side].is_null() {
                return Err(last_error("ibv_create_qp"));
            }
            // It may take more than it was asked for.
            queues.max_send_sge = attr.cap.max_send_sge;
        }
        let [a, b] = queues.qps;
        let back = Way {
            gids: way.gids.map(|[near, far]| [far, near]),
            ..way
        };
        connect(device.context, a, b, way)?;
        connect(device.context, b, a, back)?;
        Ok(queues)
    }

    pub fn max_send_sge(&self) -> u32 {
        self.max_send_sge
    }

    /// Posts a list of work requests; the error comes with the first one that was not posted.
    ///
    /// # Safety
    /// The list is alive, and what it names; POST-1 for the bytes.
    pub unsafe fn post_send(
        &self,
        side: usize,
        list: *mut ibv_send_wr,
    ) -> Result<(), (Failure, Bad)> {
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive; the rest is the caller's.
        let ret = unsafe { ibv_post_send(self.qps[side], list, &mut bad) };
        // The value is the error: `errno` is not set.
        check("ibv_post_send", ret).map_err(|error| {
            // SAFETY: null, or one of the list.
            let bad = unsafe { bad.as_ref() }.map_or(Bad::Unknown, |bad| Bad::At(bad.wr_id));
            (error, bad)
        })
    }

    /// # Safety
    /// POST-2.
    pub unsafe fn post_recv(&self, side: usize, wr_id: u64, sge: Sge) -> Result<(), Failure> {
        let mut list = element(sge);
        let mut wr = ibv_recv_wr {
            wr_id,
            next: ptr::null_mut(),
            sg_list: &mut list,
            num_sge: 1,
        };
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive; the bytes are the caller's.
        check("ibv_post_recv", unsafe {
            ibv_post_recv(self.qps[side], &mut wr, &mut bad)
        })
    }

    /// Takes what has completed, and tells each one's `wr_id` and status.
    ///
    /// Ends the program when there is nothing to wait for any more: a queue that can't be read does not
    /// say what is over, and an operation that failed has left its queue pair in ERR, where not every
    /// device completes the others (rule R16). A program that lives on destroys its queue pairs then, and
    /// releases after that.
    pub fn poll(&self, mut each: impl FnMut(u64, WcStatus)) {
        let polled = self.take(|wr_id, status| {
            each(wr_id, status);
            if !status.is_success() {
                eprintln!("verbs: an operation failed: {status}");
                process::exit(1);
            }
        });
        if let Err(failure) = polled {
            eprintln!("verbs: {failure}");
            process::exit(1);
        }
    }

    /// As `poll`, and the program goes on.
    pub fn take(&self, mut each: impl FnMut(u64, WcStatus)) -> Result<(), Failure> {
        let mut batch = [const { MaybeUninit::<ibv_wc>::uninit() }; 8];
        // SAFETY: the queue is alive, and there is room for 8.
        let taken = unsafe { ibv_poll_cq(self.cq, 8, batch.as_mut_ptr().cast()) };
        let taken = usize::try_from(taken).map_err(|_| "ibv_poll_cq failed")?;
        for wc in &batch[..taken] {
            let wc = wc.as_ptr();
            // SAFETY: the provider has written these two fields, whatever the status.
            let (wr_id, status) = unsafe { ((*wc).wr_id, (*wc).status) };
            each(wr_id, WcStatus::from_raw(status));
        }
        Ok(())
    }

    /// After this, nothing that was posted touches a byte any more.
    ///
    /// # Errors
    /// The provider refused; then nothing is known to be over, and what was posted stays as it is.
    pub fn destroy_queue_pairs(&mut self) -> Result<(), Failure> {
        for qp in self.qps.iter_mut().filter(|qp| !qp.is_null()) {
            // SAFETY: made in `new`, and not destroyed yet.
            check("ibv_destroy_qp", unsafe { ibv_destroy_qp(*qp) })?;
            *qp = ptr::null_mut();
        }
        Ok(())
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        let destroyed = self.destroy_queue_pairs();
        // SAFETY: made in `new`; its queue pairs are gone, or it is refused.
        let ret = unsafe { ibv_destroy_cq(self.cq) };
        if let Err(failure) = destroyed.and(check("ibv_destroy_cq", ret)) {
            eprintln!("verbs: {failure}");
        }
    }
}

/// From RESET to RTS: `qp` sends to `peer`, another queue pair of this port.
fn connect(
    context: *mut ibv_context,
    qp: *mut ibv_qp,
    peer: *mut ibv_qp,
    way: Way,
) -> Result<(), Failure> {
    // SAFETY: all zeros is a valid one, plain numbers, of this and of the attributes below.
    let mut port: ibv_port_attr = unsafe { mem::zeroed() };
    // SAFETY: the device is open. The function fills a prefix of the structure.
    check("ibv_query_port", unsafe {
        ibv_query_port(context, PORT, ptr::from_mut(&mut port).cast())
    })?;
    let (gid_index, gid) = match way.gids {
        Some([near, far]) => (near, query_gid(context, far).ok_or("there is no such GID")?),
        None => choose_gid(context, port.gid_tbl_len)?,
    };
    let modify = |state, more: mask, set: &dyn Fn(&mut ibv_qp_attr)| {
        // SAFETY: as above.
        let mut attr: ibv_qp_attr = unsafe { mem::zeroed() };
        attr.qp_state = state;
        set(&mut attr);
        let names = (more | mask::IBV_QP_STATE).0 as i32;
        // SAFETY: the queue pair is alive.
        check("ibv_modify_qp", unsafe {
            ibv_modify_qp(qp, &mut attr, names)
        })
    };
    let init = mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS;
    modify(ibv_qp_state::IBV_QPS_INIT, init, &|attr| {
        attr.port_num = PORT;
        // What the queue pair lets through; what a key grants is up to its registration.
        attr.qp_access_flags = (ibv_access_flags::IBV_ACCESS_REMOTE_WRITE
            | ibv_access_flags::IBV_ACCESS_REMOTE_READ
            | ibv_access_flags::IBV_ACCESS_REMOTE_ATOMIC)
            .0;
    })?;
    let rtr = mask::IBV_QP_AV
        | mask::IBV_QP_PATH_MTU
        | mask::IBV_QP_DEST_QPN
        | mask::IBV_QP_RQ_PSN
        | mask::IBV_QP_MAX_DEST_RD_ATOMIC
        | mask::IBV_QP_MIN_RNR_TIMER;
    modify(ibv_qp_state::IBV_QPS_RTR, rtr, &|attr| {
        attr.path_mtu = port.active_mtu;
        // SAFETY: the peer is alive; its number does not change.
        attr.dest_qp_num = unsafe { (*peer).qp_num };
        attr.max_dest_rd_atomic = way.rd_atomic;
        attr.min_rnr_timer = 12;
        attr.ah_attr.port_num = PORT;
        attr.ah_attr.dlid = port.lid;
        attr.ah_attr.is_global = 1;
        attr.ah_attr.grh.dgid = gid;
        attr.ah_attr.grh.sgid_index = gid_index;
        attr.ah_attr.grh.hop_limit = 64;
    })?;
    let rts = mask::IBV_QP_SQ_PSN
        | mask::IBV_QP_TIMEOUT
        | mask::IBV_QP_RETRY_CNT
        | mask::IBV_QP_RNR_RETRY
        | mask::IBV_QP_MAX_QP_RD_ATOMIC;
    modify(ibv_qp_state::IBV_QPS_RTS, rts, &|attr| {
        attr.timeout = 16; // 0.27 s
        attr.retry_cnt = 6; // 7 never gives up on some devices
        attr.rnr_retry = 7;
        attr.max_rd_atomic = way.rd_atomic;
    })
}

/// The first GID that is an IPv4 address, else the first.
fn choose_gid(context: *mut ibv_context, count: i32) -> Result<(u8, ibv_gid), Failure> {
    let query = |index: u8| query_gid(context, index).map(|gid| (index, gid));
    let is_ipv4 = |gid: &ibv_gid| {
        // SAFETY: both forms are plain numbers.
        let bytes = unsafe { gid.raw };
        bytes.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
    };
    let mut gids = (0..u8::try_from(count).unwrap_or(u8::MAX)).filter_map(query);
    let ipv4 = gids.find(|(_, gid)| is_ipv4(gid));
    Ok(ipv4.or_else(|| query(0)).ok_or("the port has no GID")?)
}

fn query_gid(context: *mut ibv_context, index: u8) -> Option<ibv_gid> {
    let mut gid = ibv_gid { raw: [0; 16] };
    // SAFETY: the device is open.
    let ret = unsafe { ibv_query_gid(context, PORT, index.into(), &mut gid) };
    (ret == 0).then_some(gid)
}

/// A scatter/gather element of ours as the verbs' own.
pub fn element(sge: Sge) -> ibv_sge {
    ibv_sge {
        addr: sge.addr,
        length: sge.length,
        lkey: sge.lkey,
    }
}

/// A signalled work request that names no bytes yet.
pub fn request(opcode: ibv_wr_opcode::Type) -> ibv_send_wr {
    // SAFETY: all zeros is a valid one: numbers, and pointers that may be null.
    let mut wr: ibv_send_wr = unsafe { mem::zeroed() };
    wr.opcode = opcode;
    wr.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
    wr
}
