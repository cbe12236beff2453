//! Posting at random.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rdma_mr::gate::Holder;
use rdma_mr::op::{Hold, Holding, OpId};
use rdma_mr::work::{QueuePair, RemoteAddr, SendFlags, SendOp};
use rdma_mr::{Error, LocalMr, MrAccess};

use super::holds::{Consumer, all, any, one, plan};
use super::hub::Table;
use super::lane::{CAPS, Lane};
use super::random::Random;
use super::record::{Bytes, Effect, Message, Record, Remote, held_bytes};
use super::report::{count, lock};
use super::{Victim, World};

/// A receive takes at least this, and a message is no longer, but for the ones that are to fail.
pub const LONGEST: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Send,
    Write,
    WriteImm,
    Read,
    FetchAdd,
    CompareSwap,
}

/// What has to be known for a post.
pub struct Plan {
    pub record: Record,
    pub op: SendOp,
    pub message: Option<Message>,
}

/// Immediate data that no message had before.
pub fn unique_imm() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Why a post was refused.
pub fn refused(error: &Error) {
    count(match error {
        Error::QueueFull { .. } => "refused full",
        Error::InvalidWorkRequest { .. } => "refused invalid",
        Error::Misaligned { .. } => "refused misaligned",
        _ => "refused otherwise",
    });
}

/// How many regions there are in the list.
pub fn words(bytes: &[Bytes]) -> u64 {
    let first = |at: &usize| {
        let same = |other: &Bytes| Arc::ptr_eq(&other.region, &bytes[*at].region);
        !bytes[..*at].iter().any(same)
    };
    (0..bytes.len()).filter(first).count() as u64
}

pub fn total(bytes: &[Bytes]) -> usize {
    bytes.iter().map(|bytes| bytes.range.len()).sum()
}

/// # Safety
/// The caller owns a hold of each.
unsafe fn content(bytes: &[Bytes], mrs: &[&LocalMr]) -> Vec<u8> {
    let pieces = bytes.iter().zip(mrs).map(|(bytes, mr)| {
        // SAFETY: as required of the caller.
        let all = unsafe { held_bytes(mr) };
        bytes.region.book.look(all, "under the hold of a post");
        &all[bytes.range.clone()]
    });
    pieces.collect::<Vec<_>>().concat()
}

/// The peer's bytes for an operation of that many, held: exclusively if it writes them.
fn remote<F: Victim>(
    world: &World<F>,
    length: usize,
    writes: Option<Vec<u8>>,
    record: &mut Record,
    random: &mut Random,
) -> Option<(RemoteAddr, Vec<u8>)> {
    let mut bytes = any(world.pool.with_room(length, random)?, length, random)?;
    if length == 8 {
        bytes.range.start &= !7;
        bytes.range.end = bytes.range.start + 8;
    }
    let region = Arc::clone(&bytes.region);
    let handle = region.handle()?;
    let slice = handle.mr().get(bytes.range.clone()).ok()?;
    let holder = match writes {
        Some(_) => Holder::NicWrite,
        None => Holder::NicRead,
    };
    record.holds.push(Remote {
        memory: region.book.memory,
        hold: one(&slice, holder, random)?,
    });
    let addr = RemoteAddr {
        addr: slice.addr() as u64,
        rkey: slice.rkey(),
    };
    // SAFETY: it was held just now, and nothing is posted over it yet.
    let all = unsafe { held_bytes(handle.mr()) };
    let before = all[bytes.range.clone()].to_vec();
    if writes.is_some() {
        // SAFETY: as above; the hold is exclusive.
        record.remote = Some(unsafe { Effect::begin(&[bytes], &[handle.mr()], writes) });
    } else {
        region.book.look(all, "before a READ");
    }
    Some((addr, before))
}

