//! What is refused at once, by the call itself.

use super::*;

#[test]
fn posts_that_are_refused_at_once() {
    let caps = QpCaps {
        max_inline: 16,
        ..QpCaps::default()
    };
    let nic = Nic::builder().stepped().build();
    let pair = Pair::on(&nic, caps);
    let (here, there) = (pair.a.region(64), pair.b.region(64));
    let inline = SIGNALED | SendFlags::INLINE;
    let post = |op, sge: &[Sge], flags| pair.a.try_post(1, op, sge, flags);
    let one = [here.sge(0, 8)];

    let five = [here.sge(0, 1); 5];
    for error in [post(SEND, &five, SIGNALED), pair.b.try_recv(1, &five)] {
        assert!(
            matches!(error, Err(Error::TooManySge { given: 5, max: 4 })),
            "{error:?}"
        );
    }
    let error = post(SEND, &[here.sge(0, 9), here.sge(0, 8)], inline);
    assert!(
        matches!(error, Err(Error::InlineTooLong { given: 17, max: 16 })),
        "{error:?}"
    );
    for op in [read, add, swap] {
        let error = post(op(there.remote(0)), &one, inline);
        assert!(
            matches!(error, Err(Error::InvalidWorkRequest { .. })),
            "{error:?}"
        );
    }
    for op in [add, swap] {
        let error = post(op(there.remote(4)), &one, SIGNALED);
        assert!(
            matches!(error, Err(Error::Misaligned { align: 8, .. })),
            "{error:?}"
        );
        for bad in [
            &[here.sge(0, 7)][..],
            &[here.sge(0, 9)],
            &[],
            &[here.sge(0, 8); 2],
        ] {
            let error = post(op(there.remote(0)), bad, SIGNALED);
            assert!(
                matches!(error, Err(Error::InvalidWorkRequest { .. })),
                "{error:?}"
            );
        }
    }
    let huge = Sge {
        length: u32::MAX,
        ..here.all()
    };
    let error = post(write(there.remote(0)), &[huge], SIGNALED);
    assert!(
        matches!(error, Err(Error::InvalidWorkRequest { .. })),
        "{error:?}"
    );
    // QP-2: of all that, the NIC carries out nothing.
    pair.assert_silent();
    assert_eq!(pair.a.qp.state(), QpState::Rts);
    assert_eq!(pair.nic.stats().messages, 0);
}

#[test]
fn states_and_what_they_take() {
    let nic = Nic::builder().stepped().build();
    let end = End::new(&nic, QpCaps::default());
    let refused = |result: Result<(), Error>, expected: &str| match result {
        Err(Error::QueuePairState { state, .. }) => assert_eq!(state, expected),
        other => panic!("{other:?}"),
    };
    assert_eq!(end.qp.state(), QpState::Reset);
    refused(end.try_post(1, SEND, &[], SIGNALED), "RESET");
    refused(end.try_recv(1, &[]), "RESET");
    end.qp.modify_to_init().unwrap();
    refused(end.qp.modify_to_init(), "INIT");
    refused(end.try_post(1, SEND, &[], SIGNALED), "INIT");
    end.recv(1, &[]);
    end.qp.connect(end.qp.qp_num()).unwrap();
    assert_eq!(end.qp.state(), QpState::Rts);
    refused(end.qp.connect(3), "RTS");
    end.post(2, SEND, &[]);
    assert_eq!(take(&nic, &end.send_cq, 1)[0].status, WcStatus::Success);
    assert_eq!(take(&nic, &end.recv_cq, 1)[0].wr_id, 1);
    end.qp.modify_to_error();
    refused(end.qp.connect(3), "ERR");
    // Accepted, and flushed.
    end.try_post(3, SEND, &[], SendFlags::empty()).unwrap();
    end.recv(4, &[]);
    assert_eq!(take(&nic, &end.send_cq, 1)[0].status, WcStatus::WrFlushErr);
    assert_eq!(take(&nic, &end.recv_cq, 1)[0].status, WcStatus::WrFlushErr);
}

#[test]
fn connecting_a_pair_leaves_both_as_they_were_on_error() {
    let nic = Nic::builder().stepped().build();
    let (a, b) = (
        End::new(&nic, QpCaps::default()),
        End::new(&nic, QpCaps::default()),
    );
    a.qp.modify_to_init().unwrap();
    b.qp.modify_to_error();
    assert!(matches!(
        QueuePair::connect_pair(&a.qp, &b.qp),
        Err(Error::QueuePairState { state: "ERR", .. })
    ));
    assert_eq!(a.qp.state(), QpState::Init);
    let foreign = End::new(&Nic::new(), QpCaps::default());
    assert!(matches!(
        QueuePair::connect_pair(&a.qp, &foreign.qp),
        Err(Error::Provider { .. })
    ));
    let c = End::new(&nic, QpCaps::default());
    QueuePair::connect_pair(&a.qp, &c.qp).unwrap();
}

