//! Queue pairs and completion queues that are kept by hand: the hold as the work request's id, and
//! rings beside the queues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rdma_mr::gate::Holder;
use rdma_mr::op::{Completer, Hold, Poster, recv_ring, send_ring};
use rdma_mr::work::{
    CompletionQueue, QueuePair, RecvWr, SendFlags, SendOp, SendWr, WorkCompletion,
};

use super::holds::any;
use super::hub::Hub;
use super::lane::{CAPS, owner};
use super::ops::{LONGEST, posted, single, unique_imm};
use super::random::Random;
use super::record::{Effect, Inbox, Message, Outcome, Record, held_bytes};
use super::report::{count, fail, lock};
use super::{Victim, World};

/// One end's queue, as somebody keeps it who has no ring: several work requests may have one id, since
/// a region may be read by several.
#[derive(Default)]
struct ById(HashMap<u64, VecDeque<Record>>);

impl ById {
    fn over(&mut self, wc: &WorkCompletion, sequence: u64) {
        let queue = self.0.entry(wc.wr_id).or_default();
        let Some(record) = queue.pop_front() else {
            return fail(format_args!("{wc:?} was not posted"));
        };
        // SAFETY: WRID-1 to WRID-3: posted with it, and this is the completion.
        drop(unsafe { Hold::from_wr_id(wc.wr_id) });
        record.complete(&outcome(wc, sequence));
    }

    /// The queue pair was destroyed.
    fn release_all(&mut self) {
        for (wr_id, records) in self.0.drain() {
            for record in records {
                // SAFETY: WRID-1 to WRID-3: posted with it, and the queue pair was destroyed.
                drop(unsafe { Hold::from_wr_id(wr_id) });
                record.unknown();
            }
        }
    }
}

fn outcome(wc: &WorkCompletion, sequence: u64) -> Outcome {
    Outcome {
        status: wc.status,
        byte_len: wc.byte_len,
        imm: wc.imm,
        sequence,
    }
}

fn receive<F: Victim>(
    world: &World<F>,
    inbox: &Arc<Inbox>,
    random: &mut Random,
) -> Option<(Hold, Record)> {
    let bytes = any(world.pool.large(random)?, LONGEST, random)?;
    let hold = single(&bytes, Holder::NicWrite, random)?;
    let handle = bytes.region.handle()?;
    let mut record = Record::new("op raw RECV", owner(), None);
    // SAFETY: the hold is exclusive, and not posted yet.
    record.to = Some(unsafe { Effect::begin(std::slice::from_ref(&bytes), &[handle.mr()], None) });
    record.inbox = Some(Arc::clone(inbox));
    Some((hold, record))
}

fn message<F: Victim>(
    world: &World<F>,
    inbox: &Inbox,
    random: &mut Random,
) -> Option<(Hold, Record, SendOp)> {
    let bytes = any(world.pool.any(random)?, 1 + random.below(200), random)?;
    let hold = single(&bytes, Holder::NicRead, random)?;
    let handle = bytes.region.handle()?;
    // SAFETY: the hold is this one, and nobody writes.
    let content = unsafe { held_bytes(handle.mr()) }[bytes.range.clone()].to_vec();
    let imm = unique_imm();
    let message = Message {
        bytes: content,
        imm: Some(imm),
        is_send: true,
    };
    lock(&inbox.messages).insert(imm.into(), message);
    let mut record = Record::new("op raw SEND", owner(), None);
    record.from.push(bytes.region.clone());
    Some((hold, record, SendOp::Send { imm: Some(imm) }))
}

fn gone<Q: QueuePair>(qp: Q) {
    if qp.destroy().is_err() {
        fail("a queue pair could not be destroyed");
    }
}

