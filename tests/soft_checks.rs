//! The NIC in software: what it refuses, with which status on which side, and that a refusal leaves
//! the neighbours' bytes alone.
#![cfg(all(feature = "soft", not(loom)))]

mod soft_util;

use std::io::ErrorKind;
use std::ptr::NonNull;

use rdma_mr::backend::soft::{MTU, Nic, ProtectionDomain, QpState, QueuePair};
use rdma_mr::registration::Registrar;
use rdma_mr::work::{QpCaps, QueuePair as _, RemoteAddr, SendFlags, SendOp, Sge, WcStatus};
use rdma_mr::{Access, Error};
use soft_util::*;

const SEND: SendOp = SendOp::Send { imm: None };

fn write(remote: RemoteAddr) -> SendOp {
    SendOp::Write { remote, imm: None }
}

fn add(remote: RemoteAddr) -> SendOp {
    SendOp::FetchAdd { remote, add: 1 }
}

fn swap(remote: RemoteAddr) -> SendOp {
    SendOp::CompareSwap {
        remote,
        compare: 0,
        swap: 1,
    }
}

fn read(remote: RemoteAddr) -> SendOp {
    SendOp::Read { remote }
}

/// An access that the responder refuses: the requester learns it, both are in ERR, nothing else
/// completes, and what was posted is flushed.
fn assert_remote_access_error(pair: &Pair, op: SendOp, sge: &[Sge], what: &str) {
    pair.b.recv(9, &[]);
    assert_eq!(pair.run(op, sge).status, WcStatus::RemAccessErr, "{what}");
    assert_eq!(pair.a.qp.state(), QpState::Err, "{what}");
    assert_eq!(pair.b.qp.state(), QpState::Err, "{what}");
    let flushed = pair.received();
    assert_eq!(
        (flushed.wr_id, flushed.status),
        (9, WcStatus::WrFlushErr),
        "{what}"
    );
    pair.assert_silent();
}

/// This side's memory is refused: only the requester fails.
fn assert_local_protection_error(pair: &Pair, op: SendOp, sge: &[Sge], what: &str) {
    pair.b.recv(9, &[]);
    assert_eq!(pair.run(op, sge).status, WcStatus::LocProtErr, "{what}");
    assert_eq!(pair.a.qp.state(), QpState::Err, "{what}");
    assert_eq!(pair.b.qp.state(), QpState::Rts, "{what}");
    pair.assert_silent();
}

#[test]
fn remote_bounds_to_the_byte() {
    // The registration is the middle of the memory, so that there is something to hit beside it.
    const START: usize = 4096;
    const LENGTH: usize = 1000;
    for (offset, length, granted) in [
        (START, LENGTH, true),
        (START + LENGTH - 1, 1, true),
        (START, LENGTH + 1, false),
        (START - 1, 1, false),
        (START - 1, LENGTH + 1, false),
        (START + 1, LENGTH, false),
        (START + LENGTH, 1, false),
        (START, 3 * MTU, false),
    ] {
        for write_it in [true, false] {
            let what = format!("{offset} {length} write {write_it}");
            let pair = Pair::stepped();
            let memory = Memory::new(4 * 4096);
            memory.fill(0x55);
            // SAFETY: REG-4: inside of `memory`, deregistered below, before `memory` is dropped.
            let mut mr =
                unsafe { pair.b.pd.register(memory.start().add(START), LENGTH, ALL) }.unwrap();
            let here = pair.a.region(4 * 4096);
            here.memory.fill(0xAA);
            let remote = RemoteAddr {
                addr: memory.addr(offset),
                rkey: mr.rkey,
            };
            let op = if write_it {
                write(remote)
            } else {
                read(remote)
            };
            let sge = [here.sge(0, length)];
            if granted {
                assert_eq!(pair.run(op, &sge).status, WcStatus::Success, "{what}");
            } else {
                assert_remote_access_error(&pair, op, &sge, &what);
                assert!(
                    memory
                        .read(0, memory.len())
                        .iter()
                        .all(|byte| *byte == 0x55)
                );
                assert!(here.memory.read(0, length).iter().all(|byte| *byte == 0xAA));
            }
            mr.handle.deregister().unwrap();
        }
    }
}

