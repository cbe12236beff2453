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
