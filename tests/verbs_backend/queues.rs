//! What arrives: operations over two connected queue pairs, polling, waiting.

use std::os::fd::AsRawFd;

use super::*;

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn write_and_read_move_the_bytes() {
    let context = device();
    let pair = Pair::new(&context);
    let local = Mem::new(&pair.pd, Access::default());
    let peer = Mem::new(&pair.pd, ALL);
    let text: Vec<u8> = (0..4096_u32).map(|i| (i * 7 % 251) as u8).collect();
    local.fill(&text);

    // Two elements, in order, and a shift by 100.
    let write = SendOp::Write {
        remote: peer.remote(100),
        imm: None,
    };
    let done = pair.run(
        &[local.sge(1000, 1000), local.sge(0, 500)],
        write,
        SendFlags::empty(),
    );
    assert_eq!(
        (done.status, done.opcode),
        (WcStatus::Success, WcOpcode::Write)
    );
    assert_eq!(peer.bytes(4096)[100..1100], text[1000..2000]);
    assert_eq!(peer.bytes(4096)[1100..1600], text[..500]);
    assert_eq!(peer.bytes(4096)[1600..], [0; 2496]);

    peer.fill(&text);
    local.fill(&[0; 4096]);
    let read = SendOp::Read {
        remote: peer.remote(8),
    };
    let done = pair.run(&[local.sge(0, 3000)], read, SendFlags::FENCE);
    assert_eq!(
        (done.status, done.opcode),
        (WcStatus::Success, WcOpcode::Read)
    );
    assert_eq!(local.bytes(3000), text[8..3008]);

    // Inline: no key is looked at.
    local.fill(b"inline bytes");
    let mut sge = local.sge(0, 12);
    sge.lkey = 0xdead;
    let write = SendOp::Write {
        remote: peer.remote(0),
        imm: None,
    };
    let done = pair.run(&[sge], write, SendFlags::INLINE);
    assert_eq!(done.status, WcStatus::Success);
    assert_eq!(peer.bytes(12), b"inline bytes");
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn send_and_write_with_immediate_data_arrive_in_host_byte_order() {
    let context = device();
    let pair = Pair::new(&context);
    let (from, to) = (
        Mem::new(&pair.pd, Access::default()),
        Mem::new(&pair.pd, Access::LOCAL_WRITE | Access::REMOTE_WRITE),
    );
    from.fill(b"hello");
    recv(&pair.b, 5, &[to.sge(64, 64)]).unwrap();
    let send = SendOp::Send {
        imm: Some(0x1234_5678),
    };
    let done = pair.run(&[from.sge(0, 5)], send, SendFlags::SOLICITED);
    assert_eq!((done.status, done.imm), (WcStatus::Success, None));
    let got = next(&pair.b_cq);
    assert_eq!((got.wr_id, got.status), (5, WcStatus::Success));
    assert_eq!((got.opcode, got.byte_len), (WcOpcode::Recv, 5));
    assert_eq!(got.imm, Some(0x1234_5678));
    assert_eq!(got.qp_num, pair.b.qp_num());
    assert_eq!(&to.bytes(69)[64..], b"hello");

    recv(&pair.b, 6, &[]).unwrap();
    let write = SendOp::Write {
        remote: to.remote(0),
        imm: Some(u32::MAX - 1),
    };
    assert!(
        pair.run(&[from.sge(0, 5)], write, SendFlags::empty())
            .status
            .is_success()
    );
    let got = next(&pair.b_cq);
    assert_eq!((got.wr_id, got.imm), (6, Some(u32::MAX - 1)));
    assert_eq!(got.opcode, WcOpcode::RecvWriteWithImm);
    assert_eq!(to.bytes(5), b"hello");

    // Nothing sent, nothing received: no immediate data.
    recv(&pair.b, 7, &[to.sge(0, 64)]).unwrap();
    pair.run(&[], SendOp::Send { imm: None }, SendFlags::empty());
    let got = next(&pair.b_cq);
    assert_eq!((got.wr_id, got.byte_len, got.imm), (7, 0, None));
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn atomics_return_the_value_before() {
    let context = device();
    let pair = Pair::new(&context);
    let result = Mem::new(&pair.pd, Access::default());
    let peer = Mem::new(&pair.pd, ALL);
    peer.fill(&[[1_u8; 8], 40_u64.to_ne_bytes(), [1; 8]].concat());
    let value =
        |mem: &Mem, at: usize| u64::from_ne_bytes(mem.bytes(at + 8)[at..].try_into().unwrap());
    let remote = peer.remote(8);
    let add = SendOp::FetchAdd { remote, add: 2 };
    let done = pair.run(&[result.sge(16, 8)], add, SendFlags::empty());
    assert_eq!(
        (done.status, done.opcode),
        (WcStatus::Success, WcOpcode::FetchAdd)
    );
    assert_eq!((value(&result, 16), value(&peer, 8)), (40, 42));

    for (compare, before, after) in [(41, 42, 42), (42, 42, 7)] {
        let swap = SendOp::CompareSwap {
            remote,
            compare,
            swap: 7,
        };
        let done = pair.run(&[result.sge(24, 8)], swap, SendFlags::empty());
        assert_eq!(
            (done.status, done.opcode),
            (WcStatus::Success, WcOpcode::CompareSwap)
        );
        assert_eq!((value(&result, 24), value(&peer, 8)), (before, after));
    }
    assert_eq!(peer.bytes(8), [1; 8]);
    assert_eq!(&peer.bytes(24)[16..], [1; 8]);

    let odd = SendOp::FetchAdd {
        remote: peer.remote(12),
        add: 1,
    };
    assert!(matches!(
        post(&pair.a, 1, &[result.sge(0, 8)], odd, SIGNALED),
        Err(Error::Misaligned { align: 8, .. })
    ));
    // Refused before it was posted: the queue pair is well.
    assert_eq!(pair.a.state().unwrap(), QpState::Rts);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn polling_takes_more_than_one_batch_in_order() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, ALL);
    let write = SendOp::Write {
        remote: mem.remote(2048),
        imm: None,
    };
    let count = 50;
    for wr_id in 0..count {
        post(&pair.a, wr_id, &[mem.sge(0, 8)], write, SIGNALED).unwrap();
    }
    let start = Instant::now();
    let mut ids = Vec::new();
    let mut out = [WorkCompletion::EMPTY; 40];
    thread::sleep(Duration::from_millis(300));
    let mut largest = 0;
    while ids.len() < count as usize {
        assert!(start.elapsed() < PATIENCE);
        let got = pair.a_cq.poll(&mut out).unwrap();
        largest = largest.max(got);
        ids.extend(out[..got].iter().map(|done| done.wr_id));
    }
    assert_eq!(ids, (0..count).collect::<Vec<_>>());
    println!("most in one poll: {largest}");
    assert_eq!(pair.a_cq.poll(&mut []).unwrap(), 0);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn waiting_sleeps_until_the_completion_or_the_timeout() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, Access::default());
    let mut out = [WorkCompletion::EMPTY; 4];
    let start = Instant::now();
    let limit = Duration::from_millis(50);
    assert_eq!(pair.b_cq.wait(&mut out, Some(limit)).unwrap(), 0);
    assert!(start.elapsed() >= limit);
    recv(&pair.b, 1, &[mem.sge(0, 64)]).unwrap();
    recv(&pair.b, 2, &[mem.sge(0, 64)]).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for wr_id in 0..2 {
                thread::sleep(Duration::from_millis(100));
                let send = SendOp::Send { imm: None };
                post(&pair.a, wr_id, &[mem.sge(64, 8)], send, SIGNALED).unwrap();
            }
        });
        for wr_id in 1..=2 {
            let got = pair.b_cq.wait(&mut out, Some(PATIENCE)).unwrap();
            assert_eq!((got, out[0].wr_id), (1, wr_id));
        }
    });
    // Events that nobody took don't keep the queue from being destroyed.
    pair.a_cq.req_notify(false).unwrap();
    recv(&pair.b, 3, &[mem.sge(0, 64)]).unwrap();
    post(
        &pair.a,
        9,
        &[mem.sge(64, 8)],
        SendOp::Send { imm: None },
        SIGNALED,
    )
    .unwrap();
    while next(&pair.a_cq).wr_id != 9 {}
    let silent = context.create_cq(16).unwrap();
    assert!(silent.fd().is_none());
    assert!(silent.wait(&mut out, None).is_err());
    assert!(pair.a_cq.wait(&mut [], None).is_err());
}