/// Makes the plan of an operation whose holds are owned.
pub fn prepare<F: Victim>(
    world: &World<F>,
    what: What,
    mut record: Record,
    bytes: &[Bytes],
    mrs: &[&LocalMr],
    random: &mut Random,
) -> Option<Plan> {
    record.words = words(bytes);
    let length = total(bytes);
    let mut message = None;
    // SAFETY: the caller's holds are for reading then, or exclusive and not posted yet.
    let from = || unsafe { content(bytes, mrs) };
    let op = match what {
        What::Send => {
            record.kind = "op SEND";
            let imm = random.once_in(2).then(unique_imm);
            message = Some(Message {
                bytes: from(),
                imm,
                is_send: true,
            });
            SendOp::Send { imm }
        }
        What::Write | What::WriteImm => {
            let bytes = from();
            let (remote, _) = remote(world, length, Some(bytes), &mut record, random)?;
            let imm = (what == What::WriteImm).then(unique_imm);
            record.kind = match imm {
                Some(_) => "op WRITE_WITH_IMM",
                None => "op WRITE",
            };
            message = imm.map(|_| Message {
                bytes: Vec::new(),
                imm,
                is_send: false,
            });
            SendOp::Write { remote, imm }
        }
        What::Read => {
            record.kind = "op READ";
            let (remote, bytes_there) = remote(world, length, None, &mut record, random)?;
            record.to = Some(begin(bytes, mrs, Some(bytes_there)));
            SendOp::Read { remote }
        }
        What::FetchAdd => {
            record.kind = "op FETCH_ADD";
            record.counter = Some(Arc::clone(&world.counter));
            record.to = Some(begin(bytes, mrs, None));
            let (remote, add) = (world.counter_addr(), 1);
            SendOp::FetchAdd { remote, add }
        }
        What::CompareSwap => {
            record.kind = "op CMP_SWAP";
            let swap = random.next();
            // What it becomes is known when the value before is.
            let written = swap.to_ne_bytes().to_vec();
            let (remote, before) = remote(world, 8, Some(written), &mut record, random)?;
            let value = u64::from_ne_bytes(before.clone().try_into().ok()?);
            let compare = match random.once_in(3) {
                true => value ^ 1,
                false => value,
            };
            if let Some(there) = record.remote.as_mut().filter(|_| compare != value) {
                there.content = Some(before.clone());
            }
            record.to = Some(begin(bytes, mrs, Some(before)));
            SendOp::CompareSwap {
                remote,
                compare,
                swap,
            }
        }
    };
    if record.to.is_none() {
        record.from = bytes
            .iter()
            .map(|bytes| Arc::clone(&bytes.region))
            .collect();
    }
    Some(Plan {
        record,
        op,
        message,
    })
}

pub fn begin(bytes: &[Bytes], mrs: &[&LocalMr], content: Option<Vec<u8>>) -> Effect {
    // SAFETY: the caller of `prepare` owns the exclusive holds, since it is an operation that writes.
    unsafe { Effect::begin(bytes, mrs, content) }
}

/// How many bytes such an operation moves, and the kind of its holds.
pub fn shape(what: What, inline: bool, random: &mut Random) -> (usize, Holder) {
    match what {
        What::FetchAdd | What::CompareSwap => (8, Holder::NicWrite),
        What::Read => (1 + random.below(4500), Holder::NicWrite),
        What::Write if !inline => (1 + random.below(4500), Holder::NicRead),
        _ if inline => (1 + random.below(CAPS.max_inline as usize), Holder::NicRead),
        _ if random.once_in(1500) => (9000, Holder::NicRead),
        _ => (1 + random.below(LONGEST), Holder::NicRead),
    }
}

/// Posts one operation of a lane.
struct Sending<'a, F: Victim> {
    lane: &'a mut Lane<F>,
    world: &'a World<F>,
    side: usize,
    what: What,
    flags: SendFlags,
    bad_key: bool,
    random: Random,
}

impl<F: Victim> Consumer for Sending<'_, F> {
    fn take<H: Holding>(&mut self, holds: H, bytes: &[Bytes], mrs: &[&LocalMr]) {
        let end = &self.lane.ends[self.side];
        let pair = Some(Arc::clone(&self.lane.pair));
        let record = Record::new("", end.owner, pair);
        let random = &mut self.random;
        let Some(mut plan) = prepare(self.world, self.what, record, bytes, mrs, random) else {
            return;
        };
        if self.flags.contains(SendFlags::INLINE) {
            plan.record.kind = "op inline";
            plan.record.words = 0;
        }
        if self.bad_key {
            self.lane.pair.spoil(&mut plan.op);
        }
        self.lane.post(self.side, holds, plan, self.flags);
    }
}

impl<F: Victim> Lane<F> {
    /// A message is about to be posted to the other end: its name there.
    pub fn announce(&mut self, to: usize, message: Message) -> u64 {
        let inbox = &self.inboxes[to];
        let key = match inbox.by_imm {
            true => message.imm.map_or(u64::MAX, u64::from),
            false => self.sent[to],
        };
        lock(&inbox.messages).insert(key, message);
        self.sent[to] += 1;
        key
    }

