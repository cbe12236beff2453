//! Faults that were asked for.

use super::*;

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

#[test]
fn a_lost_completion_is_lost_and_its_room_comes_back_with_a_later_one() {
    // The receive's, which comes first, or the sender's.
    for (nth, mine) in [(1, false), (2, true)] {
        let nic = Nic::builder().stepped().build();
        let pair = Pair::on(&nic, caps(2, 2));
        let (a, b) = (&pair.a, &pair.b);
        let (cq, other) = if mine {
            (&a.send_cq, &b.recv_cq)
        } else {
            (&b.recv_cq, &a.send_cq)
        };
        cq.req_notify(false).unwrap();
        nic.inject(Fault::CompletionLost, When::Nth(nth));
        for id in 0..2 {
            b.recv(id, &[]);
            a.post(id, SEND, &[]);
        }
        assert!(nic.step());
        assert_eq!((drain(cq).len(), drain(other).len()), (0, 1));
        assert_eq!(cq.take_events().unwrap(), 0, "nor does it make an event");
        assert_eq!((a.qp.state(), b.qp.state()), (QpState::Rts, QpState::Rts));
        let full = if mine {
            a.try_post(2, SEND, &[], SIGNALED)
        } else {
            b.try_recv(2, &[])
        };
        assert!(matches!(full, Err(Error::QueueFull { capacity: 2 })));
        assert!(nic.step());
        assert_eq!(statuses(&drain(cq)), [(1, WcStatus::Success)]);
        assert_eq!(cq.take_events().unwrap(), 1);
        assert_eq!(drain(other).len(), 1);
        for id in 2..4 {
            b.recv(id, &[]);
            a.post(id, SEND, &[]);
        }
        assert_eq!(nic.run_until_idle(), 2);
        assert_eq!(nic.stats().messages, 4);
    }
}

#[test]
fn a_lost_flush_is_lost_too() {
    let pair = Pair::stepped();
    for id in 0..3 {
        pair.a.recv(id, &[]);
    }
    pair.nic.inject(Fault::CompletionLost, When::Nth(3));
    pair.a.qp.modify_to_error();
    pair.nic.run_until_idle();
    let flushed = WcStatus::WrFlushErr;
    let done = drain(&pair.a.recv_cq);
    assert_eq!(statuses(&done), [(0, flushed), (1, flushed)]);
}

#[test]
fn a_duplicated_completion_comes_twice_and_gives_room_once() {
    let nic = Nic::builder().stepped().build();
    let pair = Pair::on(&nic, caps(2, 1));
    // SAFETY: FAULT-1: the numbers are compared and nothing else.
    let distrust = unsafe { Distrust::new() };
    nic.inject(Fault::CompletionDuplicated(distrust), When::Nth(2));
    pair.a.send_cq.req_notify(false).unwrap();
    for id in 0..2 {
        pair.a.post(id, NOTHING, &[]);
    }
    nic.run_until_idle();
    assert_eq!(pair.a.send_cq.take_events().unwrap(), 1);
    let ok = WcStatus::Success;
    let done = drain(&pair.a.send_cq);
    assert_eq!(statuses(&done), [(0, ok), (1, ok), (1, ok)]);
    for id in 2..4 {
        pair.a.post(id, NOTHING, &[]);
    }
    let third = pair.a.try_post(4, NOTHING, &[], SIGNALED);
    assert!(matches!(third, Err(Error::QueueFull { capacity: 2 })));
    assert_eq!(pair.take(&pair.a.send_cq, 2).len(), 2);
    pair.assert_silent();
}

#[test]
fn r15_a_duplicate_takes_room_in_the_completion_queue() {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let cq = nic.create_cq(1).unwrap();
    let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
    qp.connect(qp.qp_num()).unwrap();
    // SAFETY: FAULT-1: as above.
    let distrust = unsafe { Distrust::new() };
    nic.inject(Fault::CompletionDuplicated(distrust), When::Nth(1));
    post(&qp, 1, NOTHING, &[], SIGNALED).unwrap();
    nic.run_until_idle();
    assert_eq!(qp.state(), QpState::Err);
    let mut out = [WorkCompletion::EMPTY; 2];
    assert_eq!(cq.poll(&mut out).unwrap(), 1);
    assert!(cq.poll(&mut out).is_err());
}

