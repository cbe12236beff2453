//! What a pool's slots share; how they come to be, come home, and come to their end.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::list::{Brought, FreeList};
use super::slot::PooledMr;
use super::word::Word;
use super::{MrOptions, PoolOptions};
use crate::error::{Error, Result};
use crate::gate::Locked;
use crate::mr::{Part, RegionRef};
use crate::registration::{Region, Registrar, Registration, Traits};
use crate::sync::{Arc, AtomicU64, Ordering};

/// A region, and behind it where it is at home. Keeps what the slots of its pool share.
#[repr(C)]
struct Slot {
    region: Region,
    pool: Arc<Shared>,
    number: usize,
}

/// What the slots of a pool share. Each of them keeps it, and so does the pool.
pub(super) struct Shared {
    pub(super) list: FreeList,
    /// The regions, in their places for good: a free slot is known by its number.
    slab: Slab,
    pub(super) size: PoolOptions,
    pub(super) options: MrOptions,
    registrar: std::sync::Arc<dyn Registrar>,
    /// Who registers has these.
    runs: Locked<Runs>,
    registrations: AtomicU64,
}

/// Room for all slots that there may be; used as far as there are registrations.
struct Slab(Box<[MaybeUninit<UnsafeCell<Lines>>]>);

/// The place of a slot, as a region's lines are.
#[repr(C, align(128))]
struct Lines {
    front: [u8; Region::FRONT],
    slot: Slot,
}

const _: () = assert!(align_of::<Lines>() == Region::LINES);
const _: () = assert!(std::mem::offset_of!(Lines, slot) == Region::FRONT);

// SAFETY: POOL-1: a place is written by who makes its region, and read then by who has it.
unsafe impl Sync for Slab {}

/// Which parts of the slab are used: one has the places of a registration.
struct Runs {
    used: Vec<usize>,
    /// Used before.
    vacant: Vec<usize>,
}

impl Runs {
    fn next(&mut self) -> usize {
        self.vacant.pop().unwrap_or(self.used.len())
    }
}

impl Shared {
    pub(super) fn new(
        options: MrOptions,
        registrar: std::sync::Arc<dyn Registrar>,
        size: PoolOptions,
    ) -> Result<Self> {
        let slots = size
            .slots_per_registration
            .saturating_mul(size.max_registrations);
        if slots == 0 || slots > Word::MAX_SLOTS {
            return Err(Error::PoolSize {
                slots,
                max: Word::MAX_SLOTS,
            });
        }
        // Not written: most of the room may never be used.
        let slab = Slab(Box::new_uninit_slice(slots));
        Ok(Shared {
            list: FreeList::new(slots),
            slab,
            size,
            options,
            registrar,
            runs: Locked::new(Runs {
                used: Vec::new(),
                vacant: Vec::new(),
            }),
            registrations: AtomicU64::new(0),
        })
    }

    #[inline]
    fn place(&self, slot: usize) -> NonNull<Slot> {
        let lines = NonNull::from(&self.slab.0[slot]);
        // SAFETY: POOL-2: within the lines, which are the slab's.
        unsafe { lines.byte_add(Region::FRONT) }.cast()
    }

    #[inline]
    fn at(&self, slot: usize) -> RegionRef {
        RegionRef::at(self.place(slot).cast())
    }

    #[inline]
    pub(super) fn take(&self) -> Option<PooledMr> {
        let slot = self.list.take()?;
        // SAFETY: POOL-1: it was free, and was taken by this thread.
        Some(unsafe { PooledMr::new(self.at(slot)) })
    }

    pub(super) fn registrations(&self) -> usize {
        // Ordering: Relaxed. A number for people; written by who has the runs.
        self.registrations.load(Ordering::Relaxed) as usize
    }

    fn count(&self, runs: &Runs) {
        // Ordering: Relaxed, as in `registrations`.
        self.registrations
            .store(runs.used.len() as u64, Ordering::Relaxed);
        self.list
            .set_full(runs.used.len() == self.size.max_registrations);
    }

