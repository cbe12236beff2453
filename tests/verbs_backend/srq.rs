//! Shared receive queues: who gets which receive, and what a queue pair leaves behind.

use super::*;

/// `IBV_EVENT_QP_LAST_WQE_REACHED`: a queue pair takes no more from its shared queue.
const LAST_WQE_REACHED: AsyncEvent = AsyncEvent::Other(16);

/// Two queue pairs that take from one shared queue, and their peers.
struct Shared {
    peers: [QueuePair; 2],
    peer_cq: Arc<CompletionQueue>,
    qps: [QueuePair; 2],
    send_cq: Arc<CompletionQueue>,
    recv_cq: Arc<CompletionQueue>,
    srq: SharedRecvQueue,
    mem: Mem,
    pd: Arc<ProtectionDomain>,
}

impl Shared {
    fn new(context: &Context) -> Shared {
        let pd = context.alloc_pd().unwrap();
        let [peer_cq, send_cq, recv_cq] = [(); 3].map(|()| context.create_cq(256).unwrap());
        let srq = pd.create_srq(16, 2).unwrap();
        let caps = QpCaps::default();
        let peers = [(); 2].map(|()| pd.create_qp(&peer_cq, &peer_cq, caps).unwrap());
        let make = |()| pd.create_qp_with_srq(&send_cq, &recv_cq, &srq, caps);
        let qps = [(); 2].map(|()| make(()).unwrap());
        for (peer, qp) in peers.iter().zip(&qps) {
            QueuePair::connect_loopback(peer, qp, None).unwrap();
        }
        Shared {
            peers,
            peer_cq,
            qps,
            send_cq,
            recv_cq,
            srq,
            mem: Mem::new(&pd, ALL),
            pd,
        }
    }

    /// Posts a receive of 8 bytes to the shared queue, to slot `slot` of the memory.
    fn recv(&self, slot: u64) -> rdma_mr::Result<()> {
        let sge = [self.mem.sge(8 * slot, 8)];
        // SAFETY: as in `post`.
        unsafe {
            self.srq.post_recv(&RecvWr {
                wr_id: slot,
                sge: &sge,
            })
        }
    }

    /// Sends to queue pair `to`.
    fn send(&self, to: usize, wr_id: u64) {
        let sge = [self.mem.sge(2048, 8)];
        post(
            &self.peers[to],
            wr_id,
            &sge,
            SendOp::Send { imm: None },
            SIGNALED,
        )
        .unwrap();
    }

