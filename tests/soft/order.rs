//! Seeds, steps, and the order between queue pairs.

use super::*;

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
                    let cq = &pair.a.send_cq;
                    let got = if wait {
                        poll_or_sleep(cq, &mut out, Duration::from_millis(1))
                    } else {
                        cq.poll(&mut out).unwrap()
                    };
                    mine.extend(out[..got].iter().map(|done| (done.wr_id, done.status)));
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
