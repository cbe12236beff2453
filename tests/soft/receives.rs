//! Messages and the receives that they find, or don't; peers that are gone.

use super::*;

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
