//! The NIC: what its parts share, its thread, and the handle that users hold.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::channel::Channel;
use super::config::Config;
use super::context::QpInner;
use super::cq::CqInner;
use super::doorbell::Doorbell;
use super::engine::Engine;
use super::fault::{Fault, Faults, When};
use super::memory::KeyTable;
use super::{CompletionQueue, NicBuilder, ProtectionDomain, Stats, lock};
use crate::Result;
use crate::sync::{AtomicU64, Mutex, Ordering, now};
#[cfg(not(loom))]
use {
    super::engine::Step,
    crate::sync::thread::{self, JoinHandle},
    std::time::Duration,
};

/// The first number of a queue pair; 0 and 1 are special in verbs.
const FIRST_QP: u32 = 0x11;

/// A NIC in the process (`struct ibv_context`). A handle: clones are the same NIC.
///
/// Unless it is [stepped](NicBuilder::stepped), a thread of its own does the work; it starts with
/// the first queue pair, sleeps when there is nothing to do, and ends with the last of the NIC's
/// handles, protection domains, queue pairs and completion queues.
///
/// ```
/// use rdma_mr::backend::soft::Nic;
///
/// let nic = Nic::new();
/// let pd = nic.alloc_pd();
/// let cq = nic.create_cq(64)?;
/// assert_eq!(nic.stats().completion_queues, 1);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone)]
pub struct Nic {
    pub(super) alive: Arc<Alive>,
}

/// Keeps the thread running: all that users hold has one.
pub(super) struct Alive {
    pub(super) core: Arc<Core>,
    #[cfg(not(loom))]
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the parts of a NIC share.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) keys: KeyTable,
    pub(super) faults: Faults,
    pub(super) bell: Doorbell,
    pub(super) completion_queues: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    next_pd: AtomicU64,
    qps: Mutex<QpTable>,
    engine: Mutex<Engine>,
    /// Where the NIC's clock starts; none in stepped mode, which knows no time.
    started: Option<Instant>,
}

struct QpTable {
    /// In the order of their numbers.
    list: Vec<Arc<QpInner>>,
    next: u32,
}

/// Where a look for work stands.
pub(super) struct Scan {
    at: usize,
    left: usize,
}

impl Scan {
    /// The place in the table after the queue pair that was found last.
    pub(super) fn next_place(&self) -> usize {
        self.at
    }
}

impl Core {
    fn new(config: Config) -> Self {
        Core {
            keys: KeyTable::new(),
            faults: Faults::new(config.seed, &config.faults),
            bell: Doorbell::new(),
            completion_queues: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            next_pd: AtomicU64::new(1),
            qps: Mutex::new(QpTable {
                list: Vec::new(),
                next: FIRST_QP,
            }),
            engine: Mutex::new(Engine::new(&config)),
            started: (!config.stepped).then(now),
            config,
        }
    }

