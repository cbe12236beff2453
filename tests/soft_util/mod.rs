//! What the tests of the NIC in software share: memory, a connected pair, waiting for completions.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use rdma_mr::registration::{Deregister, Registrar};
use rdma_mr::work::{
    CompletionEvents as _, CompletionQueue as _, QpCaps, QueuePair as _, RecvWr, RemoteAddr,
    SendFlags, SendOp, SendWr, Sge, WcStatus, WorkCompletion,
};
use rdma_mr::{Access, Error};

/// Longer than anything takes, unless it hangs.
pub const LONG: Duration = Duration::from_secs(30);

pub const ALL: Access = Access::all();
pub const SIGNALED: SendFlags = SendFlags::SIGNALED;

/// Page-aligned memory that is never seen through a reference.
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a pointer to memory that it owns; the accesses are volatile.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(length: usize) -> Self {
        let start = NonNull::new(
            // SAFETY: tests ask for at least one byte.
            unsafe { alloc_zeroed(Self::layout(length)) },
        )
        .expect("memory");
        let _ = start.as_ptr().expose_provenance();
        Memory { start, length }
    }

    fn layout(length: usize) -> Layout {
        Layout::from_size_align(length, 4096).unwrap()
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub fn addr(&self, offset: usize) -> u64 {
        self.start.as_ptr() as u64 + offset as u64
    }

    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        (offset..offset + length)
            // SAFETY: inside, as was checked.
            .map(|i| unsafe { self.start.add(i).read_volatile() })
            .collect()
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: inside, as was checked.
            unsafe { self.start.add(offset + i).write_volatile(*byte) };
        }
    }

    pub fn fill(&self, byte: u8) {
        for i in 0..self.length {
            // SAFETY: inside.
            unsafe { self.start.add(i).write_volatile(byte) };
        }
    }

    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.length);
        // SAFETY: inside and aligned; used for words that are accessed atomically only.
        unsafe { AtomicU64::from_ptr(self.start.add(offset).as_ptr().cast()) }
    }

    pub fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    pub fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the tests keep it until nobody works on it.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.length)) };
    }
}

/// Bytes that differ from their neighbours and from other patterns.
pub fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed)
        .collect()
}

/// Registered memory; deregistered before it is freed.
pub struct Region {
    pub lkey: u32,
    pub rkey: u32,
    handle: Option<Box<dyn Deregister>>,
    pub memory: Memory,
}

impl Region {
    pub fn new(pd: &ProtectionDomain, length: usize, access: Access) -> Self {
        let memory = Memory::new(length);
        // SAFETY: REG-4: `Drop` deregisters first.
        let registered = unsafe { pd.register(memory.start(), length, access) }.unwrap();
        Region {
            lkey: registered.lkey,
            rkey: registered.rkey,
            handle: Some(registered.handle),
            memory,
        }
    }

    pub fn deregister(&mut self) {
        if let Some(mut handle) = self.handle.take() {
            handle.deregister().unwrap();
        }
    }

    pub fn sge(&self, offset: usize, length: usize) -> Sge {
        Sge {
            addr: self.memory.addr(offset),
            length: length as u32,
            lkey: self.lkey,
        }
    }

    pub fn all(&self) -> Sge {
        self.sge(0, self.memory.len())
    }

