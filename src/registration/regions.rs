//! What a registration knows of its regions, and what ends it. Most registrations have one region and keep
//! their keys: they need no roll. It is made when there is a second region or the keys change.

use std::io;
use std::ptr::{NonNull, with_exposed_provenance_mut};

use super::roll::{Handle, Member, Roll};
use crate::gate::{Busy, Locked};
use crate::sync::{AtomicU64, Ordering, UnsafeCell};

pub(super) struct Regions {
    /// The address of the first region, or, as [`ROLL`] says, that of the roll, which begins with it, in a box of
    /// its own; 0 as long as there is neither.
    roll: AtomicU64,
    /// What ends the registration in force; `None` once that has been done.
    current: UnsafeCell<Option<Handle>>,
}

// SAFETY: ROLL-2: what is in the cell is Send, and used by one at a time.
unsafe impl Sync for Regions {}

/// A bit that is in no address.
const ROLL: u64 = 1;

fn address<T>(of: NonNull<T>) -> u64 {
    of.as_ptr().expose_provenance() as u64
}

fn at<T>(address: u64) -> Option<NonNull<T>> {
    NonNull::new(with_exposed_provenance_mut(address as usize))
}

fn roll_at(address: u64) -> Option<NonNull<Locked<Roll>>> {
    at(address & !ROLL).filter(|_| address & ROLL != 0)
}

impl Regions {
    pub(super) fn new(current: Handle) -> Self {
        Regions {
            roll: AtomicU64::new(0),
            current: UnsafeCell::new(Some(current)),
        }
    }

    /// Where the roll is, if there is one.
    pub(super) fn roll_place(&self) -> Option<NonNull<Locked<Roll>>> {
        // Ordering: Acquire pairs with the Release of `begin`.
        roll_at(self.roll.load(Ordering::Acquire))
    }

    fn roll(&self) -> Option<&Locked<Roll>> {
        // SAFETY: ROLL-3: it stays until `drop`.
        self.roll_place().map(|roll| unsafe { roll.as_ref() })
    }

    /// The roll; if there is none yet, one with the first region. One allocation then.
    fn make(&self) -> &Locked<Roll> {
        // Ordering: Acquire, as in `roll_place`. The first region was put there before it was handed to anybody.
        let seen = self.roll.load(Ordering::Acquire);
        let roll = roll_at(seen).unwrap_or_else(|| self.begin(seen));
        // SAFETY: ROLL-3: it stays until `drop`.
        unsafe { roll.as_ref() }
    }

    /// Begins the roll with the region of that address; somebody else may have begun it meanwhile.
    fn begin(&self, first: u64) -> NonNull<Locked<Roll>> {
        let made = NonNull::from(Box::leak(Box::new(Locked::new(Roll::new(at(first))))));
        let put = self.roll.compare_exchange(
            first,
            address(made) | ROLL,
            // Ordering: Release pairs with the Acquire of `roll_place` and of those who are too late.
            Ordering::Release,
            // Ordering: Acquire pairs with the Release above, of who was first.
            Ordering::Acquire,
        );
        let Err(others) = put else {
            return made;
        };
        // SAFETY: ROLL-3: nobody else has seen it.
        drop(unsafe { Box::from_raw(made.as_ptr()) });
        roll_at(others).expect("what replaces a region is a roll")
    }

    /// # Safety
    /// - **ROLL-1**: the member stays where it is until it is [struck off](super::RegistrationRef::strike).
    pub(super) unsafe fn enlist(&self, member: NonNull<Member>) {
        // Ordering: Relaxed. Whoever makes the first region shares the registration with nobody; whoever
        // makes another one was handed the first.
        if self.roll.load(Ordering::Relaxed) == 0 {
            // Ordering: Relaxed, as above.
            return self.roll.store(address(member), Ordering::Relaxed);
        }
        // SAFETY: ROLL-1, as required of the caller.
        self.make().with(|roll| unsafe { roll.enlist(member) });
    }

    /// How many regions there are beside the caller's. Without a roll it is the only one.
    pub(super) fn others(&self) -> usize {
        let regions = |roll: &Locked<Roll>| roll.with(|roll| roll.regions());
        self.roll().map_or(1, regions) - 1
    }

    /// `handle` ends what is in force once `publish` was called; what was before is retired.
    pub(super) fn replace(&self, handle: Handle, publish: impl FnOnce()) {
        self.make().with(|roll| {
            publish();
            let before = self.current.get_mut().with(|current| {
                // SAFETY: ROLL-2: under the roll's lock.
                unsafe { &mut *current }.replace(handle)
            });
            if let Some(before) = before {
                roll.retire(before);
            }
        });
    }

    /// The registrations that nothing uses any more, to be ended. `Err` beside them: the first gate that is
    /// in the way of the others.
    pub(super) fn retired(&self) -> (Vec<Handle>, Result<(), Busy>) {
        let Some(roll) = self.roll() else {
            return (Vec::new(), Ok(()));
        };
        roll.with(|roll| {
            let advanced = roll.advance();
            (roll.take_over(), advanced)
        })
    }

    /// Those could not be ended.
    pub(super) fn put_back(&self, refused: Vec<Handle>) {
        self.make().with(|roll| roll.put_back(refused));
    }

    /// How many registrations there are, the one in force included: for who has a region.
    pub(super) fn count(&self) -> usize {
        let retired = |roll: &Locked<Roll>| roll.with(|roll| roll.count());
        1 + self.roll().map_or(0, retired)
    }

    /// As [`count`](Self::count), if nobody is changing it.
    pub(super) fn try_count(&self) -> Option<usize> {
        match self.roll() {
            None => Some(1),
            Some(roll) => roll.try_with(|roll| 1 + roll.count()),
        }
    }

    /// Ends all of them, the one in force last. What is left after a refusal is to be ended as before.
    ///
    /// # Safety
    /// - **ROLL-4**: the caller has all regions of the registration, and no operation is in flight.
    pub(super) unsafe fn end(&self) -> io::Result<()> {
        if let Some(roll) = self.roll() {
            roll.with(|roll| roll.end())?;
        }
        self.current.get_mut().with(|current| {
            // SAFETY: ROLL-2 by ROLL-4: nobody else has a way to it.
            let current = unsafe { &mut *current };
            if let Some(handle) = current {
                handle.deregister()?;
            }
            *current = None;
            Ok(())
        })
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        // Ordering: Relaxed. Nobody shares it any more.
        if let Some(roll) = roll_at(self.roll.load(Ordering::Relaxed)) {
            // SAFETY: ROLL-3: it was made as a box.
            drop(unsafe { Box::from_raw(roll.as_ptr()) });
        }
    }
}
