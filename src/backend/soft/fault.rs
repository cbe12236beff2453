//! Faults that a test asks for, and the random numbers of the NIC. What they do to completions on their
//! way stands in `delivery`.

use std::time::Duration;

use super::delivery::Delayed;
use super::lock;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::work::WcStatus;

/// What [`WorkCompletion::vendor_err`](crate::work::WorkCompletion::vendor_err) says of an error
/// that was injected.
pub const VENDOR_INJECTED: u32 = 0x1F;

/// What is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A send-queue work request that would have succeeded ends with this status, after the packet
    /// that makes up half of its bytes (rule R12), and its queue pair goes to `ERR` (the peer's too
    /// for `RemAccessErr`, `RemInvReqErr`, `RemOpErr`). Nothing happens for [`WcStatus::Success`].
    Completion(WcStatus),
    /// A registration is refused (`ENOMEM`); nothing is registered.
    Register,
    /// A deregistration is refused (`EBUSY`); the registration stays in force.
    Deregister,
    /// The [`destroy`](crate::work::QueuePair::destroy) of a queue pair is refused (`EBUSY`); it comes
    /// back as it was. Dropping it ends it.
    Destroy,
    /// A completion is never delivered, of a send or a receive, whatever its status; counted are those
    /// that would be. To the NIC the work request is over; its room in the queue comes back with a
    /// later completion of the same queue. No provider should do this, and none should be trusted not
    /// to: nothing may be released that the lost one alone would have released (rule R11).
    CompletionLost,
    /// A completion is delivered twice in a row, counted as for
    /// [`CompletionLost`](Self::CompletionLost); the second takes room in the completion queue, too,
    /// and may overrun it. For tests of code that does not trust its provider, as
    /// [`Endpoint`](crate::op::Endpoint) does not; asking for it is `unsafe`, see [`Distrust`].
    CompletionDuplicated(Distrust),
    /// A completion, counted as for [`CompletionLost`](Self::CompletionLost), comes that much later, and
    /// those behind it in its completion queue with it. In stepped mode, which knows no time, when
    /// nothing else is left to do; delivering it is a step.
    CompletionLate(Duration),
    /// A completion, counted as for [`CompletionLost`](Self::CompletionLost), is overtaken by the next
    /// one of its completion queue; if none comes it is as if it were
    /// [late](Self::CompletionLate), by a millisecond. The two may be of one queue, whose order a
    /// provider keeps (QP-5): asking for it is `unsafe`, see [`Distrust`].
    CompletionOvertaken(Distrust),
    /// A completion, counted as for [`CompletionLost`](Self::CompletionLost), finds its completion queue
    /// full, however much room there is: it is lost, the queue is overrun (rule R15), and all queue
    /// pairs that feed it go to `ERR`.
    CompletionQueueFull,
    /// The queue pair of a send-queue work request goes to `ERR` as that is begun, as if somebody had
    /// called [`modify_to_error`](super::QueuePair::modify_to_error): the work request goes on to its end
    /// (rule R11), those behind it are flushed.
    QueuePairError,
    /// The NIC does nothing for that long, from a send-queue work request on. In stepped mode a step
    /// that does nothing stands for each millisecond, and for a part of one.
    Stall(Duration),
}

/// The promise that [`Fault::CompletionDuplicated`] and [`Fault::CompletionOvertaken`] need: with them a
/// NIC breaks what [`CompletionQueue`](crate::work::CompletionQueue) and
/// [`QueuePair`](crate::work::QueuePair) say of every completion, and unsafe code may rely on that.
///
/// ```
/// use rdma_mr::backend::soft::{Distrust, Fault, Nic, When};
///
/// let nic = Nic::new();
/// // SAFETY: FAULT-1: nobody polls this NIC.
/// let distrust = unsafe { Distrust::new() };
/// nic.inject(Fault::CompletionDuplicated(distrust), When::Nth(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distrust(());

impl Distrust {
    /// Makes the promise.
    ///
    /// # Safety
    /// - **FAULT-1**: whoever polls completions of a NIC that this is injected into does not rely on
    ///   getting each one once (CQ-1, QP-3, SRQ-2), nor in order (QP-5): none of their `wr_id`s is turned
    ///   back with [`Hold::from_wr_id`](crate::op::Hold::from_wr_id), for example.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Distrust(())
    }
}

/// When it is to fail.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum When {
    /// Once, the n-th time from now on; 1 is the next time (and 0 as well).
    Nth(u64),
    /// Each time with this probability, 0.0 to 1.0.
    Probability(f64),
}

/// The faults of one NIC.
pub(super) struct Faults {
    /// How many there are, and completions held back, so that a NIC without either does not lock.
    armed: AtomicU64,
    struck: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: Rng,
    list: Vec<(Fault, When)>,
    delayed: Delayed,
}

/// The occasions at which faults are looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Message,
    Register,
    Deregister,
    Destroy,
    Delivery,
    Begin,
}

impl Fault {
    fn occasion(self) -> Occasion {
        match self {
            Fault::Completion(_) | Fault::QueuePairError => Occasion::Message,
            Fault::Register => Occasion::Register,
            Fault::Deregister => Occasion::Deregister,
            Fault::Destroy => Occasion::Destroy,
            Fault::CompletionLost
            | Fault::CompletionDuplicated(_)
            | Fault::CompletionLate(_)
            | Fault::CompletionOvertaken(_)
            | Fault::CompletionQueueFull => Occasion::Delivery,
            Fault::Stall(_) => Occasion::Begin,
        }
    }
}

