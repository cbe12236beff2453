//! Regions that know their bytes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdma_mr::op::{Begin, Hold};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};
use shuttle::future::block_on;
use shuttle::sync::RwLock;
use shuttle::thread::{self, yield_now};

use crate::run::{bytes_are, chance};
use crate::world::{impatient, some_day};

/// How many words a region has.
pub const WORDS: usize = 4;

/// The words of a region that somebody filled as `tag`.
fn words_of(tag: u64) -> [u64; WORDS] {
    std::array::from_fn(|at| tag << 8 | at as u64)
}

/// What a plain reference says of a region's bytes. Whoever has the region may change it.
#[derive(Default)]
struct Book {
    /// Who filled it last.
    last: u64,
    /// What an operation brings, whose end nobody has looked at: who has the region next finds it.
    coming: Option<u64>,
    /// What peers may bring, or may not, and whether their leases have been granted.
    lent: Vec<(u64, bool)>,
    /// All that it was ever filled as.
    had: HashSet<u64>,
}

impl Book {
    fn fill(&mut self, tag: u64) {
        self.last = tag;
        self.had.insert(tag);
    }

    /// The region is had, and this is in it.
    fn found(&mut self, tag: u64) {
        if let Some(coming) = self.coming.take() {
            self.fill(coming);
        }
        if self.lent.iter().any(|(lent, _)| *lent == tag) {
            self.fill(tag);
        }
        bytes_are(tag == self.last);
        assert_eq!(tag, self.last, "bytes: stale, or too early, or too late");
        // No lease is in force, or nobody could look: what was granted and is not here does not come.
        self.lent.retain(|(lent, granted)| *lent != tag && !granted);
    }
}

/// A region, and what its bytes must be.
pub struct Place {
    /// Locked for writing by who writes as Rust wants it, `&mut`. All others meet at the gate.
    pub mr: RwLock<LocalMr>,
    /// Never locked over a turn.
    book: Mutex<Book>,
}

impl Place {
    /// Zeroed bytes: filled as 0.
    pub fn new(mr: LocalMr) -> Arc<Self> {
        let mut mr = mr;
        for (at, word) in words_of(0).iter().enumerate() {
            mr.as_mut_slice()[at * 8..][..8].copy_from_slice(&word.to_ne_bytes());
        }
        let mut book = Book::default();
        book.fill(0);
        Arc::new(Place {
            mr: RwLock::new(mr),
            book: Mutex::new(book),
        })
    }

    pub fn into_mr(self: Arc<Self>) -> LocalMr {
        let place = Arc::try_unwrap(self).unwrap_or_else(|_| panic!("it is in use"));
        place.mr.into_inner().unwrap()
    }

    /// Who filled these bytes: the one that the reference says. For who has the region.
    fn verify(&self, bytes: &[u8]) -> u64 {
        let tag = Self::whole(bytes);
        self.book.lock().unwrap().found(tag);
        tag
    }

    /// Who filled these bytes, all of them.
    pub fn whole(bytes: &[u8]) -> u64 {
        let mut words = [0; WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = u64::from_ne_bytes(bytes[at * 8..][..8].try_into().unwrap());
            thread::sleep(Duration::ZERO); // others may have a turn
        }
        let tag = words[0] >> 8;
        bytes_are(words == words_of(tag));
        assert_eq!(words, words_of(tag), "bytes: torn");
        tag
    }

    /// Looks at the bytes in one of the ways that there are; `None` if that did not get in.
    pub fn read(&self) -> Option<u64> {
        let mr = self.mr.read().unwrap();
        let guard = match chance(6) {
            0 => mr.try_as_slice()?,
            1 => mr.as_slice_until(some_day()).ok()?,
            2 => mr.as_slice_with(yield_now),
            3 => block_on(mr.as_slice_async()),
            4 => block_on(impatient(mr.as_slice_async(), chance(5)))?,
            _ => mr.as_slice(),
        };
        Some(self.verify(&guard))
    }

    /// Fills the bytes, in one of the ways that there are.
    pub fn write(&self, tag: u64) {
        match chance(3) {
            0 => {
                let mut mr = self.mr.write().unwrap();
                let mut guard = mr.as_mut_slice();
                self.fill(&mut guard, tag);
            }
            1 => {
                let mut mr = self.mr.write().unwrap();
                let mut guard = block_on(mr.as_mut_slice_async());
                self.fill(&mut guard, tag);
            }
            _ => {
                let mr = self.mr.read().unwrap();
                let _inner = mr.write_inner();
                let start = mr.as_ptr_unchecked().cast_mut();
                // SAFETY: this thread has the region for itself, as with a guard; it is boxed memory of
                // that length.
                self.fill(
                    unsafe { std::slice::from_raw_parts_mut(start, WORDS * 8) },
                    tag,
                );
            }
        }
    }

    fn fill(&self, bytes: &mut [u8], tag: u64) {
        self.verify(bytes);
        for (at, word) in words_of(tag).iter().enumerate() {
            bytes[at * 8..][..8].copy_from_slice(&word.to_ne_bytes());
            thread::sleep(Duration::ZERO); // others may have a turn
        }
        self.book.lock().unwrap().fill(tag);
    }

    /// Begins an operation that reads, and says what it reads: that stays until its end.
    pub fn begin_read(&self) -> (Hold, u64) {
        let mr = self.mr.read().unwrap();
        let hold = match chance(3) {
            0 => block_on(mr.begin_read_async()),
            1 => mr.begin_read_with(yield_now),
            _ => mr.begin_read(),
        };
        let hold = hold.unwrap();
        let tag = self.verify(&mr.as_slice());
        (hold, tag)
    }

    /// Begins an operation that will fill the bytes as `tag`.
    pub fn begin_write(&self, tag: u64) -> Hold {
        let mr = self.mr.read().unwrap();
        let hold = match chance(3) {
            0 => block_on(mr.begin_write_async()),
            1 => mr.begin_write_with(yield_now),
            _ => mr.begin_write(),
        };
        let mut book = self.book.lock().unwrap();
        if let Some(before) = book.coming.replace(tag) {
            book.fill(before);
        }
        hold.unwrap()
    }

    /// A peer may fill it as `tag`, as soon as it has a lease.
    pub fn lend(&self, tag: u64) {
        self.book.lock().unwrap().lent.push((tag, false));
    }

    /// The lease for that is in force, or over.
    pub fn granted(&self, tag: u64) {
        for (lent, granted) in &mut self.book.lock().unwrap().lent {
            *granted |= *lent == tag;
        }
    }

    /// The peer says that it did, and nobody has looked since.
    pub fn has_arrived(&self, tag: u64) {
        let mut book = self.book.lock().unwrap();
        if book.lent.iter().any(|(lent, _)| *lent == tag) {
            book.fill(tag);
        }
    }

    /// Whether it was filled as `tag` at any time.
    pub fn had(&self, tag: u64) -> bool {
        self.book.lock().unwrap().had.contains(&tag)
    }
}
