//! Receives that several queue pairs take from one queue.

use super::*;

/// Connections whose receiving ends share a queue, and the completion queue of their receives.
struct Shared {
    ends: Vec<(QueuePair, QueuePair)>,
    srq: SharedRecvQueue,
    recv_cq: CompletionQueue,
    send_cq: CompletionQueue,
    pd: std::sync::Arc<ProtectionDomain>,
    nic: Nic,
}

impl Shared {
    fn on(nic: Nic, count: usize, capacity: u32) -> Self {
        let pd = nic.alloc_pd();
        let (send_cq, recv_cq) = (nic.create_cq(256).unwrap(), nic.create_cq(256).unwrap());
        let srq = pd.create_srq(capacity, 2).unwrap();
        let ends = (0..count)
            .map(|_| {
                let caps = QpCaps::default();
                let from = pd.create_qp(&send_cq, &send_cq, caps).unwrap();
                let to = pd
                    .create_qp_with_srq(&send_cq, &recv_cq, &srq, caps)
                    .unwrap();
                QueuePair::connect_pair(&from, &to).unwrap();
                (from, to)
            })
            .collect();
        Shared {
            ends,
            srq,
            recv_cq,
            send_cq,
            pd,
            nic,
        }
    }

    fn stepped(count: usize, capacity: u32) -> Self {
        Self::on(Nic::builder().stepped().build(), count, capacity)
    }

    fn recv(&self, wr_id: u64, sge: &[Sge]) {
        recv(&self.srq, wr_id, sge).unwrap();
    }

    /// A message over the connection with that number; what its sender and its receive came to.
    fn send(&self, end: usize, sge: &[Sge]) -> (WcStatus, Vec<WorkCompletion>) {
        post(&self.ends[end].0, 50, SEND, sge, SIGNALED).unwrap();
        let sent = take(&self.nic, &self.send_cq, 1)[0];
        self.nic.run_until_idle();
        (sent.status, drain(&self.recv_cq))
    }

    fn num(&self, end: usize) -> u32 {
        self.ends[end].1.qp_num()
    }
}

fn recv(srq: &SharedRecvQueue, wr_id: u64, sge: &[Sge]) -> Result<(), Error> {
    // SAFETY: POST-2: as in `post`.
    unsafe { srq.post_recv(&RecvWr { wr_id, sge }) }
}

/// Who got which receive, and how.
fn who(completions: &[WorkCompletion]) -> Vec<(u32, u64, WcStatus)> {
    completions
        .iter()
        .map(|done| (done.qp_num, done.wr_id, done.status))
        .collect()
}

#[test]
fn the_oldest_receive_goes_to_the_next_message_whoever_it_is_for() {
    let shared = Shared::stepped(2, 16);
    let from = Region::new(&shared.pd, 8, ALL);
    let to = Region::new(&shared.pd, 64, ALL);
    for slot in 0..6 {
        shared.recv(slot, &[to.sge(8 * slot as usize, 8)]);
    }
    for (slot, end) in [0, 1, 1, 0, 1, 0].into_iter().enumerate() {
        from.memory.store(0, 100 + slot as u64);
        let (sent, got) = shared.send(end, &[from.all()]);
        assert_eq!(sent, WcStatus::Success);
        let expected = (shared.num(end), slot as u64, WcStatus::Success);
        assert_eq!(who(&got), [expected]);
        assert_eq!((got[0].byte_len, got[0].opcode), (8, WcOpcode::Recv));
        assert_eq!(to.memory.load(8 * slot), 100 + slot as u64);
    }
    // Immediate data takes one as well; a message that finds none waits for it.
    let op = SendOp::Write {
        remote: to.remote(0),
        imm: Some(7),
    };
    post(&shared.ends[1].0, 1, op, &[], SIGNALED).unwrap();
    assert_eq!(shared.nic.run_until_idle(), 0);
    shared.recv(6, &[]);
    assert_eq!(shared.nic.run_until_idle(), 1);
    let got = drain(&shared.recv_cq);
    assert_eq!(who(&got), [(shared.num(1), 6, WcStatus::Success)]);
    assert_eq!(
        (got[0].imm, got[0].opcode),
        (Some(7), WcOpcode::RecvWriteWithImm)
    );
}

