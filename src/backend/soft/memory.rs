//! The table of registrations: which key names which bytes, with which rights; and how a copy under
//! way holds off a deregistration.
//!
//! A key is 20 bits of index, 11 bits of generation and one that tells remote from local. The index
//! of a registration that ended is used again only when [`QUARANTINE`] others wait before it, with
//! the next generation: a stale key finds nothing, or a registration whose key is another.

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::lock;
use crate::Access;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

const INDEX_BITS: u32 = 20;
const GENERATION_BITS: u32 = 11;
const GENERATIONS: u32 = 1 << GENERATION_BITS;
const MAX_REGISTRATIONS: usize = 1 << INDEX_BITS;

/// Indices that lie idle before one is used again: an exact key comes back after
/// `QUARANTINE * 2047` registrations at the earliest.
const QUARANTINE: usize = 1024;

/// Which of the two keys of a registration is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// `lkey`: in scatter/gather elements of this side.
    Local,
    /// `rkey`: in what a peer sends.
    Remote,
}

/// A registration.
pub(super) struct Mr {
    start: NonNull<u8>,
    length: usize,
    access: Access,
    pd: u64,
    pub(super) lkey: u32,
    pub(super) rkey: u32,
    /// 1 from the begin of the deregistration on.
    ended: AtomicU64,
    /// Held while a packet is copied from or to these bytes.
    copying: Mutex<()>,
}

// SAFETY: the pointer is only handed on, to copies that hold a `Pin` (REG-4 keeps the bytes
// allocated until then); everything else in it is Send and Sync.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

/// As long as it lives, the registration does not end.
pub(super) struct Pin<'a>(#[allow(dead_code, reason = "held for its Drop")] MutexGuard<'a, ()>);

impl Mr {
    /// Holds off deregistration; `None` if it has begun.
    pub(super) fn pin(&self) -> Option<Pin<'_>> {
        let guard = lock(&self.copying);
        // Ordering: Relaxed: the lock decides: whoever gets it after `end` had it sees the flag; seeing
        // it earlier keeps the NIC from starving `end`.
        (self.ended.load(Ordering::Relaxed) == 0).then_some(Pin(guard))
    }

    /// From the return on, no [`Pin`] exists and none will. Waits for the packet under way.
    fn end(&self) {
        // Ordering: Relaxed: the lock hands it on. Before the lock, so that the NIC takes it at most
        // once more.
        self.ended.store(1, Ordering::Relaxed);
        drop(lock(&self.copying));
    }

    /// A pointer to `addr`, if `length` bytes from there lie inside.
    fn locate(&self, addr: u64, length: u64) -> Option<NonNull<u8>> {
        let offset = addr.checked_sub(self.start.as_ptr().addr() as u64)?;
        let room = (self.length as u64).checked_sub(offset)?;
        if length > room {
            return None;
        }
        NonNull::new(self.start.as_ptr().wrapping_add(offset as usize))
    }
}

/// All registrations of a NIC.
pub(super) struct KeyTable {
    table: Mutex<Table>,
}

struct Table {
    slots: Vec<Slot>,
    free: VecDeque<u32>,
}

struct Slot {
    generation: u32,
    mr: Option<Arc<Mr>>,
}

impl KeyTable {
    pub(super) fn new() -> Self {
        KeyTable {
            table: Mutex::new(Table {
                slots: Vec::new(),
                free: VecDeque::new(),
            }),
        }
    }

    /// Enters a registration; the arguments have been checked.
    pub(super) fn insert(
        &self,
        start: NonNull<u8>,
        length: usize,
        access: Access,
        pd: u64,
    ) -> io::Result<Arc<Mr>> {
        let mut table = lock(&self.table);
        let index = if table.free.len() < QUARANTINE && table.slots.len() < MAX_REGISTRATIONS {
            table.slots.push(Slot {
                generation: 1,
                mr: None,
            });
            table.slots.len() as u32 - 1
        } else {
            table.free.pop_front().ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    format!("the NIC holds {MAX_REGISTRATIONS} registrations, and no more"),
                )
            })?
        };
        let slot = &mut table.slots[index as usize];
        let key = (index << GENERATION_BITS | slot.generation) << 1;
        let mr = Arc::new(Mr {
            start,
            length,
            access,
            pd,
            lkey: key,
            rkey: key | 1,
            ended: AtomicU64::new(0),
            copying: Mutex::new(()),
        });
        slot.mr = Some(mr.clone());
        Ok(mr)
    }

    /// Ends a registration: from the return on, the NIC does not touch its bytes. Waits for the
    /// packet that is being copied, if it is one of these bytes.
    pub(super) fn remove(&self, mr: &Mr) {
        // First the copies, then the key: it must not name something else before.
        mr.end();
        let index = index_of(mr.lkey);
        let mut table = lock(&self.table);
        let Some(slot) = table.slots.get_mut(index) else {
            return;
        };
        // A second call finds another registration there, or none.
        if slot.mr.as_ref().is_some_and(|live| live.lkey == mr.lkey) {
            slot.mr = None;
            slot.generation = (slot.generation + 1) % GENERATIONS;
            // No key is 0, which is what a forgotten one looks like.
            slot.generation = slot.generation.max(1);
            table.free.push_back(index as u32);
        }
    }

    /// The registration that `key` names and where in it `addr` is, if it is one of `pd`, has the
    /// rights and covers all `length` bytes.
    pub(super) fn resolve(
        &self,
        (kind, key): (KeyKind, u32),
        pd: u64,
        needs: Access,
        addr: u64,
        length: u64,
    ) -> Option<(Arc<Mr>, NonNull<u8>)> {
        let table = lock(&self.table);
        let mr = table.slots.get(index_of(key))?.mr.as_ref()?;
        let named = match kind {
            KeyKind::Local => mr.lkey,
            KeyKind::Remote => mr.rkey,
        };
        if named != key || mr.pd != pd || !mr.access.contains(needs) {
            return None;
        }
        let at = mr.locate(addr, length)?;
        Some((mr.clone(), at))
    }

    /// Registrations in force.
    pub(super) fn live(&self) -> usize {
        let table = lock(&self.table);
        table.slots.len() - table.free.len()
    }
}

