//! Every operation moves the bytes that it names, and no others.

use super::*;

#[test]
fn write_moves_exactly_its_bytes_at_every_alignment() {
    let pair = Pair::new();
    let (from, to) = (pair.a.region(16384), pair.b.region(16384));
    from.memory.write(0, &pattern(1, 16384));
    for (i, (source, target, length)) in [
        (0, 0, 1),
        (3, 3, 7),
        (0, 8, 64),
        (1, 0, 4095),
        (5, 3, 4096),
        (0, 1, 4097),
        (7, 2, 12289),
        (0, 0, 16384),
    ]
    .into_iter()
    .enumerate()
    {
        to.memory.fill(0xEE);
        let op = SendOp::Write {
            remote: to.remote(target),
            imm: None,
        };
        let done = pair.run(op, &[from.sge(source, length)]);
        assert_eq!(done.status, WcStatus::Success, "{i}");
        assert_eq!(done.opcode, WcOpcode::Write);
        let mut expected = vec![0xEE; 16384];
        expected[target..target + length].copy_from_slice(&from.memory.read(source, length));
        assert!(to.memory.read(0, 16384) == expected, "case {i}");
    }
    assert_eq!(pair.nic.stats().messages, 8);
    pair.assert_silent();
}

#[test]
fn write_gathers_its_elements_in_order() {
    let pair = Pair::new();
    let (from, to) = (pair.a.region(8192), pair.b.region(8192));
    from.memory.write(0, &pattern(2, 8192));
    let op = SendOp::Write {
        remote: to.remote(10),
        imm: None,
    };
    let list = [
        from.sge(5000, 100),
        from.sge(0, 0),
        from.sge(0, 4500),
        from.sge(4999, 1),
    ];
    assert_eq!(pair.run(op, &list).status, WcStatus::Success);
    let mut expected = from.memory.read(5000, 100);
    expected.extend(from.memory.read(0, 4500));
    expected.extend(from.memory.read(4999, 1));
    assert!(to.memory.read(10, 4601) == expected);
    assert!(to.memory.read(4611, 100).iter().all(|byte| *byte == 0));
}

#[test]
fn write_with_immediate_uses_a_receive() {
    let pair = Pair::new();
    let (from, to) = (pair.a.region(100), pair.b.region(100));
    from.memory.write(0, &pattern(3, 100));
    pair.b.recv(5, &[]);
    let op = SendOp::Write {
        remote: to.remote(0),
        imm: Some(0xDEAD_BEEF),
    };
    assert_eq!(pair.run(op, &[from.all()]).status, WcStatus::Success);
    let got = pair.received();
    assert_eq!((got.wr_id, got.status), (5, WcStatus::Success));
    assert_eq!(got.opcode, WcOpcode::RecvWriteWithImm);
    assert_eq!((got.imm, got.byte_len), (Some(0xDEAD_BEEF), 100));
    assert_eq!(got.qp_num, pair.b.qp.qp_num());
    assert!(to.memory.read(0, 100) == pattern(3, 100));
}

#[test]
fn send_scatters_over_the_receive() {
    let pair = Pair::new();
    let (from, to) = (pair.a.region(9000), pair.b.region(20000));
    from.memory.write(0, &pattern(4, 9000));
    pair.b
        .recv(1, &[to.sge(100, 1), to.sge(200, 5000), to.sge(6000, 8000)]);
    pair.b.recv(2, &[to.sge(19000, 10)]);
    let sent = pair.run(SendOp::Send { imm: None }, &[from.sge(0, 9000)]);
    assert_eq!(
        (sent.status, sent.opcode),
        (WcStatus::Success, WcOpcode::Send)
    );
    let op = SendOp::Send { imm: Some(7) };
    assert_eq!(pair.run(op, &[from.sge(0, 4)]).status, WcStatus::Success);

    let got = pair.take(&pair.b.recv_cq, 2);
    assert_eq!(
        statuses(&got),
        [(1, WcStatus::Success), (2, WcStatus::Success)]
    );
    assert_eq!((got[0].byte_len, got[0].imm), (9000, None));
    assert_eq!((got[1].byte_len, got[1].imm), (4, Some(7)));
    assert!(got.iter().all(|got| got.opcode == WcOpcode::Recv));
    let bytes = pattern(4, 9000);
    let mut expected = vec![0; 20000];
    expected[100..101].copy_from_slice(&bytes[..1]);
    expected[200..5200].copy_from_slice(&bytes[1..5001]);
    expected[6000..9999].copy_from_slice(&bytes[5001..]);
    expected[19000..19004].copy_from_slice(&bytes[..4]);
    assert!(to.memory.read(0, 20000) == expected);
}

