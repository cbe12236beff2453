//! The NIC in software: signalling, full queues, flushes, overruns, destruction, faults, and the
//! stepped mode.
#![cfg(all(feature = "soft", not(loom)))]

mod soft_util;

use std::time::{Duration, Instant};

use rdma_mr::Error;
use rdma_mr::backend::soft::{Fault, MTU, Nic, QpState, QueuePair, VENDOR_INJECTED, When};
use rdma_mr::registration::Registrar;
use rdma_mr::work::{
    CompletionQueue as _, QpCaps, QueuePair as _, RemoteAddr, SendFlags, SendOp, Sge, WcStatus,
    WorkCompletion,
};
use soft_util::*;

const SEND: SendOp = SendOp::Send { imm: None };
const SILENT: SendFlags = SendFlags::empty();

fn caps(max_send_wr: u32, max_recv_wr: u32) -> QpCaps {
    QpCaps {
        max_send_wr,
        max_recv_wr,
        ..QpCaps::default()
    }
}

/// A WRITE of nothing: it needs no memory and no receive.
const NOTHING: SendOp = SendOp::Write {
    remote: RemoteAddr { addr: 0, rkey: 0 },
    imm: None,
};

#[test]
fn unsignalled_requests_stay_until_a_later_completion_is_polled() {
    let nic = Nic::builder().stepped().build();
    let pair = Pair::on(&nic, caps(4, 1));
    let full = |result| matches!(result, Err(Error::QueueFull { capacity: 4 }));
    for id in 0..3 {
        pair.a.try_post(id, NOTHING, &[], SILENT).unwrap();
    }
    nic.run_until_idle();
    pair.a.try_post(3, NOTHING, &[], SIGNALED).unwrap();
    assert!(full(pair.a.try_post(4, NOTHING, &[], SIGNALED)));
    nic.run_until_idle();
    assert!(
        full(pair.a.try_post(4, NOTHING, &[], SIGNALED)),
        "completed, not polled"
    );
    let done = drain(&pair.a.send_cq);
    assert_eq!(statuses(&done), [(3, WcStatus::Success)]);
    for id in 4..8 {
        pair.a.try_post(id, NOTHING, &[], SILENT).unwrap();
    }
    // Without a signalled one among them the queue is full for good.
    nic.run_until_idle();
    assert!(full(pair.a.try_post(8, NOTHING, &[], SIGNALED)));
    assert_eq!(nic.stats().messages, 8);
    pair.assert_silent();
}

#[test]
fn full_queues_take_nothing() {
    let nic = Nic::builder().stepped().build();
    let pair = Pair::on(&nic, caps(2, 3));
    for id in 0..3 {
        pair.b.recv(id, &[]);
    }
    assert!(matches!(
        pair.b.try_recv(3, &[]),
        Err(Error::QueueFull { capacity: 3 })
    ));
    pair.a.post(0, SEND, &[]);
    pair.a.post(1, SEND, &[]);
    assert!(matches!(
        pair.a.try_post(2, SEND, &[], SIGNALED),
        Err(Error::QueueFull { capacity: 2 })
    ));
    nic.run_until_idle();
    assert_eq!(statuses(&drain(&pair.a.send_cq)).len(), 2);
    assert!(pair.b.try_recv(3, &[]).is_err(), "used, not polled");
    assert_eq!(drain(&pair.b.recv_cq).len(), 2);
    pair.b.recv(3, &[]);
    pair.b.recv(4, &[]);
    assert!(pair.b.try_recv(5, &[]).is_err());
    pair.a.post(2, SEND, &[]);
    nic.run_until_idle();
    assert_eq!(drain(&pair.b.recv_cq)[0].wr_id, 2);
}