#[test]
fn many_messages_of_two_queue_pairs_interleave() {
    const EACH: u64 = 3000;
    for nic in [Nic::new(), Nic::builder().stepped().seed(4).build()] {
        let shared = Shared::on(nic, 2, 16);
        let from = Region::new(&shared.pd, 16, ALL);
        let to = Region::new(&shared.pd, 8 * 16, ALL);
        from.memory.store(0, 1);
        from.memory.store(8, 2);
        let post_recv = |slot: u64| shared.recv(slot, &[to.sge(8 * slot as usize, 8)]);
        (0..16).for_each(post_recv);
        let (mut posted, mut got) = ([0; 2], [0; 2]);
        let deadline = Instant::now() + LONG;
        while got != [EACH; 2] {
            assert!(Instant::now() < deadline, "{got:?}");
            for (end, posted) in posted.iter_mut().enumerate() {
                let sge = [from.sge(8 * end, 8)];
                while *posted < EACH && post(&shared.ends[end].0, 0, SEND, &sge, SIGNALED).is_ok() {
                    *posted += 1;
                }
            }
            shared.nic.step();
            for done in drain(&shared.recv_cq) {
                assert_eq!(done.status, WcStatus::Success);
                let end = usize::from(done.qp_num == shared.num(1));
                assert_eq!(done.qp_num, shared.num(end));
                // The receive that it names has that sender's bytes.
                let at = 8 * done.wr_id as usize;
                assert_eq!(to.memory.load(at), 1 + end as u64);
                to.memory.store(at, 0);
                got[end] += 1;
                post_recv(done.wr_id);
            }
            drain(&shared.send_cq);
        }
    }
}

#[test]
fn room_comes_back_when_a_receive_is_taken() {
    let shared = Shared::stepped(1, 2);
    assert_eq!((shared.srq.capacity(), shared.srq.max_sge()), (2, 2));
    let full = |id| {
        matches!(
            recv(&shared.srq, id, &[]),
            Err(Error::QueueFull { capacity: 2 })
        )
    };
    shared.recv(0, &[]);
    shared.recv(1, &[]);
    assert!(full(2));
    post(&shared.ends[0].0, 0, SEND, &[], SIGNALED).unwrap();
    assert!(shared.nic.step());
    // Taken, though not polled.
    shared.recv(2, &[]);
    assert!(full(3));
    post(&shared.ends[0].0, 0, SEND, &[], SIGNALED).unwrap();
    assert!(shared.nic.step());
    shared.recv(3, &[]);
    assert_eq!(drain(&shared.recv_cq).len(), 2);
    assert!(full(4), "and polling gives none");
    assert!(matches!(
        recv(&shared.srq, 4, &[Sge::default(); 3]),
        Err(Error::TooManySge { given: 3, max: 2 })
    ));
}

#[test]
fn a_queue_pair_in_err_leaves_the_receives_to_the_others() {
    let shared = Shared::stepped(2, 8);
    for id in 0..3 {
        shared.recv(id, &[]);
    }
    shared.ends[0].1.modify_to_error();
    assert_eq!(shared.nic.run_until_idle(), 0, "nothing to flush");
    let (sent, got) = shared.send(0, &[]);
    assert_eq!((sent, got.len()), (WcStatus::RetryExcErr, 0));
    let (sent, got) = shared.send(1, &[]);
    assert_eq!(sent, WcStatus::Success);
    assert_eq!(who(&got), [(shared.num(1), 0, WcStatus::Success)]);
}