/// Whether `poll(2)` says that the queue's descriptor can be read, within `millis`.
fn readable(cq: &impl CompletionEvents, millis: i32) -> bool {
    let mut fd = libc::pollfd {
        fd: cq.fd().unwrap().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one `pollfd`, alive for the call.
    let ready = unsafe { libc::poll(&mut fd, 1, millis) };
    assert!(ready >= 0);
    ready == 1 && fd.revents & libc::POLLIN != 0
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn an_armed_queue_makes_one_event_and_one_that_is_not_makes_none() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, Access::default());
    let send = |flags| {
        recv(&pair.b, 1, &[mem.sge(0, 64)]).unwrap();
        pair.run(&[mem.sge(64, 8)], SendOp::Send { imm: None }, flags);
    };
    let plain = SendFlags::empty();
    let cq = &pair.b_cq;

    // A completion that is there already makes no event when the queue is armed.
    send(plain);
    assert!(!readable(cq, 100));
    cq.req_notify(false).unwrap();
    assert!(!readable(cq, 100));
    assert_eq!(cq.take_events().unwrap(), 0);
    assert!(!cq.wait_event(Some(Duration::from_millis(50))).unwrap());
    assert_eq!(next(cq).wr_id, 1);

    // The next one does: one event, however many completions.
    send(plain);
    assert!(readable(cq, 10_000));
    send(plain);
    assert_eq!(cq.take_events().unwrap(), 1);
    assert!(!readable(cq, 100));
    assert_eq!(exactly(cq, 2).len(), 2);

    // Of two kinds of message, the marked one only.
    cq.req_notify(true).unwrap();
    send(plain);
    assert!(!readable(cq, 100));
    send(SendFlags::SOLICITED);
    assert!(cq.wait_event(Some(PATIENCE)).unwrap());
    assert!(!readable(cq, 100));
    assert_eq!(exactly(cq, 2).len(), 2);

    // A failure makes one as well; rxe does not when only marked ones are asked for.
    cq.req_notify(false).unwrap();
    recv(&pair.b, 2, &[mem.sge(0, 64)]).unwrap();
    pair.b.modify_to_error().unwrap();
    assert!(readable(cq, 10_000));
    assert_eq!(next(cq).status, WcStatus::WrFlushErr);

    let silent = context.create_cq(16).unwrap();
    assert!(silent.wait_event(None).is_err());
    assert_eq!(silent.take_events().unwrap(), 0);
}