    /// Registers more, and gives the numbers of the new slots, which are the caller's; `None` at the limit.
    fn register(this: &Arc<Self>, runs: &mut Runs) -> Result<Option<std::ops::Range<usize>>> {
        let PoolOptions {
            slot_length,
            slots_per_registration: slots,
            max_registrations,
        } = this.size;
        if this.list.is_closed() {
            return Err(Error::Closed);
        }
        if runs.used.len() == max_registrations {
            return Ok(None);
        }
        let length = slot_length.saturating_mul(slots);
        let registered = this.options.map(&this.registrar, length)?;
        // SAFETY: REGN-2: made just now.
        let (bytes, _) = unsafe { registered.get() }.bytes();
        let run = runs.next();
        let first = run * slots;
        for number in first..first + slots {
            // SAFETY: PART-1: within the registration's memory, which has that many slots.
            let addr = unsafe { bytes.add((number - first) * slot_length) };
            let region = Region::new(
                this.options.gate(),
                Traits::POOLED,
                (addr, slot_length),
                registered,
            );
            let place = this.place(number);
            // SAFETY: REGION-8 by POOL-2: the run was not used, and the slab stays while there is a region.
            unsafe {
                (&raw mut (*place.as_ptr()).pool).write(Arc::clone(this));
                (&raw mut (*place.as_ptr()).number).write(number);
                RegionRef::settle(place.cast(), region);
            }
        }
        runs.used.push(run);
        this.count(runs);
        Ok(Some(first..first + slots))
    }

    /// Makes slots free that are the caller's.
    fn bring(&self, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            // SAFETY: POOL-1: as required of the caller, who has just made them or taken them.
            unsafe { give_back(self.at(slot)) };
        }
    }

    pub(super) fn grow(this: &Arc<Self>) -> Result<()> {
        let slots = this.runs.with(|runs| Self::register(this, runs))?;
        let max = this.size.max_registrations;
        this.bring(slots.ok_or(Error::PoolFull { max })?);
        Ok(())
    }

    pub(super) fn rotate_keys(&self) -> Result<()> {
        self.runs.with(|runs| {
            for &run in &runs.used {
                let registration = self.registration(run);
                let access = registration.inner().access();
                registration.rotate(access)?;
                // What can't be ended now is left to the next one, or to the end.
                let _ = registration.try_retire();
            }
            Ok(())
        })
    }

    /// That of a run that is used. While the runs are borrowed, or the pool owned, it stays.
    fn registration(&self, run: usize) -> &Registration {
        let first = self.at(run * self.size.slots_per_registration);
        // SAFETY: REGION-3 by POOL-2: the pool is not closed, so its regions stay, whoever has them.
        unsafe { first.get() }.registration()
    }

    /// Ends all registrations, if no slot is out; those that the provider refuses to end stay, with their
    /// slots. For the owner of the pool: nobody takes slots meanwhile.
    pub(super) fn end(&self) -> Result<()> {
        self.runs.with(|runs| {
            let slots = runs.used.len() * self.size.slots_per_registration;
            let out = slots - self.list.free();
            if out > 0 {
                return Err(Error::SlotsOut { out, slots });
            }
            // All of them, in any order: they are the caller's from here on.
            let _ = self.list.take_all(false).count();
            let mut refused = Ok(());
            let (mut kept, mut vacant) = (Vec::new(), Vec::new());
            for run in std::mem::take(&mut runs.used) {
                // SAFETY: ROLL-4: all slots are the caller's, and those are all regions that there are.
                match unsafe { self.registration(run).end() } {
                    Ok(()) => vacant.push(run),
                    Err(error) => {
                        refused = Err(Error::Deregister(error));
                        kept.push(run);
                    }
                }
            }
            vacant
                .iter()
                .for_each(|run| self.leave(self.slots_of(*run)));
            kept.iter().for_each(|run| self.bring(self.slots_of(*run)));
            runs.used = kept;
            runs.vacant.append(&mut vacant);
            self.count(runs);
            refused
        })
    }

    fn slots_of(&self, run: usize) -> std::ops::Range<usize> {
        let slots = self.size.slots_per_registration;
        run * slots..(run + 1) * slots
    }

    /// The end of slots that are the caller's.
    fn leave(&self, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            // SAFETY: REGION-5 by POOL-1: nobody else has it, and no hold is out.
            unsafe { end(self.at(slot)) };
        }
    }

    /// The pool is gone: the free slots come to their end now, the others when they come home.
    pub(super) fn close(&self) {
        self.leave(self.list.take_all(true));
    }
}