#[test]
fn read_brings_the_peers_bytes() {
    let pair = Pair::new();
    let (here, there) = (pair.a.region(9000), pair.b.region(9000));
    there.memory.write(0, &pattern(5, 9000));
    let op = SendOp::Read {
        remote: there.remote(33),
    };
    let done = pair.run(op, &[here.sge(1, 10), here.sge(100, 5000)]);
    assert_eq!(
        (done.status, done.opcode),
        (WcStatus::Success, WcOpcode::Read)
    );
    assert_eq!(done.byte_len, 5010);
    let mut expected = vec![0; 9000];
    let bytes = pattern(5, 9000);
    expected[1..11].copy_from_slice(&bytes[33..43]);
    expected[100..5100].copy_from_slice(&bytes[43..5043]);
    assert!(here.memory.read(0, 9000) == expected);
}

#[test]
fn fetch_add_and_compare_swap() {
    let pair = Pair::new();
    let (here, there) = (pair.a.region(64), pair.b.region(64));
    there.memory.store(16, u64::MAX - 1);
    let add = SendOp::FetchAdd {
        remote: there.remote(16),
        add: 3,
    };
    let done = pair.run(add, &[here.sge(8, 8)]);
    assert_eq!(
        (done.status, done.opcode),
        (WcStatus::Success, WcOpcode::FetchAdd)
    );
    assert_eq!(done.byte_len, 8);
    assert_eq!(here.memory.load(8), u64::MAX - 1);
    assert_eq!(there.memory.load(16), 1, "it wraps around");

    let swap = |compare| SendOp::CompareSwap {
        remote: there.remote(16),
        compare,
        swap: 99,
    };
    let done = pair.run(swap(2), &[here.sge(8, 8)]);
    assert_eq!(
        (done.status, done.opcode),
        (WcStatus::Success, WcOpcode::CompareSwap)
    );
    assert_eq!((here.memory.load(8), there.memory.load(16)), (1, 1));
    // The result may go to any address, and to more than one element.
    let done = pair.run(swap(1), &[here.sge(33, 5), here.sge(50, 3)]);
    assert_eq!(done.status, WcStatus::Success);
    let mut before = here.memory.read(33, 5);
    before.extend(here.memory.read(50, 3));
    assert_eq!(before, 1_u64.to_ne_bytes());
    assert_eq!(there.memory.load(16), 99);
    assert!(there.memory.read(0, 16).iter().all(|byte| *byte == 0));
    assert!(there.memory.read(24, 40).iter().all(|byte| *byte == 0));
}

