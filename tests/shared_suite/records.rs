//! Records with a version, while somebody writes them who never stops. Each run is made twice: by a
//! reader that looks at the version, which must not see a torn body, and by one that does not, which
//! must see one.

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, RemoteAddr, SendFlags, SendOp};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, SharedMrAccess};

use super::*;
use crate::fabric::{LONG, remote};

/// Where the record is, and how long its body. Longer than a packet on a device.
const AT: usize = 64;
const BODY: usize = 4096;

/// How long a run of the reader that must see nothing takes.
fn time() -> Duration {
    let seconds = env::var("RDMA_MR_RECORD_SECONDS").map_or(Ok(1.5), |text| text.parse());
    Duration::from_secs_f64(seconds.expect("a number of seconds"))
}

/// The `n`th body: nothing but `n`.
fn body(n: u64) -> Vec<u8> {
    n.to_ne_bytes().repeat(BODY / 8)
}

/// Which body it is; `None` if it is of several.
fn of_one(bytes: &[u8]) -> Option<u64> {
    let n = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
    (bytes == body(n)).then_some(n)
}

#[derive(Clone, Copy)]
enum Bump {
    Write,
    FetchAdd,
}

/// A peer that writes the record, over and over.
struct Writer<'a, F: Fabric> {
    end: &'a mut Endpoint<F::Qp>,
    version: RemoteAddr,
    body: RemoteAddr,
    bump: Bump,
    /// The odd version, the body, the even version.
    from: [LocalMr; 3],
}

impl<F: Fabric> Writer<'_, F> {
    fn write(&mut self, n: u64) {
        let words = |n: u64| n.to_ne_bytes().to_vec();
        let bytes = [words(2 * n - 1), body(n), words(2 * n)];
        for (mr, bytes) in self.from.iter_mut().zip(bytes) {
            mr.as_mut_slice().copy_from_slice(&bytes);
        }
        self.change_version(0);
        let (remote, imm) = (self.body, None);
        let flags = SendFlags::SIGNALED | SendFlags::FENCE;
        let hold = self.from[1].begin_read().unwrap();
        self.end
            .post(hold, SendOp::Write { remote, imm }, flags)
            .unwrap();
        self.change_version(2);
        succeed(self.end, 3);
    }

    /// To what is in that region, or by 1, and the one before goes there.
    fn change_version(&mut self, from: usize) {
        let mr = &self.from[from];
        match self.bump {
            Bump::Write => self
                .end
                .write(mr.begin_read().unwrap(), self.version, None)
                .unwrap(),
            Bump::FetchAdd => self
                .end
                .fetch_add(mr.begin_write().unwrap(), self.version, 1)
                .unwrap(),
        };
    }
}

/// Calls `look` until it says that it has seen enough, while a peer writes.
fn under_a_peer<F: Fabric>(fabric: &F, bump: Bump, mut look: impl FnMut(&SharedMr) -> bool) {
    let mr = shared(fabric, AT + 8 + BODY);
    let (mut end, _b) = fabric.pair(QpCaps::default());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writer = Writer::<F> {
            end: &mut end,
            version: remote(&mr.get(AT..).unwrap()),
            body: remote(&mr.get(AT + 8..).unwrap()),
            bump,
            from: [8, BODY, 8].map(|length| fabric.alloc(length)),
        };
        let stop = &stop;
        let writing = scope.spawn(move || {
            let mut n = 1;
            while !stop.load(Ordering::Relaxed) {
                writer.write(n);
                n += 1;
            }
        });
        while !writing.is_finished() && !look(&mr) {}
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap();
    });
}

/// What a reader has seen.
#[derive(Debug, Default)]
struct Seen {
    whole: u64,
    refused: u64,
    torn: u64,
    versions: u64,
    last: u64,
}

impl Seen {
    /// A body that came with an even version.
    fn add(&mut self, version: u64, bytes: &[u8]) {
        self.torn += u64::from(of_one(bytes) != Some(version / 2));
        self.whole += 1;
        assert!(version >= self.last, "versions only grow");
        self.versions += u64::from(version > self.last);
        self.last = version;
    }

    #[track_caller]
    fn assert_none_torn(&self, what: &str) {
        println!("{what}: {self:?}");
        assert_eq!(self.torn, 0, "{self:?}");
        assert!(self.versions > 1, "{self:?}");
    }
}

fn no_torn_record<F: Fabric>(fabric: &F, bump: Bump, what: &str) {
    let (mut seen, mut bytes) = (Seen::default(), vec![0; BODY]);
    let end = Instant::now() + time();
    under_a_peer(fabric, bump, |mr| {
        match mr.try_read_record(AT, &mut bytes).unwrap() {
            Some(version) => seen.add(version, &bytes),
            None => seen.refused += 1,
        }
        Instant::now() >= end
    });
    seen.assert_none_torn(what);
    assert!(seen.refused > 0, "{seen:?}");
}

pub fn r3_records_written_by_a_peer_in_three_writes<F: Fabric>(fabric: &F) {
    no_torn_record(fabric, Bump::Write, "WRITE, WRITE, WRITE");
}

pub fn r3_records_written_by_a_peer_with_atomics<F: Fabric>(fabric: &F) {
    no_torn_record(fabric, Bump::FetchAdd, "FETCH_ADD, WRITE, FETCH_ADD");
}

