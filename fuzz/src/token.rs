//! Any token, of fields or of text, made a peer's memory and the target of operations: what it names is what its lease
//! granted, or the operation is refused, and no byte outside of the grant changes.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arbitrary::Arbitrary;
use rdma_mr::backend::soft::{Nic, ProtectionDomain, QueuePair};
use rdma_mr::op::{Begin, Endpoint, OpId};
use rdma_mr::work::{QpCaps, WcStatus};
use rdma_mr::{
    Access, Lease, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrToken,
    RemoteMr, RemoteMut, Result,
};
use serde_json::json;

/// Bytes of the region that is lent from.
const LENGTH: usize = 64;
/// Bytes of this side.
const OWN: usize = 16;
/// Operations of one program, at most.
const USES: usize = 8;
/// A year with 13 months, in seconds: no clock is that wrong.
const YEAR: u64 = 400 * 24 * 3600;

/// A lease, a token that names it more or less, and operations with that.
#[derive(Arbitrary, Debug)]
pub struct Program {
    start: u8,
    length: u8,
    rights: u8,
    token: Token,
    uses: Vec<Use>,
}

#[derive(Arbitrary, Debug)]
enum Token {
    Granted,
    Fields {
        addr: Near<i8, u64>,
        length: Near<u8, u64>,
        rkey: Near<u8, u32>,
        rights: Near<u8, u32>,
        deadline: Near<bool, u64>,
    },
    Text(String),
}

/// A number that is what was granted, or near that, or any.
#[derive(Arbitrary, Debug)]
enum Near<N, A> {
    Granted,
    By(N),
    Any(A),
}

#[derive(Arbitrary, Debug)]
struct Use {
    start: u8,
    end: u8,
    own: u8,
    op: Op,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Write,
    Read,
    Add(u64),
    Swap { right: bool, swap: u64 },
}

impl Op {
    fn needs(self) -> Access {
        match self {
            Op::Write => Access::REMOTE_WRITE,
            Op::Read => Access::REMOTE_READ,
            Op::Add(_) | Op::Swap { .. } => Access::REMOTE_ATOMIC,
        }
    }
}

struct World {
    /// The two ends, anew after each failure; the first one posts.
    ends: [Endpoint<QueuePair>; 2],
    own: LocalMr,
    lease: Lease,
    mr: LocalMr,
    pd: Arc<ProtectionDomain>,
    nic: Nic,
    /// What the bytes that are lent from should be.
    bytes: [u8; LENGTH],
    granted: Range<usize>,
    rights: Access,
}

fn connect(nic: &Nic, pd: &ProtectionDomain) -> [Endpoint<QueuePair>; 2] {
    let caps = QpCaps {
        max_send_wr: 2,
        max_recv_wr: 1,
        ..QpCaps::default()
    };
    let ends = [(); 2].map(|()| {
        let cq = nic.create_cq(4).expect("4 completions");
        pd.create_qp(&cq, &cq, caps).expect("small")
    });
    QueuePair::connect_pair(&ends[0], &ends[1]).expect("new ones");
    ends.map(Endpoint::new)
}

impl World {
    fn new(program: &Program) -> Self {
        let nic = Nic::builder().stepped().build();
        let pd = nic.alloc_pd();
        let bytes = std::array::from_fn(|at| at as u8 ^ 0x5a);
        let mr = LocalMr::register(&pd, bytes.to_vec()).expect("64 bytes");
        let start = usize::from(program.start) % LENGTH;
        let length = 1 + usize::from(program.length) % (LENGTH - start);
        let granted = start..start + length;
        let rights = Access::from_bits_truncate(u32::from(program.rights)) & Access::REMOTE;
        let rights = if rights.is_empty() {
            Access::REMOTE
        } else {
            rights
        };
        let lease = mr.lease(granted.clone(), rights, Duration::from_secs(YEAR));
        World {
            ends: connect(&nic, &pd),
            own: LocalMr::register(&pd, vec![0; OWN]).expect("16 bytes"),
            lease: lease.expect("the region is free"),
            mr,
            pd,
            nic,
            bytes,
            granted,
            rights,
        }
    }

    fn token(&self, token: Token) -> Option<MrToken> {
        let lent = self.lease.token();
        let text = match token {
            Token::Granted => serde_json::to_string(&lent).expect("plain data"),
            Token::Text(text) => text,
            Token::Fields {
                addr,
                length,
                rkey,
                rights,
                deadline,
            } => {
                let access = match rights {
                    Near::Granted => self.rights,
                    Near::By(bits) => Access::from_bits_retain(bits.into()),
                    Near::Any(bits) => Access::from_bits_retain(bits),
                };
                let secs = match deadline {
                    Near::Granted => 1 << 33,
                    Near::By(_) => 1,
                    Near::Any(secs) => secs,
                };
                let text = json!({
                    "addr": match addr {
                        Near::Granted => lent.addr(),
                        Near::By(offset) => lent.addr().wrapping_add_signed(offset.into()),
                        Near::Any(addr) => addr,
                    },
                    "length": match length {
                        Near::Granted => lent.length(),
                        Near::By(length) => length.into(),
                        Near::Any(length) => length,
                    },
                    "rkey": match rkey {
                        Near::Granted => lent.rkey(),
                        Near::By(bit) => lent.rkey() ^ 1 << (bit % 32),
                        Near::Any(key) => key,
                    },
                    "access": serde_json::to_value(access).expect("plain data"),
                    "deadline": { "secs_since_epoch": secs, "nanos_since_epoch": 0 },
                });
                text.to_string()
            }
        };
        let token: MrToken = serde_json::from_str(&text).ok()?;
        let again = serde_json::to_string(&token).expect("plain data");
        assert_eq!(serde_json::from_str::<MrToken>(&again).ok(), Some(token));
        Some(token)
    }

