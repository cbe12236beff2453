//! What is told of operations that are over.

use super::ticket::Completion;
use crate::op::number::OpId;
use crate::trace;
use crate::work::{WcStatus, WorkCompletion};

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
    /// The provider's own code after an error.
    pub vendor_err: u32,
}

impl Done {
    #[inline]
    pub(in crate::op) fn new(id: OpId, completion: Completion) -> Self {
        let Completion {
            status,
            byte_len,
            imm,
            vendor_err,
        } = completion;
        Done {
            id,
            status,
            byte_len,
            imm,
            vendor_err,
        }
    }
}

impl Completion {
    #[inline]
    pub(in crate::op) fn of(wc: &WorkCompletion) -> Self {
        Completion {
            status: wc.status,
            byte_len: wc.byte_len,
            imm: wc.imm,
            vendor_err: wc.vendor_err,
        }
    }

    /// For those who know nothing but the status.
    #[inline]
    pub(in crate::op) fn with_status(status: WcStatus) -> Self {
        Completion {
            status,
            ..Completion::SUCCESS
        }
    }
}

/// All that one completion says is over: its own operation, and of a send queue those that were posted
/// before it. Their holds have been released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    first: OpId,
    count: u32,
    /// How many of them are known to have succeeded, from the first one on; the others are told of by the
    /// completion.
    sure: u32,
    completion: Completion,
}

impl Over {
    /// `count` of them; all but the last succeeded.
    #[inline]
    pub(in crate::op) fn new(first: OpId, count: u64, completion: Completion) -> Self {
        Self::with_sure(first, count, count - 1, completion)
    }

    /// As [`new`](Self::new), of which those after the first `sure` ones are not known to have succeeded.
    #[inline]
    pub(in crate::op) fn with_sure(
        first: OpId,
        count: u64,
        sure: u64,
        completion: Completion,
    ) -> Self {
        Over {
            first,
            // A queue has no more.
            count: count as u32,
            sure: sure as u32,
            completion,
        }
    }

    #[inline]
    fn nth(&self, n: u32) -> Done {
        let completion = match n < self.sure {
            true => Completion::SUCCESS,
            false => self.completion,
        };
        Done::new(self.first.after(n.into()), completion)
    }

    /// How many operations; at least 1.
    #[must_use]
    #[inline]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Tells of a completion that says that something failed. Nothing, without the feature.
    #[inline(always)]
    pub(in crate::op) fn trace(&self) {
        let Completion {
            status, vendor_err, ..
        } = self.completion;
        if !status.is_success() {
            let last = self.first.after(u64::from(self.count) - 1);
            trace::failed(last.wr_id(), status, vendor_err);
        }
    }

    /// As [`each`](Self::each).
    #[inline]
    pub(in crate::op) fn tell(&self, done: &mut impl FnMut(Done)) {
        (0..self.count).for_each(|n| done(self.nth(n)));
    }

    /// Each of them, in the order of the posts. Those before the last one succeeded: an operation that
    /// fails has a completion of its own. (If one was to have such a completion, whatever it says, and has
    /// had none when the queue is being flushed, the provider has lost it: from that one on they are told
    /// of as flushed, too.)
    pub fn each(self) -> impl Iterator<Item = Done> {
        (0..self.count).map(move |n| self.nth(n))
    }
}
