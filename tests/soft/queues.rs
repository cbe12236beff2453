//! Signalling, full queues, flushes, overruns, destruction.

use super::*;

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
    assert!(
        small.wait_event(None).unwrap(),
        "made without being asked for"
    );
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