#[test]
fn an_error_flushes_all_that_is_outstanding_in_order() {
    for threaded in [false, true] {
        let nic = if threaded {
            Nic::new()
        } else {
            Nic::builder().stepped().build()
        };
        let pair = Pair::on(&nic, QpCaps::default());
        // No receive at the peer, so that all of it stays outstanding.
        for id in 0..10 {
            let flags = if id % 2 == 0 { SIGNALED } else { SILENT };
            pair.a.try_post(id, SEND, &[], flags).unwrap();
            pair.a.recv(100 + id, &[]);
        }
        pair.assert_silent();
        pair.a.qp.modify_to_error();
        pair.a.qp.modify_to_error();
        let sends = pair.take(&pair.a.send_cq, 10);
        let recvs = pair.take(&pair.a.recv_cq, 10);
        for id in 0..10 {
            let flushed = WcStatus::WrFlushErr;
            assert_eq!(statuses(&sends)[id], (id as u64, flushed));
            assert_eq!(statuses(&recvs)[id], (100 + id as u64, flushed));
        }
        pair.assert_silent();
        assert_eq!(pair.b.qp.state(), QpState::Rts);
    }
}

#[test]
fn what_was_carried_out_before_the_error_is_not_flushed() {
    let pair = Pair::stepped();
    pair.a.try_post(1, NOTHING, &[], SILENT).unwrap();
    pair.a.try_post(2, SEND, &[], SILENT).unwrap();
    pair.nic.run_until_idle();
    pair.a.qp.modify_to_error();
    pair.nic.run_until_idle();
    let done = drain(&pair.a.send_cq);
    assert_eq!(statuses(&done), [(2, WcStatus::WrFlushErr)]);
}

#[test]
fn r15_an_overrun_breaks_all_that_feed_the_queue_and_says_so() {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let small = nic.create_cq(2).unwrap();
    let large = nic.create_cq(64).unwrap();
    let make = |send_cq, recv_cq| pd.create_qp(send_cq, recv_cq, QpCaps::default()).unwrap();
    let (a, b, c) = (
        make(&small, &large),
        make(&large, &large),
        make(&large, &small),
    );
    let other = make(&large, &large);
    QueuePair::connect_pair(&a, &b).unwrap();
    c.connect(c.qp_num()).unwrap();
    other.connect(other.qp_num()).unwrap();
    for id in 0..5 {
        post(&a, id, NOTHING, &[], SIGNALED).unwrap();
    }
    nic.run_until_idle();
    assert_eq!((a.state(), c.state()), (QpState::Err, QpState::Err));
    assert_eq!((b.state(), other.state()), (QpState::Rts, QpState::Rts));
    // The third found no room; the flushes of the others are lost too.
    assert_eq!(nic.stats().messages, 3);
    let mut out = [WorkCompletion::EMPTY; 8];
    assert_eq!(small.poll(&mut out).unwrap(), 2);
    assert_eq!((out[0].wr_id, out[1].wr_id), (0, 1));
    assert!(small.wait(None), "there is something to say");
    for _ in 0..3 {
        let error = small.poll(&mut out).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Provider {
                    call: "soft poll_cq",
                    ..
                }
            ),
            "{error:?}"
        );
    }
    assert!(matches!(
        pd.create_qp(&small, &large, QpCaps::default()),
        Err(Error::Provider { .. })
    ));
}

#[test]
fn completions_outlive_their_queue_pair_and_outstanding_requests_do_not() {
    let nic = Nic::builder().stepped().build();
    let Pair { a, b, .. } = Pair::on(&nic, QpCaps::default());
    a.post(1, NOTHING, &[]);
    nic.run_until_idle();
    a.post(2, SEND, &[]);
    a.recv(3, &[]);
    assert_eq!(nic.stats().queue_pairs, 2);
    a.qp.destroy().unwrap();
    assert_eq!(nic.stats().queue_pairs, 1);
    assert_eq!(nic.run_until_idle(), 0);
    assert_eq!(statuses(&drain(&a.send_cq)), [(1, WcStatus::Success)]);
    assert!(drain(&a.recv_cq).is_empty());
    drop((a.send_cq, a.recv_cq));
    assert_eq!(nic.stats().completion_queues, 2);
    drop(b);
    assert_eq!(nic.stats().completion_queues, 0);
    assert_eq!(nic.stats().queue_pairs, 0);
}

