//! DEREG-1: once a deregistration has returned, no byte changes any more, whatever is still
//! posted.

use super::*;

/// Writes and writes, over and over, until the key is refused; returns how many succeeded.
fn hammer(end: &End, op: SendOp, from: &Region) -> u64 {
    let mut out = [WorkCompletion::EMPTY; 16];
    let mut written = 0;
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "never refused");
        while end.try_post(1, op, &[from.all()], SIGNALED).is_ok() {}
        let got = end.send_cq.poll(&mut out).unwrap();
        for done in &out[..got] {
            match done.status {
                WcStatus::Success => written += 1,
                WcStatus::RemAccessErr => return written,
                other => panic!("{other}"),
            }
        }
        if got == 0 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn dereg_1_while_a_peer_never_stops_writing() {
    const ROUNDS: usize = 150;
    const LENGTH: usize = 4 * MTU;
    let nic = Nic::new();
    for round in 0..ROUNDS {
        let Pair { a, b, .. } = Pair::on(&nic, QpCaps::default());
        let from = a.region(LENGTH);
        from.memory.fill(0x11);
        let mut to = b.region(LENGTH);
        let op = SendOp::Write {
            remote: to.remote(0),
            imm: None,
        };
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| hammer(&a, op, &from));
            let deadline = Instant::now() + LONG;
            while to.memory.read(LENGTH - 1, 1) != [0x11] {
                assert!(Instant::now() < deadline);
                std::thread::yield_now();
            }
            for _ in 0..(round * 37) % 1000 {
                std::hint::spin_loop();
            }
            to.deregister();
            // Ours again. The peer still posts: it must not get through.
            to.memory.fill(0xEE);
            let written = peer.join().unwrap();
            assert!(written > 0);
            let bytes = to.memory.read(0, LENGTH);
            assert!(bytes.iter().all(|byte| *byte == 0xEE), "round {round}");
        });
    }
}

#[test]
fn dereg_1_in_the_middle_of_a_long_message() {
    // Until enough of them were hit under way: those fail, and nothing is written afterwards.
    const LENGTH: usize = 16 << 20;
    let nic = Nic::new();
    let pages = || (0..LENGTH).step_by(MTU);
    let deadline = Instant::now() + LONG;
    for read in [false, true] {
        let mut cut = 0;
        for round in 0_usize.. {
            if cut == 5 {
                break;
            }
            let Pair { a, b, .. } = Pair::on(&nic, QpCaps::default());
            // A READ writes on the side that posts it.
            let (source, target) = if read { (&b, &a) } else { (&a, &b) };
            let (from, mut to) = (source.region(LENGTH), target.region(LENGTH));
            let (op, sge, refusal) = if read {
                let remote = from.remote(0);
                (SendOp::Read { remote }, to.all(), WcStatus::LocProtErr)
            } else {
                let (remote, imm) = (to.remote(0), None);
                let op = SendOp::Write { remote, imm };
                (op, from.all(), WcStatus::RemAccessErr)
            };
            for page in pages() {
                from.memory.write(page, &[1]);
                // In the page table before it counts.
                to.memory.write(page, &[0]);
            }
            a.post(1, op, &[sge]);
            while to.memory.read(0, 1) == [0] {
                assert!(Instant::now() < deadline);
                std::hint::spin_loop();
            }
            for _ in 0..round % 20 * 50 {
                std::hint::spin_loop();
            }
            to.deregister();
            for page in pages() {
                to.memory.write(page, &[0xEE]);
            }
            let done = take(&nic, &a.send_cq, 1)[0];
            if done.status == refusal {
                cut += 1;
            } else {
                assert_eq!(done.status, WcStatus::Success);
                assert!(Instant::now() < deadline, "{cut} of {round} hit under way");
            }
            for page in pages() {
                assert_eq!(to.memory.read(page, 1), [0xEE], "round {round}");
            }
        }
    }
}

#[test]
fn deregistration_waits_for_a_packet_and_not_for_the_queue() {
    const LENGTH: usize = 128 << 20;
    let nic = Nic::new();
    let Pair { a, b, .. } = Pair::on(&nic, QpCaps::default());
    let from = a.region(LENGTH);
    let mut to = b.region(LENGTH);
    let op = SendOp::Write {
        remote: to.remote(0),
        imm: None,
    };
    for id in 0..60 {
        a.post(id, op, &[from.all()]);
    }
    std::thread::sleep(Duration::from_millis(3));
    let start = Instant::now();
    to.deregister();
    let took = start.elapsed();
    // The queue holds 7.5 GiB.
    assert!(took < Duration::from_millis(500), "{took:?}");
    let done = take(&nic, &a.send_cq, 60);
    assert!(
        done.iter()
            .any(|done| done.status == WcStatus::RemAccessErr)
    );
    assert_eq!(done[59].status, WcStatus::WrFlushErr);
}

#[test]
fn other_registrations_are_not_held_up_and_not_harmed() {
    // Registering and deregistering go on all the time beside a stream of messages, whose own
    // registrations stay.
    let nic = Nic::new();
    let Pair { a, b, .. } = Pair::on(&nic, QpCaps::default());
    let (from, to) = (a.region(8 * MTU), b.region(8 * MTU));
    let op = SendOp::Write {
        remote: to.remote(0),
        imm: None,
    };
    let stop = AtomicBool::new(false);
    let churned = AtomicU64::new(0);
    let deadline = Instant::now() + LONG;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                drop(b.region(64));
                churned.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut sent = 0_u64;
        while sent < 500 || churned.load(Ordering::Relaxed) < 500 {
            assert!(Instant::now() < deadline);
            from.memory.store(0, sent);
            a.post(sent, op, &[from.all()]);
            assert_eq!(take(&nic, &a.send_cq, 1)[0].status, WcStatus::Success);
            assert_eq!(to.memory.load(0), sent);
            sent += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(nic.stats().registrations, 2);
}

#[test]
fn a_registration_on_both_sides_of_a_message() {
    let nic = Nic::new();
    let end = End::new(&nic, QpCaps::default());
    QueuePair::connect_pair(&end.qp, &end.qp).unwrap();
    let mut region = end.region(16 * MTU);
    let op = SendOp::Write {
        remote: region.remote(8 * MTU),
        imm: None,
    };
    for _ in 0..20 {
        end.post(1, op, &[region.sge(0, 8 * MTU)]);
    }
    let done = take(&nic, &end.send_cq, 20);
    assert!(done.iter().all(|done| done.status.is_success()));
    for _ in 0..20 {
        end.post(1, op, &[region.sge(0, 8 * MTU)]);
    }
    region.deregister();
    let done = take(&nic, &end.send_cq, 20);
    assert!(done.iter().all(|done| match done.status {
        WcStatus::Success | WcStatus::LocProtErr | WcStatus::RemAccessErr => true,
        status => status == WcStatus::WrFlushErr,
    }));
}
