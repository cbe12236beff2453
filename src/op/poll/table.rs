//! The queues that complete at one completion queue, by the number in their `wr_id`s.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use crate::op::Completer;
use crate::op::number::{Numbers, OpId};
use crate::op::queue::done::Over;
use crate::op::queue::look::Described;
use crate::op::queue::ring::Ring;
use crate::op::queue::slots::SlotCompleter;
use crate::op::queue::ticket::{Completion, Outcome};
use crate::work::WorkCompletion;

/// The completing sides of one queue pair's queues.
pub(in crate::op) struct Queues {
    pub(in crate::op) qp_num: u32,
    /// Either may complete elsewhere.
    pub(in crate::op) sends: Option<Completer>,
    pub(in crate::op) recvs: Option<Completer>,
}

impl Queues {
    /// Accounts for what is outstanding when the queue pair comes to its end: releases it if the queue
    /// pair was destroyed, leaks it if it could not be. Gives how many operations that were.
    ///
    /// # Safety
    /// - **COMPLETE-2** if `destroyed`.
    pub(in crate::op) unsafe fn settle(&mut self, destroyed: bool) -> usize {
        self.both()
            .map(|queue| match destroyed {
                // SAFETY: COMPLETE-2, as required of the caller.
                true => unsafe { queue.finish_all(&mut Waker::wake) },
                false => queue.leak_all(&mut Waker::wake),
            })
            .sum()
    }

    #[inline]
    fn queue(&mut self, recv: bool) -> &mut Option<Completer> {
        match recv {
            true => &mut self.recvs,
            false => &mut self.sends,
        }
    }

    fn both(&mut self) -> impl Iterator<Item = &mut Completer> {
        self.sends.iter_mut().chain(&mut self.recvs)
    }
}

/// Places are kept for all numbers that were used once, most of them by queue pairs that are gone: what one has
/// while it is there lies elsewhere.
enum Place {
    Free,
    /// Was taken: completions that are left over from then belong to nobody.
    Retired,
    Taken(Box<Queues>),
}

/// What a completion belongs to.
pub(in crate::op) enum Found {
    /// What was outstanding, and is over.
    Over(Over),
    /// A queue that is gone: it comes late, and is no surprise.
    Late,
    /// Nothing that is outstanding here.
    Nothing,
}

pub(in crate::op) struct Table {
    /// In the order of their numbers, which go round from `first`.
    places: Vec<Place>,
    first: usize,
    /// Where the search for a free number starts: a number is used again as late as can be.
    next: usize,
    /// Few, and found by a look at each.
    shared: Vec<SlotCompleter>,
    retired_shared: Vec<usize>,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            places: Vec::new(),
            // Another one for each table: completions that an earlier owner left in the queue are
            // not to be taken for its own.
            first: Numbers::start(),
            next: 0,
            shared: Vec::new(),
            retired_shared: Vec::new(),
        }
    }
}

impl Table {
    /// Releases what a completion says is over.
    ///
    /// # Safety
    /// - **COMPLETE-1**.
    #[inline]
    pub(in crate::op) unsafe fn finish(
        &mut self,
        wc: &WorkCompletion,
        wake: &mut impl FnMut(Waker),
    ) -> Found {
        let number = Numbers::number_in(wc.wr_id);
        let completion = Completion::of(wc);
        let place = self.place_of(number);
        let over = match self.places.get_mut(place) {
            Some(Place::Taken(queues)) if queues.qp_num == wc.qp_num => {
                let queue = queues.queue(OpId::from_wr_id(wc.wr_id).is_recv()).as_mut();
                // SAFETY: COMPLETE-1, as required of the caller.
                queue.and_then(|queue| unsafe { queue.finish(wc.wr_id, completion, wake) })
            }
            Some(Place::Retired) => return Found::Late,
            // SAFETY: COMPLETE-1, as required of the caller.
            _ if number > Numbers::QUEUES => return unsafe { self.finish_shared(wc, completion) },
            _ => None,
        };
        over.map_or(Found::Nothing, Found::Over)
    }

    /// As [`finish`](Self::finish), for a shared receive queue.
    ///
    /// # Safety
    /// - **COMPLETE-1**.
    unsafe fn finish_shared(&self, wc: &WorkCompletion, completion: Completion) -> Found {
        let number = Numbers::number_in(wc.wr_id);
        let mut queues = self.shared.iter();
        let over = match queues.find(|queue| queue.number() == number) {
            // SAFETY: COMPLETE-1, as required of the caller.
            Some(queue) => unsafe { queue.finish(wc.wr_id, completion) },
            None if self.retired_shared.contains(&number) => return Found::Late,
            None => None,
        };
        over.map_or(Found::Nothing, Found::Over)
    }

