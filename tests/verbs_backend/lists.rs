//! Lists of work requests in one post, and what a refusal in the middle leaves posted.

use super::*;

/// Work requests for `ops`, all signalled, each after the results of those before, numbered from
/// `first`.
fn sends<'a>(first: u64, sge: &'a [Sge], ops: &[SendOp]) -> Vec<SendWr<'a>> {
    let numbered = (first..).zip(ops);
    let wr = |(wr_id, &op)| SendWr {
        wr_id,
        sge,
        op,
        flags: SIGNALED | SendFlags::FENCE,
    };
    numbered.map(wr).collect()
}

fn post_list(qp: &QueuePair, wrs: &[SendWr<'_>]) -> Result<(), BadWr> {
    // SAFETY: as in `post`.
    unsafe { qp.post_send_list(wrs) }
}

fn recv_list(qp: &QueuePair, first: u64, lists: &[&[Sge]]) -> Result<(), BadWr> {
    let wrs: Vec<_> = (first..)
        .zip(lists)
        .map(|(wr_id, &sge)| RecvWr { wr_id, sge })
        .collect();
    // SAFETY: as in `post`.
    unsafe { qp.post_recv_list(&wrs) }
}

/// The numbers of the next completions, which are all of one status, and of no others.
fn ids(cq: &CompletionQueue, count: usize, status: WcStatus) -> Vec<u64> {
    let done = exactly(cq, count);
    for done in &done {
        assert_eq!(done.status, status, "{done:?}");
    }
    done.iter().map(|done| done.wr_id).collect()
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_list_completes_in_order() {
    let context = device();
    let pair = Pair::new(&context);
    let local = Mem::new(&pair.pd, Access::default());
    let peer = Mem::new(&pair.pd, ALL);
    peer.fill(&40_u64.to_ne_bytes());
    let remote = peer.remote(0);
    recv_list(&pair.b, 7, &[&[peer.sge(64, 64)], &[peer.sge(128, 64)]]).unwrap();
    let ops = [
        SendOp::FetchAdd { remote, add: 2 },
        SendOp::Send { imm: Some(1) },
        SendOp::Write {
            remote: peer.remote(16),
            imm: None,
        },
        SendOp::Send { imm: Some(2) },
        SendOp::Read { remote },
    ];
    post_list(&pair.a, &sends(0, &[local.sge(0, 8)], &ops)).unwrap();
    let done = exactly(&pair.a_cq, 5);
    let opcodes = [
        WcOpcode::FetchAdd,
        WcOpcode::Send,
        WcOpcode::Write,
        WcOpcode::Send,
        WcOpcode::Read,
    ];
    for ((wr_id, opcode), done) in (0..).zip(opcodes).zip(done) {
        assert_eq!((done.wr_id, done.status), (wr_id, WcStatus::Success));
        assert_eq!(done.opcode, opcode);
    }
    // One after the other: the atomic's result was sent and written, what was read last was added.
    assert_eq!(local.bytes(8), 42_u64.to_ne_bytes());
    for at in [16, 64, 128] {
        assert_eq!(peer.bytes(at + 8)[at..], 40_u64.to_ne_bytes());
    }
    let got = exactly(&pair.b_cq, 2);
    assert_eq!((got[0].wr_id, got[0].imm), (7, Some(1)));
    assert_eq!((got[1].wr_id, got[1].imm), (8, Some(2)));

    // More than the provider is handed at once; and nothing.
    let sge = [local.sge(0, 8)];
    let writes = sends(0, &sge, &[ops[2]; 50]);
    post_list(&pair.a, &writes).unwrap();
    let all: Vec<u64> = (0..50).collect();
    assert_eq!(ids(&pair.a_cq, 50, WcStatus::Success), all);
    recv_list(&pair.b, 0, &[sge.as_slice(); 50]).unwrap();
    post_list(&pair.a, &[]).unwrap();
    recv_list(&pair.b, 0, &[]).unwrap();
    pair.b.modify_to_error().unwrap();
    assert_eq!(ids(&pair.b_cq, 50, WcStatus::WrFlushErr), all);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r10_what_is_refused_here_ends_the_list_as_if_the_provider_had() {
    let context = device();
    let pair = Pair::unconnected(&context, QpCaps::default());
    let mem = Mem::new(&pair.pd, ALL);
    let sge = [mem.sge(0, 8)];
    let write = SendOp::Write {
        remote: mem.remote(64),
        imm: None,
    };
    let state = |bad: BadWr| match bad.error {
        Error::QueuePairState { state, .. } => (bad.at, state),
        other => panic!("{other:?}"),
    };
    let early = post_list(&pair.a, &sends(0, &sge, &[write; 3])).unwrap_err();
    assert_eq!(state(early), (0, "RESET"));
    let early = recv_list(&pair.a, 0, &[sge.as_slice(); 3]).unwrap_err();
    assert_eq!(state(early), (0, "RESET"));
    QueuePair::connect_loopback(&pair.a, &pair.b, None).unwrap();

    let odd = SendOp::FetchAdd {
        remote: mem.remote(68),
        add: 1,
    };
    let ops = [write, write, odd, write, write];
    let bad = post_list(&pair.a, &sends(0, &sge, &ops)).unwrap_err();
    assert_eq!(bad.at, 2);
    assert!(matches!(bad.error, Error::Misaligned { .. }));
    assert_eq!(ids(&pair.a_cq, 2, WcStatus::Success), [0, 1]);
    // In the second handful that the provider gets.
    let ops = [[write; 40].as_slice(), &[odd]].concat();
    let bad = post_list(&pair.a, &sends(0, &sge, &ops)).unwrap_err();
    assert_eq!(bad.at, 40);
    let all: Vec<u64> = (0..40).collect();
    assert_eq!(ids(&pair.a_cq, 40, WcStatus::Success), all);
    assert_eq!(pair.a.state().unwrap(), QpState::Rts);

    let many = vec![sge[0]; pair.a.caps().max_recv_sge as usize + 1];
    let bad = recv_list(&pair.a, 0, &[&sge, &[], &many, &sge]).unwrap_err();
    assert_eq!(bad.at, 2);
    assert!(matches!(bad.error, Error::TooManySge { .. }));
    pair.a.modify_to_error().unwrap();
    assert_eq!(ids(&pair.a_cq, 2, WcStatus::WrFlushErr), [0, 1]);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r10_a_queue_with_room_for_two_takes_two_of_five() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, Access::default());
    let caps = pair.a.caps();
    let full = |bad: BadWr| match bad.error {
        Error::QueueFull { capacity } => (bad.at, capacity),
        other => panic!("{other:?}"),
    };
    let sge = [mem.sge(0, 8)];
    // The peer has no receive posted: the sends stay where they are.
    let send = SendOp::Send { imm: None };
    let fill = vec![send; caps.max_send_wr as usize - 2];
    post_list(&pair.a, &sends(0, &sge, &fill)).unwrap();
    let first = u64::from(caps.max_send_wr);
    let bad = post_list(&pair.a, &sends(first, &sge, &[send; 5])).unwrap_err();
    assert_eq!(full(bad), (2, caps.max_send_wr));
    let bad = post_list(&pair.a, &sends(first + 5, &sge, &[send; 5])).unwrap_err();
    assert_eq!(full(bad), (0, caps.max_send_wr));

    // The same on the receiving side, to which nobody sends.
    let room = caps.max_recv_wr as usize;
    let bad = recv_list(&pair.a, 1000, &vec![sge.as_slice(); room + 3]).unwrap_err();
    assert_eq!(full(bad), (room, caps.max_recv_wr));
    let bad = recv_list(&pair.a, 9000, &[&sge]).unwrap_err();
    assert_eq!(full(bad), (0, caps.max_recv_wr));

    let mut want: Vec<u64> = (0..first - 2).chain([first, first + 1]).collect();
    for wr_id in &want {
        recv(&pair.b, *wr_id, &[mem.sge(64, 64)]).unwrap();
    }
    assert_eq!(ids(&pair.a_cq, want.len(), WcStatus::Success), want);
    assert_eq!(exactly(&pair.b_cq, want.len()).len(), want.len());
    pair.a.modify_to_error().unwrap();
    want = (1000..1000 + room as u64).collect();
    assert_eq!(ids(&pair.a_cq, room, WcStatus::WrFlushErr), want);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r10_a_list_that_the_provider_kept_counts_as_posted() {
    let context = device();
    let pair = Pair::new(&context);
    let mem = Mem::new(&pair.pd, ALL);
    mem.fill(b"kept");
    back_to_init(&pair.a);
    let write = SendOp::Write {
        remote: mem.remote(100),
        imm: None,
    };
    match post_list(&pair.a, &sends(0, &[mem.sge(0, 4)], &[write; 40])) {
        // It was kept, and the rest was posted in ERR: then all have to complete.
        Ok(()) => {
            let all: Vec<u64> = (0..40).collect();
            assert_eq!(ids(&pair.a_cq, 40, WcStatus::WrFlushErr), all);
            assert_eq!(pair.a.state().unwrap(), QpState::Err);
        }
        // It was refused, by a provider other than rxe: then none does.
        Err(bad) => {
            println!("{bad}");
            assert_eq!(bad.at, exactly(&pair.a_cq, bad.at).len());
        }
    }
    assert_eq!(mem.bytes(104)[100..], [0; 4]);
}