#[test]
fn a_receive_that_fails_with_its_queue_pair_is_over() {
    for what in ["too short", "bad key", "injected", "injected elsewhere"] {
        let shared = Shared::stepped(2, 8);
        let from = Region::new(&shared.pd, 2 * MTU, ALL);
        let to = Region::new(&shared.pd, 2 * MTU, ALL);
        let mut into = to.all();
        let inject = |status| shared.nic.inject(Fault::Completion(status), When::Nth(1));
        let (sent, received) = match what {
            "too short" => {
                into.length = 5;
                (WcStatus::RemInvReqErr, Some(WcStatus::LocLenErr))
            }
            "bad key" => {
                into.lkey = 0;
                (WcStatus::RemOpErr, Some(WcStatus::LocProtErr))
            }
            "injected" => {
                inject(WcStatus::RemOpErr);
                (WcStatus::RemOpErr, Some(WcStatus::WrFlushErr))
            }
            // The receiving end does not learn of it, and its receive stays the oldest.
            _ => {
                inject(WcStatus::LocQpOpErr);
                (WcStatus::LocQpOpErr, None)
            }
        };
        shared.recv(0, &[into]);
        shared.recv(1, &[to.all()]);
        let end = shared.send(0, &[from.all()]);
        let expected = received.map(|status| (shared.num(0), 0, status));
        assert_eq!(
            (end.0, who(&end.1)),
            (sent, Vec::from_iter(expected)),
            "{what}"
        );
        let failed = shared.ends[0].1.state() == QpState::Err;
        assert_eq!(failed, received.is_some(), "{what}");
        let (sent, got) = shared.send(1, &[from.all()]);
        assert_eq!(sent, WcStatus::Success, "{what}");
        let next = u64::from(received.is_some());
        assert_eq!(who(&got), [(shared.num(1), next, WcStatus::Success)]);
        shared.nic.run_until_idle();
        assert!(drain(&shared.recv_cq).is_empty(), "{what}");
    }
}

#[test]
fn a_failed_write_with_immediate_data_takes_no_receive() {
    let shared = Shared::stepped(2, 8);
    shared.recv(0, &[]);
    let from = Region::new(&shared.pd, 8, ALL);
    let to = Region::new(&shared.pd, 8, ALL);
    shared
        .nic
        .inject(Fault::Completion(WcStatus::RemOpErr), When::Nth(1));
    let op = SendOp::Write {
        remote: to.remote(0),
        imm: Some(1),
    };
    post(&shared.ends[0].0, 1, op, &[from.all()], SIGNALED).unwrap();
    shared.nic.run_until_idle();
    assert_eq!(shared.ends[0].1.state(), QpState::Err);
    let (_, got) = shared.send(1, &[]);
    assert_eq!(who(&got), [(shared.num(1), 0, WcStatus::Success)]);
}

#[test]
fn keys_are_those_of_the_queues_domain() {
    for own in [true, false] {
        let nic = Nic::builder().stepped().build();
        let (pd, other) = (nic.alloc_pd(), nic.alloc_pd());
        let cq = nic.create_cq(16).unwrap();
        let srq = pd.create_srq(4, 1).unwrap();
        let qp = other
            .create_qp_with_srq(&cq, &cq, &srq, QpCaps::default())
            .unwrap();
        qp.connect(qp.qp_num()).unwrap();
        let from = Region::new(&other, 8, ALL);
        let to = Region::new(if own { &pd } else { &other }, 8, ALL);
        recv(&srq, 1, &[to.all()]).unwrap();
        post(&qp, 2, SEND, &[from.all()], SIGNALED).unwrap();
        let status = |id| {
            let done = take(&nic, &cq, 2);
            done.iter().find(|done| done.wr_id == id).unwrap().status
        };
        let expected = if own {
            WcStatus::Success
        } else {
            WcStatus::LocProtErr
        };
        assert_eq!(status(1), expected);
    }
}