#[test]
fn remote_addresses_that_overflow() {
    for addr in [u64::MAX, u64::MAX - 6, 0, 8] {
        let pair = Pair::stepped();
        let (here, there) = (pair.a.region(64), pair.b.region(64));
        let remote = RemoteAddr {
            addr,
            rkey: there.rkey,
        };
        for op in [write(remote), read(remote)] {
            let pair = Pair::stepped();
            let here = pair.a.region(64);
            assert_remote_access_error(&pair, op, &[here.sge(0, 8)], "overflow");
        }
        assert_remote_access_error(&pair, write(remote), &[here.sge(0, 8)], "overflow");
    }
}

#[test]
fn remote_keys_and_rights() {
    type Op = fn(RemoteAddr) -> SendOp;
    let none = Access::LOCAL_WRITE;
    let cases: [(&str, Access, Op); 6] = [
        ("WRITE to read-only", none | Access::REMOTE_READ, write),
        ("WRITE to atomic-only", none | Access::REMOTE_ATOMIC, write),
        ("READ of write-only", none | Access::REMOTE_WRITE, read),
        ("READ of local", none, read),
        (
            "FETCH_ADD without the right",
            none | Access::REMOTE_READ | Access::REMOTE_WRITE,
            add,
        ),
        (
            "CMP_SWAP without the right",
            none | Access::REMOTE_READ | Access::REMOTE_WRITE,
            swap,
        ),
    ];
    for (what, access, op) in cases {
        let pair = Pair::stepped();
        let here = pair.a.region(8);
        let there = Region::new(&pair.b.pd, 8, access);
        assert_remote_access_error(&pair, op(there.remote(0)), &[here.all()], what);
        assert_eq!(there.memory.load(0), 0, "{what}");
    }
    for op in [write, read, add, swap] {
        for what in [
            "unknown",
            "lkey",
            "stale",
            "other domain",
            "requester's domain",
        ] {
            let pair = Pair::stepped();
            let here = pair.a.region(8);
            here.memory.store(0, 1);
            let mut there = pair.b.region(8);
            let other = Region::new(&pair.nic.alloc_pd(), 8, ALL);
            let mut remote = there.remote(0);
            match what {
                "unknown" => remote.rkey = 0xFFFF_FFFF,
                "lkey" => remote.rkey = there.lkey,
                "stale" => there.deregister(),
                "other domain" => remote = other.remote(0),
                _ => remote = here.remote(0),
            }
            assert_remote_access_error(&pair, op(remote), &[here.all()], what);
            assert_eq!(
                (there.memory.load(0), other.memory.load(0)),
                (0, 0),
                "{what}"
            );
            assert_eq!(here.memory.load(0), 1, "{what}");
        }
    }
}

#[test]
fn local_keys_and_bounds() {
    for op in [write, read, add, swap, |_| SEND] {
        for what in [
            "unknown",
            "rkey",
            "stale",
            "other domain",
            "one too far",
            "before",
        ] {
            let pair = Pair::stepped();
            let there = pair.b.region(8);
            let mut here = pair.a.region(64);
            let other = Region::new(&pair.b.pd, 8, ALL);
            let mut sge = here.sge(0, 8);
            match what {
                "unknown" => sge.lkey = 0,
                "rkey" => sge.lkey = here.rkey,
                "stale" => here.deregister(),
                "other domain" => sge = other.all(),
                "one too far" => sge = here.sge(57, 8),
                _ => sge.addr -= 1,
            }
            assert_local_protection_error(&pair, op(there.remote(0)), &[sge], what);
        }
    }
}

