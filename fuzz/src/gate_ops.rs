//! Programs of acquisitions, releases, futures and the close, on one thread, against a naive model: who is let in, that
//! whoever waits is woken when the way is free, and that nothing is left behind.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use rdma_mr::Error;
use rdma_mr::gate::{Acquire, Barrier, Gate, Holder, Patience, Permit, ReadBias};

use crate::place;

/// Steps of one program, at most: what longer ones find, short ones do, and sooner.
const STEPS: usize = 128;

/// One thread, which is every holder and every waiter.
#[derive(Arbitrary, Debug)]
pub struct Program {
    /// Whether the gate is biased to readers, and then whether writers pay for the order.
    bias: Option<bool>,
    /// Whether who waits spins before, and then goes ahead of readers.
    spins: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Kind {
    CpuRead,
    NicRead,
    CpuWrite,
    NicWrite,
}

impl From<Kind> for Holder {
    fn from(kind: Kind) -> Holder {
        match kind {
            Kind::CpuRead => Holder::CpuRead,
            Kind::NicRead => Holder::NicRead,
            Kind::CpuWrite => Holder::CpuWrite,
            Kind::NicWrite => Holder::NicWrite,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Asks, and does not wait.
    Try(Kind),
    /// Waits until a deadline that has passed.
    Until(Kind),
    /// Waits, giving back permits meanwhile.
    With(Kind),
    /// Gives a permit back.
    Release(u8),
    /// Makes a future.
    Begin(Kind),
    /// Polls one.
    Poll(u8),
    /// Drops one.
    Abandon(u8),
    /// Forgets one.
    Forget(u8),
    /// Closes the gate.
    Close,
}

/// Whether the naive model lets `wants` in beside `held`.
fn lets_in(held: &[Permit<'_>], closed: bool, wants: Holder) -> bool {
    let free = match wants.is_shared() {
        true => held.iter().all(|permit| permit.holder().is_shared()),
        false => held.is_empty(),
    };
    free && !(closed && wants.is_nic())
}

/// That nobody waits for a clock: a wait spins for no time, or next to none, and parks then.
pub(crate) fn gate(bias: Option<bool>, spins: bool) -> Gate {
    let gate = Gate::with_patience(Patience {
        spin: Duration::from_nanos(spins.into()),
        stand_back: Duration::ZERO,
    });
    match bias {
        None => gate,
        Some(membarrier) => gate.with_read_bias(ReadBias {
            quiet: Duration::ZERO,
            barrier: match membarrier {
                true => Barrier::Membarrier,
                false => Barrier::Fence,
            },
        }),
    }
}

/// Whether a future was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Waiting<'g> {
    holder: Holder,
    future: Pin<Box<Acquire<'g>>>,
    /// Not before it was polled.
    woken: Option<Arc<Woken>>,
}

struct World<'g> {
    gate: &'g Gate,
    held: Vec<Permit<'g>>,
    waiting: Vec<Waiting<'g>>,
    /// As good as forgotten: nothing touches them before all has been checked.
    forgotten: Vec<Waiting<'g>>,
    closed: bool,
    /// An exclusive side has waited, and may have asked others to stand back.
    asked: bool,
}

impl<'g> World<'g> {
    fn expects(&self, holder: Holder) -> bool {
        lets_in(&self.held, self.closed, holder)
    }

    /// An answer to who did not wait.
    fn answer(&mut self, holder: Holder, got: Result<Permit<'g>, Error>) {
        let expected = self.expects(holder);
        match got {
            Ok(permit) => {
                assert!(expected);
                assert_eq!(permit.holder(), holder);
                self.held.push(permit);
            }
            Err(Error::Closed) => assert!(self.closed && holder.is_nic()),
            // Joining other readers is refused while an exclusive side asks to stand back.
            Err(_) => {
                let joins = holder.is_shared() && !self.held.is_empty();
                assert!(!expected || self.asked && joins);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Try(kind) => {
                let got = self.gate.try_acquire(kind.into());
                self.answer(kind.into(), got);
            }
            Step::Until(kind) => {
                let holder = Holder::from(kind);
                self.asked |= !holder.is_shared();
                let got = self.gate.acquire_until(holder, Instant::now());
                self.answer(holder, got);
            }
            Step::With(kind) => self.wait_with(kind.into()),
            Step::Release(at) => {
                if let Some(at) = place(at, self.held.len()) {
                    drop(self.held.swap_remove(at));
                }
            }
            Step::Begin(kind) => self.waiting.push(Waiting {
                holder: kind.into(),
                future: Box::pin(self.gate.acquire_async(kind.into())),
                woken: None,
            }),
            Step::Poll(at) => {
                if let Some(at) = place(at, self.waiting.len()) {
                    self.poll(at);
                }
            }
            Step::Abandon(at) => {
                if let Some(at) = place(at, self.waiting.len()) {
                    drop(self.waiting.swap_remove(at));
                }
            }
            Step::Forget(at) => {
                if let Some(at) = place(at, self.waiting.len()) {
                    self.forgotten.push(self.waiting.swap_remove(at));
                }
            }
            Step::Close => {
                self.gate.close();
                self.closed = true;
            }
        }
        self.check();
    }

    fn wait_with(&mut self, holder: Holder) {
        self.asked |= !holder.is_shared();
        let mut held = std::mem::take(&mut self.held);
        let got = self.gate.acquire_with(holder, || drop(held.pop()));
        self.held = held;
        self.answer(holder, got);
    }

    fn poll(&mut self, at: usize) {
        let expected = self.expects(self.waiting[at].holder);
        let waiting = &mut self.waiting[at];
        let holder = waiting.holder;
        self.asked |= !holder.is_shared();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        match waiting
            .future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
        {
            Poll::Ready(got) => {
                drop(self.waiting.swap_remove(at));
                match got {
                    Ok(permit) => {
                        assert!(expected);
                        self.held.push(permit);
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Closed) && self.closed && holder.is_nic());
                    }
                }
            }
            Poll::Pending => {
                assert!(!expected || self.asked && holder.is_shared());
                waiting.woken = Some(woken);
            }
        }
    }

    fn check(&self) {
        let state = self.gate.state();
        let count = |holder| self.held.iter().filter(|p| p.holder() == holder).count() as u64;
        assert_eq!(state.cpu_readers, count(Holder::CpuRead));
        assert_eq!(state.nic_reads, count(Holder::NicRead));
        assert_eq!(
            state.writer.is_some(),
            count(Holder::CpuWrite) + count(Holder::NicWrite) == 1
        );
        for waiting in &self.waiting {
            if let Some(woken) = &waiting.woken {
                let ready = self.expects(waiting.holder) || self.closed && waiting.holder.is_nic();
                assert!(woken.0.load(Ordering::Relaxed) || !ready, "not woken");
            }
        }
    }
}

/// Carries it out.
///
/// # Panics
/// If the gate does what it must not.
pub fn run(program: Program) {
    let gate = gate(program.bias, program.spins);
    let mut world = World {
        gate: &gate,
        held: Vec::new(),
        waiting: Vec::new(),
        forgotten: Vec::new(),
        closed: false,
        asked: false,
    };
    for step in program.steps.into_iter().take(STEPS) {
        world.step(step);
    }
    let World {
        held,
        waiting,
        forgotten,
        ..
    } = world;
    drop(waiting);
    drop(held);
    assert!(gate.state().is_free());
    assert!(gate.acquire(Holder::CpuRead).is_ok());
    assert!(gate.try_acquire(Holder::CpuWrite).is_ok());
    drop(forgotten);
}
