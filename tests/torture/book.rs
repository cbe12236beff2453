//! What the bytes of a region must be, known without looking at them.
//!
//! An operation that writes a region is entered here while its exclusive hold is owned and before it is
//! posted, with the ranges that it may write; and taken out when it has been told how it ended, which is
//! some time after the hold was released. So whoever looks finds either no operation, or one that is in
//! flight, or one that is over and not told of yet: the bytes outside of its ranges are known always.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::report::{count, lock, mismatch};

/// Ends that may be told of late, with what the bytes were then.
const STALE: usize = 8;

/// The next operation's number; 0 is nobody.
pub fn ticket() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub struct Book {
    /// The registration that it belongs to.
    pub memory: u64,
    model: Mutex<Model>,
}

struct Model {
    bytes: Vec<u8>,
    pending: Option<Pending>,
    /// Unspecified by a failure (R12), until the next look.
    wild: Vec<Range<usize>>,
    /// Operations that were over, but not told of, when the next writer came.
    stale: VecDeque<Stale>,
    /// The last writer.
    last: u64,
}

struct Pending {
    ticket: u64,
    ranges: Vec<Range<usize>>,
}

struct Stale {
    ticket: u64,
    ranges: Vec<Range<usize>>,
    before: Vec<u8>,
    actual: Vec<u8>,
}

impl Book {
    pub fn new(memory: u64, bytes: &[u8]) -> Self {
        Book {
            memory,
            model: Mutex::new(Model {
                bytes: bytes.to_vec(),
                pending: None,
                wild: Vec::new(),
                stale: VecDeque::new(),
                last: 0,
            }),
        }
    }

    /// Compares. Nobody writes the bytes now: a hold or a guard sees to that.
    pub fn look(&self, actual: &[u8], when: &str) {
        lock(&self.model).look(actual, when);
    }

    /// An operation is about to write `ranges`; its exclusive hold is owned.
    pub fn begin(&self, ticket: u64, ranges: Vec<Range<usize>>, actual: &[u8]) {
        let mut model = lock(&self.model);
        model.quiesce(actual, "before a post");
        model.last = ticket;
        model.pending = Some(Pending { ticket, ranges });
    }

    /// It was not posted: nothing may have changed.
    pub fn cancel(&self, ticket: u64) {
        lock(&self.model).take(ticket);
    }

    /// It is over, and has written this. The rest of its ranges is as it was; or, if `tainted`, may
    /// be anything.
    pub fn finish(&self, ticket: u64, writes: &[(usize, &[u8])], tainted: bool) {
        let mut model = lock(&self.model);
        if let Some(pending) = model.take(ticket) {
            write(&mut model.bytes, writes);
            if tainted {
                model.wild = rest(pending.ranges, writes);
            }
        } else if let Some(mut stale) = model.take_stale(ticket) {
            write(&mut stale.before, writes);
            count("checks told late");
            let rest = if tainted {
                rest(stale.ranges.clone(), writes)
            } else {
                Vec::new()
            };
            for range in rest {
                stale.before[range.clone()].copy_from_slice(&stale.actual[range]);
            }
            for range in stale.ranges {
                same(
                    &stale.before[range.clone()],
                    &stale.actual[range.clone()],
                    range.start,
                    "before its end was told",
                );
            }
        } else {
            count("checks not possible");
        }
    }

    /// It is over, and may have written its ranges with anything.
    pub fn abandon(&self, ticket: u64) {
        let mut model = lock(&self.model);
        match model.take(ticket) {
            Some(pending) => model.wild = pending.ranges,
            None => drop(model.take_stale(ticket)),
        }
    }

    /// Whether nobody has written since that operation, of a region that is not held exclusively now.
    pub fn is_last(&self, ticket: u64) -> bool {
        lock(&self.model).last == ticket
    }

    /// Writes the bytes by the CPU, under a guard.
    pub fn overwrite(&self, actual: &mut [u8], write: impl FnOnce(&mut [u8])) {
        let mut model = lock(&self.model);
        model.quiesce(actual, "by a CPU writer");
        model.last = 0;
        write(actual);
        model.bytes.copy_from_slice(actual);
    }

    /// The memory is being freed: nobody will look any more.
    pub fn gone(&self, actual: &[u8]) {
        lock(&self.model).quiesce(actual, "when the memory was freed");
    }
}

/// What of the ranges was not written; each write starts where a range does.
fn rest(mut ranges: Vec<Range<usize>>, writes: &[(usize, &[u8])]) -> Vec<Range<usize>> {
    for range in &mut ranges {
        let write = writes.iter().find(|(start, _)| *start == range.start);
        range.start += write.map_or(0, |(_, bytes)| bytes.len());
    }
    ranges
}

fn write(bytes: &mut [u8], writes: &[(usize, &[u8])]) {
    for (start, from) in writes {
        bytes[*start..][..from.len()].copy_from_slice(from);
    }
}

fn same(expected: &[u8], actual: &[u8], start: usize, when: &str) {
    if expected == actual {
        return;
    }
    let wrong = |at: &usize| expected[*at] != actual[*at];
    let at = (0..expected.len()).find(wrong).unwrap_or(0);
    let wrongs = (0..expected.len()).filter(wrong).count();
    mismatch(format_args!(
        "{wrongs} of {} bytes are wrong {when}, the first at {}: {:?} where {:?} must be",
        expected.len(),
        start + at,
        &actual[at..actual.len().min(at + 16)],
        &expected[at..expected.len().min(at + 16)],
    ));
}

impl Model {
    fn take(&mut self, ticket: u64) -> Option<Pending> {
        self.pending.take_if(|pending| pending.ticket == ticket)
    }

    fn take_stale(&mut self, ticket: u64) -> Option<Stale> {
        let at = self.stale.iter().position(|stale| stale.ticket == ticket)?;
        self.stale.remove(at)
    }

    fn look(&mut self, actual: &[u8], when: &str) {
        count("checks");
        if self.bytes == actual {
            self.wild.clear();
            return;
        }
        let mut expected = self.bytes.clone();
        let pending = self.pending.iter().flat_map(|pending| &pending.ranges);
        for range in pending.chain(&self.wild) {
            expected[range.clone()].copy_from_slice(&actual[range.clone()]);
        }
        same(&expected, actual, 0, when);
        for range in self.wild.drain(..) {
            self.bytes[range.clone()].copy_from_slice(&actual[range]);
        }
    }

    /// Looks, and from here on the bytes are known: an operation that is still entered is over, only
    /// not told of.
    fn quiesce(&mut self, actual: &[u8], when: &str) {
        self.look(actual, when);
        if let Some(Pending { ticket, ranges }) = self.pending.take() {
            let before = std::mem::replace(&mut self.bytes, actual.to_vec());
            self.stale.truncate(STALE - 1);
            self.stale.push_front(Stale {
                ticket,
                ranges,
                before,
                actual: actual.to_vec(),
            });
        }
    }
}