#[test]
fn qp_4_after_the_destruction_no_byte_changes() {
    // A receive buffer and a READ's target are written by work requests of the queue pair that is
    // destroyed; a WRITE's source is read by them. The message is long, so that it is hit under way.
    const LENGTH: usize = 4 << 20;
    let nic = Nic::new();
    for round in 0..60 {
        let Pair { a, b, .. } = Pair::on(&nic, QpCaps::default());
        let (here, there) = (a.region(LENGTH), b.region(LENGTH));
        there.memory.write(0, &[1]);
        let victim = if round % 2 == 0 {
            let op = SendOp::Read {
                remote: there.remote(0),
            };
            a.post(1, op, &[here.all()]);
            a.qp
        } else {
            a.recv(1, &[here.all()]);
            b.post(1, SEND, &[there.all()]);
            a.qp
        };
        // Until it has begun.
        let deadline = Instant::now() + LONG;
        while here.memory.read(0, 1) == [0] {
            assert!(Instant::now() < deadline);
            std::hint::spin_loop();
        }
        for _ in 0..round * 50 {
            std::hint::spin_loop();
        }
        victim.destroy().unwrap();
        // A packet is a page here: none changes without its first byte.
        let pages = (0..LENGTH).step_by(MTU);
        for page in pages.clone() {
            here.memory.write(page, &[0xEE]);
        }
        // The NIC is alive: whatever it still had to do would be done before this completes.
        let probe = Pair::on(&nic, QpCaps::default());
        probe.run(NOTHING, &[]);
        for page in pages {
            assert_eq!(here.memory.read(page, 1), [0xEE], "round {round}");
        }
    }
}

#[test]
fn destruction_waits_for_a_packet_and_not_for_the_message() {
    const LENGTH: usize = 256 << 20;
    let memory = Memory::new(LENGTH);
    for responder in [false, true] {
        let Pair { a, b, nic } = Pair::new();
        // SAFETY: REG-4: deregistered below, before `memory` is dropped.
        let register = |end: &End| unsafe { end.pd.register(memory.start(), LENGTH, ALL) }.unwrap();
        let (mr, peer) = (register(&a), register(&b));
        // The same memory four times over makes a message of 1 GiB.
        let four = |lkey| {
            [Sge {
                addr: memory.addr(0),
                length: LENGTH as u32,
                lkey,
            }; 4]
        };
        for id in 0..60 {
            b.recv(id, &four(peer.lkey));
        }
        for id in 0..60 {
            a.post(id, SEND, &four(mr.lkey));
        }
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        let (victim, other) = if responder {
            (b.qp, a.qp)
        } else {
            (a.qp, b.qp)
        };
        victim.destroy().unwrap();
        let took = start.elapsed();
        // All of it is 60 GiB, and one message takes longer than this in a debug build.
        assert!(took < Duration::from_millis(300), "{took:?}");
        assert!(nic.stats().messages < 60);
        if responder {
            eventually("the requester fails", || other.state() == QpState::Err);
        }
        drop(other);
        for mut mr in [mr, peer] {
            mr.handle.deregister().unwrap();
        }
    }
}