#[test]
fn local_write_is_needed_where_the_nic_writes() {
    for op in [read, add, swap] {
        let pair = Pair::stepped();
        let there = pair.b.region(8);
        there.memory.store(0, 5);
        let here = Region::new(&pair.a.pd, 8, Access::empty());
        let op = op(there.remote(0));
        assert_local_protection_error(&pair, op, &[here.all()], "no LOCAL_WRITE");
        assert_eq!(here.memory.load(0), 0);
    }
    let pair = Pair::stepped();
    let there = pair.b.region(8);
    let here = Region::new(&pair.a.pd, 8, Access::empty());
    let done = pair.run(write(there.remote(0)), &[here.all()]);
    assert_eq!(done.status, WcStatus::Success, "a source needs no right");
}

#[test]
fn r12_a_failed_write_has_written_what_came_before() {
    let pair = Pair::stepped();
    let (here, there) = (pair.a.region(16384), pair.b.region(16384));
    here.memory.fill(1);
    let bad = Sge {
        lkey: 0,
        ..here.sge(0, 100)
    };
    let list = [here.sge(0, 8192), bad];
    assert_local_protection_error(&pair, write(there.remote(0)), &list, "second element");
    assert!(there.memory.read(0, 8192).iter().all(|byte| *byte == 1));
    assert!(there.memory.read(8192, 8192).iter().all(|byte| *byte == 0));
}

#[test]
fn receive_that_is_too_short() {
    for (room, length) in [(0, 1), (99, 100), (8192, 8193)] {
        let pair = Pair::stepped();
        let (here, there) = (pair.a.region(16384), pair.b.region(16384));
        here.memory.fill(1);
        pair.b.recv(1, &[there.sge(0, room)]);
        pair.b.recv(2, &[there.sge(0, 1)]);
        assert_eq!(
            pair.run(SEND, &[here.sge(0, length)]).status,
            WcStatus::RemInvReqErr
        );
        let got = pair.take(&pair.b.recv_cq, 2);
        assert_eq!(
            statuses(&got),
            [(1, WcStatus::LocLenErr), (2, WcStatus::WrFlushErr)]
        );
        assert_eq!(pair.a.qp.state(), QpState::Err);
        assert_eq!(pair.b.qp.state(), QpState::Err);
        assert!(
            there
                .memory
                .read(room, 16384 - room)
                .iter()
                .all(|byte| *byte == 0)
        );
        pair.assert_silent();
    }
}

#[test]
fn receive_whose_memory_is_refused() {
    for what in ["unknown", "stale", "other domain", "no right", "too far"] {
        let pair = Pair::stepped();
        let here = pair.a.region(8);
        here.memory.fill(1);
        let mut there = pair.b.region(8);
        let other = pair.a.region(8);
        let locked = Region::new(&pair.b.pd, 8, Access::REMOTE_READ);
        let mut sge = there.all();
        match what {
            "unknown" => sge.lkey = 7,
            "stale" => {}
            "other domain" => sge = other.all(),
            "no right" => sge = locked.all(),
            _ => sge = there.sge(1, 8),
        }
        pair.b.recv(1, &[sge]);
        pair.b.recv(2, &[]);
        if what == "stale" {
            // As on a device, deregistering under a posted receive succeeds.
            there.deregister();
        }
        assert_eq!(
            pair.run(SEND, &[here.all()]).status,
            WcStatus::RemOpErr,
            "{what}"
        );
        let got = pair.take(&pair.b.recv_cq, 2);
        let expected = [(1, WcStatus::LocProtErr), (2, WcStatus::WrFlushErr)];
        assert_eq!(statuses(&got), expected, "{what}");
        assert_eq!(pair.b.qp.state(), QpState::Err);
        for memory in [&there.memory, &other.memory, &locked.memory] {
            assert_eq!(memory.load(0), 0, "{what}");
        }
        pair.assert_silent();
    }
}

