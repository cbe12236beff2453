//! What is known of an operation from its post on, and what follows from its end.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rdma_mr::op::Hold;
use rdma_mr::work::{SendOp, WcStatus};
use rdma_mr::{LocalMr, LocalMrReadAccess};

use super::Role;
use super::book::ticket;
use super::region::Region;
use super::report::{count, fail, lock, loses_answers, progress};

/// Some bytes of a region.
pub struct Bytes {
    pub region: Arc<Region>,
    pub range: Range<usize>,
}

/// The bytes of a region that a hold of the caller keeps everybody from writing.
///
/// # Safety
/// The caller owns a hold of it, and nothing is posted over it that writes.
pub unsafe fn held_bytes(mr: &LocalMr) -> &[u8] {
    // SAFETY: SLICE-1, SLICE-2: as required of the caller.
    unsafe { mr.as_slice_unchecked() }
}

/// Bytes that an operation writes, on this side or the peer's.
pub struct Effect {
    regions: Vec<(Arc<Region>, u64)>,
    /// In the order of the message: which region, and where.
    pieces: Vec<(usize, Range<usize>)>,
    /// `None`: what comes is not known before.
    pub content: Option<Vec<u8>>,
}

impl Effect {
    /// Enters it in the books.
    ///
    /// # Safety
    /// The caller owns the exclusive holds of all these regions, and has posted nothing over them.
    pub unsafe fn begin(to: &[Bytes], mrs: &[&LocalMr], content: Option<Vec<u8>>) -> Self {
        let mut effect = Effect {
            regions: Vec::new(),
            pieces: Vec::new(),
            content,
        };
        let mut actual = Vec::new();
        for (bytes, mr) in to.iter().zip(mrs) {
            let known = |(region, _): &(Arc<Region>, u64)| Arc::ptr_eq(region, &bytes.region);
            let at = effect.regions.iter().position(known).unwrap_or_else(|| {
                effect.regions.push((Arc::clone(&bytes.region), ticket()));
                // SAFETY: as required of the caller.
                actual.push(unsafe { held_bytes(mr) });
                effect.regions.len() - 1
            });
            effect.pieces.push((at, bytes.range.clone()));
        }
        for (at, (region, ticket)) in effect.regions.iter().enumerate() {
            let pieces = effect.pieces.iter().filter(|(of, _)| *of == at);
            let ranges = pieces.map(|(_, range)| range.clone()).collect();
            region.book.begin(*ticket, ranges, actual[at]);
        }
        effect
    }

    /// It was not posted.
    pub fn cancel(&self) {
        for (region, ticket) in &self.regions {
            region.book.cancel(*ticket);
        }
    }

    /// It may have written anything.
    pub fn fail(&self) {
        for (region, ticket) in &self.regions {
            region.book.abandon(*ticket);
        }
    }

    /// It has written this, and no more.
    pub fn succeed(&self, content: &[u8]) {
        self.settle(content, false);
    }

    /// It has written this, and before that somebody else may have written to the same place.
    pub fn succeed_after_others(&self, content: &[u8]) {
        self.settle(content, true);
    }

    fn settle(&self, mut content: &[u8], tainted: bool) {
        let mut writes: Vec<Vec<(usize, &[u8])>> = vec![Vec::new(); self.regions.len()];
        for (at, range) in &self.pieces {
            let (here, rest) = content.split_at(content.len().min(range.len()));
            writes[*at].push((range.start, here));
            content = rest;
        }
        for ((region, ticket), writes) in self.regions.iter().zip(writes) {
            region.book.finish(*ticket, &writes, tainted);
        }
    }

    pub fn look(&self) {
        for (region, _) in &self.regions {
            region.look("after a write");
        }
    }

    /// The integer that came, if nobody has used the region since.
    pub fn integer(&self) -> Option<u64> {
        let (region, ticket) = &self.regions[0];
        let handle = region.handle()?;
        let bytes = handle.mr().try_as_slice()?;
        let range = self.pieces[0].1.clone();
        let integer = u64::from_ne_bytes(bytes[range].try_into().ok()?);
        region.book.is_last(*ticket).then_some(integer)
    }