/// The hold as the work request's id.
pub fn by_wr_id<F: Victim>(world: &World<F>, random: &mut Random) {
    let [cq_a, cq_b] = [(); 2].map(|()| world.fabric.cq(128));
    let [a, b] = [&cq_a, &cq_b].map(|cq| world.fabric.qp(cq, cq, CAPS));
    world.fabric.connect(&a, &b);
    let (mut sends, mut recvs) = (ById::default(), ById::default());
    let inbox = Inbox::by_imm();
    let poll = |sends: &mut ById, recvs: &mut ById| {
        for (cq, records) in [(&cq_a, sends), (&cq_b, recvs)] {
            let mut batch = [WorkCompletion::EMPTY; 4];
            let taken = cq.poll(&mut batch).expect("it has room for all");
            batch[..taken].iter().for_each(|wc| records.over(wc, 0));
        }
    };
    for _ in 0..random.within(10..60) {
        if let Some((hold, record)) = receive(world, &inbox, random) {
            let sge = [hold.sge()];
            let wr_id = hold.into_wr_id();
            // SAFETY: POST-2: the id is the hold, and is kept until the work request is over. POST-3:
            // an address.
            match unsafe { b.post_recv(&RecvWr { wr_id, sge: &sge }) } {
                Ok(()) => recvs.0.entry(wr_id).or_default().push_back(record),
                Err(_) => {
                    record.cancel();
                    // SAFETY: WRID-1 to WRID-3: it was not posted.
                    drop(unsafe { Hold::from_wr_id(wr_id) });
                }
            }
        }
        if let Some((hold, record, op)) = message(world, &inbox, random) {
            let sge = [hold.sge()];
            let wr_id = hold.into_wr_id();
            let flags = SendFlags::SIGNALED;
            let sge = &sge;
            let wr = SendWr {
                wr_id,
                sge,
                op,
                flags,
            };
            // SAFETY: POST-1, POST-3: as above.
            match unsafe { a.post_send(&wr) } {
                Ok(()) => sends.0.entry(wr_id).or_default().push_back(record),
                // SAFETY: WRID-1 to WRID-3: it was not posted.
                Err(_) => drop(unsafe { Hold::from_wr_id(wr_id) }),
            }
        }
        if random.once_in(80) {
            count("failure queue pair to ERR");
            let _ = a.modify_to_error();
        }
        poll(&mut sends, &mut recvs);
    }
    gone(a);
    gone(b);
    sends.release_all();
    recvs.release_all();
    count("pair raw, by wr_id");
}

/// Rings beside both queues.
pub fn by_rings<F: Victim>(world: &World<F>, random: &mut Random) {
    let [cq_a, cq_b] = [(); 2].map(|()| world.fabric.cq(128));
    let [a, b] = [&cq_a, &cq_b].map(|cq| world.fabric.qp(cq, cq, CAPS));
    world.fabric.connect(&a, &b);
    let (mut sends, mut sent) = send_ring(a.caps().max_send_wr, 1);
    let (mut recvs, mut received) = recv_ring(b.caps().max_recv_wr, 1);
    let (hub, inbox) = (Hub::default(), Inbox::by_imm());
    let poll = |sent: &mut Completer, received: &mut Completer| {
        for (cq, completer) in [(&cq_a, sent), (&cq_b, received)] {
            let mut batch = [WorkCompletion::EMPTY; 4];
            let taken = cq.poll(&mut batch).expect("it has room for all");
            for wc in &batch[..taken] {
                // SAFETY: COMPLETE-1: polled just now.
                match unsafe { completer.complete(wc.wr_id, wc.status) } {
                    Ok(over) => over.each().for_each(|done| {
                        let record = hub.table().open.remove(&done.id);
                        let last = done.id.wr_id() == wc.wr_id;
                        let mut how = outcome(wc, 0);
                        if !last {
                            how.status = done.status;
                        }
                        match record {
                            Some(record) => record.complete(&how),
                            None => fail(format_args!("{done:?} was not posted")),
                        }
                    }),
                    Err(error) => fail(error),
                }
            }
        }
    };
    for _ in 0..random.within(10..60) {
        if let Some((hold, record)) = receive(world, &inbox, random) {
            post_recv(&b, &mut recvs, &hub, hold, record, random);
        }
        match random.once_in(3) {
            true => drop(post_chain(world, &a, &mut sends, &hub, &inbox, random)),
            false => drop(post_send(world, &a, &mut sends, &hub, &inbox, random)),
        }
        if random.once_in(80) {
            count("failure queue pair to ERR");
            let _ = a.modify_to_error();
        }
        poll(&mut sent, &mut received);
    }
    gone(a);
    gone(b);
    let open = hub.table().open.len();
    // SAFETY: COMPLETE-2: both were destroyed, and nothing is prepared.
    let released = unsafe { sent.release_all() + received.release_all() };
    if open != released {
        fail(format_args!("{open} were outstanding, {released} released"));
    }
    let open = std::mem::take(&mut hub.table().open);
    open.into_values().for_each(Record::unknown);
    count("pair raw, by rings");
}