#[test]
fn no_receive_waits_for_one() {
    let with_imm = |remote| SendOp::Write {
        remote,
        imm: Some(1),
    };
    for op in [with_imm, |_| SEND] {
        let pair = Pair::new();
        let (here, there) = (pair.a.region(8), pair.b.region(8));
        here.memory.store(0, 3);
        pair.a.post(1, op(there.remote(0)), &[here.all()]);
        pair.assert_silent();
        assert_eq!(there.memory.load(0), 0);
        pair.b.recv(2, &[there.all()]);
        assert_eq!(pair.sent().status, WcStatus::Success);
        assert_eq!(pair.received().status, WcStatus::Success);
        assert_eq!(there.memory.load(0), 3);
    }
}

#[test]
fn no_receive_and_retries_that_run_out() {
    for threaded in [true, false] {
        for retries in [0, 1, 6] {
            let pair = if threaded {
                Pair::new()
            } else {
                Pair::stepped()
            };
            pair.a.qp.set_rnr_retry(retries);
            pair.a.post(1, SEND, &[]);
            pair.a.post(2, SEND, &[]);
            if !threaded {
                for _ in 0..retries {
                    assert!(pair.nic.step());
                    assert!(drain(&pair.a.send_cq).is_empty());
                }
                // The last try, and the flush of the second.
                assert_eq!(pair.nic.run_until_idle(), 2);
            }
            let done = pair.take(&pair.a.send_cq, 2);
            let expected = [(1, WcStatus::RnrRetryExcErr), (2, WcStatus::WrFlushErr)];
            assert_eq!(statuses(&done), expected);
            assert_eq!(pair.a.qp.state(), QpState::Err);
            assert_eq!(pair.b.qp.state(), QpState::Rts);
        }
    }
}

#[test]
fn a_receive_in_time_resets_the_retries() {
    let pair = Pair::stepped();
    pair.a.qp.set_rnr_retry(2);
    for _ in 0..5 {
        pair.a.post(1, SEND, &[]);
        assert!(pair.nic.step() && pair.nic.step());
        pair.b.recv(1, &[]);
        assert_eq!(pair.sent().status, WcStatus::Success);
    }
}

#[test]
fn peers_that_do_not_answer() {
    for what in [
        "unknown",
        "never connected",
        "connected elsewhere",
        "in ERR",
        "gone",
    ] {
        let nic = Nic::new();
        let caps = QpCaps::default();
        let mut peer = Some(End::new(&nic, caps));
        let third = End::new(&nic, caps);
        let end = End::new(&nic, caps);
        let num = peer.as_ref().unwrap().qp.qp_num();
        match what {
            "unknown" => end.qp.connect(0xFF_FFFF).unwrap(),
            "never connected" => end.qp.connect(num).unwrap(),
            "connected elsewhere" => {
                QueuePair::connect_pair(&peer.as_ref().unwrap().qp, &third.qp).unwrap();
                end.qp.connect(num).unwrap();
            }
            _ => QueuePair::connect_pair(&peer.as_ref().unwrap().qp, &end.qp).unwrap(),
        }
        match what {
            "in ERR" => peer.as_ref().unwrap().qp.modify_to_error(),
            "gone" => peer.take().unwrap().qp.destroy().unwrap(),
            _ => {}
        }
        end.post(1, SEND, &[]);
        end.post(2, SEND, &[]);
        let done = take(&nic, &end.send_cq, 2);
        let expected = [(1, WcStatus::RetryExcErr), (2, WcStatus::WrFlushErr)];
        assert_eq!(statuses(&done), expected, "{what}");
        assert_eq!(end.qp.state(), QpState::Err);
    }
}

#[test]
fn a_peer_that_leaves_while_a_message_waits_for_its_receive() {
    for destroy in [true, false] {
        let Pair { a, b, nic } = Pair::new();
        a.post(1, SEND, &[]);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(drain(&a.send_cq).is_empty());
        if destroy {
            drop(b.qp);
        } else {
            b.qp.modify_to_error();
        }
        assert_eq!(take(&nic, &a.send_cq, 1)[0].status, WcStatus::RetryExcErr);
    }
}

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