    /// Tells all futures that no completion can come any more.
    pub(in crate::op) fn tell_all_lost(&mut self, wake: &mut impl FnMut(Waker)) {
        for place in &mut self.places {
            if let Place::Taken(queues) = place {
                for queue in queues.both() {
                    queue.tell_all(Outcome::Lost, wake);
                }
            }
        }
    }

    /// All queues but the shared ones, with the numbers of their queue pairs.
    pub(in crate::op) fn queues(&self) -> impl Iterator<Item = (u32, &Completer)> {
        let taken = self.places.iter().filter_map(|place| match place {
            Place::Taken(queues) => Some(queues),
            _ => None,
        });
        taken.flat_map(|queues| {
            let both = queues.sends.iter().chain(&queues.recvs);
            both.map(|queue| (queues.qp_num, queue))
        })
    }

    /// One of the queues with that number.
    pub(in crate::op) fn queue(&self, number: usize, recv: bool) -> Option<&Completer> {
        match self.places.get(self.place_of(number))? {
            Place::Taken(queues) if recv => queues.recvs.as_ref(),
            Place::Taken(queues) => queues.sends.as_ref(),
            _ => None,
        }
    }

    /// Gives a free number to a queue pair; `None` if there is none.
    pub(in crate::op) fn insert(&mut self, qp_num: u32) -> Option<usize> {
        let at = if self.places.len() < Numbers::QUEUES {
            self.places.push(Place::Free);
            self.places.len() - 1
        } else {
            let free = |at: &usize| !matches!(self.places[*at], Place::Taken(_));
            (self.next..Numbers::QUEUES)
                .chain(0..self.next)
                .find(free)?
        };
        self.next = (at + 1) % Numbers::QUEUES;
        self.places[at] = Place::Taken(Box::new(Queues {
            qp_num,
            sends: None,
            recvs: None,
        }));
        Some((self.first + at) % Numbers::QUEUES + 1)
    }

    /// Adds a queue to the queue pair with that number.
    pub(in crate::op) fn add(&mut self, number: usize, completer: Completer) {
        let place = self.place_of(number);
        if let Some(Place::Taken(queues)) = self.places.get_mut(place) {
            let recv = completer.ring().numbers().is_recv();
            *queues.queue(recv) = Some(completer);
        }
    }

    /// Where that number is, if it is one of a queue that is not shared.
    #[inline]
    fn place_of(&self, number: usize) -> usize {
        match number {
            1..=Numbers::QUEUES if number > self.first => number - 1 - self.first,
            1..=Numbers::QUEUES => number - 1 + Numbers::QUEUES - self.first,
            _ => usize::MAX,
        }
    }

    /// Whether that ring's completions are looked for under that number.
    pub(in crate::op) fn has(&self, number: usize, sends: &Arc<Ring>) -> bool {
        let queue = self.queue(number, false);
        queue.is_some_and(|queue| Arc::ptr_eq(queue.ring(), sends))
    }

    pub(in crate::op) fn remove(&mut self, number: usize) -> Option<Queues> {
        let place = self.place_of(number);
        match std::mem::replace(self.places.get_mut(place)?, Place::Retired) {
            Place::Taken(queues) => Some(*queues),
            _ => None,
        }
    }

    /// `false` if its number is taken.
    pub(in crate::op) fn insert_shared(&mut self, slots: SlotCompleter) -> bool {
        let number = slots.number();
        if self.shared.iter().any(|other| other.number() == number) {
            return false;
        }
        self.retired_shared.retain(|retired| *retired != number);
        self.shared.push(slots);
        true
    }

    pub(in crate::op) fn remove_shared(&mut self, number: usize) {
        self.shared.retain(|slots| slots.number() != number);
        if !self.retired_shared.contains(&number) {
            self.retired_shared.push(number);
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues = self
            .queues()
            .map(|(qp_num, queue)| (qp_num, Described(queue)));
        f.debug_struct("Table")
            .field("queues", &queues.collect::<Vec<_>>())
            .field("shared", &self.shared)
            .finish()
    }
}