fn post_recv<Q: QueuePair>(
    qp: &Q,
    ring: &mut Poster,
    hub: &Hub,
    hold: Hold,
    record: Record,
    random: &mut Random,
) {
    let Ok(prepared) = ring.prepare(hold, SendFlags::SIGNALED) else {
        // It held up nobody: what has changed since is another's.
        return record.cancel();
    };
    match random.below(12) {
        0 => {
            count("cancel prepared dropped");
            record.cancel();
            return drop(prepared);
        }
        1 => {
            count("cancel prepared taken back");
            let hold = prepared.take_back();
            record.cancel();
            return drop(hold);
        }
        _ => {}
    }
    let (wr_id, sge) = (prepared.wr_id(), prepared.sges());
    // SAFETY: POST-2: the ring keeps the hold. POST-3: this queue pair gets no endpoint.
    match unsafe { qp.post_recv(&RecvWr { wr_id, sge }) } {
        Ok(()) => posted(&mut hub.table(), prepared.commit(), record),
        Err(_) => {
            record.cancel();
            drop(prepared);
        }
    }
}

fn post_send<F: Victim>(
    world: &World<F>,
    qp: &F::Qp,
    ring: &mut Poster,
    hub: &Hub,
    inbox: &Inbox,
    random: &mut Random,
) -> Option<()> {
    let (hold, record, op) = message(world, inbox, random)?;
    let mut flags = SendFlags::empty();
    flags.set(SendFlags::SIGNALED, !random.once_in(3));
    let prepared = ring.prepare(hold, flags).ok()?;
    let wr = SendWr {
        wr_id: prepared.wr_id(),
        sge: prepared.sges(),
        op,
        flags,
    };
    // SAFETY: POST-1, POST-3: as in `post_recv`.
    unsafe { qp.post_send(&wr) }.ok()?;
    posted(&mut hub.table(), prepared.commit(), record);
    Some(())
}

fn post_chain<F: Victim>(
    world: &World<F>,
    qp: &F::Qp,
    ring: &mut Poster,
    hub: &Hub,
    inbox: &Inbox,
    random: &mut Random,
) -> Option<()> {
    let mut chain = ring.chain();
    let (mut wrs, mut records) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (hold, record, op) = message(world, inbox, random)?;
        let sge = [hold.sge()];
        let id = chain.push(hold, SendFlags::SIGNALED).ok()?;
        wrs.push((id, sge, op));
        records.push((id, record));
    }
    if random.once_in(8) {
        count("cancel chain dropped");
        return None;
    }
    let wrs: Vec<SendWr<'_>> = wrs
        .iter()
        .map(|(id, sge, op)| SendWr {
            wr_id: id.wr_id(),
            sge,
            op: *op,
            flags: SendFlags::SIGNALED,
        })
        .collect();
    // SAFETY: POST-1, POST-3: as in `post_recv`.
    let count_posted = match unsafe { qp.post_send_list(&wrs) } {
        Ok(()) => {
            chain.commit();
            3
        }
        Err(bad) => {
            chain.commit_first(bad.at);
            bad.at
        }
    };
    let mut table = hub.table();
    for (id, record) in records.drain(..count_posted) {
        posted(&mut table, id, record);
    }
    Some(())
}
