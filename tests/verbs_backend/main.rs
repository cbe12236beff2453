//! The verbs backend on a real device, without regions: raw memory, its registrations, queues and
//! connections. Needs a device; `cargo xtask vm test` has one (soft-RoCE).
#![cfg(feature = "verbs")]

mod connections;
mod errors;
mod lists;
mod memory;
mod queues;
mod srq;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::backend::verbs::cm::{self, Config, Connection, Listener, Pending};
use rdma_mr::backend::verbs::{
    AsyncEvent, AtomicCap, CompletionQueue, Context, ProtectionDomain, QpState, QueuePair,
    SharedRecvQueue, devices, leaked, sys,
};
use rdma_mr::registration::{Registered, Registrar};
use rdma_mr::work::{
    BadWr, CompletionEvents, CompletionQueue as _, QpCaps, QueuePair as _, RecvWr, RemoteAddr,
    SendFlags, SendOp, SendWr, Sge, SharedRecvQueue as _, WcOpcode, WcStatus, WorkCompletion,
};
use rdma_mr::{Access, Error};

const PATIENCE: Duration = Duration::from_secs(20);
const SIGNALED: SendFlags = SendFlags::SIGNALED;

/// The device that these tests need.
fn device() -> Context {
    Context::open(None).unwrap()
}

/// The address of the device, for the connection manager.
fn address(port: u16) -> SocketAddr {
    let ip = std::env::var("RDMA_MR_VM_ADDR").unwrap_or_else(|_| "10.0.0.1".to_owned());
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Page-aligned memory under a registration.
struct Mem {
    ptr: NonNull<u8>,
    layout: Layout,
    registered: Registered,
}

// SAFETY: owned memory and a handle that is Send.
unsafe impl Send for Mem {}
// SAFETY: as above; the tests look at the bytes only when nobody writes them.
unsafe impl Sync for Mem {}

impl Mem {
    fn try_new(pd: &ProtectionDomain, length: usize, access: Access) -> io::Result<Mem> {
        let layout = Layout::from_size_align(length.max(1), 4096).unwrap();
        // SAFETY: the layout is not empty.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        // SAFETY: the memory is freed after deregistration only.
        match unsafe { pd.register(ptr, length, access) } {
            Ok(registered) => Ok(Mem {
                ptr,
                layout,
                registered,
            }),
            Err(error) => {
                // SAFETY: allocated above, not registered.
                unsafe { dealloc(ptr.as_ptr(), layout) };
                Err(error)
            }
        }
    }

    fn new(pd: &ProtectionDomain, access: Access) -> Mem {
        Mem::try_new(pd, 4096, access).unwrap()
    }

    fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.layout.size());
        // SAFETY: inside the allocation; no operation is under way.
        unsafe {
            self.ptr
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        assert!(len <= self.layout.size());
        // SAFETY: inside the allocation; no operation is under way.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), len).to_vec() }
    }

    fn sge(&self, offset: u64, length: u32) -> Sge {
        Sge {
            addr: self.ptr.as_ptr() as u64 + offset,
            length,
            lkey: self.registered.lkey,
        }
    }

    fn remote(&self, offset: u64) -> RemoteAddr {
        RemoteAddr {
            addr: self.ptr.as_ptr() as u64 + offset,
            rkey: self.registered.rkey,
        }
    }
}

impl Drop for Mem {
    fn drop(&mut self) {
        match self.registered.handle.deregister() {
            // SAFETY: the NIC touches it no more.
            Ok(()) => unsafe { dealloc(self.ptr.as_ptr(), self.layout) },
            Err(error) => panic!("{error}"),
        }
    }
}

/// Two queue pairs of one device, connected to each other, with a completion queue each.
struct Pair {
    a: QueuePair,
    b: QueuePair,
    a_cq: Arc<CompletionQueue>,
    b_cq: Arc<CompletionQueue>,
    pd: Arc<ProtectionDomain>,
}