    pub fn regions(&self) -> impl Iterator<Item = &Arc<Region>> {
        self.regions.iter().map(|(region, _)| region)
    }
}

/// An integer that peers add 1 to, and how often that was seen to succeed.
#[derive(Default)]
pub struct Counter {
    done: AtomicU64,
    unknown: AtomicU64,
    /// A bit for each value that was seen before an addition.
    seen: Mutex<Vec<u64>>,
}

impl Counter {
    fn add(&self, known: bool) {
        let counter = if known { &self.done } else { &self.unknown };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn saw(&self, before: u64) {
        count("checks fetched values");
        let (at, bit) = (before as usize / 64, 1 << (before % 64));
        let mut seen = lock(&self.seen);
        if before > 1 << 32 {
            return fail(format_args!("{before:#x} can't have been fetched"));
        }
        if seen.len() <= at {
            seen.resize(at + 1, 0);
        }
        if seen[at] & bit != 0 {
            fail(format_args!("{before} was fetched twice"));
        }
        seen[at] |= bit;
    }

    /// All queue pairs are gone.
    pub fn check(&self, value: u64) {
        let done = self.done.load(Ordering::Relaxed);
        let most = done + self.unknown.load(Ordering::Relaxed);
        println!("counter: {value}, in {done}..={most}");
        if !(done..=most).contains(&value) {
            fail(format_args!(
                "the counter is {value}: not in {done}..={most}"
            ));
        }
    }
}

/// A message on its way; of a WRITE with immediate data no bytes.
pub struct Message {
    pub bytes: Vec<u8>,
    pub imm: Option<u32>,
    pub is_send: bool,
}

/// Messages on their way to one side, by the receive that they take, or by immediate data.
#[derive(Default)]
pub struct Inbox {
    pub messages: Mutex<HashMap<u64, Message>>,
    pub by_imm: bool,
    /// A message that failed in the middle leaves its receive to the next one.
    pub shared: bool,
}

impl Inbox {
    pub fn by_imm() -> Arc<Self> {
        Arc::new(Inbox {
            by_imm: true,
            ..Inbox::default()
        })
    }
}

/// What the operations of two connected queue pairs share.
#[derive(Default)]
pub struct Pair {
    /// One has failed, so that both will.
    pub failed: AtomicBool,
    /// A key was made wrong on purpose, or the device makes operations fail.
    pub excused: AtomicBool,
    /// Completions may be missing: one that says success also tells it of those before it (the
    /// unsignalled ones), and one of them may have failed.
    pub lossy: bool,
    /// Bytes of peers that may be written until both queue pairs are gone, with the holds.
    pub until_the_end: Mutex<Vec<(Option<Effect>, Vec<Remote>)>>,
}

impl Pair {
    pub fn new(role: Role, lossy: bool) -> Self {
        Pair {
            excused: AtomicBool::new(role != Role::Plain),
            lossy: lossy || role == Role::Lossy,
            ..Pair::default()
        }
    }

    /// Makes the key of the peer's bytes a wrong one.
    pub fn spoil(&self, op: &mut SendOp) {
        if let SendOp::Write { remote, .. } | SendOp::Read { remote } = op {
            self.excused.store(true, Ordering::SeqCst);
            remote.rkey ^= 0x00ff_ff00;
            count("failure bad key");
        }
    }
}

/// Whether that is how an operation ends whose key, or a key of its peer's, is none.
pub fn is_of_keys(status: WcStatus) -> bool {
    use WcStatus::{LocProtErr, RemAccessErr, RemOpErr};
    matches!(status, LocProtErr | RemAccessErr | RemOpErr)
}

/// A hold of bytes that the peer reads or writes, and the registration that they belong to.
pub struct Remote {
    pub memory: u64,
    pub hold: Hold,
}

/// An operation that was posted.
pub struct Record {
    pub kind: &'static str,
    /// Of which queue pair, or shared queue.
    pub owner: u64,
    pub pair: Option<Arc<Pair>>,
    /// What it reads.
    pub from: Vec<Arc<Region>>,
    /// Of this side.
    pub to: Option<Effect>,
    pub remote: Option<Effect>,
    /// Holds on what the peer reads or writes.
    pub holds: Vec<Remote>,
    pub inbox: Option<Arc<Inbox>>,
    pub counter: Option<Arc<Counter>>,
    /// Regions that are held for it.
    pub words: u64,
    pub born: Instant,
}

/// How it ended, as its completion says.
pub struct Outcome {
    pub status: WcStatus,
    pub byte_len: u32,
    pub imm: Option<u32>,
    pub sequence: u64,
}

impl Record {
    pub fn new(kind: &'static str, owner: u64, pair: Option<Arc<Pair>>) -> Self {
        Record {
            kind,
            owner,
            pair,
            from: Vec::new(),
            to: None,
            remote: None,
            holds: Vec::new(),
            inbox: None,
            counter: None,
            words: 0,
            born: Instant::now(),
        }
    }

