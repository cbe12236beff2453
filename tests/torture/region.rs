//! Regions with a reference of their bytes, and memory that is looked at when it is freed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use rdma_mr::registration::{Registrar, StableMemory};
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions};

use super::Role;
use super::book::Book;
use super::random::Random;
use super::report::{count, lock};

/// Memory that is registered, by number.
#[derive(Default)]
pub struct Ledger(Mutex<BTreeMap<u64, Entry>>);

#[derive(Clone, Copy)]
pub struct Entry {
    pub length: u64,
    /// How many there were when the last handle was dropped.
    pub registrations: usize,
}

impl Ledger {
    pub fn live(&self) -> BTreeMap<u64, Entry> {
        lock(&self.0).clone()
    }

    fn note(&self, number: u64, mr: &LocalMr) {
        if let Some(entry) = lock(&self.0).get_mut(&number) {
            entry.registrations = mr.registrations();
        }
    }
}

/// Memory that compares its bytes when it is freed: that is the release of the last hold, if the
/// handle was dropped before.
struct Watched {
    words: Vec<u64>,
    /// Where each one's bytes start.
    books: Vec<(usize, usize, Arc<Book>)>,
    number: u64,
    ledger: Arc<Ledger>,
}

// SAFETY: MEM-1, MEM-3: the words are this value's own, and neither touched nor moved before the drop.
// MEM-2: initialised. MEM-4: a heap block.
unsafe impl StableMemory for Watched {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    fn length(&self) -> usize {
        self.words.len() * 8
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let start: *const u8 = self.words.as_ptr().cast();
        // SAFETY: all of the words; the region is gone, and its registration.
        let bytes = unsafe { std::slice::from_raw_parts(start, self.words.len() * 8) };
        for (at, length, book) in &self.books {
            book.gone(&bytes[*at..][..*length]);
        }
        lock(&self.ledger.0).remove(&self.number);
    }
}

/// A region, while its handle is there, and the reference of its bytes.
pub struct Region {
    pub book: Arc<Book>,
    pub length: usize,
    handle: RwLock<Option<LocalMr>>,
    ledger: Arc<Ledger>,
}

impl Region {
    /// Parts of one registration with `length` random bytes each, a multiple of 8; peers have all rights
    /// to them. `None` if the device refuses.
    pub fn parts(
        pd: &Arc<impl Registrar>,
        ledger: &Arc<Ledger>,
        parts: usize,
        length: usize,
        random: &mut Random,
    ) -> Option<Vec<Arc<Region>>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut words = vec![0; parts * length / 8];
        words.fill_with(|| random.next());
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let books: Vec<_> = bytes
            .chunks(length)
            .map(|bytes| Arc::new(Book::new(number, bytes)))
            .collect();
        let entry = Entry {
            length: bytes.len() as u64,
            registrations: 0,
        };
        lock(&ledger.0).insert(number, entry);
        let starts = (0..).step_by(length);
        let memory = Watched {
            words,
            books: starts
                .zip(books.clone())
                .map(|(at, book)| (at, length, book))
                .collect(),
            number,
            ledger: Arc::clone(ledger),
        };
        // SAFETY: REMOTE-1, REMOTE-2: who lets a peer write owns the region's exclusive hold until the
        // write has completed, or both queue pairs are gone.
        let options = unsafe { MrOptions::new().grant_remote_write() };
        let mr = match options.access(Access::all()).register(pd, memory) {
            Ok(mr) => mr,
            Err(_) => {
                count("fault registration refused");
                return None;
            }
        };
        let parts: Vec<LocalMr> = match parts {
            1 => vec![mr],
            _ => mr.chunks_of(length).expect("it is free").collect(),
        };
        let region = |(mr, book)| {
            Arc::new(Region {
                book,
                length,
                handle: RwLock::new(Some(mr)),
                ledger: Arc::clone(ledger),
            })
        };
        Some(parts.into_iter().zip(books).map(region).collect())
    }

    /// The handle, if it is there and nobody is about to use it as `&mut`.
    pub fn handle(&self) -> Option<Handle<'_>> {
        let guard = self.handle.try_read().ok()?;
        guard.is_some().then_some(Handle(guard))
    }

    /// Compares, if nobody holds it.
    pub fn look(&self, when: &str) {
        let Some(handle) = self.handle() else { return };
        match handle.mr().try_as_slice() {
            Some(bytes) => self.book.look(&bytes, when),
            None => count("checks found it held"),
        }
    }

    /// Writes by the CPU, if nobody holds it.
    pub fn overwrite(&self, random: &mut Random) -> Option<()> {
        let mut handle = self.handle.try_write().ok()?;
        let mut bytes = handle.as_mut()?.try_as_mut_slice()?;
        self.book.overwrite(&mut bytes, |bytes| {
            let (start, end) = (random.below(bytes.len()), random.below(bytes.len()));
            random.fill(&mut bytes[start.min(end)..start.max(end)]);
        });
        Some(())
    }

    /// Drops the handle; operations in flight keep the memory.
    pub fn drop_handle(&self) -> bool {
        let handle = self.handle.try_write().map(|mut handle| handle.take());
        let Ok(Some(mr)) = handle else { return false };
        count(match mr.state().is_free() {
            true => "handle dropped free",
            false => "handle dropped in flight",
        });
        self.ledger.note(self.book.memory, &mr);
        true
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(mr) = self.handle.get_mut().unwrap() {
            self.ledger.note(self.book.memory, mr);
        }
    }
}