impl Pair {
    fn unconnected(context: &Context, caps: QpCaps) -> Pair {
        let pd = context.alloc_pd().unwrap();
        let a_cq = context.create_cq_with_channel(1024).unwrap();
        let b_cq = context.create_cq_with_channel(1024).unwrap();
        Pair {
            a: pd.create_qp(&a_cq, &a_cq, caps).unwrap(),
            b: pd.create_qp(&b_cq, &b_cq, caps).unwrap(),
            a_cq,
            b_cq,
            pd,
        }
    }

    fn new(context: &Context) -> Pair {
        let pair = Pair::unconnected(context, QpCaps::default());
        QueuePair::connect_loopback(&pair.a, &pair.b, None).unwrap();
        pair
    }

    /// Posts on `a` and returns the completion.
    fn run(&self, sge: &[Sge], op: SendOp, flags: SendFlags) -> WorkCompletion {
        post(&self.a, 77, sge, op, flags | SIGNALED).unwrap();
        let done = next(&self.a_cq);
        assert_eq!((done.wr_id, done.qp_num), (77, self.a.qp_num()));
        done
    }
}

fn post(
    qp: &QueuePair,
    wr_id: u64,
    sge: &[Sge],
    op: SendOp,
    flags: SendFlags,
) -> rdma_mr::Result<()> {
    let wr = SendWr {
        wr_id,
        sge,
        op,
        flags,
    };
    // SAFETY: the tests keep the memory registered and untouched until the completion.
    unsafe { qp.post_send(&wr) }
}

fn recv(qp: &QueuePair, wr_id: u64, sge: &[Sge]) -> rdma_mr::Result<()> {
    // SAFETY: as in `post`.
    unsafe { qp.post_recv(&RecvWr { wr_id, sge }) }
}

/// Behind the back of the queue pair into INIT, where rxe's kernel side refuses the doorbell of a
/// send.
fn back_to_init(qp: &QueuePair) {
    for state in [
        sys::ibv_qp_state::IBV_QPS_RESET,
        sys::ibv_qp_state::IBV_QPS_INIT,
    ] {
        // SAFETY: all zeros is valid.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = state;
        attr.port_num = 1;
        let mask = match state {
            sys::ibv_qp_state::IBV_QPS_RESET => sys::ibv_qp_attr_mask::IBV_QP_STATE,
            _ => {
                sys::ibv_qp_attr_mask::IBV_QP_STATE
                    | sys::ibv_qp_attr_mask::IBV_QP_PKEY_INDEX
                    | sys::ibv_qp_attr_mask::IBV_QP_PORT
                    | sys::ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS
            }
        };
        // SAFETY: the queue pair is alive and nothing is outstanding on it.
        let ret = unsafe { sys::ibv_modify_qp(qp.as_raw(), &mut attr, mask.0 as i32) };
        assert_eq!(ret, 0);
    }
}

/// The next completion, polled for.
fn next(cq: &CompletionQueue) -> WorkCompletion {
    let mut out = [WorkCompletion::EMPTY; 1];
    let start = Instant::now();
    while cq.poll(&mut out).unwrap() == 0 {
        assert!(start.elapsed() < PATIENCE, "no completion");
        thread::yield_now();
    }
    out[0]
}

/// That many completions have come, and no other one.
fn exactly(cq: &CompletionQueue, count: usize) -> Vec<WorkCompletion> {
    let done = (0..count).map(|_| next(cq)).collect();
    thread::sleep(Duration::from_millis(100));
    let mut more = [WorkCompletion::EMPTY; 8];
    let got = cq.poll(&mut more).unwrap();
    assert_eq!(more[..got], []);
    done
}

fn provider(error: Error) -> (&'static str, io::ErrorKind) {
    match error {
        Error::Provider { call, source } => (call, source.kind()),
        other => panic!("{other:?}"),
    }
}

/// Only one test leaks, and one registration.
fn assert_no_leak() {
    assert!(leaked() <= 1, "{} objects leaked", leaked());
}

const READ: Access = Access::LOCAL_WRITE.union(Access::REMOTE_READ);
const ALL: Access = Access::all();