    pub fn remote(&self, offset: usize) -> RemoteAddr {
        RemoteAddr {
            addr: self.memory.addr(offset),
            rkey: self.rkey,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// One end of a connection.
pub struct End {
    pub pd: Arc<ProtectionDomain>,
    pub send_cq: CompletionQueue,
    pub recv_cq: CompletionQueue,
    pub qp: QueuePair,
}

impl End {
    pub fn new(nic: &Nic, caps: QpCaps) -> Self {
        let pd = nic.alloc_pd();
        let send_cq = nic.create_cq(256).unwrap();
        let recv_cq = nic.create_cq(256).unwrap();
        let qp = pd.create_qp(&send_cq, &recv_cq, caps).unwrap();
        End {
            pd,
            send_cq,
            recv_cq,
            qp,
        }
    }

    pub fn region(&self, length: usize) -> Region {
        Region::new(&self.pd, length, ALL)
    }

    pub fn post(&self, wr_id: u64, op: SendOp, sge: &[Sge]) {
        self.try_post(wr_id, op, sge, SIGNALED).unwrap();
    }

    pub fn try_post(
        &self,
        wr_id: u64,
        op: SendOp,
        sge: &[Sge],
        flags: SendFlags,
    ) -> Result<(), Error> {
        post(&self.qp, wr_id, op, sge, flags)
    }

    pub fn recv(&self, wr_id: u64, sge: &[Sge]) {
        self.try_recv(wr_id, sge).unwrap();
    }

    pub fn try_recv(&self, wr_id: u64, sge: &[Sge]) -> Result<(), Error> {
        let wr = RecvWr { wr_id, sge };
        // SAFETY: POST-2: as in `post`.
        unsafe { self.qp.post_recv(&wr) }
    }
}

pub fn post(
    qp: &QueuePair,
    wr_id: u64,
    op: SendOp,
    sge: &[Sge],
    flags: SendFlags,
) -> Result<(), Error> {
    let wr = SendWr {
        wr_id,
        sge,
        op,
        flags,
    };
    // SAFETY: POST-1: the tests keep their memory until the queue pair is done with it, and reach it
    // by volatile or atomic accesses only.
    unsafe { qp.post_send(&wr) }
}

/// A NIC and two connected ends with a protection domain each.
pub struct Pair {
    // Dropped in this order: first the queue pairs, then what they use.
    pub a: End,
    pub b: End,
    pub nic: Nic,
}

impl Pair {
    pub fn new() -> Self {
        Self::on(&Nic::new(), QpCaps::default())
    }

    pub fn stepped() -> Self {
        Self::on(&Nic::builder().stepped().build(), QpCaps::default())
    }

    pub fn on(nic: &Nic, caps: QpCaps) -> Self {
        let (a, b) = (End::new(nic, caps), End::new(nic, caps));
        QueuePair::connect_pair(&a.qp, &b.qp).unwrap();
        Pair {
            a,
            b,
            nic: nic.clone(),
        }
    }

    /// The next completions of a queue.
    pub fn take(&self, cq: &CompletionQueue, count: usize) -> Vec<WorkCompletion> {
        take(&self.nic, cq, count)
    }

    /// The next completion of `a`'s send queue.
    pub fn sent(&self) -> WorkCompletion {
        self.take(&self.a.send_cq, 1)[0]
    }

    /// The next completion of `b`'s receive queue.
    pub fn received(&self) -> WorkCompletion {
        self.take(&self.b.recv_cq, 1)[0]
    }

    /// Posts on `a` and returns how it ended.
    pub fn run(&self, op: SendOp, sge: &[Sge]) -> WorkCompletion {
        self.a.post(77, op, sge);
        let done = self.sent();
        assert_eq!(done.wr_id, 77);
        assert_eq!(done.qp_num, self.a.qp.qp_num());
        done
    }

    /// Nothing is left to poll, and nothing comes when the NIC has done all that it can.
    pub fn assert_silent(&self) {
        self.nic.run_until_idle();
        if !self.nic.is_stepped() {
            std::thread::sleep(Duration::from_millis(20));
        }
        for end in [&self.a, &self.b] {
            for cq in [&end.send_cq, &end.recv_cq] {
                let mut out = [WorkCompletion::EMPTY; 8];
                let count = cq.poll(&mut out).unwrap();
                assert_eq!(count, 0, "{:?}", &out[..count]);
            }
        }
    }
}

/// The next `count` completions of a queue; panics if they don't come.
pub fn take(nic: &Nic, cq: &CompletionQueue, count: usize) -> Vec<WorkCompletion> {
    let deadline = Instant::now() + LONG;
    let mut taken = Vec::new();
    let mut out = [WorkCompletion::EMPTY; 4];
    while taken.len() < count {
        let room = out.len().min(count - taken.len());
        let got = if nic.is_stepped() {
            cq.poll(&mut out[..room]).unwrap()
        } else {
            poll_or_sleep(cq, &mut out[..room], Duration::from_millis(100))
        };
        taken.extend_from_slice(&out[..got]);
        if got == 0 {
            if nic.is_stepped() {
                assert!(nic.step(), "idle with {} of {count}", taken.len());
            }
            assert!(Instant::now() < deadline, "{} of {count}", taken.len());
        }
    }
    taken
}

/// Polls; if there is nothing sleeps until there may be, or the time is over, and polls again.
pub fn poll_or_sleep(cq: &CompletionQueue, out: &mut [WorkCompletion], limit: Duration) -> usize {
    for armed in [false, true] {
        if armed {
            cq.req_notify(false).unwrap();
        }
        let got = cq.poll(out).unwrap();
        if got > 0 {
            return got;
        }
    }
    cq.wait_event(Some(limit)).unwrap();
    cq.poll(out).unwrap()
}

/// Everything that a queue holds now.
pub fn drain(cq: &CompletionQueue) -> Vec<WorkCompletion> {
    let mut all = Vec::new();
    let mut out = [WorkCompletion::EMPTY; 16];
    loop {
        let got = cq.poll(&mut out).unwrap();
        if got == 0 {
            return all;
        }
        all.extend_from_slice(&out[..got]);
    }
}

/// Waits until a condition holds that another thread brings about.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn statuses(completions: &[WorkCompletion]) -> Vec<(u64, WcStatus)> {
    completions
        .iter()
        .map(|done| (done.wr_id, done.status))
        .collect()
}
