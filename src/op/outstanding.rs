//! What is outstanding on one queue: its numbers, its holds, and how a completion releases them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Hold;
use crate::error::{Error, Rejected, Result};
use crate::gate::Holder;
use crate::leaks;
use crate::work::{WcStatus, WorkCompletion};

/// Names an operation of one endpoint, from its post on: it is the work request's `wr_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

impl OpId {
    /// What `wr_id` names if it is an endpoint's.
    pub(super) fn of(wr_id: u64) -> Self {
        OpId(wr_id)
    }

    /// Whether it is a receive.
    #[must_use]
    pub fn is_recv(self) -> bool {
        self.0 & Numbers::RECV != 0
    }

    /// The number of the operation within its queue, from 0; starts anew after 2⁴⁸.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0 & Numbers::SEQUENCE
    }
}

/// The `wr_id`s of one queue: `RECV` (1 bit), the endpoint's number (15), the sequence (48). With the
/// endpoint's number in them, a completion that an earlier owner of the queue pair's number left
/// behind is not taken for one of ours; nor is one that was posted by hand (POST-3), since the
/// number is never 0.
#[derive(Clone, Copy)]
pub(super) struct Numbers(u64);

impl Numbers {
    const RECV: u64 = 1 << 63;
    const SEQUENCE: u64 = (1 << 48) - 1;

    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Ordering: Relaxed. Only that the numbers differ matters.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 0x7fff + 1;
        Numbers(number << 48)
    }

    pub(super) fn of_receives(self) -> Self {
        Numbers(self.0 | Self::RECV)
    }

    fn id(self, sequence: u64) -> OpId {
        OpId(self.0 | (sequence & Self::SEQUENCE))
    }

    /// How many operations lie between the one with sequence `first` and the one with that `wr_id`.
    fn distance(self, first: u64, wr_id: u64) -> Option<usize> {
        let ours = wr_id & !Self::SEQUENCE == self.0;
        let distance = wr_id.wrapping_sub(first) & Self::SEQUENCE;
        usize::try_from(distance).ok().filter(|_| ours)
    }
}

/// An operation that is over; its hold has been released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// Which one.
    pub id: OpId,
    /// How it ended. If not by success, the bytes that it was to write are unspecified (R12).
    pub status: WcStatus,
    /// Bytes received or read.
    pub byte_len: u32,
    /// Immediate data that came with a receive.
    pub imm: Option<u32>,
}

/// What is outstanding on one queue, in order, from the post to the completion.
pub(super) struct Outstanding {
    /// `None`: posted inline, released already, its place in the queue still taken.
    holds: VecDeque<Option<Hold>>,
    capacity: u32,
    /// The sequence number of the front.
    first: u64,
    numbers: Numbers,
}

impl Outstanding {
    pub(super) fn new(capacity: u32, numbers: Numbers) -> Self {
        Outstanding {
            holds: VecDeque::with_capacity(capacity as usize),
            capacity,
            first: 0,
            numbers,
        }
    }

    /// Takes `hold` in if `post` succeeds; `post` says whether it may be released at once.
    pub(super) fn post(
        &mut self,
        hold: Hold,
        needs: Holder,
        post: impl FnOnce(u64, &Hold) -> Result<bool>,
    ) -> Result<OpId, Rejected<Hold>> {
        if hold.holder() != needs {
            let reason = match needs {
                Holder::NicWrite => "the NIC writes these bytes: hold them with begin_write",
                _ => "the NIC reads these bytes: hold them with begin_read",
            };
            return Err(Rejected::new(hold, Error::InvalidWorkRequest { reason }));
        }
        if self.holds.len() >= self.capacity as usize {
            let capacity = self.capacity;
            return Err(Rejected::new(hold, Error::QueueFull { capacity }));
        }
        let id = self.numbers.id(self.first + self.holds.len() as u64);
        match post(id.0, &hold) {
            Ok(over) => {
                self.holds.push_back((!over).then_some(hold));
                Ok(id)
            }
            Err(error) => Err(Rejected::new(hold, error)),
        }
    }

    /// Releases what is over by `wc`: it, and what was posted before it to the same queue. `None` if
    /// it belongs to nothing outstanding.
    pub(super) fn complete(
        &mut self,
        wc: &WorkCompletion,
        done: &mut impl FnMut(Done),
    ) -> Option<usize> {
        let before = self.numbers.distance(self.first, wc.wr_id)?;
        if before >= self.holds.len() {
            return None;
        }
        let first = self.first;
        self.first += before as u64 + 1;
        // Released before `done` is told, so that it finds the bytes free, and whether it panics or
        // not.
        drop(self.holds.drain(..=before));
        for offset in 0..=before {
            let last = offset == before;
            done(Done {
                id: self.numbers.id(first + offset as u64),
                status: if last { wc.status } else { WcStatus::Success },
                byte_len: if last { wc.byte_len } else { 0 },
                imm: wc.imm.filter(|_| last),
            });
        }
        Some(before + 1)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.holds.len()
    }

    pub(super) fn leak(&mut self) {
        for hold in self.holds.drain(..).flatten() {
            std::mem::forget(hold);
            leaks::hold();
        }
    }
}