#[test]
fn a_refused_destruction_gives_the_queue_pair_back() {
    let Pair { a, b, nic } = Pair::stepped();
    nic.inject(Fault::Destroy, When::Nth(2));
    let spare = End::new(&nic, QpCaps::default());
    spare.qp.destroy().unwrap();
    a.post(1, SEND, &[]);
    let (qp, error) = a.qp.destroy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert_eq!((qp.state(), nic.stats().queue_pairs), (QpState::Rts, 2));
    b.recv(2, &[]);
    assert_eq!(take(&nic, &a.send_cq, 1)[0].status, WcStatus::Success);
    // Refusals are for those who ask: a drop is the end.
    nic.inject(Fault::Destroy, When::Probability(1.0));
    let (qp, _) = qp.destroy().unwrap_err();
    drop(qp);
    assert_eq!(nic.stats().queue_pairs, 1);
}

#[test]
fn a_late_completion_delays_those_behind_it_in_its_queue_and_no_others() {
    let nic = Nic::builder().stepped().reorder(0.0).build();
    let pair = Pair::on(&nic, QpCaps::default());
    nic.inject(Fault::CompletionLate(Duration::ZERO), When::Nth(2));
    // In turn.
    for id in 0..3 {
        pair.a.post(id, NOTHING, &[]);
        pair.b.post(id, NOTHING, &[]);
    }
    let ids = |cq| drain(cq).iter().map(|done| done.wr_id).collect::<Vec<_>>();
    let (one, other) = (&pair.a.send_cq, &pair.b.send_cq);
    for _ in 0..6 {
        assert!(nic.step());
    }
    assert_eq!((ids(one), ids(other)), (vec![0, 1, 2], vec![]));
    assert!(nic.step(), "there is nothing else to do");
    assert_eq!(ids(other), [0]);
    assert_eq!(nic.run_until_idle(), 2);
    assert_eq!(ids(other), [1, 2]);
    assert_eq!(nic.stats().faults, 1);
}

#[test]
fn a_late_completion_comes_when_its_time_has_come() {
    let pair = Pair::new();
    let late = Duration::from_millis(20);
    pair.nic.inject(Fault::CompletionLate(late), When::Nth(1));
    let start = Instant::now();
    assert_eq!(pair.run(NOTHING, &[]).status, WcStatus::Success);
    assert!(start.elapsed() >= late);
    // Forgotten, it comes all the same; what is behind it waits with it.
    pair.nic.inject(Fault::CompletionLate(late), When::Nth(1));
    let start = Instant::now();
    pair.a.post(1, NOTHING, &[]);
    eventually("it strikes", || pair.nic.stats().faults == 2);
    pair.nic.clear_faults();
    pair.a.post(2, NOTHING, &[]);
    let done = pair.take(&pair.a.send_cq, 2);
    assert!(start.elapsed() >= late);
    assert_eq!((done[0].wr_id, done[1].wr_id), (1, 2));
}

#[test]
fn an_overtaken_completion_comes_after_the_next() {
    let nic = Nic::builder().stepped().build();
    let pair = Pair::on(&nic, caps(3, 1));
    // SAFETY: FAULT-1: the numbers are compared and nothing else.
    let distrust = unsafe { Distrust::new() };
    nic.inject(Fault::CompletionOvertaken(distrust), When::Nth(1));
    for id in 0..3 {
        pair.a.post(id, NOTHING, &[]);
    }
    assert!(nic.step());
    assert_eq!(drain(&pair.a.send_cq).len(), 0);
    assert!(nic.step());
    let done = drain(&pair.a.send_cq);
    assert_eq!((done[0].wr_id, done[1].wr_id), (1, 0));
    // Its room came back with the other one, and only once.
    for id in 3..5 {
        pair.a.post(id, NOTHING, &[]);
    }
    let full = pair.a.try_post(5, NOTHING, &[], SIGNALED);
    assert!(matches!(full, Err(Error::QueueFull { capacity: 3 })));
    // One that nothing overtakes comes late.
    assert_eq!(pair.take(&pair.a.send_cq, 3).len(), 3);
    nic.inject(Fault::CompletionOvertaken(distrust), When::Nth(1));
    pair.a.post(6, NOTHING, &[]);
    assert_eq!(nic.run_until_idle(), 2);
    assert_eq!(drain(&pair.a.send_cq)[0].wr_id, 6);
    pair.assert_silent();
}