    /// What has arrived, `count` in all: (receive, whose).
    fn arrived(&self, count: usize) -> Vec<(u64, usize)> {
        let whose = |done: &WorkCompletion| {
            assert_eq!(
                (done.status, done.opcode),
                (WcStatus::Success, WcOpcode::Recv)
            );
            self.qps
                .iter()
                .position(|qp| qp.qp_num() == done.qp_num)
                .unwrap()
        };
        let done = exactly(&self.recv_cq, count);
        done.iter().map(|done| (done.wr_id, whose(done))).collect()
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn two_queue_pairs_take_from_one_queue() {
    let context = device();
    let shared = Shared::new(&context);
    println!("asked for 16 of 2: {:?}", shared.srq);
    assert!(shared.srq.capacity() >= 16 && shared.srq.max_sge() >= 2);
    for slot in 0..3 {
        shared.recv(slot).unwrap();
    }
    // One after the other, so that it is known who takes which.
    let mut all = Vec::new();
    for (wr_id, to) in [(10, 1), (11, 0), (12, 1)] {
        shared.send(to, wr_id);
        assert_eq!(next(&shared.peer_cq).wr_id, wr_id);
        all.extend(shared.arrived(1));
    }
    assert_eq!(all, [(0, 1), (1, 0), (2, 1)]);
    // With nothing in the queue a message waits for the next receive, whoever it is for.
    shared.send(1, 13);
    shared.arrived(0);
    shared.recv(3).unwrap();
    assert_eq!(shared.arrived(1), [(3, 1)]);
    assert_eq!(next(&shared.peer_cq).status, WcStatus::Success);
    // They send as any others do.
    recv(&shared.peers[0], 4, &[shared.mem.sge(0, 8)]).unwrap();
    let send = SendOp::Send { imm: None };
    post(&shared.qps[0], 5, &[shared.mem.sge(8, 8)], send, SIGNALED).unwrap();
    assert_eq!(next(&shared.send_cq).wr_id, 5);
    assert_eq!(next(&shared.peer_cq).wr_id, 4);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r19_what_a_shared_queue_can_not_take_is_a_typed_error() {
    let context = device();
    let shared = Shared::new(&context);
    let caps = shared.qps[0].caps();
    assert_eq!((caps.max_recv_wr, caps.max_recv_sge), (0, 0));
    let sge = [shared.mem.sge(0, 8)];
    for refused in [
        recv(&shared.qps[0], 1, &sge),
        // SAFETY: as in `post`.
        unsafe {
            shared.qps[0].post_recv_list(&[RecvWr {
                wr_id: 1,
                sge: &sge,
            }])
        }
        .map_err(Error::from),
    ] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("shared queue"), "{text}");
    }
    let many = vec![sge[0]; shared.srq.max_sge() as usize + 1];
    // SAFETY: as in `post`.
    let refused = unsafe {
        shared.srq.post_recv(&RecvWr {
            wr_id: 1,
            sge: &many,
        })
    };
    assert!(matches!(refused, Err(Error::TooManySge { given, .. }) if given == many.len()));
    let capacity = shared.srq.capacity();
    for slot in 0..u64::from(capacity) {
        shared.recv(slot).unwrap();
    }
    let full = shared.recv(255).unwrap_err();
    assert!(matches!(full, Error::QueueFull { capacity: full } if full == capacity));
    // All that it took, and nothing else, arrives.
    for wr_id in 0..=u64::from(capacity) {
        shared.send(0, wr_id);
    }
    let slots = (0..u64::from(capacity))
        .map(|slot| (slot, 0))
        .collect::<Vec<_>>();
    assert_eq!(shared.arrived(capacity as usize), slots);

    let pd = context.alloc_pd().unwrap();
    for (capacity, max_sge) in [(u32::MAX, 1), (16, u32::MAX)] {
        let refused = pd.create_srq(capacity, max_sge).unwrap_err();
        assert_eq!(provider(refused).0, "ibv_create_srq");
    }
    let other = Context::open(None).unwrap();
    let foreign = other.alloc_pd().unwrap().create_srq(16, 1).unwrap();
    let cq = &shared.recv_cq;
    let refused = pd.create_qp_with_srq(cq, cq, &foreign, QpCaps::default());
    assert_eq!(
        provider(refused.unwrap_err()).1,
        io::ErrorKind::InvalidInput
    );
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r16_err_of_one_queue_pair_leaves_the_receives_to_the_other() {
    let context = device();
    let shared = Shared::new(&context);
    for slot in 0..4 {
        shared.recv(slot).unwrap();
    }
    let send = SendOp::Send { imm: None };
    shared.qps[0].modify_to_error().unwrap();
    // Its own sends are flushed; of the shared receives none is.
    post(&shared.qps[0], 5, &[shared.mem.sge(0, 8)], send, SIGNALED).unwrap();
    let flushed = next(&shared.send_cq);
    assert_eq!((flushed.wr_id, flushed.status), (5, WcStatus::WrFlushErr));
    assert_eq!(shared.arrived(0), []);
    // It says so when it takes no more; rxe again for each packet that still comes for it.
    let events = context.async_events().unwrap();
    assert!(events.contains(&LAST_WQE_REACHED), "{events:?}");
    for wr_id in 0..4 {
        shared.send(1, wr_id);
    }
    assert_eq!(shared.arrived(4), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    // A message to it takes nothing off the shared queue.
    shared.recv(6).unwrap();
    shared.send(0, 7);
    shared.send(1, 8);
    assert_eq!(shared.arrived(1), [(6, 1)]);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r12_a_receive_that_fails_is_the_only_one_that_its_queue_pair_takes_along() {
    let context = device();
    let shared = Shared::new(&context);
    for slot in 0..3 {
        shared.recv(slot).unwrap();
    }
    // Nine bytes do not fit.
    let send = SendOp::Send { imm: None };
    post(
        &shared.peers[0],
        1,
        &[shared.mem.sge(2048, 9)],
        send,
        SIGNALED,
    )
    .unwrap();
    let failed = exactly(&shared.recv_cq, 1)[0];
    // LOC_LEN_ERR by the book, LOC_QP_OP_ERR on rxe.
    assert!(failed.wr_id == 0 && !failed.status.is_success());
    assert_eq!(failed.qp_num, shared.qps[0].qp_num());
    assert_eq!(shared.qps[0].state().unwrap(), QpState::Err);
    assert!(!next(&shared.peer_cq).status.is_success());
    for wr_id in 0..2 {
        shared.send(1, wr_id);
    }
    assert_eq!(shared.arrived(2), [(1, 1), (2, 1)]);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r16_what_a_queue_pair_in_err_had_begun_may_be_lost_until_the_queue_is_gone() {
    let context = device();
    let shared = Shared::new(&context);
    let length = 16 << 20;
    let big = Mem::try_new(&shared.pd, 2 * length, ALL).unwrap();
    let half = |at: usize| [big.sge((at * length) as u64, length as u32)];
    // SAFETY: as in `post`.
    unsafe {
        shared.srq.post_recv(&RecvWr {
            wr_id: 100,
            sge: &half(0),
        })
    }
    .unwrap();
    shared.recv(1).unwrap();
    let send = SendOp::Send { imm: None };
    post(&shared.peers[0], 1, &half(1), send, SIGNALED).unwrap();
    thread::sleep(Duration::from_millis(20));
    shared.qps[0].modify_to_error().unwrap();
    let lost = next(&shared.peer_cq);
    assert!(
        !lost.status.is_success(),
        "the message was through: {lost:?}"
    );
    // The other one gets the next receive, not that one once more.
    shared.send(1, 2);
    assert_eq!(next(&shared.peer_cq).status, WcStatus::Success);
    let mut out = [WorkCompletion::EMPTY; 4];
    thread::sleep(Duration::from_millis(100));
    let got = shared.recv_cq.poll(&mut out).unwrap();
    let (begun, other): (Vec<WorkCompletion>, Vec<_>) =
        out[..got].iter().partition(|done| done.wr_id == 100);
    // On rxe there is none.
    println!("of the one that was begun: {begun:?}");
    assert!(begun.iter().all(|done| !done.status.is_success()) && begun.len() <= 1);
    assert_eq!((other.len(), other[0].wr_id), (1, 1));
    assert_eq!(other[0].qp_num, shared.qps[1].qp_num());
    // Destroying is what ends it for certain.
    let Shared {
        qps, srq, recv_cq, ..
    } = shared;
    for qp in qps {
        qp.destroy().map_err(|(_, error)| error).unwrap();
    }
    srq.destroy().map_err(|(_, error)| error).unwrap();
    assert_eq!(exactly(&recv_cq, 0), []);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_shared_queue_with_a_live_queue_pair_comes_back() {
    let context = device();
    let before = leaked();
    let shared = Shared::new(&context);
    shared.recv(0).unwrap();
    let Shared {
        peers,
        peer_cq,
        qps,
        send_cq,
        recv_cq,
        srq,
        mem,
        pd,
    } = shared;
    let (srq, error) = srq.destroy().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    // As it was: it takes receives, and gives them out.
    // SAFETY: as in `post`.
    unsafe {
        srq.post_recv(&RecvWr {
            wr_id: 1,
            sge: &[mem.sge(8, 8)],
        })
    }
    .unwrap();
    let send = SendOp::Send { imm: None };
    for (peer, wr_id) in peers.iter().zip([0, 1]) {
        post(peer, 9, &[mem.sge(64, 8)], send, SIGNALED).unwrap();
        assert_eq!(next(&recv_cq).wr_id, wr_id);
    }
    // SAFETY: as in `post`.
    unsafe {
        srq.post_recv(&RecvWr {
            wr_id: 2,
            sge: &[mem.sge(8, 8)],
        })
    }
    .unwrap();
    let [first, second] = qps;
    first.destroy().map_err(|(_, error)| error).unwrap();
    let (srq, error) = srq.destroy().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    second.destroy().map_err(|(_, error)| error).unwrap();
    srq.destroy().map_err(|(_, error)| error).unwrap();
    // What was outstanding got no completion, neither when its queue pairs went nor with the queue.
    assert_eq!(exactly(&recv_cq, 0), []);
    drop((send_cq, peer_cq, pd));
    assert_eq!(leaked(), before);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_queue_pair_keeps_its_shared_queue_alive() {
    let context = device();
    let before = leaked();
    let shared = Shared::new(&context);
    shared.recv(0).unwrap();
    let Shared {
        peers,
        peer_cq,
        qps,
        send_cq,
        recv_cq,
        srq,
        mem,
        pd,
    } = shared;
    drop(srq);
    post(
        &peers[0],
        9,
        &[mem.sge(64, 8)],
        SendOp::Send { imm: None },
        SIGNALED,
    )
    .unwrap();
    assert_eq!(next(&recv_cq).wr_id, 0);
    drop((peers, qps, peer_cq, send_cq, recv_cq, mem, pd));
    assert_eq!(leaked(), before);
}