#[test]
fn atomics_agree_with_those_of_the_cpu() {
    const EACH: u64 = 20_000;
    let pair = Pair::new();
    let (here, there) = (pair.a.region(8), pair.b.region(8));
    let done = AtomicBool::new(false);
    let by_cpu = std::thread::scope(|scope| {
        let cpu = scope.spawn(|| {
            let mut count = 0_u64;
            while !done.load(Ordering::Relaxed) {
                there.memory.word(0).fetch_add(1, Ordering::Relaxed);
                count += 1;
            }
            count
        });
        let op = SendOp::FetchAdd {
            remote: there.remote(0),
            add: 1,
        };
        let mut out = [WorkCompletion::EMPTY; 16];
        let (mut posted, mut polled) = (0, 0);
        let deadline = Instant::now() + LONG;
        while polled < EACH && Instant::now() < deadline {
            while posted < EACH && pair.a.try_post(posted, op, &[here.all()], SIGNALED).is_ok() {
                posted += 1;
            }
            polled += poll_or_sleep(&pair.a.send_cq, &mut out, Duration::from_millis(10)) as u64;
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(polled, EACH);
        cpu.join().unwrap()
    });
    assert_eq!(there.memory.load(0), EACH + by_cpu);
}

#[test]
fn inline_bytes_are_taken_during_the_post() {
    // Stepped, so that nothing can happen between the post and the change.
    let pair = Pair::stepped();
    let to = pair.b.region(64);
    let source = Memory::new(64);
    source.write(0, &pattern(6, 64));
    let mut element = rdma_mr::work::Sge {
        addr: source.addr(0),
        length: 40,
        lkey: 0xFFFF_FFFF,
    };
    let op = SendOp::Write {
        remote: to.remote(3),
        imm: None,
    };
    let inline = SIGNALED | SendFlags::INLINE;
    let second = rdma_mr::work::Sge {
        addr: source.addr(60),
        length: 4,
        lkey: 0,
    };
    pair.a.try_post(1, op, &[element, second], inline).unwrap();
    source.fill(0);
    drop(source);
    assert_eq!(pair.sent().status, WcStatus::Success);
    let mut expected = pattern(6, 64);
    expected.drain(40..60);
    assert!(to.memory.read(3, 44) == expected);

    // Without INLINE the key is looked at.
    element.addr = to.memory.addr(0);
    pair.a.try_post(2, op, &[element], SIGNALED).unwrap();
    assert_eq!(pair.sent().status, WcStatus::LocProtErr);
}

#[test]
fn inline_send() {
    let pair = Pair::new();
    let to = pair.b.region(64);
    pair.b.recv(1, &[to.all()]);
    let source = Memory::new(16);
    source.write(0, b"sixteen  bytes!!");
    let element = rdma_mr::work::Sge {
        addr: source.addr(0),
        length: 16,
        lkey: 0,
    };
    let op = SendOp::Send { imm: None };
    pair.a
        .try_post(
            1,
            op,
            &[element],
            SIGNALED | SendFlags::INLINE | SendFlags::SOLICITED,
        )
        .unwrap();
    assert_eq!(pair.received().byte_len, 16);
    assert_eq!(to.memory.read(0, 16), b"sixteen  bytes!!");
}

#[test]
fn nothing_can_be_sent_too() {
    let pair = Pair::new();
    pair.b.recv(1, &[]);
    assert_eq!(
        pair.run(SendOp::Send { imm: Some(1) }, &[]).status,
        WcStatus::Success
    );
    let got = pair.received();
    assert_eq!((got.byte_len, got.imm), (0, Some(1)));
    // Of an empty range neither key nor address is looked at.
    let remote = rdma_mr::work::RemoteAddr { addr: 1, rkey: 2 };
    for op in [SendOp::Write { remote, imm: None }, SendOp::Read { remote }] {
        assert_eq!(pair.run(op, &[]).status, WcStatus::Success);
    }
}

#[test]
fn fenced_and_solicited_are_accepted_and_the_order_is_kept() {
    let pair = Pair::new();
    let (here, there) = (pair.a.region(64), pair.b.region(64));
    for round in 0..50_u64 {
        there.memory.store(0, round);
        let read = SendOp::Read {
            remote: there.remote(0),
        };
        let write = SendOp::Write {
            remote: there.remote(8),
            imm: None,
        };
        // What the READ brings is what the WRITE takes along.
        pair.a
            .try_post(1, read, &[here.sge(0, 8)], SendFlags::empty())
            .unwrap();
        let flags = SIGNALED | SendFlags::FENCE | SendFlags::SOLICITED;
        pair.a.try_post(2, write, &[here.sge(0, 8)], flags).unwrap();
        assert_eq!(pair.sent().wr_id, 2);
        assert_eq!(there.memory.load(8), round);
    }
}

#[test]
fn a_queue_pair_can_talk_to_itself() {
    let nic = Nic::new();
    let end = End::new(&nic, QpCaps::default());
    end.qp.connect(end.qp.qp_num()).unwrap();
    let region = end.region(128);
    region.memory.write(0, &pattern(7, 32));
    let op = SendOp::Write {
        remote: region.remote(64),
        imm: None,
    };
    end.post(1, op, &[region.sge(0, 32)]);
    end.recv(2, &[region.sge(96, 32)]);
    end.post(3, SendOp::Send { imm: None }, &[region.sge(0, 32)]);
    let sent = take(&nic, &end.send_cq, 2);
    assert_eq!(
        statuses(&sent),
        [(1, WcStatus::Success), (3, WcStatus::Success)]
    );
    assert_eq!(take(&nic, &end.recv_cq, 1)[0].byte_len, 32);
    assert!(region.memory.read(64, 32) == pattern(7, 32));
    assert!(region.memory.read(96, 32) == pattern(7, 32));
}

#[test]
fn ping_pong_over_sleeps() {
    let pair = Pair::new();
    let (left, right) = (pair.a.region(8), pair.b.region(8));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..300_u64 {
                pair.b.recv(i, &[right.all()]);
                let got = take(&pair.nic, &pair.b.recv_cq, 1)[0];
                assert_eq!((got.wr_id, right.memory.load(0)), (i, i));
                pair.b.post(i, SendOp::Send { imm: None }, &[right.all()]);
                take(&pair.nic, &pair.b.send_cq, 1);
            }
        });
        for i in 0..300_u64 {
            if i % 50 == 0 {
                // Long enough for the NIC's thread to fall asleep.
                std::thread::sleep(Duration::from_millis(2));
            }
            left.memory.store(0, i);
            pair.a.post(i, SendOp::Send { imm: None }, &[left.all()]);
            pair.sent();
            pair.a.recv(i, &[left.all()]);
            let got = pair.take(&pair.a.recv_cq, 1)[0];
            assert_eq!((got.wr_id, left.memory.load(0)), (i, i));
        }
    });
}

#[test]
fn latency_is_kept_and_messages_travel_together() {
    let latency = Duration::from_millis(50);
    let nic = Nic::builder().latency(latency).build();
    let pair = Pair::on(&nic, QpCaps::default());
    let (from, to) = (pair.a.region(8), pair.b.region(8));
    let start = Instant::now();
    for i in 0..16 {
        let op = SendOp::Write {
            remote: to.remote(0),
            imm: None,
        };
        pair.a.post(i, op, &[from.all()]);
    }
    let mut out = [WorkCompletion::EMPTY];
    assert_eq!(poll_or_sleep(&pair.a.send_cq, &mut out, latency / 3), 0);
    pair.sent();
    assert!(start.elapsed() >= latency, "{:?}", start.elapsed());
    pair.take(&pair.a.send_cq, 15);
    // One after the other they would take 800 ms.
    assert!(start.elapsed() < 8 * latency, "{:?}", start.elapsed());
}