    /// Nanoseconds on the NIC's clock; always 0 in stepped mode.
    pub(super) fn now(&self) -> u64 {
        self.started.map_or(0, |started| {
            u64::try_from((now() - started).as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// When a work request that is posted now may be carried out.
    pub(super) fn due(&self) -> u64 {
        let latency = self.config.latency;
        if latency.is_zero() {
            return 0;
        }
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.started
            .map_or(0, |_| self.now().saturating_add(latency))
    }

    pub(super) fn add_qp(&self, make: impl FnOnce(u32) -> QpInner) -> Arc<QpInner> {
        let mut qps = lock(&self.qps);
        // After 2^32 of them numbers come again; one that lives still is passed over.
        let (num, at) = loop {
            let num = qps.next;
            qps.next = qps.next.checked_add(1).unwrap_or(FIRST_QP);
            if let Err(at) = qps.list.binary_search_by_key(&num, |qp| qp.num) {
                break (num, at);
            }
        };
        let qp = Arc::new(make(num));
        qps.list.insert(at, qp.clone());
        qp
    }

    pub(super) fn remove_qp(&self, num: u32) {
        let mut qps = lock(&self.qps);
        if let Ok(at) = qps.list.binary_search_by_key(&num, |qp| qp.num) {
            qps.list.remove(at);
        }
    }

    pub(super) fn find_qp(&self, num: u32) -> Option<Arc<QpInner>> {
        let qps = lock(&self.qps);
        let at = qps.list.binary_search_by_key(&num, |qp| qp.num).ok()?;
        Some(qps.list[at].clone())
    }

    /// Starts a look at all queue pairs, from the place in the table that `first` gives for their
    /// number.
    pub(super) fn scan(&self, first: impl FnOnce(usize) -> usize) -> Scan {
        let count = lock(&self.qps).list.len();
        Scan {
            at: first(count),
            left: count,
        }
    }

    /// The next queue pair that has work.
    pub(super) fn next_with_work(&self, scan: &mut Scan) -> Option<Arc<QpInner>> {
        let qps = lock(&self.qps);
        while scan.left > 0 {
            let qp = qps.list.get(scan.at % qps.list.len().max(1))?;
            scan.at = scan.at.wrapping_add(1);
            scan.left -= 1;
            if qp.has_work() {
                return Some(qp.clone());
            }
        }
        None
    }

    /// A completion queue was overrun: all queue pairs that feed it fail.
    pub(super) fn overrun(&self, cq: &Arc<CqInner>) {
        for qp in &lock(&self.qps).list {
            if Arc::ptr_eq(&qp.send_cq, cq) || Arc::ptr_eq(&qp.recv_cq, cq) {
                qp.state.set_error();
            }
        }
    }
}

impl Alive {
    /// Starts the thread, unless it runs or there is to be none.
    #[cfg(not(loom))]
    pub(super) fn start(&self) -> io::Result<()> {
        if self.core.config.stepped {
            return Ok(());
        }
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let core = self.core.clone();
            *thread = Some(
                thread::Builder::new()
                    .name(self.core.config.name.clone())
                    .spawn(move || run(&core))?,
            );
        }
        Ok(())
    }

    /// Under loom there is none.
    #[cfg(loom)]
    pub(super) fn start(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(loom))]
impl Drop for Alive {
    fn drop(&mut self) {
        self.core.bell.stop();
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        // The thread holds nothing that owns an `Alive`; should that change, it must not wait for
        // itself.
        if thread.thread().id() != thread::current().id() {
            // An error says that the thread panicked; there is nobody to tell, and it is over.
            let _ = thread.join();
        }
    }
}

/// What the thread does.
#[cfg(not(loom))]
fn run(core: &Core) {
    let mut engine = lock(&core.engine);
    while let Some(heard) = core.bell.listen() {
        match engine.step(core) {
            Step::Done => {}
            Step::Idle => core.bell.wait(heard, None),
            Step::Until(due) => {
                let left = due.saturating_sub(core.now());
                core.bell.wait(heard, Some(Duration::from_nanos(left)));
            }
        }
    }
}

impl Default for Nic {
    fn default() -> Self {
        Self::new()
    }
}

impl Nic {
    /// A NIC with a thread, without latency and faults.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A NIC that is to be set up first.
    pub fn builder() -> NicBuilder {
        NicBuilder::new()
    }

    pub(super) fn from_config(config: Config) -> Self {
        Self::of(Arc::new(Alive {
            core: Arc::new(Core::new(config)),
            #[cfg(not(loom))]
            thread: Mutex::new(None),
        }))
    }

    pub(super) fn of(alive: Arc<Alive>) -> Self {
        Nic { alive }
    }

    fn core(&self) -> &Core {
        &self.alive.core
    }

    /// Its name (`ibv_get_device_name`).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core().config.name
    }

    /// Whether it acts only inside of [`step`](Self::step).
    #[must_use]
    pub fn is_stepped(&self) -> bool {
        self.core().config.stepped
    }

    /// A new protection domain (`ibv_alloc_pd`).
    #[must_use]
    pub fn alloc_pd(&self) -> Arc<ProtectionDomain> {
        // Ordering: Relaxed: only that no two are equal.
        let id = self.core().next_pd.fetch_add(1, Ordering::Relaxed);
        Arc::new(ProtectionDomain::new(self.alive.clone(), id))
    }

    /// A new completion queue for up to `capacity` completions (`ibv_create_cq`).
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider) for a capacity of 0 or more than 4,194,304.
    pub fn create_cq(&self, capacity: u32) -> Result<CompletionQueue> {
        CompletionQueue::create(&self.alive, capacity, Channel::new())
    }

    /// The same with a completion channel of its own (`ibv_create_comp_channel`): a descriptor for
    /// `epoll`, which [`fd`](crate::work::CompletionEvents::fd) gives. A queue without one makes
    /// events as well, to sleep on in [`wait_event`](crate::work::CompletionEvents::wait_event).
    ///
    /// # Errors
    /// As [`create_cq`](Self::create_cq); also if the process has no descriptor left.
    #[cfg(unix)]
    pub fn create_cq_with_channel(&self, capacity: u32) -> Result<CompletionQueue> {
        let channel = Channel::with_descriptor().map_err(|source| crate::Error::Provider {
            call: "soft create_comp_channel",
            source,
        })?;
        CompletionQueue::create(&self.alive, capacity, channel)
    }

    /// Carries out one unit of work of a stepped NIC: one work request of one queue pair, the flush
    /// of one, one try that found no receive where tries are counted, or what a
    /// [fault](Fault) says is one. `false` if there was
    /// nothing that it could do, and always for a NIC with a thread. What the step completed can be
    /// polled when it returns.
    ///
    /// ```
    /// use rdma_mr::backend::soft::Nic;
    ///
    /// let nic = Nic::builder().stepped().seed(3).build();
    /// assert!(!nic.step());
    /// ```
    pub fn step(&self) -> bool {
        self.is_stepped() && lock(&self.core().engine).step(self.core()).is_done()
    }

    /// Steps until there is nothing left that can be done; returns how many steps it took. A
    /// message that waits for a receive without end is left waiting.
    pub fn run_until_idle(&self) -> usize {
        let mut steps = 0;
        while self.step() {
            steps += 1;
        }
        steps
    }

    /// Makes something fail, from now on.
    pub fn inject(&self, fault: Fault, when: When) {
        self.core().faults.add(fault, when);
    }

    /// Forgets all faults that were injected, the builder's too. What they hold back comes still.
    pub fn clear_faults(&self) {
        self.core().faults.clear();
    }

    /// What it has done and what lives on it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.core();
        Stats {
            registrations: core.keys.live(),
            // Ordering: Relaxed, all three: numbers for a reader who wants to know roughly.
            messages: core.messages.load(Ordering::Relaxed),
            bytes: core.bytes.load(Ordering::Relaxed),
            queue_pairs: lock(&core.qps).list.len(),
            completion_queues: core.completion_queues.load(Ordering::Relaxed) as usize,
            faults: core.faults.struck(),
        }
    }
}

impl fmt::Debug for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nic")
            .field("name", &self.name())
            .field("stepped", &self.is_stepped())
            .field("stats", &self.stats())
            .finish()
    }
}
