//! A peer that tries keys, addresses, lengths and opcodes which it was not given: all of a small space, then
//! at random from a seed. It changes no byte and reads none but those that were granted, whatever else it
//! does is refused on its side, and this side goes on (R3, R4, R5).
#![cfg(all(feature = "soft", not(loom)))]

#[path = "torture/random.rs"]
mod random;
mod soft_util;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use random::Random;
use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use rdma_mr::work::{QpCaps, QueuePair as _, RecvWr, RemoteAddr, SendOp, WcStatus};
use rdma_mr::{
    Access, Lease, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions,
    SharedMr, SharedMrAccess,
};
use soft_util::{Region, SIGNALED, drain, post};

/// Bytes of each region of this side.
const LENGTH: usize = 256;
/// What the peer has to write from, and to read into: more than any of them.
const MOST: usize = 2 * LENGTH;
const HOUR: Duration = Duration::from_secs(3600);
const RANDOM_TRIES: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Write,
    WriteImm,
    Read,
    Add,
    Swap,
}

const OPS: [Op; 5] = [Op::Write, Op::WriteImm, Op::Read, Op::Add, Op::Swap];

impl Op {
    fn needs(self) -> Access {
        match self {
            Op::Write | Op::WriteImm => Access::REMOTE_WRITE,
            Op::Read => Access::REMOTE_READ,
            Op::Add | Op::Swap => Access::REMOTE_ATOMIC,
        }
    }

    fn is_atomic(self) -> bool {
        matches!(self, Op::Add | Op::Swap)
    }
}

/// What somebody was given.
#[derive(Clone, Debug)]
struct Grant {
    rkey: u32,
    /// Of which region.
    region: usize,
    range: Range<usize>,
    rights: Access,
}

/// This side's memory, and what has to be in there.
struct Regions {
    lent: LocalMr,
    plain: LocalMr,
    shared: SharedMr,
    /// In another protection domain, with all rights there.
    foreign: SharedMr,
    expected: [Vec<u8>; 4],
}

impl Regions {
    fn new(pd: &Arc<ProtectionDomain>, other: &Arc<ProtectionDomain>) -> Self {
        let all = MrOptions::new().access(Access::all());
        let mut regions = Regions {
            lent: LocalMr::alloc(pd, LENGTH).unwrap(),
            plain: LocalMr::alloc(pd, LENGTH).unwrap(),
            shared: all.alloc_shared(pd, LENGTH).unwrap(),
            foreign: all.alloc_shared(other, LENGTH).unwrap(),
            expected: [1, 2, 3, 4].map(|seed| soft_util::pattern(seed, LENGTH)),
        };
        let [lent, plain, shared, foreign] = &regions.expected;
        regions.lent.as_mut_slice().copy_from_slice(lent);
        regions.plain.as_mut_slice().copy_from_slice(plain);
        regions.shared.write_from(0, shared).unwrap();
        regions.foreign.write_from(0, foreign).unwrap();
        regions
    }

    fn addr(&self, region: usize) -> u64 {
        [
            self.lent.addr(),
            self.plain.addr(),
            self.shared.addr(),
            self.foreign.addr(),
        ][region] as u64
    }

    fn bytes(&self, region: usize) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        match region {
            // It is lent, so that nobody may look: but the NIC acts when it is told to, and not now.
            0 => {
                for (at, byte) in bytes.iter_mut().enumerate() {
                    // SAFETY: inside of the region, which is alive; nobody writes meanwhile.
                    *byte = unsafe { (self.lent.addr() as *const u8).add(at).read_volatile() };
                }
            }
            1 => bytes.copy_from_slice(&self.plain.try_as_slice().expect("nobody holds it")),
            2 => self.shared.read_into(0, &mut bytes).unwrap(),
            _ => self.foreign.read_into(0, &mut bytes).unwrap(),
        }
        bytes
    }

    #[track_caller]
    fn check(&self, what: &str) {
        for (region, expected) in self.expected.iter().enumerate() {
            assert!(
                self.bytes(region) == *expected,
                "region {region} after {what}"
            );
        }
    }
}

/// The peer's side of things.
struct Peer {
    nic: Nic,
    pd: Arc<ProtectionDomain>,
    victims: Arc<ProtectionDomain>,
    cqs: [CompletionQueue; 2],
    /// Its queue pair, and the victim's: made anew after each refusal.
    qps: Option<(QueuePair, QueuePair)>,
    memory: Region,
    tries: usize,
    granted: usize,
}

impl Peer {
    fn new(nic: &Nic, victims: &Arc<ProtectionDomain>) -> Self {
        let pd = nic.alloc_pd();
        Peer {
            nic: nic.clone(),
            victims: victims.clone(),
            cqs: [(); 2].map(|()| nic.create_cq(8).unwrap()),
            qps: None,
            memory: Region::new(&pd, MOST, Access::all()),
            pd,
            tries: 0,
            granted: 0,
        }
    }