#[test]
fn receives_are_posted_to_the_shared_queue_only() {
    let shared = Shared::stepped(1, 4);
    let qp = &shared.ends[0].1;
    assert_eq!((qp.caps().max_recv_wr, qp.caps().max_recv_sge), (0, 0));
    // SAFETY: POST-2: it names no bytes.
    let posted = unsafe { qp.post_recv(&RecvWr { wr_id: 1, sge: &[] }) };
    match posted {
        Err(Error::InvalidWorkRequest { reason }) => assert!(reason.contains("shared queue")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn srq_3_a_queue_in_use_is_not_destroyed() {
    let Shared {
        mut ends,
        srq,
        recv_cq,
        send_cq,
        nic,
        ..
    } = Shared::stepped(2, 4);
    recv(&srq, 1, &[]).unwrap();
    recv(&srq, 2, &[]).unwrap();
    let (from, to) = ends.pop().unwrap();
    to.modify_to_error();
    drop((from, to));
    let (srq, error) = srq.destroy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert!(error.to_string().starts_with("1 queue pair"), "{error}");
    // It comes back as it was.
    let (from, to) = ends.pop().unwrap();
    post(&from, 3, SEND, &[], SIGNALED).unwrap();
    nic.run_until_idle();
    assert_eq!(statuses(&drain(&recv_cq)), [(1, WcStatus::Success)]);
    assert_eq!(drain(&send_cq).len(), 1);
    nic.inject(Fault::Destroy, When::Nth(1));
    let (to, _) = to.destroy().unwrap_err();
    let (srq, _) = srq.destroy().unwrap_err();
    to.destroy().unwrap();
    assert!(srq.destroy().is_ok());
    post(&from, 4, SEND, &[], SIGNALED).unwrap();
    nic.run_until_idle();
    assert!(drain(&recv_cq).is_empty(), "the second completes nowhere");
}

#[test]
fn dropped_it_lives_as_long_as_its_queue_pairs() {
    let Shared {
        ends,
        srq,
        recv_cq,
        nic,
        ..
    } = Shared::stepped(2, 4);
    recv(&srq, 1, &[]).unwrap();
    recv(&srq, 2, &[]).unwrap();
    drop(srq);
    for (id, (from, to)) in (1..).zip(ends) {
        post(&from, 9, SEND, &[], SIGNALED).unwrap();
        nic.run_until_idle();
        let got = who(&drain(&recv_cq));
        assert_eq!(got, [(to.qp_num(), id, WcStatus::Success)]);
    }
}

/// As `qp_4_after_the_destruction_no_byte_changes`, for receives that are shared.
#[test]
fn srq_3_after_the_destruction_no_byte_changes() {
    const LENGTH: usize = 4 << 20;
    for round in 0..20 {
        let Shared {
            mut ends,
            srq,
            recv_cq,
            pd,
            nic,
            ..
        } = Shared::on(Nic::new(), 1, 4);
        let (from, to) = ends.pop().unwrap();
        let (here, there) = (Region::new(&pd, LENGTH, ALL), Region::new(&pd, LENGTH, ALL));
        here.memory.write(0, &[1]);
        recv(&srq, 1, &[there.all()]).unwrap();
        post(&from, 1, SEND, &[here.all()], SIGNALED).unwrap();
        let deadline = Instant::now() + LONG;
        while there.memory.read(0, 1) == [0] {
            assert!(Instant::now() < deadline);
            std::hint::spin_loop();
        }
        for _ in 0..round * 50 {
            std::hint::spin_loop();
        }
        to.destroy().unwrap();
        assert!(srq.destroy().is_ok());
        let pages = (0..LENGTH).step_by(MTU);
        for page in pages.clone() {
            there.memory.write(page, &[0xEE]);
        }
        Pair::on(&nic, QpCaps::default()).run(NOTHING, &[]);
        for page in pages {
            assert_eq!(there.memory.read(page, 1), [0xEE], "round {round}");
        }
        drop((from, recv_cq));
    }
}