    /// The bytes that are named, if they are of the grant.
    fn place(&self, addr: u64, length: usize) -> Option<Range<usize>> {
        let start = addr.checked_sub(self.mr.addr() as u64)?;
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(length)?;
        (self.granted.start <= start && end <= self.granted.end).then_some(start..end)
    }

    /// Posts the operation on so many bytes of this side.
    fn post(&mut self, op: Op, own: usize, remote: impl RemoteMut) -> Result<OpId> {
        let part = self.own.get(..own)?;
        let end = &mut self.ends[0];
        Ok(match op {
            Op::Write => end.write(part.begin_read()?, remote, None)?,
            Op::Read => end.read(part.begin_write()?, remote)?,
            Op::Add(add) => end.fetch_add(part.begin_write()?, remote, add)?,
            Op::Swap { right, swap } => {
                end.compare_swap(part.begin_write()?, remote, compared(right), swap)?
            }
        })
    }

    fn act(&mut self, token: MrToken, usage: &Use) {
        let op = usage.op;
        let made = RemoteMr::new(token);
        let expired = token.deadline() < SystemTime::now();
        let names = token.length() > 0 && token.addr().checked_add(token.length()).is_some();
        assert_eq!(made.is_ok(), names && !expired, "{made:?}");
        let Ok(mut remote) = made else {
            return;
        };
        let (start, end) = (usize::from(usage.start), usize::from(usage.end));
        let inside = start < end && end as u64 <= token.length();
        let slice = remote.get_mut(start..end);
        assert_eq!(slice.is_ok(), inside, "{slice:?}");
        let Ok(mut slice) = slice else {
            return;
        };
        let atomic = matches!(op, Op::Add(_) | Op::Swap { .. });
        let length = match atomic {
            true if usage.own % 8 != 7 => 8,
            _ => 1 + usize::from(usage.own) % OWN,
        };
        let addr = slice.addr();
        let asked = if atomic { 8 } else { length };
        let fits = asked <= end - start && (!atomic || addr % 8 == 0 && length == 8);
        let posts = fits && token.access().contains(op.needs());
        self.own.as_mut_slice().fill(0xc3);
        let posted = self.post(op, length, &mut slice);
        assert_eq!(posted.is_ok(), posts, "{posted:?}");
        if !posts {
            return;
        }
        self.carried_out(op, addr, length, token.rkey());
    }

    fn carried_out(&mut self, op: Op, addr: u64, length: usize, rkey: u32) {
        self.nic.run_until_idle();
        let mut status = None;
        let count = self.ends[0].poll(|done| status = Some(done.status));
        assert_eq!(count.ok(), Some(1));
        let granted = rkey == self.lease.token().rkey() && self.rights.contains(op.needs());
        let place = self.place(addr, length).filter(|_| granted);
        let Some(place) = place else {
            assert_eq!(status, Some(WcStatus::RemAccessErr));
            self.ends = connect(&self.nic, &self.pd);
            return;
        };
        assert_eq!(status, Some(WcStatus::Success));
        let before = self.bytes[place.clone()].to_vec();
        let old = before[..].try_into().map(u64::from_ne_bytes).unwrap_or(0);
        let write = |value: u64| value.to_ne_bytes().to_vec();
        let after = match op {
            Op::Write => vec![0xc3; length],
            Op::Read => before.clone(),
            Op::Add(add) => write(old.wrapping_add(add)),
            Op::Swap { right, swap } if old == compared(right) => write(swap),
            Op::Swap { .. } => before.clone(),
        };
        self.bytes[place].copy_from_slice(&after);
        if !matches!(op, Op::Write) {
            assert_eq!(self.own.as_slice()[..length], before);
        }
        assert!(
            self.own.as_slice()[length..]
                .iter()
                .all(|byte| *byte == 0xc3)
        );
    }

    fn check(&self) {
        // SAFETY: SLICE-1, SLICE-2: the NIC acts in steps only, and no peer does but by it.
        let bytes = unsafe { self.mr.as_slice_unchecked() };
        assert_eq!(bytes, self.bytes);
    }
}

/// What a swap compares with: what a write has left there, or what nothing has.
fn compared(right: bool) -> u64 {
    u64::from_ne_bytes([if right { 0xc3 } else { 0x3c }; 8])
}

/// Carries it out.
///
/// # Panics
/// If a token reaches more or less than was granted.
pub fn run(program: Program) {
    let mut world = World::new(&program);
    let Some(token) = world.token(program.token) else {
        return;
    };
    for usage in program.uses.iter().take(USES) {
        world.act(token, usage);
        world.check();
    }
    let World { nic, .. } = &world;
    let nic = nic.clone();
    drop(world);
    assert_eq!(nic.stats().registrations, 0);
}