/// Says, until it is dropped, that somebody registers more slots: others wait for those.
pub(super) struct Growing {
    pool: Arc<Shared>,
}

impl Growing {
    pub(super) fn begin(pool: &Arc<Shared>) -> Option<Self> {
        pool.list.begin_growth().then(|| Growing {
            pool: Arc::clone(pool),
        })
    }

    /// Registers more and gives one of them; `None`: that was not possible, or is not needed any more.
    pub(super) fn take(self) -> Result<Option<PooledMr>> {
        let pool = &self.pool;
        let slots = pool.runs.with(|runs| match pool.list.free() {
            0 => Shared::register(pool, runs),
            _ => Ok(None),
        })?;
        let Some(mut slots) = slots else {
            return Ok(None);
        };
        let first = slots.next().map(|slot| {
            // SAFETY: POOL-1: made just now, for this caller.
            unsafe { PooledMr::new(pool.at(slot)) }
        });
        pool.bring(slots);
        Ok(first)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.pool.list.grown();
    }
}

/// The slot whose region that is.
///
/// # Safety
/// - **REGION-3** for `'a`, of a region with [`Traits::POOLED`].
#[inline]
unsafe fn slot_at<'a>(region: RegionRef) -> &'a Slot {
    // SAFETY: REGION-3: the region is the first field of its slot.
    unsafe { region.place().cast().as_ref() }
}

/// Which slot of its pool it is, if it is one.
pub(in crate::mr) fn slot_number(part: Part<'_>) -> Option<usize> {
    let pooled = part.region().traits().contains(Traits::POOLED);
    // SAFETY: REGION-3: a part borrows the handle.
    pooled.then(|| unsafe { slot_at(part.region) }.number)
}

/// Makes a slot free again; if its pool is gone, that is its end, and its registration's if it is the
/// last one.
///
/// # Safety
/// - **POOL-1**: the caller has the slot, no hold is out, and it is given up by this call.
#[inline]
pub(super) unsafe fn give_back(slot: RegionRef) {
    // SAFETY: REGION-3 by POOL-1, until it is free.
    let Slot { pool, number, .. } = unsafe { slot_at(slot) };
    // SAFETY: POOL-1, as required of the caller. POOL-2: the slot keeps the list.
    let brought = unsafe { FreeList::bring(&raw const pool.list, *number, || Arc::clone(pool)) };
    if brought == Brought::Closed {
        // SAFETY: REGION-5 by POOL-1: it is still the caller's.
        unsafe { end(slot) };
    }
}

/// # Safety
/// - **REGION-5**, of a slot.
#[cold]
unsafe fn end(slot: RegionRef) {
    // SAFETY: REGION-5, as required of the caller. POOL-2: the slab stays until this drop of `pool`.
    let _pool = unsafe { (&raw const (*slot.place().cast::<Slot>().as_ptr()).pool).read() };
    // SAFETY: REGION-5, as required of the caller.
    drop(unsafe { slot.leave() });
}

/// The last operation is over on a slot whose handle is gone.
///
/// # Safety
/// - **POOL-1**.
#[cold]
pub(crate) unsafe fn reuse(slot: RegionRef) {
    // SAFETY: REGION-3 by POOL-1.
    unsafe { slot.gate() }.reopen();
    // SAFETY: POOL-1, as required of the caller.
    unsafe { give_back(slot) };
}
