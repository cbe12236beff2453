//! Queues that somebody else keeps: rings and slots beside raw queue pairs, with the completions on threads of
//! their own.

use std::sync::{Arc, Mutex};

use rdma_mr::backend::soft::{CompletionQueue, QueuePair};
use rdma_mr::op::{
    Completer, Hold, Poster, SlotCompleter, SlotPoster, recv_ring, recv_slots, send_ring,
};
use rdma_mr::work::{
    CompletionQueue as _, QueuePair as _, RecvWr, SendFlags, SendOp, SendWr, WorkCompletion,
};
use shuttle::thread::yield_now;

use crate::run::{chance, explore};
use crate::transfers::{look, places, threads};
use crate::world::{Busy, World, insist};

const SEND: SendOp = SendOp::Send { imm: None };

/// How receives are kept: in order, or in any.
enum Recvs {
    Ring(Poster),
    Slots(SlotPoster),
}

impl Recvs {
    fn post(&mut self, qp: &QueuePair, into: Hold) {
        match self {
            Recvs::Ring(poster) => insist(into, |into| {
                let prepared = poster.prepare(into, SendFlags::SIGNALED)?;
                let (wr_id, sge) = (prepared.wr_id(), prepared.sges());
                // SAFETY: POST-2: the ring has the hold; POST-3: nobody else posts there.
                unsafe { qp.post_recv(&RecvWr { wr_id, sge }) }.unwrap();
                prepared.commit();
                Ok(())
            }),
            Recvs::Slots(poster) => insist(into, |into| {
                let prepared = poster.prepare(into)?;
                let (wr_id, sge) = (prepared.wr_id(), prepared.sges());
                // SAFETY: POST-2, POST-3 as above: these are the slots.
                unsafe { qp.post_recv(&RecvWr { wr_id, sge }) }.unwrap();
                prepared.commit();
                Ok(())
            }),
        }
    }
}

/// Who releases the receives.
enum Received {
    Ring(Box<Mutex<Completer>>),
    Slots(SlotCompleter),
}

impl Received {
    fn complete(&self, wc: &WorkCompletion) {
        let over = match self {
            // SAFETY: COMPLETE-1: polled just now, posted here.
            Received::Ring(ring) => unsafe { ring.lock().unwrap().complete(wc.wr_id, wc.status) },
            // SAFETY: COMPLETE-1, as above.
            Received::Slots(slots) => unsafe { slots.complete(wc.wr_id, wc.status) },
        };
        assert_eq!(over.unwrap().count(), 1);
    }
}

fn send(qp: &QueuePair, ring: &mut Poster, from: Hold, flags: SendFlags) {
    insist(from, |from| {
        let from = match chance(4) {
            // Thinks better of it, and then again.
            0 => ring.prepare(from, flags)?.take_back(),
            _ => from,
        };
        let prepared = ring.prepare(from, flags)?;
        let wr = SendWr {
            wr_id: prepared.wr_id(),
            sge: prepared.sges(),
            op: SEND,
            flags,
        };
        // SAFETY: POST-1: the ring has the hold; POST-3: nobody else posts there.
        unsafe { qp.post_send(&wr) }.unwrap();
        prepared.commit();
        Ok(())
    });
}

/// Polls, and tells of each completion. One thread of several has it.
fn completing(cq: &CompletionQueue, tell: impl Fn(&WorkCompletion) + Send + 'static) -> Busy {
    let cq = cq.clone();
    Busy::new(move || {
        let mut done = [WorkCompletion::EMPTY; 2];
        let count = cq.poll(&mut done).unwrap();
        for wc in &done[..count] {
            assert!(wc.status.is_success(), "{wc:?}");
            yield_now();
            tell(wc);
        }
        count > 0
    })
}

fn scenario() {
    let world = World::new();
    let [sent_cq, received_cq] = [world.cq(), world.cq()];
    let a = world.qp(&sent_cq);
    let b = world.qp(&received_cq);
    QueuePair::connect_pair(&a, &b).unwrap();
    let (mut sends, sent) = send_ring(2, 1);
    let (mut recvs, received) = match chance(2) {
        0 => {
            let (poster, completer) = recv_ring(2, 1);
            (
                Recvs::Ring(poster),
                Received::Ring(Box::new(Mutex::new(completer))),
            )
        }
        _ => {
            let (poster, completer) = recv_slots(2, 1);
            (Recvs::Slots(poster), Received::Slots(completer))
        }
    };
    let (sent, received) = (Arc::new(Mutex::new(sent)), Arc::new(received));
    let release = Arc::clone(&sent);
    let completers = [
        completing(&sent_cq, move |wc| {
            // SAFETY: COMPLETE-1: polled just now, posted here.
            let over = unsafe { release.lock().unwrap().complete(wc.wr_id, wc.status) };
            assert!(over.unwrap().count() <= 2);
        }),
        {
            let received = Arc::clone(&received);
            completing(&received_cq, move |wc| received.complete(wc))
        },
    ];
    let [source, target] = places(&world);
    let [other_source, other_target] = places(&world);
    let all = [source, target, other_source, other_target];
    let [s, t, s2, t2] = all.clone();
    let post = move |n: usize| {
        let (source, target) = if n % 2 == 0 { (&s, &t) } else { (&s2, &t2) };
        let (from, tag) = source.begin_read();
        recvs.post(&b, target.begin_write(tag));
        // The second one's completion releases the first one too.
        let flags = match n % 2 {
            0 => SendFlags::empty(),
            _ => SendFlags::SIGNALED,
        };
        send(&a, &mut sends, from, flags);
        if n == 3 {
            while sends.outstanding() > 0 || !t.mr.read().unwrap().state().is_free() {
                yield_now();
            }
            while !t2.mr.read().unwrap().state().is_free() {
                yield_now();
            }
        }
    };
    let [s, t, s2, t2] = all.clone();
    let read = move |n: usize| look([&*t, &*t2, &*s, &*s2][n % 4]);
    let [s, _, s2, t2] = all.clone();
    let write = move |n: usize| [&*s, &*s2, &*t2][n % 3].write(100 + n as u64);
    threads(vec![
        (4, Box::new(post)),
        (4, Box::new(read.clone())),
        (3, Box::new(read)),
        (3, Box::new(write)),
    ]);
    completers.into_iter().for_each(Busy::end);
    assert_eq!(sent.lock().unwrap().outstanding(), 0);
    for place in all {
        look(&place);
        assert!(place.into_mr().state().is_free());
    }
    drop((sent_cq, received_cq));
    world.end();
}

/// A ring, or slots, release what is over and nothing else, with completers on other threads.
///
/// Shows: COMPLETE-1, POST-1, POST-2, POST-3.
#[test]
fn rings_beside_ones_own_queues() {
    explore("rings_beside_ones_own_queues", 1500, scenario);
}
