//! The way of a completion to its queue, and what faults do to it there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::cq::{CqInner, Entry};
use super::engine::Step;
use super::fault::Fault;
use super::nic::Core;

/// How long a completion waits for one that overtakes it.
const OVERTAKEN: Duration = Duration::from_millis(1);

/// Completions that are held back, in the order in which they would have been delivered.
#[derive(Default)]
pub(super) struct Delayed(VecDeque<Late>);

struct Late {
    /// On the NIC's clock; not before what is ahead of it in the same queue.
    due: u64,
    /// The next one of its queue goes ahead.
    gives_way: bool,
    cq: Arc<CqInner>,
    entry: Entry,
}

impl Delayed {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn last_of(&self, cq: &Arc<CqInner>) -> Option<usize> {
        self.0.iter().rposition(|late| Arc::ptr_eq(&late.cq, cq))
    }

    /// Holds one back, at least for as long as what is ahead of it in the same queue.
    fn push(&mut self, mut late: Late) {
        if let Some(ahead) = self.last_of(&late.cq) {
            late.due = late.due.max(self.0[ahead].due);
        }
        self.0.push_back(late);
    }

    /// Takes the first one that is due, or the first one if no time is given.
    fn pop(&mut self, now: Option<u64>) -> Option<Late> {
        let is_due = |late: &Late| now.is_none_or(|now| late.due <= now);
        let at = self.0.iter().position(is_due)?;
        self.0.remove(at)
    }

    /// A completion for that queue: what is to be delivered now.
    fn meet(&mut self, cq: &Arc<CqInner>, entry: Entry) -> [Option<Entry>; 2] {
        let Some(last) = self.last_of(cq) else {
            return [Some(entry), None];
        };
        let due = self.0[last].due;
        let late = |entry| Late {
            due,
            gives_way: false,
            cq: cq.clone(),
            entry,
        };
        if !self.0[last].gives_way {
            self.push(late(entry));
            return [None, None];
        }
        let Some(mut overtaken) = self.0.remove(last).map(|late| late.entry) else {
            return [Some(entry), None];
        };
        if Arc::ptr_eq(&overtaken.credit, &entry.credit) {
            // What polling gives back only grows.
            overtaken.freed = overtaken.freed.max(entry.freed);
        }
        if self.last_of(cq).is_none() {
            return [Some(entry), Some(overtaken)];
        }
        self.push(late(entry));
        self.push(late(overtaken));
        [None, None]
    }
}

/// Delivers a completion, as the faults say.
pub(super) fn complete(core: &Core, cq: &Arc<CqInner>, entry: Entry) {
    if !core.faults.is_armed() {
        return deliver(core, cq, entry);
    }
    match core.faults.delivery() {
        Some(Fault::CompletionLost) => {}
        Some(Fault::CompletionQueueFull) => {
            cq.overrun(entry);
            core.overrun(cq);
        }
        Some(Fault::CompletionDuplicated(_)) => {
            in_order(core, cq, entry.clone());
            in_order(core, cq, entry);
        }
        Some(Fault::CompletionLate(time)) => hold_back(core, cq, entry, time, false),
        Some(Fault::CompletionOvertaken(_)) => hold_back(core, cq, entry, OVERTAKEN, true),
        _ => in_order(core, cq, entry),
    }
}

fn hold_back(core: &Core, cq: &Arc<CqInner>, entry: Entry, time: Duration, gives_way: bool) {
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let late = Late {
        due: core.now().saturating_add(time),
        gives_way,
        cq: cq.clone(),
        entry,
    };
    core.faults.with_delayed(|delayed| delayed.push(late));
}

/// Delivers it, or holds it back with those that are ahead of it.
fn in_order(core: &Core, cq: &Arc<CqInner>, entry: Entry) {
    let now = core.faults.with_delayed(|delayed| delayed.meet(cq, entry));
    for entry in now.into_iter().flatten() {
        deliver(core, cq, entry);
    }
}

fn deliver(core: &Core, cq: &Arc<CqInner>, entry: Entry) {
    if cq.push(entry).is_err() {
        core.overrun(cq);
    }
}

/// Delivers one that was held back and is due by that time, or any if none is given.
pub(super) fn deliver_late(core: &Core, now: Option<u64>) -> Step {
    if !core.faults.is_armed() {
        return Step::Idle;
    }
    match core.faults.with_delayed(|delayed| delayed.pop(now)) {
        Some(late) => {
            deliver(core, &late.cq, late.entry);
            Step::Done
        }
        None => Step::Idle,
    }
}

/// When the next one is due that is held back.
pub(super) fn next_due(core: &Core) -> Option<u64> {
    if !core.faults.is_armed() {
        return None;
    }
    core.faults
        .with_delayed(|delayed| delayed.0.iter().map(|late| late.due).min())
}