    /// It was not posted.
    pub fn cancel(self) {
        self.to.iter().chain(&self.remote).for_each(Effect::cancel);
    }

    /// Its completion has been polled, and the holds on this side have been released.
    pub fn complete(self, outcome: &Outcome) {
        progress();
        if outcome.sequence > 100 {
            count("pair gone round its rings");
        }
        let success = outcome.status.is_success();
        count(if success {
            self.kind
        } else {
            "failed operations"
        });
        let lossy = self.pair.as_ref().is_some_and(|pair| pair.lossy);
        if !success {
            let status = outcome.status;
            let pair = self.pair.as_deref();
            let excused = pair.is_some_and(|pair| pair.excused.load(Ordering::SeqCst));
            if is_of_keys(status) && !excused {
                fail(format_args!(
                    "{}: {status:?}, with keys in force",
                    self.kind
                ));
            }
            if let Some(pair) = pair {
                pair.failed.store(true, Ordering::SeqCst);
            }
            return self.unknown();
        }
        if let Some(inbox) = &self.inbox {
            self.received(inbox, outcome);
        } else if lossy || self.to.is_some() && loses_answers() {
            return self.unknown();
        } else if let (Some(to), Some(counter)) = (&self.to, &self.counter) {
            counter.add(true);
            to.fail();
            if let Some(before) = to.integer() {
                counter.saw(before);
            }
        } else {
            for effect in self.to.iter().chain(&self.remote) {
                effect.succeed(effect.content.as_deref().unwrap_or(&[]));
            }
        }
        drop(self.holds);
        for effect in self.to.iter().chain(&self.remote) {
            effect.look();
        }
        for region in &self.from {
            region.look("after a read");
        }
    }

    fn received(&self, inbox: &Inbox, outcome: &Outcome) {
        let key = match inbox.by_imm {
            true => outcome.imm.map_or(u64::MAX, u64::from),
            false => outcome.sequence,
        };
        let Some(message) = lock(&inbox.messages).remove(&key) else {
            return fail(format_args!("receive {key} got a message that nobody sent"));
        };
        if message.imm != outcome.imm {
            fail(format_args!("imm {:?}, not {:?}", outcome.imm, message.imm));
        }
        if message.is_send && message.bytes.len() != outcome.byte_len as usize {
            let (sent, came) = (message.bytes.len(), outcome.byte_len);
            fail(format_args!("{sent} bytes were sent and {came} came"));
        }
        match &self.to {
            Some(to) if inbox.shared => to.succeed_after_others(&message.bytes),
            Some(to) => to.succeed(&message.bytes),
            None => {}
        }
    }

    /// It is over on this side, and may have done anything; to the peer it may do so until both queue
    /// pairs are gone.
    pub fn unknown(mut self) {
        if let Some(counter) = &self.counter {
            counter.add(false);
        }
        if let Some(to) = &self.to {
            to.fail();
            to.look();
        }
        for region in &self.from {
            region.look("after a read");
        }
        self.defer();
    }

    fn defer(&mut self) {
        let remote = (self.remote.take(), std::mem::take(&mut self.holds));
        if let (Some(pair), false) = (&self.pair, remote.1.is_empty()) {
            lock(&pair.until_the_end).push(remote);
        }
    }

    /// Its queue pair could not be destroyed: nothing is over.
    pub fn leaked(&mut self) {
        if let Some(counter) = &self.counter {
            counter.add(false);
        }
        self.defer();
    }
}
