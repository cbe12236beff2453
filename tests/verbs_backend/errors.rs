//! What is refused or fails, here and by the NIC.

use super::*;

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r5_a_stale_key_is_refused_by_the_nic() {
    let context = device();
    let pair = Pair::new(&context);
    let local = Mem::new(&pair.pd, Access::default());
    let mut peer = Mem::new(&pair.pd, ALL);
    let remote = peer.remote(0);
    let write = SendOp::Write { remote, imm: None };
    local.fill(b"before");
    assert!(
        pair.run(&[local.sge(0, 6)], write, SendFlags::empty())
            .status
            .is_success()
    );
    peer.registered.handle.deregister().unwrap();
    local.fill(b"after!");
    let done = pair.run(&[local.sge(0, 6)], write, SendFlags::empty());
    assert_eq!(done.status, WcStatus::RemAccessErr);
    assert_eq!(peer.bytes(6), b"before");
    assert_eq!(pair.a.state().unwrap(), QpState::Err);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_right_that_was_not_granted_is_refused_by_the_nic() {
    let context = device();
    let pair = Pair::new(&context);
    let local = Mem::new(&pair.pd, Access::default());
    let peer = Mem::new(&pair.pd, READ);
    let write = SendOp::Write {
        remote: peer.remote(0),
        imm: None,
    };
    let done = pair.run(&[local.sge(0, 8)], write, SendFlags::empty());
    assert_eq!(done.status, WcStatus::RemAccessErr);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_full_queue_says_so_and_loses_nothing() {
    let context = device();
    let caps = QpCaps {
        max_send_wr: 4,
        max_recv_wr: 4,
        ..QpCaps::default()
    };
    let pair = Pair::unconnected(&context, caps);
    QueuePair::connect_loopback(&pair.a, &pair.b, None).unwrap();
    let mem = Mem::new(&pair.pd, Access::default());
    let caps = pair.a.caps();
    println!("asked for 4, got {caps:?}");
    // The peer has no receive posted: the sends stay where they are.
    let send = SendOp::Send { imm: None };
    let mut posted = 0;
    let full = loop {
        match post(&pair.a, posted, &[mem.sge(0, 8)], send, SIGNALED) {
            Ok(()) => posted += 1,
            Err(error) => break error,
        }
        assert!(posted < 1000);
    };
    assert!(
        matches!(full, Error::QueueFull { capacity } if capacity == caps.max_send_wr),
        "{full:?}"
    );
    assert_eq!(posted, u64::from(caps.max_send_wr));
    // Nobody sends to this side, so nothing makes room while it is filled.
    let mut received = 0;
    while recv(&pair.a, received, &[mem.sge(64, 64)]).is_ok() {
        received += 1;
    }
    assert_eq!(received, u64::from(caps.max_recv_wr));
    // The sends get through as receives come; each may be used up before the next is posted.
    for wr_id in 0..posted {
        recv(&pair.b, wr_id, &[mem.sge(64, 64)]).unwrap();
    }
    for wr_id in 0..posted {
        let done = next(&pair.a_cq);
        assert_eq!((done.wr_id, done.status), (wr_id, WcStatus::Success));
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r19_posting_what_the_queue_can_not_take_is_a_typed_error() {
    let context = device();
    let pair = Pair::unconnected(&context, QpCaps::default());
    let mem = Mem::new(&pair.pd, Access::default());
    let send = SendOp::Send { imm: None };
    // Before it is connected. rxe would keep a send that it refuses here, and carry it out later.
    assert!(matches!(
        post(&pair.a, 1, &[mem.sge(0, 8)], send, SIGNALED),
        Err(Error::QueuePairState { state: "RESET", .. })
    ));
    assert!(matches!(
        recv(&pair.a, 1, &[mem.sge(0, 8)]),
        Err(Error::QueuePairState { state: "RESET", .. })
    ));
    pair.a.init().unwrap();
    assert_eq!(pair.a.state().unwrap(), QpState::Init);
    recv(&pair.a, 9, &[mem.sge(0, 8)]).unwrap();
    assert!(matches!(
        post(&pair.a, 1, &[mem.sge(0, 8)], send, SIGNALED),
        Err(Error::QueuePairState { state: "INIT", .. })
    ));
    QueuePair::connect_loopback(&pair.a, &pair.b, None).unwrap();
    let caps = pair.a.caps();
    let many = vec![mem.sge(0, 8); caps.max_send_sge as usize + 1];
    assert!(matches!(
        post(&pair.a, 1, &many, send, SIGNALED),
        Err(Error::TooManySge { .. })
    ));
    let long = [mem.sge(0, caps.max_inline + 1)];
    assert!(matches!(
        post(&pair.a, 1, &long, send, SIGNALED | SendFlags::INLINE),
        Err(Error::InlineTooLong { .. })
    ));
    // None of the refused ones was kept: the peer's send finds the receive, and `a` sent nothing.
    let message = mem.sge(100, 4);
    post(&pair.b, 3, &[message], send, SIGNALED).unwrap();
    assert_eq!(next(&pair.b_cq).wr_id, 3);
    let got = next(&pair.a_cq);
    assert_eq!((got.wr_id, got.opcode), (9, WcOpcode::Recv));
    let mut out = [WorkCompletion::EMPTY; 4];
    assert_eq!(pair.a_cq.poll(&mut out).unwrap(), 0);

    let limit = context.limits().max_sge;
    let caps = QpCaps {
        max_send_sge: limit + 1,
        ..QpCaps::default()
    };
    let refused = pair.pd.create_qp(&pair.a_cq, &pair.a_cq, caps);
    assert!(matches!(
        refused,
        Err(Error::TooManySge { given, max }) if given == limit as usize + 1 && max == limit
    ));
    assert!(context.create_cq(0).is_err());
    assert!(context.create_cq(u32::MAX).is_err());
    let other = Context::open(None).unwrap();
    let foreign = other.create_cq(16).unwrap();
    assert!(
        pair.pd
            .create_qp(&foreign, &foreign, QpCaps::default())
            .is_err()
    );
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_work_request_that_the_provider_kept_counts_as_posted() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, ALL);
    mem.fill(b"kept");
    back_to_init(&pair.a);
    let write = SendOp::Write {
        remote: mem.remote(100),
        imm: None,
    };
    match post(&pair.a, 4711, &[mem.sge(0, 4)], write, SIGNALED) {
        // It was kept: then it has to complete.
        Ok(()) => {
            let done = next(&pair.a_cq);
            assert_eq!((done.wr_id, done.status), (4711, WcStatus::WrFlushErr));
            assert_eq!(pair.a.state().unwrap(), QpState::Err);
        }
        // It was refused, by a provider other than rxe: then it never does.
        Err(error) => println!("{error}"),
    }
    assert_eq!(mem.bytes(104)[100..], [0; 4]);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r16_err_flushes_what_is_outstanding() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, Access::default());
    for wr_id in 0..5 {
        recv(&pair.a, wr_id, &[mem.sge(0, 64)]).unwrap();
    }
    pair.a.modify_to_error().unwrap();
    for wr_id in 0..5 {
        let done = next(&pair.a_cq);
        assert_eq!((done.wr_id, done.status), (wr_id, WcStatus::WrFlushErr));
    }
    // Posting is still possible, whether or not it is ever flushed.
    recv(&pair.a, 6, &[mem.sge(0, 64)]).unwrap();
    pair.a.destroy().unwrap();
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r15_an_overrun_is_reported() {
    let context = device();
    let caps = QpCaps {
        max_recv_wr: 512,
        ..QpCaps::default()
    };
    let pd = context.alloc_pd().unwrap();
    let cq = context.create_cq(1).unwrap();
    let qp = pd.create_qp(&cq, &cq, caps).unwrap();
    let mem = Mem::new(&pd, Access::default());
    qp.init().unwrap();
    for wr_id in 0..512 {
        recv(&qp, wr_id, &[mem.sge(0, 64)]).unwrap();
    }
    println!("capacity {} for 512 receives", cq.capacity());
    qp.modify_to_error().unwrap();
    let start = Instant::now();
    loop {
        if context
            .async_events()
            .unwrap()
            .contains(&AsyncEvent::CqOverrun)
        {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no event");
        thread::sleep(Duration::from_millis(10));
    }
    let mut out = [WorkCompletion::EMPTY; 4];
    let error = cq.poll(&mut out).unwrap_err();
    assert_eq!(provider(error).0, "ibv_poll_cq");
}