    pub fn recall(&mut self, to: usize, key: u64) {
        lock(&self.inboxes[to].messages).remove(&key);
        self.sent[to] -= 1;
    }

    fn post<H: Holding>(&mut self, side: usize, holds: H, plan: Plan, flags: SendFlags) {
        let (mut op, mut message) = (plan.op, plan.message);
        if let (Some(message), true) = (&mut message, self.inboxes[1 - side].by_imm) {
            let key = message.imm.get_or_insert_with(unique_imm);
            if let SendOp::Send { imm } = &mut op {
                *imm = Some(*key);
            }
        }
        let key = message.map(|message| self.announce(1 - side, message));
        let end = &mut self.ends[side];
        let mut table = end.hub.table();
        match end.endpoint.post(holds, op, flags) {
            Ok(id) => posted(&mut table, id, plan.record),
            Err(rejected) => {
                drop(table);
                refused(&rejected.error);
                plan.record.cancel();
                drop(rejected);
                if let Some(key) = key {
                    self.recall(1 - side, key);
                }
            }
        }
    }

    /// Posts something to a send queue.
    pub fn send(&mut self, world: &World<F>, random: &mut Random) -> Option<()> {
        let what = random.pick(&[
            What::Send,
            What::Send,
            What::Write,
            What::Write,
            What::WriteImm,
            What::Read,
            What::Read,
            What::FetchAdd,
            What::CompareSwap,
        ]);
        let side = random.below(2);
        let takes_receive = matches!(what, What::Send | What::WriteImm);
        // Messages without a receive hold up the whole queue, and the regions that it reads.
        if takes_receive && !self.is_expected(1 - side) && !random.once_in(12) {
            return None;
        }
        let writes = matches!(what, What::Read | What::FetchAdd | What::CompareSwap);
        let mut flags = SendFlags::empty();
        flags.set(SendFlags::SIGNALED, !random.once_in(3));
        flags.set(SendFlags::INLINE, !writes && random.once_in(6));
        flags.set(SendFlags::FENCE, random.once_in(10));
        flags.set(SendFlags::SOLICITED, random.once_in(10));
        let (length, holder) = shape(what, flags.contains(SendFlags::INLINE), random);
        let bytes = plan_of(world, what, length, random)?;
        let mut sending = Sending {
            side,
            lane: self,
            world,
            what,
            flags,
            bad_key: matches!(what, What::Write | What::Read) && random.once_in(300),
            random: Random(random.next()),
        };
        all(&bytes, holder, random, &mut sending)
    }

    /// Whether there may be a receive for one more message.
    fn is_expected(&self, to: usize) -> bool {
        let sends = self.ends[1 - to].endpoint.outstanding().0;
        match self.inboxes[to].shared {
            true => sends < 2,
            false => self.ends[to].endpoint.outstanding().1 > sends,
        }
    }

    /// Posts small messages until the queue is full.
    pub fn fill(&mut self, world: &World<F>, random: &mut Random) -> Option<()> {
        let side = random.below(2);
        let room = self.ends[side].endpoint.qp().caps().max_send_wr as usize;
        for _ in 0..4 * room {
            let is_full = self.ends[side].endpoint.outstanding().0 >= room;
            let bytes = [any(world.pool.any(random)?, 8, random)?];
            let mut sending = Sending {
                side,
                lane: self,
                world,
                what: What::Send,
                flags: SendFlags::SIGNALED | SendFlags::INLINE,
                bad_key: false,
                random: Random(random.next()),
            };
            if all(&bytes, Holder::NicRead, random, &mut sending).is_some() && is_full {
                break;
            }
        }
        Some(())
    }
}

/// One range for an integer, any other plan otherwise.
pub fn plan_of<F: Victim>(
    world: &World<F>,
    what: What,
    length: usize,
    random: &mut Random,
) -> Option<Vec<Bytes>> {
    match what {
        What::FetchAdd | What::CompareSwap => {
            Some(vec![any(world.pool.any(random)?, length, random)?])
        }
        _ => plan(&world.pool, length, random),
    }
}

/// The operation is under way.
pub fn posted(table: &mut Table, id: OpId, record: Record) {
    count("posted");
    table.open.insert(id, record);
}

/// One hold for a list.
pub fn single(bytes: &Bytes, holder: Holder, random: &mut Random) -> Option<Hold> {
    let handle = bytes.region.handle()?;
    one(&handle.mr().get(bytes.range.clone()).ok()?, holder, random)
}
