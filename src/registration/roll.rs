//! The regions of one registration, and the registrations before it whose keys some of their operations
//! may use still.
//!
//! The roll is a list whose links lie in the regions: it costs nothing but them, whether there is one
//! region or a million.

use std::io;
use std::ptr::NonNull;

use super::Deregister;
use crate::gate::{Busy, Gate, Stage};
use crate::sync::UnsafeCell;

/// What a region is to its registration: the gate at the end, which is in use all the time.
#[repr(C)]
pub(crate) struct Member {
    links: UnsafeCell<Links>,
    pub(crate) gate: Gate,
}

/// The neighbours on the roll.
#[derive(Clone, Copy, Default)]
struct Links {
    before: Link,
    after: Link,
}

type Link = Option<NonNull<Member>>;

impl Member {
    pub(crate) fn new(gate: Gate) -> Self {
        Member {
            gate,
            links: UnsafeCell::new(Links::default()),
        }
    }

    /// For who has the roll.
    fn links<R>(&self, f: impl FnOnce(&mut Links) -> R) -> R {
        self.links.get_mut().with(|links| {
            // SAFETY: ROLL-2: nobody else uses them until `f` has returned.
            f(unsafe { &mut *links })
        })
    }
}

/// The members, the latest one last, and what is retired. Behind a lock.
pub(super) struct Roll {
    first: Link,
    last: Link,
    count: usize,
    /// Nothing, most of the time.
    retired: Option<Box<Retired>>,
}

pub(super) type Handle = Box<dyn Deregister>;

/// Registrations that are in force no more, and not ended yet.
struct Retired {
    /// Those before this one are over, for the retirement under way; all of them, if there is none. Who
    /// joins then need not be looked at: it has the roll after the new keys were published, and its
    /// operations know no others.
    at: Link,
    /// How far that one is.
    stage: Stage,
    /// Retired since the retirement under way began: their turn comes after it.
    waiting: Vec<Handle>,
    /// What is retired now.
    leaving: Vec<Handle>,
    /// No operation uses their keys any more.
    over: Vec<Handle>,
}

// SAFETY: ROLL-1: the members are gates, which may be used by any thread, in regions that live as long
// as they are on the roll; ROLL-2: and links, which are used by who has it.
unsafe impl Send for Roll {}

impl Retired {
    fn new() -> Box<Self> {
        Box::new(Retired {
            at: None,
            stage: Stage::Start,
            waiting: Vec::new(),
            leaving: Vec::new(),
            over: Vec::new(),
        })
    }

    fn count(&self) -> usize {
        self.waiting.len() + self.leaving.len() + self.over.len()
    }

    fn go_on_at(&mut self, at: Link) {
        self.at = at;
        self.stage = Stage::Start;
    }
}

impl Roll {
    /// A roll with that region.
    pub(super) fn new(first: Link) -> Self {
        Roll {
            first,
            last: first,
            count: usize::from(first.is_some()),
            retired: None,
        }
    }

    /// # Safety
    /// - **ROLL-1**: the member stays where it is until it is [struck off](Self::strike).
    pub(super) unsafe fn enlist(&mut self, member: NonNull<Member>) {
        self.count += 1;
        let before = self.last.replace(member);
        // SAFETY: ROLL-1.
        unsafe { member.as_ref() }.links(|links| links.before = before);
        self.put_behind(before, Some(member));
    }

    fn put_behind(&mut self, before: Link, after: Link) {
        match before {
            // SAFETY: ROLL-1: it is on the roll.
            Some(before) => unsafe { before.as_ref() }.links(|links| links.after = after),
            None => self.first = after,
        }
    }

    /// How many regions there are.
    pub(super) fn regions(&self) -> usize {
        self.count
    }

    /// Whether it was the last one.
    pub(super) fn strike(&mut self, member: &Member) -> bool {
        self.count -= 1;
        let Links { before, after } = member.links(|links| *links);
        self.put_behind(before, after);
        match after {
            // SAFETY: ROLL-1: it is on the roll.
            Some(after) => unsafe { after.as_ref() }.links(|links| links.before = before),
            None => self.last = before,
        }
        if let Some(retired) = &mut self.retired
            && retired.at == Some(NonNull::from(member))
        {
            retired.go_on_at(after);
        }
        self.count == 0
    }

    /// It is in force no more.
    pub(super) fn retire(&mut self, handle: Handle) {
        let retired = self.retired.get_or_insert_with(Retired::new);
        retired.waiting.push(handle);
    }

    /// How many registrations are retired, and not ended yet.
    pub(super) fn count(&self) -> usize {
        self.retired.as_ref().map_or(0, |retired| retired.count())
    }

    /// Takes the retirement as far as it goes without waiting. `Err`: the first gate that is in the way.
    pub(super) fn advance(&mut self) -> Result<(), Busy> {
        let Some(retired) = &mut self.retired else {
            return Ok(());
        };
        loop {
            if retired.leaving.is_empty() {
                if retired.waiting.is_empty() {
                    return Ok(());
                }
                retired.leaving.append(&mut retired.waiting);
                retired.go_on_at(self.first);
            }
            while let Some(member) = retired.at {
                // SAFETY: ROLL-1: it is on the roll.
                let member = unsafe { member.as_ref() };
                retired.stage = member.gate.retire(retired.stage);
                if retired.stage != Stage::Over {
                    return Err(Busy::new(&member.gate));
                }
                retired.go_on_at(member.links(|links| links.after));
            }
            retired.over.append(&mut retired.leaving);
        }
    }

    /// The registrations that nothing uses, to be ended.
    pub(super) fn take_over(&mut self) -> Vec<Handle> {
        let Some(retired) = &mut self.retired else {
            return Vec::new();
        };
        let over = std::mem::take(&mut retired.over);
        if retired.count() == 0 {
            self.retired = None;
        }
        over
    }

    /// Those could not be ended.
    pub(super) fn put_back(&mut self, refused: Vec<Handle>) {
        let retired = self.retired.get_or_insert_with(Retired::new);
        retired.over.extend(refused);
    }

    /// Ends all that is retired; for who knows that no operation is in flight. What is left after a refusal
    /// is to be ended as before.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let Some(mut retired) = self.retired.take() else {
            return Ok(());
        };
        let Retired {
            waiting,
            leaving,
            over,
            ..
        } = &mut *retired;
        over.append(leaving);
        over.append(waiting);
        while let Some(first) = over.first_mut() {
            if let Err(error) = first.deregister() {
                self.retired = Some(retired);
                return Err(error);
            }
            over.remove(0);
        }
        Ok(())
    }
}