    fn connect(&self) -> (QueuePair, QueuePair) {
        let caps = QpCaps {
            max_send_wr: 1,
            max_recv_wr: 1,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline: 0,
        };
        let [cq, victims] = &self.cqs;
        let qp = self.pd.create_qp(cq, cq, caps).unwrap();
        let victim = self.victims.create_qp(victims, victims, caps).unwrap();
        QueuePair::connect_pair(&qp, &victim).unwrap();
        (qp, victim)
    }

    /// Tries that, and what is to come of it, by what was granted.
    fn attack(
        &mut self,
        regions: &mut Regions,
        grants: &[Grant],
        (op, at, length): (Op, RemoteAddr, usize),
    ) {
        self.tries += 1;
        let length = if op.is_atomic() { 8 } else { length };
        let what = format!("{op:?} of {length} bytes at {at:x?}");
        let mine = vec![self.tries as u8; MOST];
        self.memory.memory.write(0, &mine);
        let grant = grants.iter().find_map(|grant| {
            let start = regions.addr(grant.region) + grant.range.start as u64;
            let offset = at.addr.checked_sub(start)?;
            let fits = offset.checked_add(length as u64)? <= grant.range.len() as u64;
            let granted = grant.rkey == at.rkey && grant.rights.contains(op.needs()) && fits;
            granted.then_some((grant.region, grant.range.start + offset as usize))
        });
        let (qp, victim) = self.qps.take().unwrap_or_else(|| self.connect());
        if op == Op::WriteImm {
            let wr = RecvWr { wr_id: 0, sge: &[] };
            // SAFETY: POST-2: it names no bytes.
            unsafe { victim.post_recv(&wr) }.unwrap();
        }
        let swap = u64::from_ne_bytes([0x5A; 8]);
        let wr = match op {
            Op::Write => SendOp::Write {
                remote: at,
                imm: None,
            },
            Op::WriteImm => SendOp::Write {
                remote: at,
                imm: Some(1),
            },
            Op::Read => SendOp::Read { remote: at },
            Op::Add => SendOp::FetchAdd { remote: at, add: 1 },
            Op::Swap => SendOp::CompareSwap {
                remote: at,
                compare: grant.map_or(0, |(region, at)| word(&regions.expected[region][at..])),
                swap,
            },
        };
        let posted = post(&qp, 1, wr, &[self.memory.sge(0, length)], SIGNALED);
        self.nic.run_until_idle();
        let status = drain(&self.cqs[0]).first().map(|done| done.status);
        drain(&self.cqs[1]);
        let got = self.memory.memory.read(0, MOST);
        if let (true, Err(_)) = (op.is_atomic() && at.addr % 8 != 0, &posted) {
            regions.check(&what);
            self.qps = Some((qp, victim));
            return;
        }
        posted.unwrap();
        let Some((region, at)) = grant else {
            assert_eq!(status, Some(WcStatus::RemAccessErr), "{what}");
            assert!(got == mine, "it has got something: {what}");
            regions.check(&what);
            return;
        };
        assert_eq!(status, Some(WcStatus::Success), "{what}");
        self.granted += 1;
        let there = &mut regions.expected[region][at..at + length];
        let before = there.to_vec();
        match op {
            Op::Write | Op::WriteImm => there.copy_from_slice(&mine[..length]),
            Op::Read => {}
            Op::Add => there.copy_from_slice(&word(&before).wrapping_add(1).to_ne_bytes()),
            Op::Swap => there.copy_from_slice(&swap.to_ne_bytes()),
        }
        if op == Op::Read || op.is_atomic() {
            assert!(got[..length] == before, "{what}");
            assert!(got[length..] == mine[length..], "{what}");
        }
        regions.check(&what);
        self.qps = Some((qp, victim));
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..8].try_into().unwrap())
}

/// Leases of parts of the first region, of which one is over, and all of the shared one.
fn grants(regions: &Regions) -> (Vec<Grant>, Vec<Lease>) {
    let lend = |range: Range<usize>, rights| regions.lent.try_lease(range, rights, HOUR).unwrap();
    // Its key goes on being tried.
    lend(0..LENGTH, Access::REMOTE).revoke().unwrap();
    let ranges = [32..96, 104..113, 128..192];
    let rights = Access::REMOTE_READ;
    // Several that read may be in force at a time.
    let leases: Vec<Lease> = ranges
        .into_iter()
        .map(|range| lend(range, rights))
        .collect();
    let of_leases = leases.iter().map(|lease| {
        let token = lease.token();
        let start = (token.addr() - regions.addr(0)) as usize;
        Grant {
            rkey: token.rkey(),
            region: 0,
            range: start..start + token.length() as usize,
            rights: token.access(),
        }
    });
    let shared = Grant {
        rkey: regions.shared.rkey(),
        region: 2,
        range: 0..LENGTH,
        rights: Access::all(),
    };
    (of_leases.chain([shared]).collect(), leases)
}