pub fn r3_without_the_version_a_record_is_torn<F: Fabric>(fabric: &F) {
    let (mut looks, mut torn, mut bytes) = (0u64, false, vec![0; BODY]);
    let start = Instant::now();
    under_a_peer(fabric, Bump::Write, |mr| {
        looks += 1;
        mr.read_into(AT + 8, &mut bytes).unwrap();
        torn = of_one(&bytes).is_none();
        torn || start.elapsed() > LONG
    });
    println!("torn at look {looks}");
    assert!(torn, "not in {looks} looks");
}

/// READs parts of a record.
struct Peer<'a, F: Fabric> {
    end: &'a mut Endpoint<F::Qp>,
    version: (LocalMr, RemoteAddr),
    body: (LocalMr, RemoteAddr),
}

impl<F: Fabric> Peer<'_, F> {
    fn version(&mut self) -> u64 {
        let (into, from) = &self.version;
        self.end.read(into.begin_write().unwrap(), *from).unwrap();
        succeed(self.end, 1);
        u64::from_ne_bytes(into.as_slice()[..].try_into().unwrap())
    }

    fn body(&mut self) -> impl std::ops::Deref<Target = [u8]> {
        let (into, from) = &self.body;
        self.end.read(into.begin_write().unwrap(), *from).unwrap();
        succeed(self.end, 1);
        into.as_slice()
    }
}

/// Calls `look` until it says that it has seen enough, while this side writes: not all the time, so
/// that a peer, who is slower, finds the record at rest as well.
fn under_this_side<F: Fabric>(fabric: &F, mut look: impl FnMut(&mut Peer<'_, F>) -> bool) {
    let mr = shared(fabric, AT + 8 + BODY);
    let (mut end, _b) = fabric.pair(QpCaps::default());
    let mut peer = Peer {
        end: &mut end,
        version: (fabric.alloc(8), remote(&mr.get(AT..).unwrap())),
        body: (fabric.alloc(BODY), remote(&mr.get(AT + 8..).unwrap())),
    };
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for n in 1.. {
                assert_eq!(mr.write_record(AT, &body(n)).unwrap(), 2 * n);
                // Some looks later, at one moment or another of one.
                let until = looks.load(Ordering::Relaxed) + n % 3;
                while looks.load(Ordering::Relaxed) < until && !stop.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                (0..n * 97 % 20_000).for_each(|_| std::hint::spin_loop());
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        while !writing.is_finished() && !look(&mut peer) {
            looks.fetch_add(1, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap();
    });
}

pub fn r3_records_written_here_and_read_by_a_peer<F: Fabric>(fabric: &F) {
    let mut seen = Seen::default();
    let end = Instant::now() + time();
    under_this_side(fabric, |peer| {
        let before = peer.version();
        let bytes = peer.body().to_vec();
        let after = peer.version();
        match before == after && before % 2 == 0 {
            true => seen.add(before, &bytes),
            false => seen.refused += 1,
        }
        Instant::now() >= end
    });
    seen.assert_none_torn("READ, READ, READ");
    assert!(seen.refused > 0, "{seen:?}");
}

pub fn r3_without_the_version_a_peer_reads_a_torn_record<F: Fabric>(fabric: &F) {
    let (mut looks, mut torn) = (0u64, false);
    let start = Instant::now();
    under_this_side(fabric, |peer| {
        looks += 1;
        torn = of_one(&peer.body()).is_none();
        torn || start.elapsed() > LONG
    });
    println!("torn at look {looks}");
    assert!(torn, "not in {looks} looks");
}

pub fn r3_records_have_one_writer_at_a_time<F: Fabric>(fabric: &F) {
    let mr = &shared(fabric, 8 + BODY);
    let mut bytes = vec![1; BODY];
    assert_eq!(mr.read_record(0, &mut bytes, 1).unwrap(), 0, "as allocated");
    assert_eq!(bytes, body(0));
    // Somebody has begun and does not end.
    mr.store(0, 5u64).unwrap();
    let busy = |result| matches!(result, Err(Error::RecordBusy { offset: 0 }));
    assert!(busy(mr.write_record(0, &body(1))) && busy(mr.read_record(0, &mut bytes, 100)));
    assert_eq!(mr.try_read_record(0, &mut bytes).unwrap(), None);
    assert_eq!(
        self::bytes(mr, 8 + BODY)[8..],
        body(0),
        "nothing was written"
    );
    mr.store(0, u64::MAX - 1).unwrap();
    assert!(busy(mr.read_record(0, &mut bytes, 0)), "no look, no record");
    assert_eq!(mr.write_record(0, &body(1)).unwrap(), 0, "wraps around");
    // Threads that write at once: each body is of one of them, and each write has its version.
    const ROUNDS: u64 = 200;
    let write = |n: u64| {
        let mut versions = Vec::new();
        while (versions.len() as u64) < ROUNDS {
            match mr.write_record(0, &body(n)) {
                Ok(version) => versions.push(version),
                Err(error) => assert!(matches!(error, Error::RecordBusy { .. })),
            }
        }
        versions
    };
    let mut versions = thread::scope(|scope| {
        let other = scope.spawn(|| write(7));
        let mut versions = write(8);
        versions.extend(other.join().unwrap());
        versions
    });
    versions.sort_unstable();
    assert_eq!(
        versions,
        (1..=2 * ROUNDS).map(|n| 2 * n).collect::<Vec<_>>()
    );
    mr.read_record(0, &mut bytes, 1).unwrap();
    assert!(matches!(of_one(&bytes), Some(7 | 8)));
}
