//! The NIC's work: which queue pair is next, and what it does with the work request at the head of
//! its queue.

use std::sync::Arc;

use super::completion::{finish, flush_one, uses_receive};
use super::config::Config;
use super::context::{QpInner, Rnr};
use super::delivery;
use super::fault::{Fault, Rng};
use super::message::{Ends, Failure};
use super::nic::Core;
use super::ring::{SendHeader, Taken};
use super::{QpState, lock};
use crate::work::{SendFlags, Sge, WcStatus};

/// Between two tries of a message that found no receive, in nanoseconds (`min_rnr_timer` 12).
const RNR_TIMER: u64 = 640_000;

/// What the NIC remembers between two steps.
pub(super) struct Engine {
    rng: Rng,
    reorder: f64,
    /// Stepped: tries are counted, not timed.
    stepped: bool,
    /// The place in the table of the queue pair whose turn it is.
    turn: usize,
    /// A fault: for how long nothing is done.
    stalled: Option<Stalled>,
    /// Copies of the requester's and the responder's work request.
    send: Taken,
    recv: Taken,
}

/// Until when nothing is done.
#[derive(Clone, Copy)]
enum Stalled {
    /// On the NIC's clock.
    Until(u64),
    /// Stepped: the steps that are left.
    Steps(u64),
}

/// What a step, or a try at one queue pair, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something was done.
    Done,
    /// There is nothing to do before the doorbell rings.
    Idle,
    /// There is nothing to do before the doorbell rings or the NIC's clock says this.
    Until(u64),
}

impl Step {
    pub(super) fn is_done(self) -> bool {
        self == Step::Done
    }
}

impl Engine {
    pub(super) fn new(config: &Config) -> Self {
        let otherwise = if config.stepped { 1.0 } else { 0.0 };
        Engine {
            rng: Rng::new(config.seed),
            reorder: config.reorder.unwrap_or(otherwise),
            stepped: config.stepped,
            turn: 0,
            stalled: None,
            send: Taken::default(),
            recv: Taken::default(),
        }
    }

    /// One unit of work: the first queue pair that can do something does it.
    pub(super) fn step(&mut self, core: &Core) -> Step {
        if let Some(step) = self.stand_still(core) {
            return step;
        }
        if !self.stepped && delivery::deliver_late(core, Some(core.now())).is_done() {
            return Step::Done;
        }
        match self.look_for_work(core) {
            Step::Idle if self.stepped => delivery::deliver_late(core, None),
            Step::Idle => delivery::next_due(core).map_or(Step::Idle, Step::Until),
            Step::Until(due) => {
                Step::Until(delivery::next_due(core).map_or(due, |late| late.min(due)))
            }
            Step::Done => Step::Done,
        }
    }

    /// What a step is while the NIC is stalled. The work request that was about to be begun then is not
    /// asked of the faults again.
    fn stand_still(&mut self, core: &Core) -> Option<Step> {
        match self.stalled.as_mut()? {
            Stalled::Until(due) if *due > core.now() => Some(Step::Until(*due)),
            Stalled::Steps(left) if *left > 0 => {
                *left -= 1;
                Some(Step::Done)
            }
            _ => None,
        }
    }

    /// Whether the NIC stalls now.
    fn stalls(&mut self, core: &Core) -> bool {
        if self.stalled.take().is_some() {
            return false;
        }
        let Some(time) = core.faults.stall() else {
            return false;
        };
        self.stalled = Some(if self.stepped {
            let steps = time.as_nanos().div_ceil(1_000_000).max(1);
            Stalled::Steps(u64::try_from(steps).unwrap_or(u64::MAX))
        } else {
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            Stalled::Until(core.now().saturating_add(time))
        });
        true
    }

    fn look_for_work(&mut self, core: &Core) -> Step {
        let mut scan = core.scan(|count| {
            if self.reorder > 0.0 && self.rng.chance(self.reorder) {
                self.turn = self.rng.below(count);
            }
            self.turn
        });
        let mut due = None;
        while let Some(qp) = core.next_with_work(&mut scan) {
            match self.attempt(core, &qp) {
                Step::Done => {
                    self.turn = scan.next_place();
                    return Step::Done;
                }
                Step::Idle => {}
                Step::Until(then) => due = Some(due.map_or(then, |due: u64| due.min(then))),
            }
        }
        due.map_or(Step::Idle, Step::Until)
    }

    fn attempt(&mut self, core: &Core, qp: &Arc<QpInner>) -> Step {
        // QP-4: a destruction waits for this lock; after it, the queue pair is found destroyed.
        let mut rnr = lock(&qp.working);
        if qp.is_destroyed() {
            return Step::Idle;
        }
        match qp.state.get() {
            QpState::Err => flush_one(core, qp),
            QpState::Rts => self.carry_out(core, qp, &mut rnr),
            _ => Step::Idle,
        }
    }

    /// The work request at the head of the send queue.
    fn carry_out(&mut self, core: &Core, qp: &Arc<QpInner>, rnr: &mut Rnr) -> Step {
        let Some(wr) = qp.send.peek(&mut self.send) else {
            return Step::Idle;
        };
        let due = wr.due.max(rnr.due);
        if due > 0 && due > core.now() && !self.stepped {
            return Step::Until(due);
        }
        if self.stalls(core) {
            return self.stand_still(core).unwrap_or(Step::Done);
        }
        let unreachable = Err(Failure::Here(WcStatus::RetryExcErr));
        let Some(responder) = core.find_qp(qp.peer()) else {
            return finish(core, qp, None, &wr, unreachable);
        };
        // One engine runs at a time, so that a second such lock can't wait for the first.
        let itself = Arc::ptr_eq(qp, &responder);
        let _held = (!itself).then(|| lock(&responder.working));
        if !responder.hears(qp.num) {
            return finish(core, qp, None, &wr, unreachable);
        }
        if uses_receive(&wr.op) && responder.receives().0.peek(&mut self.recv).is_none() {
            return self.not_ready(core, qp, &wr, rnr);
        }
        *rnr = Rnr::default();

        let length = if wr.flags.contains(SendFlags::INLINE) {
            self.send.bytes.len() as u64
        } else {
            total(&self.send.elements)
        };
        let fails = match core.faults.message() {
            Some(Fault::Completion(status)) => Some((status, length / 2)),
            Some(Fault::QueuePairError) => {
                qp.state.set_error();
                None
            }
            _ => None,
        };
        let ends = Ends {
            core,
            requester: qp,
            responder: &responder,
            strike: fails,
        };
        let end = ends
            .run(&wr, &self.send, &self.recv, length)
            .map(|()| length);
        finish(core, qp, Some(&responder), &wr, end)
    }

    /// The responder has no receive posted.
    fn not_ready(&self, core: &Core, qp: &Arc<QpInner>, wr: &SendHeader, rnr: &mut Rnr) -> Step {
        let Some(most) = qp.rnr_retry() else {
            // Posting a receive rings the bell.
            *rnr = Rnr::default();
            return Step::Idle;
        };
        if rnr.tries >= most {
            *rnr = Rnr::default();
            let failure = Failure::Here(WcStatus::RnrRetryExcErr);
            return finish(core, qp, None, wr, Err(failure));
        }
        rnr.tries += 1;
        if self.stepped {
            return Step::Done;
        }
        rnr.due = core.now().saturating_add(RNR_TIMER);
        Step::Until(rnr.due)
    }
}

fn total(elements: &[Sge]) -> u64 {
    elements.iter().map(|sge| u64::from(sge.length)).sum()
}