pub struct Handle<'a>(RwLockReadGuard<'a, Option<LocalMr>>);

impl Handle<'_> {
    pub fn mr(&self) -> &LocalMr {
        self.0.as_ref().expect("seen when it was made")
    }
}

/// Lengths of the regions in a pool: large ones for messages of several packets; parts of one
/// registration; small ones, for inline messages and integers too.
const LARGE: (usize, usize) = (48, 6000);
const PARTS: (usize, usize) = (24, 3000);
const SMALL: (usize, usize) = (24, 256);
/// Parts of one registration.
const SPLIT: usize = 4;

/// Regions that everybody uses. Each is replaced now and then.
pub struct Pool<R> {
    slots: Vec<RwLock<Option<Arc<Region>>>>,
    pd: Arc<R>,
    pub ledger: Arc<Ledger>,
}

impl<R: Registrar> Pool<R> {
    pub fn new(pd: &Arc<R>, random: &mut Random) -> Self {
        let pool = Pool {
            slots: (0..LARGE.0 + PARTS.0 + SMALL.0)
                .map(|_| RwLock::new(None))
                .collect(),
            pd: Arc::clone(pd),
            ledger: Arc::default(),
        };
        for slot in 0..pool.slots.len() {
            pool.renew(slot, random);
        }
        pool
    }

    /// A region that is in no pool.
    pub fn make(&self, length: usize, random: &mut Random) -> Option<Arc<Region>> {
        Region::parts(&self.pd, &self.ledger, 1, length, random)?.pop()
    }

    fn get(&self, slot: usize) -> Option<Arc<Region>> {
        self.slots[slot].read().unwrap().clone()
    }

    pub fn any(&self, random: &mut Random) -> Option<Arc<Region>> {
        self.get(random.below(self.slots.len()))
    }

    /// One for so many bytes, most likely.
    pub fn with_room(&self, length: usize, random: &mut Random) -> Option<Arc<Region>> {
        match length <= 200 {
            true => self.any(random),
            false => self.large(random),
        }
    }

    /// One of at least 3000 bytes.
    pub fn large(&self, random: &mut Random) -> Option<Arc<Region>> {
        self.get(random.below(LARGE.0 + PARTS.0))
    }

    /// Changes the keys of a region.
    pub fn rotate(&self, role: Role, random: &mut Random) {
        self.any(random)
            .and_then(|region| region.rotate(role, random));
    }

    /// Replaces a region, and drops the handle of the old one; of a part all that it was split from.
    pub fn replace(&self, random: &mut Random) {
        let slot = random.below(self.slots.len());
        self.renew(slot, random);
    }

    fn renew(&self, slot: usize, random: &mut Random) {
        let (first, parts, length) = match slot.checked_sub(LARGE.0) {
            None => (slot, 1, LARGE.1),
            Some(part) if part < PARTS.0 => (LARGE.0 + part / SPLIT * SPLIT, SPLIT, PARTS.1),
            Some(_) => (slot, 1, SMALL.1),
        };
        let new = Region::parts(&self.pd, &self.ledger, parts, length, random);
        for (slot, new) in (first..).zip(new.into_iter().flatten()) {
            let old = self.slots[slot].write().unwrap().replace(new);
            old.map(|old| old.drop_handle());
        }
    }

    pub fn all(&self) -> impl Iterator<Item = Arc<Region>> {
        (0..self.slots.len()).filter_map(|slot| self.get(slot))
    }

    pub fn clear(&self) {
        for slot in &self.slots {
            slot.write().unwrap().take();
        }
    }
}