/// Where things begin and end, and beside that.
fn addresses(regions: &Regions, grants: &[Grant]) -> Vec<u64> {
    let edges = grants.iter().flat_map(|grant| {
        let start = regions.addr(grant.region);
        [grant.range.start, grant.range.end].map(|at| start + at as u64)
    });
    let starts = (0..4).map(|region| regions.addr(region));
    let near = edges.chain(starts).flat_map(|edge| {
        let by = [-8, -1, 0, 1, 8];
        by.map(|by| edge.wrapping_add_signed(by))
    });
    let mut all: Vec<u64> = near
        .chain([0, 1, u64::MAX, u64::MAX - 7, 1 << 63])
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// All keys of that many registrations, of the first generations, local ones too.
fn keys(nic: &Nic, lent: &[Grant]) -> Vec<u32> {
    let registrations = nic.stats().registrations as u32 + 3;
    let most = lent.iter().map(|grant| grant.rkey).max().unwrap_or(0);
    // An index and 11 bits of generation, and one that tells remote from local.
    let of_one = |index: u32| {
        (0..3).flat_map(move |generation| [0, 1].map(|kind| (index << 11 | generation) << 1 | kind))
    };
    let mut keys: Vec<u32> = (0..registrations)
        .flat_map(of_one)
        .chain([u32::MAX])
        .collect();
    assert!(keys.contains(&most), "the real ones are among them");
    keys.dedup();
    keys
}

#[test]
fn r4_a_peer_that_tries_everything_gets_what_was_granted() {
    let nic = Nic::builder().stepped().build();
    let (pd, other) = (nic.alloc_pd(), nic.alloc_pd());
    let mut regions = Regions::new(&pd, &other);
    let (mut granted, leases) = grants(&regions);
    let mut peer = Peer::new(&nic, &pd);
    for round in 0..2 {
        let (keys, addresses) = (keys(&nic, &granted), addresses(&regions, &granted));
        for rkey in &keys {
            for addr in &addresses {
                for op in OPS {
                    let lengths = [1, 8, 65, LENGTH + 1];
                    let lengths = if op.is_atomic() {
                        &lengths[..1]
                    } else {
                        &lengths
                    };
                    for length in lengths {
                        let at = RemoteAddr {
                            addr: *addr,
                            rkey: *rkey,
                        };
                        peer.attack(&mut regions, &granted, (op, at, *length));
                    }
                }
            }
        }
        if round == 0 {
            // From here on nothing of it is lent.
            for lease in &leases {
                lease.revoke().unwrap();
            }
            granted.retain(|grant| grant.region != 0);
        }
    }
    println!("{} tries, {} granted", peer.tries, peer.granted);
    assert!(peer.granted > 100 && peer.granted * 10 < peer.tries);
    assert!(regions.lent.try_as_mut_slice().is_some(), "nobody holds it");
}

#[test]
fn r4_a_lease_to_write_gives_its_own_bytes_alone() {
    let seed = random::from_env("RDMA_MR_SEED").unwrap_or(1);
    println!("RDMA_MR_SEED={seed}");
    let mut random = Random(seed);
    let nic = Nic::builder().stepped().build();
    let (pd, other) = (nic.alloc_pd(), nic.alloc_pd());
    let mut regions = Regions::new(&pd, &other);
    let mut peer = Peer::new(&nic, &pd);
    let mut lease: Option<Lease> = None;
    let mut granted: Vec<Grant> = grants(&regions).0.split_off(3);
    for turn in 0..RANDOM_TRIES {
        if turn % 50 == 0 {
            // Another one, somewhere else. The key of the one before stays known.
            drop(lease.take());
            granted.truncate(1);
            let start = random.below(LENGTH - 1);
            let range = start..random.within(start + 1..LENGTH);
            let rights = random.pick(&[
                Access::REMOTE_WRITE,
                Access::REMOTE_ATOMIC,
                Access::REMOTE_WRITE | Access::REMOTE_READ,
                Access::REMOTE,
            ]);
            let new = regions.lent.try_lease(range.clone(), rights, HOUR).unwrap();
            granted.push(Grant {
                rkey: new.token().rkey(),
                region: 0,
                range,
                rights,
            });
            assert!(regions.lent.try_as_slice().is_none(), "a peer may write it");
            lease = Some(new);
        }
        let real = granted[random.below(granted.len())].rkey;
        let rkey = match random.below(6) {
            0 => random.next() as u32,
            1 => real ^ 1 << random.below(32),
            2 => real.wrapping_sub(2 * random.below(300) as u32),
            _ => real,
        };
        let addr = match random.below(8) {
            0 => random.next(),
            _ => {
                let region = random.pick(&[0, 0, 1, 2, 3]);
                let by = random.below(LENGTH + 32) as i64 - 16;
                regions.addr(region).wrapping_add_signed(by)
            }
        };
        let length = match random.below(4) {
            0 => 1 + random.below(MOST),
            _ => 1 + random.below(32),
        };
        let attack = (random.pick(&OPS), RemoteAddr { addr, rkey }, length);
        peer.attack(&mut regions, &granted, attack);
    }
    println!("{} tries, {} granted", peer.tries, peer.granted);
    assert!(peer.granted > RANDOM_TRIES / 50);
    drop(lease);
    assert!(regions.lent.try_as_mut_slice().is_some(), "nobody holds it");
}
