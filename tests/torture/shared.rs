//! Memory that peers may write at any moment (R3), used by all at once: a record that peers write, one
//! that this side writes, an integer that both add to, and a place for WRITEs. What can be compared is:
//! a body with its version, the integer when nobody adds any more, the place by who has the turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use rdma_mr::registration::Registrar;
use rdma_mr::{Access, Error, SharedMr, SharedMrAccess};

use super::random::Random;
use super::report::{count, fail, mismatch};

pub const BODY: usize = 4096;
/// Where things are: version and body twice, the integer, the place to the end.
pub const THEIRS: usize = 0;
pub const OURS: usize = 8 + BODY;
pub const SUM: usize = 2 * OURS;
pub const PLACE: usize = SUM + 8;
const LENGTH: usize = PLACE + 3000;

/// The `n`th body: nothing but `n`.
pub fn body(n: u64) -> Vec<u8> {
    n.to_ne_bytes().repeat(BODY / 8)
}

/// Whether all of it is of one write; those of the peers are numbered as their versions are.
pub fn check_body(record: usize, version: u64, bytes: &[u8]) {
    let n = u64::from_ne_bytes(*bytes.first_chunk().expect("it is longer"));
    if *bytes != body(n) || (record == THEIRS && n != version / 2) {
        mismatch(format_args!("a torn record, of version {version}"));
    }
    count("shared record whole");
}

/// One such memory.
pub struct Board {
    pub mr: SharedMr,
    /// Who has it may write the record of the peers, and the place; what is there, if that is known.
    pub turn: Mutex<Option<Vec<u8>>>,
    added: AtomicU64,
    unknown: AtomicU64,
}

impl Board {
    fn new(pd: &Arc<impl Registrar>) -> Arc<Self> {
        let mr = SharedMr::alloc(pd, LENGTH, Access::all()).expect("a device that refuses nothing");
        let place = vec![0; LENGTH - PLACE];
        Arc::new(Board {
            mr,
            turn: Mutex::new(Some(place)),
            added: AtomicU64::default(),
            unknown: AtomicU64::default(),
        })
    }

    /// Copies one of the records out, and compares.
    pub fn look(&self, record: usize) {
        let mut bytes = vec![0; BODY];
        match self.mr.try_read_record(record, &mut bytes) {
            Ok(Some(version)) => check_body(record, version, &bytes),
            Ok(None) => count("shared record being written"),
            Err(error) => fail(error),
        }
    }

    /// Writes the record of this side.
    pub fn write(&self, random: &mut Random) {
        match self.mr.write_record(OURS, &body(random.next())) {
            Ok(_) => count("shared record written here"),
            Err(Error::RecordBusy { .. }) => count("shared record had a writer"),
            Err(error) => fail(error),
        }
    }

    /// Adds by the CPU, if the device agrees.
    pub fn add(&self) {
        match self.mr.fetch_add(SUM, 1) {
            Ok(_) => self.has_added(true),
            Err(Error::AtomicsNotGlobal { .. }) => count("shared atomics of the device alone"),
            Err(error) => fail(error),
        }
    }

    /// 1 was added, or it may have been.
    pub fn has_added(&self, known: bool) {
        let counter = if known { &self.added } else { &self.unknown };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    /// The peers of who had the turn are gone, maybe in the middle.
    pub fn settle(&self, mut turn: MutexGuard<'_, Option<Vec<u8>>>) {
        if turn.is_none() {
            let mut place = vec![0; LENGTH - PLACE];
            self.mr.read_into(PLACE, &mut place).unwrap();
            *turn = Some(place);
        }
        let version: u64 = self.mr.load(THEIRS).unwrap();
        if version % 2 == 1 {
            count("shared record left odd");
            let even = version + 1;
            self.mr.write_from(THEIRS + 8, &body(even / 2)).unwrap();
            self.mr.store(THEIRS, even).unwrap();
        }
    }
}

impl Drop for Board {
    /// Nobody has it any more, and those who had it have ended their queue pairs.
    fn drop(&mut self) {
        let state = self.mr.state();
        if !state.is_free() {
            fail(format_args!("shared memory is held at its end: {state}"));
        }
        self.look(THEIRS);
        self.look(OURS);
        let sum: u64 = self.mr.load(SUM).unwrap();
        let added = *self.added.get_mut();
        let most = added + *self.unknown.get_mut();
        if !(added..=most).contains(&sum) {
            fail(format_args!("the sum is {sum}: not in {added}..={most}"));
        }
    }
}

/// Some of them, each replaced now and then.
pub struct Boards(Vec<RwLock<Arc<Board>>>);

impl Boards {
    pub fn new(pd: &Arc<impl Registrar>) -> Self {
        Boards((0..2).map(|_| RwLock::new(Board::new(pd))).collect())
    }

    pub fn any(&self, random: &mut Random) -> Arc<Board> {
        let slot = &self.0[random.below(self.0.len())];
        Arc::clone(&slot.read().unwrap())
    }

    pub fn replace(&self, pd: &Arc<impl Registrar>, random: &mut Random) {
        let new = Board::new(pd);
        let mut slot = self.0[random.below(self.0.len())].write().unwrap();
        let old = std::mem::replace(&mut *slot, new);
        drop(slot);
        // It ends here, or with the last round over it.
        drop(old);
    }

    /// By whoever comes along.
    pub fn look(&self, random: &mut Random) {
        let board = self.any(random);
        match random.below(4) {
            // Many times: some will see it change.
            0 => (0..200).for_each(|_| board.write(random)),
            1 => (0..200).for_each(|_| board.look(OURS)),
            2 => (0..200).for_each(|_| board.look(THEIRS)),
            _ => board.add(),
        }
    }
}