fn index_of(key: u32) -> usize {
    (key >> (GENERATION_BITS + 1)) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn at(addr: usize) -> NonNull<u8> {
        NonNull::new(std::ptr::without_provenance_mut(addr)).unwrap()
    }

    fn find(keys: &KeyTable, key: u32, addr: u64, length: u64) -> bool {
        keys.resolve((KeyKind::Local, key), 1, Access::empty(), addr, length)
            .is_some()
    }

    #[test]
    fn bounds_are_exact_and_do_not_overflow() {
        let keys = KeyTable::new();
        let mr = keys
            .insert(at(0x1000), 100, Access::LOCAL_WRITE, 1)
            .unwrap();
        for (addr, length, inside) in [
            (0x1000, 100, true),
            (0x1000 + 99, 1, true),
            (0x1000 + 100, 0, true),
            (0x1000 + 100, 1, false),
            (0x1000 + 1, 100, false),
            (0x1000 - 1, 1, false),
            (0x1000, 101, false),
            (0x1000, u64::MAX, false),
            (u64::MAX, 2, false),
            (0, u64::MAX, false),
        ] {
            assert_eq!(
                find(&keys, mr.lkey, addr, length),
                inside,
                "{addr} {length}"
            );
        }
    }

    #[test]
    fn keys_name_kind_domain_and_rights() {
        let keys = KeyTable::new();
        let mr = keys.insert(at(8), 8, Access::REMOTE_READ, 1).unwrap();
        assert_ne!(mr.lkey, mr.rkey);
        let get = |kind, key, pd, needs| keys.resolve((kind, key), pd, needs, 8, 8).is_some();
        let none = Access::empty();
        assert!(get(KeyKind::Local, mr.lkey, 1, none));
        assert!(get(KeyKind::Remote, mr.rkey, 1, Access::REMOTE_READ));
        assert!(!get(KeyKind::Remote, mr.lkey, 1, none));
        assert!(!get(KeyKind::Local, mr.rkey, 1, none));
        assert!(!get(KeyKind::Local, mr.lkey, 2, none));
        assert!(!get(KeyKind::Local, mr.lkey, 1, Access::LOCAL_WRITE));
        assert!(!get(KeyKind::Local, 0, 1, none));
        assert!(!get(KeyKind::Local, u32::MAX, 1, none));
    }

    #[test]
    fn keys_come_back_late_and_never_while_live() {
        let keys = KeyTable::new();
        let pinned = keys.insert(at(8), 8, Access::LOCAL_WRITE, 1).unwrap();
        let mut seen = HashSet::from([pinned.lkey]);
        for _ in 0..100_000 {
            let mr = keys.insert(at(8), 8, Access::LOCAL_WRITE, 1).unwrap();
            assert!(seen.insert(mr.lkey) && seen.insert(mr.rkey));
            keys.remove(&mr);
            assert!(!find(&keys, mr.lkey, 8, 8), "stale");
            assert!(mr.pin().is_none());
        }
        assert_eq!(keys.live(), 1);
        assert!(pinned.pin().is_some());
        assert!(lock(&keys.table).slots.len() <= QUARANTINE + 2);
    }

    #[test]
    fn generations_wrap_past_zero() {
        let keys = KeyTable::new();
        let mr = keys.insert(at(8), 8, Access::LOCAL_WRITE, 1).unwrap();
        lock(&keys.table).slots[0].generation = GENERATIONS - 1;
        keys.remove(&mr);
        assert_eq!(lock(&keys.table).slots[0].generation, 1);
        // Ending it twice changes nothing more.
        keys.remove(&mr);
        assert_eq!(keys.live(), 0);
    }
}