#[test]
fn late_overtaken_and_twice_at_a_time() {
    let pair = Pair::stepped();
    // SAFETY: FAULT-1: as above.
    let distrust = unsafe { Distrust::new() };
    for (fault, nth) in [
        (Fault::CompletionLate(Duration::ZERO), 1),
        (Fault::CompletionOvertaken(distrust), 2),
        (Fault::CompletionDuplicated(distrust), 3),
    ] {
        pair.nic.inject(fault, When::Nth(nth));
    }
    // Each counts what the ones before it let pass.
    for id in 0..6 {
        pair.a.post(id, NOTHING, &[]);
    }
    pair.nic.run_until_idle();
    let done = drain(&pair.a.send_cq);
    let mut ids: Vec<u64> = done.iter().map(|done| done.wr_id).collect();
    assert_eq!(ids[0], 0);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), done.len()), (6, 7), "{done:?}");
    assert_eq!(pair.nic.stats().faults, 3);
}

#[test]
fn r15_a_queue_that_is_told_to_be_full_is_overrun() {
    let pair = Pair::stepped();
    pair.nic.inject(Fault::CompletionQueueFull, When::Nth(2));
    for id in 0..3 {
        pair.a.post(id, NOTHING, &[]);
    }
    pair.nic.run_until_idle();
    let mut out = [WorkCompletion::EMPTY; 4];
    assert_eq!(pair.a.send_cq.poll(&mut out).unwrap(), 1);
    assert!(pair.a.send_cq.poll(&mut out).is_err());
    assert_eq!(pair.a.qp.state(), QpState::Err);
    assert_eq!(pair.b.qp.state(), QpState::Rts);
}

#[test]
fn r11_err_in_the_midst_of_a_message_does_not_stop_it() {
    let pair = Pair::stepped();
    let (from, to) = (pair.a.region(2 * MTU), pair.b.region(2 * MTU));
    from.memory.fill(1);
    pair.nic.inject(Fault::QueuePairError, When::Nth(1));
    let op = SendOp::Write {
        remote: to.remote(0),
        imm: None,
    };
    pair.a.post(1, op, &[from.all()]);
    pair.a.post(2, op, &[from.all()]);
    let done = pair.take(&pair.a.send_cq, 2);
    let expected = [(1, WcStatus::Success), (2, WcStatus::WrFlushErr)];
    assert_eq!(statuses(&done), expected);
    assert_eq!(pair.a.qp.state(), QpState::Err);
    assert!(to.memory.read(0, 2 * MTU).iter().all(|byte| *byte == 1));
}

#[test]
fn a_nic_that_stalls_does_nothing_for_that_long() {
    let pair = Pair::stepped();
    let stall = Fault::Stall(Duration::from_micros(2500));
    pair.nic.inject(stall, When::Nth(2));
    for id in 0..2 {
        pair.a.post(id, NOTHING, &[]);
        pair.b.post(id, NOTHING, &[]);
    }
    // One is done, three steps are none.
    for _ in 0..4 {
        assert!(pair.nic.step());
    }
    let done = drain(&pair.a.send_cq).len() + drain(&pair.b.send_cq).len();
    assert_eq!(done, 1);
    assert_eq!(pair.nic.run_until_idle(), 3);

    let pair = Pair::new();
    let stall = Duration::from_millis(20);
    pair.nic.inject(Fault::Stall(stall), When::Probability(1.0));
    let start = Instant::now();
    assert_eq!(pair.run(NOTHING, &[]).status, WcStatus::Success);
    assert!(start.elapsed() >= stall);
    // Nor does it hold up what the CPU does.
    let mut other = pair.a.region(8);
    pair.a.post(1, NOTHING, &[]);
    other.deregister();
    assert_eq!(pair.sent().status, WcStatus::Success);
}