impl Faults {
    pub(super) fn new(seed: u64, list: &[(Fault, When)]) -> Self {
        let faults = Faults {
            armed: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                rng: Rng::new(seed ^ 0xFA17_FA17_FA17_FA17),
                list: Vec::new(),
                delayed: Delayed::default(),
            }),
        };
        for (fault, when) in list {
            faults.add(*fault, *when);
        }
        faults
    }

    pub(super) fn add(&self, fault: Fault, when: When) {
        if fault == Fault::Completion(WcStatus::Success) {
            return;
        }
        let mut inner = lock(&self.inner);
        inner.list.push((fault, when));
        self.publish(&inner);
    }

    pub(super) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.list.clear();
        self.publish(&inner);
    }

    /// How often one has struck.
    pub(super) fn struck(&self) -> u64 {
        // Ordering: Relaxed: a number for `stats`.
        self.struck.load(Ordering::Relaxed)
    }

    /// What is to happen to the work request at hand.
    pub(super) fn message(&self) -> Option<Fault> {
        self.strike(Occasion::Message)
    }

    /// How long the NIC is to stand still now.
    pub(super) fn stall(&self) -> Option<Duration> {
        match self.strike(Occasion::Begin)? {
            Fault::Stall(time) => Some(time),
            _ => None,
        }
    }

    /// Whether the registration at hand is to fail.
    pub(super) fn register(&self) -> bool {
        self.strike(Occasion::Register).is_some()
    }

    /// Whether the deregistration at hand is to fail.
    pub(super) fn deregister(&self) -> bool {
        self.strike(Occasion::Deregister).is_some()
    }

    /// Whether the destruction at hand is to fail.
    pub(super) fn destroy(&self) -> bool {
        self.strike(Occasion::Destroy).is_some()
    }

    /// What is to happen to the completion at hand.
    pub(super) fn delivery(&self) -> Option<Fault> {
        self.strike(Occasion::Delivery)
    }

    /// Does that with the completions that are held back.
    pub(super) fn with_delayed<R>(&self, work: impl FnOnce(&mut Delayed) -> R) -> R {
        let mut inner = lock(&self.inner);
        let result = work(&mut inner.delayed);
        self.publish(&inner);
        result
    }

    /// `false`: nothing is to fail, and nothing is held back.
    pub(super) fn is_armed(&self) -> bool {
        // Ordering: Relaxed: pairs with `publish`, see there.
        self.armed.load(Ordering::Relaxed) != 0
    }

    fn publish(&self, inner: &Inner) {
        let armed = inner.list.len() + inner.delayed.len();
        // Ordering: Relaxed: a hint; the list itself is read under its lock, and whoever wants a
        // fault to strike a later call orders the two calls anyhow.
        self.armed.store(armed as u64, Ordering::Relaxed);
    }

    fn strike(&self, occasion: Occasion) -> Option<Fault> {
        if !self.is_armed() {
            return None;
        }
        let mut inner = lock(&self.inner);
        let Inner { rng, list, .. } = &mut *inner;
        let mut hit = None;
        list.retain_mut(|(fault, when)| {
            if fault.occasion() != occasion || hit.is_some() {
                return true;
            }
            match when {
                When::Nth(0 | 1) => {
                    hit = Some(*fault);
                    false
                }
                When::Nth(n) => {
                    *n -= 1;
                    true
                }
                When::Probability(p) => {
                    if rng.chance(*p) {
                        hit = Some(*fault);
                    }
                    true
                }
            }
        });
        self.publish(&inner);
        if hit.is_some() {
            // Ordering: Relaxed: a number for `stats`.
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
        hit
    }
}

/// SplitMix64: small, seeded, the same everywhere.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True with probability `p`; never for 0, less and NaN, always for 1 and more.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        ((self.next() >> 11) as f64) < p * (1_u64 << 53) as f64
    }

    /// A number below `n`; 0 for 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % (n.max(1) as u64)) as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_nth_strikes_once() {
        let faults = Faults::new(0, &[(Fault::Register, When::Nth(3))]);
        assert!(!faults.deregister(), "other occasions are not counted");
        let hits: Vec<bool> = (0..6).map(|_| faults.register()).collect();
        assert_eq!(hits, [false, false, true, false, false, false]);
    }

    #[test]
    fn probability_is_kept_and_seeded() {
        let draw = |seed| {
            let faults = Faults::new(
                seed,
                &[(
                    Fault::Completion(WcStatus::RemOpErr),
                    When::Probability(0.25),
                )],
            );
            (0..4000)
                .map(|_| faults.message().is_some())
                .collect::<Vec<_>>()
        };
        let hits = draw(1).iter().filter(|hit| **hit).count();
        assert!((800..1200).contains(&hits), "{hits} of 4000");
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn the_ends_of_probability() {
        let mut rng = Rng::new(3);
        for _ in 0..1000 {
            assert!(!rng.chance(0.0));
            assert!(!rng.chance(-1.0));
            assert!(!rng.chance(f64::NAN));
            assert!(rng.chance(1.0));
            assert!(rng.chance(2.0));
        }
        assert_eq!(rng.below(0), 0);
        assert!(rng.below(3) < 3);
    }

    #[test]
    fn success_is_no_fault_and_clear_clears() {
        let faults = Faults::new(0, &[(Fault::Completion(WcStatus::Success), When::Nth(1))]);
        assert_eq!(faults.message(), None);
        faults.add(Fault::Deregister, When::Probability(1.0));
        assert!(faults.deregister());
        faults.clear();
        assert!(!faults.deregister());
    }
}