fn register(pd: &ProtectionDomain, memory: &Memory, length: usize, access: Access) -> ErrorKind {
    // SAFETY: REG-4 asks nothing of a registration that fails; these do.
    match unsafe { pd.register(memory.start(), length, access) } {
        Ok(_) => panic!("registered {length} bytes with {access:?}"),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            error.kind()
        }
    }
}

#[test]
fn registrations_that_are_refused() {
    let nic = Nic::builder().stepped().max_mr_size(8192).build();
    let pd = nic.alloc_pd();
    let memory = Memory::new(16384);
    let local = Access::LOCAL_WRITE;
    let invalid = ErrorKind::InvalidInput;
    assert_eq!(register(&pd, &memory, 0, local), invalid);
    assert_eq!(register(&pd, &memory, 8193, local), invalid);
    assert_eq!(register(&pd, &memory, usize::MAX, local), invalid);
    assert_eq!(register(&pd, &memory, 8, Access::REMOTE_WRITE), invalid);
    assert_eq!(register(&pd, &memory, 8, Access::REMOTE_ATOMIC), invalid);
    assert_eq!(
        register(&pd, &memory, 8, Access::from_bits_retain(1 << 20)),
        invalid
    );
    let end = NonNull::new(std::ptr::without_provenance_mut(usize::MAX - 10)).unwrap();
    // SAFETY: as in `register`.
    let wrapped = unsafe { pd.register(end, 100, local) };
    assert_eq!(wrapped.err().unwrap().kind(), invalid);
    assert_eq!(nic.stats().registrations, 0);

    // Overlapping ones are allowed, and read-only ones.
    // SAFETY: REG-4: deregistered below.
    let mut all: Vec<_> = [local, local, Access::REMOTE_READ]
        .into_iter()
        .map(|access| unsafe { pd.register(memory.start(), 8192, access) }.unwrap())
        .collect();
    assert_eq!(nic.stats().registrations, 3);
    let mut keys: Vec<u32> = all.iter().flat_map(|mr| [mr.lkey, mr.rkey]).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 6);
    for mr in &mut all {
        mr.handle.deregister().unwrap();
    }
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn one_key_of_two_over_the_same_bytes_ends_alone() {
    let pair = Pair::stepped();
    let here = pair.a.region(8);
    let there = pair.b.region(8);
    // SAFETY: REG-4: `there` outlives it; deregistered below.
    let mut lease = unsafe { pair.b.pd.register(there.memory.start(), 8, ALL) }.unwrap();
    let remote = RemoteAddr {
        addr: there.memory.addr(0),
        rkey: lease.rkey,
    };
    assert_eq!(
        pair.run(write(remote), &[here.all()]).status,
        WcStatus::Success
    );
    lease.handle.deregister().unwrap();
    let done = pair.run(write(there.remote(0)), &[here.all()]);
    assert_eq!(done.status, WcStatus::Success, "the other is in force");
    assert_remote_access_error(&pair, write(remote), &[here.all()], "ended");
}

#[test]
fn queues_that_can_not_be_made() {
    let nic = Nic::new();
    let pd = nic.alloc_pd();
    assert!(matches!(nic.create_cq(0), Err(Error::Provider { .. })));
    assert!(matches!(
        nic.create_cq(u32::MAX),
        Err(Error::Provider { .. })
    ));
    let cq = nic.create_cq(1).unwrap();
    let foreign = Nic::new().create_cq(1).unwrap();
    let make = |recv_cq, caps| pd.create_qp(&cq, recv_cq, caps);
    assert!(matches!(
        make(&foreign, QpCaps::default()),
        Err(Error::Provider { .. })
    ));
    for caps in [
        QpCaps {
            max_send_sge: 17,
            ..QpCaps::default()
        },
        QpCaps {
            max_recv_sge: 17,
            ..QpCaps::default()
        },
        QpCaps {
            max_send_wr: u32::MAX,
            ..QpCaps::default()
        },
        QpCaps {
            max_recv_wr: u32::MAX,
            ..QpCaps::default()
        },
        QpCaps {
            max_inline: u32::MAX,
            ..QpCaps::default()
        },
    ] {
        assert!(matches!(make(&cq, caps), Err(Error::Provider { .. })));
    }
    assert_eq!(nic.stats().queue_pairs, 0);
}

#[test]
fn shared_receive_queues_that_are_refused() {
    let nic = Nic::new();
    let (pd, cq) = (nic.alloc_pd(), nic.create_cq(4).unwrap());
    for (capacity, max_sge) in [(0, 1), ((1 << 14) + 1, 1), (1, 17)] {
        let refused = pd.create_srq(capacity, max_sge);
        let Err(Error::Provider { call, source }) = refused else {
            panic!("{refused:?}");
        };
        let expected = ("soft create_srq", ErrorKind::InvalidInput);
        assert_eq!((call, source.kind()), expected);
    }
    let elsewhere = Nic::new().alloc_pd().create_srq(4, 1).unwrap();
    let refused = pd.create_qp_with_srq(&cq, &cq, &elsewhere, QpCaps::default());
    assert!(matches!(refused, Err(Error::Provider { .. })));
    assert!(elsewhere.destroy().is_ok(), "nobody has joined it");
}