#[test]
fn faults_strike_the_nth_message_and_flush_the_rest() {
    for status in [
        WcStatus::RemOpErr,
        WcStatus::RetryExcErr,
        WcStatus::LocQpOpErr,
        WcStatus::RemAccessErr,
        WcStatus::FatalErr,
    ] {
        let pair = Pair::stepped();
        let (from, to) = (pair.a.region(4 * MTU), pair.b.region(4 * MTU));
        from.memory.fill(1);
        pair.nic.inject(Fault::Completion(status), When::Nth(3));
        let op = SendOp::Write {
            remote: to.remote(0),
            imm: None,
        };
        for id in 1..=2 {
            pair.a
                .try_post(id, op, &[from.sge(0, 1)], SIGNALED)
                .unwrap();
        }
        pair.a.try_post(3, op, &[from.all()], SILENT).unwrap();
        pair.a.try_post(4, op, &[from.all()], SILENT).unwrap();
        let done = pair.take(&pair.a.send_cq, 4);
        assert_eq!(
            statuses(&done),
            [
                (1, WcStatus::Success),
                (2, WcStatus::Success),
                (3, status),
                (4, WcStatus::WrFlushErr)
            ]
        );
        assert_eq!(done[2].vendor_err, VENDOR_INJECTED);
        assert_eq!(pair.a.qp.state(), QpState::Err);
        let remote = matches!(status, WcStatus::RemOpErr | WcStatus::RemAccessErr);
        assert_eq!(pair.b.qp.state() == QpState::Err, remote);
        // R12: half of it has been written.
        let half = 2 * MTU;
        assert!(to.memory.read(0, half).iter().all(|byte| *byte == 1));
        assert!(to.memory.read(half, half).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn faults_from_the_builder_with_probability() {
    let nic = Nic::builder()
        .stepped()
        .seed(5)
        .inject(
            Fault::Completion(WcStatus::RemOpErr),
            When::Probability(0.3),
        )
        .build();
    let mut failed = 0;
    for _ in 0..200 {
        let pair = Pair::on(&nic, QpCaps::default());
        failed += usize::from(pair.run(NOTHING, &[]).status == WcStatus::RemOpErr);
    }
    assert!((30..90).contains(&failed), "{failed} of 200");
    nic.clear_faults();
    for _ in 0..50 {
        let pair = Pair::on(&nic, QpCaps::default());
        assert_eq!(pair.run(NOTHING, &[]).status, WcStatus::Success);
    }
}

#[test]
fn faults_of_registration() {
    let pair = Pair::stepped();
    let (from, to) = (pair.a.region(8), pair.b.region(8));
    pair.nic.inject(Fault::Register, When::Nth(1));
    let register = || {
        // SAFETY: REG-4: `to` outlives it; deregistered below.
        unsafe { pair.b.pd.register(to.memory.start(), 8, ALL) }
    };
    let before = pair.nic.stats().registrations;
    assert_eq!(
        register().err().unwrap().kind(),
        std::io::ErrorKind::OutOfMemory
    );
    assert_eq!(pair.nic.stats().registrations, before);
    let mut mr = register().unwrap();

    // DEREG-2: refused, it is in force as before, and the call may be repeated.
    pair.nic.inject(Fault::Deregister, When::Nth(1));
    let error = mr.handle.deregister().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    from.memory.store(0, 4);
    let op = SendOp::Write {
        remote: RemoteAddr {
            addr: to.memory.addr(0),
            rkey: mr.rkey,
        },
        imm: None,
    };
    assert_eq!(pair.run(op, &[from.all()]).status, WcStatus::Success);
    assert_eq!(to.memory.load(0), 4);
    mr.handle.deregister().unwrap();
    assert_eq!(pair.run(op, &[from.all()]).status, WcStatus::RemAccessErr);
}

#[test]
fn dereg_3_a_dropped_handle_leaks() {
    let pair = Pair::stepped();
    let (from, to) = (pair.a.region(8), Memory::new(8));
    // SAFETY: REG-4: `to` is leaked below, as the registration is.
    let mr = unsafe { pair.b.pd.register(to.start(), 8, ALL) }.unwrap();
    let remote = RemoteAddr {
        addr: to.addr(0),
        rkey: mr.rkey,
    };
    drop(mr);
    from.memory.store(0, 6);
    let op = SendOp::Write { remote, imm: None };
    assert_eq!(pair.run(op, &[from.all()]).status, WcStatus::Success);
    assert_eq!(to.load(0), 6);
    assert_eq!(pair.nic.stats().registrations, 2);
    std::mem::forget(to);
}

/// The order in which a stepped NIC carries out the messages of three queue pairs.
fn order(seed: u64) -> Vec<(u32, u64)> {
    let nic = Nic::builder().stepped().seed(seed).build();
    let pd = nic.alloc_pd();
    let cq = nic.create_cq(64).unwrap();
    let qps: Vec<_> = (0..3)
        .map(|_| {
            let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
            qp.connect(qp.qp_num()).unwrap();
            qp
        })
        .collect();
    for id in 0..8 {
        for qp in &qps {
            post(qp, id, NOTHING, &[], SIGNALED).unwrap();
        }
    }
    assert_eq!(nic.run_until_idle(), 24);
    drain(&cq)
        .iter()
        .map(|done| (done.qp_num, done.wr_id))
        .collect()
}

#[test]
fn seeds_choose_the_order_between_queue_pairs_and_nothing_else() {
    let all: Vec<_> = (0..20).map(order).collect();
    for (seed, order_of) in all.iter().enumerate() {
        assert_eq!(*order_of, order(seed as u64), "a seed reproduces");
        for qp in [0x11, 0x12, 0x13] {
            let ids: Vec<u64> = order_of
                .iter()
                .filter(|(num, _)| *num == qp)
                .map(|(_, id)| *id)
                .collect();
            assert_eq!(ids, (0..8).collect::<Vec<_>>(), "RC keeps the order");
        }
    }
    let mut different = all.clone();
    different.sort();
    different.dedup();
    assert!(
        different.len() > 15,
        "{} orders of 20 seeds",
        different.len()
    );
}

#[test]
fn without_reordering_queue_pairs_take_turns() {
    let nic = Nic::builder().stepped().reorder(0.0).build();
    let pairs: Vec<_> = (0..3).map(|_| Pair::on(&nic, QpCaps::default())).collect();
    for id in 0..4 {
        for pair in &pairs {
            pair.a.post(id, NOTHING, &[]);
        }
    }
    for round in 1..=4 {
        for _ in &pairs {
            assert!(nic.step());
        }
        for pair in &pairs {
            assert_eq!(drain(&pair.a.send_cq).len(), 1, "round {round}");
        }
    }
    assert!(!nic.step());
}

#[test]
fn a_step_is_one_work_request() {
    let pair = Pair::stepped();
    let (from, to) = (pair.a.region(8), pair.b.region(8));
    from.memory.store(0, 1);
    assert!(!pair.nic.step());
    pair.b.recv(1, &[to.all()]);
    assert!(!pair.nic.step(), "a receive alone is nothing to do");
    pair.a.post(1, SEND, &[from.all()]);
    pair.a.post(2, SEND, &[from.all()]);
    assert_eq!(to.memory.load(0), 0);
    assert!(pair.nic.step());
    assert_eq!(to.memory.load(0), 1);
    assert_eq!(drain(&pair.a.send_cq).len(), 1);
    assert!(!pair.nic.step(), "the second finds no receive");
    pair.b.recv(2, &[to.all()]);
    assert_eq!(pair.nic.run_until_idle(), 1);
    assert!(!Nic::new().step(), "a NIC with a thread does not step");
}

#[test]
fn a_blocked_queue_pair_does_not_block_the_others() {
    for nic in [Nic::new(), Nic::builder().stepped().build()] {
        let blocked = Pair::on(&nic, QpCaps::default());
        blocked.a.post(1, SEND, &[]);
        let pair = Pair::on(&nic, QpCaps::default());
        for _ in 0..100 {
            assert_eq!(pair.run(NOTHING, &[]).status, WcStatus::Success);
        }
        blocked.b.recv(1, &[]);
        assert_eq!(blocked.sent().status, WcStatus::Success);
    }
}

#[test]
fn many_threads_post_to_and_poll_one_queue_pair() {
    const THREADS: u64 = 4;
    const EACH: u64 = 2000;
    let nic = Nic::new();
    let pair = Pair::on(&nic, caps(16, 16));
    let word = pair.b.region(8);
    let result = pair.a.region(8 * THREADS as usize);
    let seen = std::sync::Mutex::new(Vec::new());
    let deadline = Instant::now() + LONG;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pair, word, result, seen) = (&pair, &word, &result, &seen);
            scope.spawn(move || {
                let mut mine = Vec::new();
                let mut out = [WorkCompletion::EMPTY; 3];
                let mut poll = |wait| {
                    let got = pair.a.send_cq.poll(&mut out).unwrap();
                    mine.extend(out[..got].iter().map(|done| (done.wr_id, done.status)));
                    if got == 0 && wait {
                        pair.a.send_cq.wait(Some(Duration::from_millis(1)));
                    }
                };
                for i in 0..EACH {
                    let op = SendOp::FetchAdd {
                        remote: word.remote(0),
                        add: 1,
                    };
                    let sge = [result.sge(8 * thread as usize, 8)];
                    while pair
                        .a
                        .try_post(thread * EACH + i, op, &sge, SIGNALED)
                        .is_err()
                    {
                        assert!(Instant::now() < deadline);
                        poll(true);
                    }
                    poll(false);
                }
                seen.lock().unwrap().extend(mine);
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    let left = THREADS as usize * EACH as usize - seen.len();
    seen.extend(statuses(&pair.take(&pair.a.send_cq, left)));
    assert!(seen.iter().all(|(_, status)| status.is_success()));
    let mut ids: Vec<u64> = seen.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..THREADS * EACH), "each once");
    assert_eq!(word.memory.load(0), THREADS * EACH);
}
