//! Every opcode with the kind of hold that it needs (R13).

use rdma_mr::gate::Holder;
use rdma_mr::op::{Begin, Endpoint, Hold, OpId, SendRequest};
use rdma_mr::work::{QpCaps, RemoteAddr, SendFlags};
use rdma_mr::{Error, LocalMrWriteAccess, Rejected};

use super::*;
use crate::fabric::{finish, remote};

const HERE: u64 = 7;
const THERE: u64 = 5;
const IMM: u32 = 99;

/// An opcode, and what the integers are afterwards.
struct Case {
    op: SendOp,
    here: u64,
    there: u64,
    /// The message that it brings: immediate data, and the integer.
    message: Option<(Option<u32>, u64)>,
}

fn cases(remote: RemoteAddr) -> [Case; 7] {
    let case = |op, here, there, message| Case {
        op,
        here,
        there,
        message,
    };
    let (add, compare, swap) = (3, THERE, 21);
    let send = |imm| SendOp::Send { imm };
    let write = |imm| SendOp::Write { remote, imm };
    let swap = SendOp::CompareSwap {
        remote,
        compare,
        swap,
    };
    [
        case(send(None), HERE, THERE, Some((None, HERE))),
        case(send(Some(IMM)), HERE, THERE, Some((Some(IMM), HERE))),
        case(write(None), HERE, HERE, None),
        // The bytes go there, and the receive gets none.
        case(write(Some(IMM)), HERE, HERE, Some((Some(IMM), 0))),
        case(SendOp::Read { remote }, THERE, THERE, None),
        case(SendOp::FetchAdd { remote, add }, THERE, THERE + 3, None),
        case(swap, THERE, 21, None),
    ]
}

/// By the method that is named for it.
fn start<F: Fabric>(
    end: &mut Endpoint<F::Qp>,
    hold: Hold,
    op: SendOp,
) -> Result<OpId, Rejected<Hold>> {
    match op {
        SendOp::Send { imm } => end.send(hold, imm),
        SendOp::Write { remote, imm } => end.write(hold, remote, imm),
        SendOp::Read { remote } => end.read(hold, remote),
        SendOp::FetchAdd { remote, add } => end.fetch_add(hold, remote, add),
        SendOp::CompareSwap {
            remote,
            compare,
            swap,
        } => end.compare_swap(hold, remote, compare, swap),
        other => unreachable!("{other:?}"),
    }
}

#[track_caller]
fn assert_is(mr: &LocalMr, value: u64, op: SendOp) {
    let bytes = mr.try_as_slice().unwrap();
    assert_eq!(bytes[..], value.to_ne_bytes(), "{op:?}");
}

pub fn r13_every_opcode_has_its_hold<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    // SAFETY: REMOTE-1, REMOTE-2: looked at only when `a`'s operation is over.
    let mut there = unsafe { fabric.open_to_peers(&[0; 8]) };
    for case in cases(remote(&there)) {
        there.as_mut_slice().copy_from_slice(&THERE.to_ne_bytes());
        let (here, inbox) = (fabric.region(&HERE.to_ne_bytes()), fabric.alloc(8));
        if case.message.is_some() {
            b.recv(inbox.begin_write().unwrap()).unwrap();
            assert_written([&inbox]);
        }
        let writes = case.op.writes_locally();
        let hold = match writes {
            true => here.begin_write().unwrap(),
            false => here.begin_read().unwrap(),
        };
        let id = start::<F>(&mut a, hold, case.op).unwrap();
        let held = || match writes {
            true => assert_written([&here]),
            false => assert_read([&here]),
        };
        held();
        if let Some((imm, value)) = case.message {
            let got = finish(&mut b, 1)[0];
            assert_eq!((got.status, got.byte_len), (WcStatus::Success, 8));
            assert_eq!(got.imm, imm);
            assert_is(&inbox, value, case.op);
            // That it has arrived over there ends nothing here.
            held();
        }
        assert_succeeded(&finish(&mut a, 1), [id]);
        assert_free([&here, &inbox]);
        assert_is(&here, case.here, case.op);
        assert_is(&there, case.there, case.op);
        assert_eq!((a.outstanding(), b.outstanding()), ((0, 0), (0, 0)));
    }
}

pub fn r13_holds_of_the_wrong_kind_are_refused<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let mr = fabric.alloc(8);
    let refused = |rejected: Result<OpId, Rejected<Hold>>, holder| {
        let Rejected { value, error } = rejected.unwrap_err();
        let fits = matches!(error, Error::InvalidWorkRequest { .. });
        assert!(fits, "{error:?}");
        assert_eq!((value.holder(), mr.state().is_free()), (holder, false));
    };
    for Case { op, .. } in cases(remote(&mr)) {
        let (holder, inline) = (Holder::NicRead, SIGNALED | SendFlags::INLINE);
        if op.writes_locally() {
            refused(start::<F>(&mut a, mr.begin_read().unwrap(), op), holder);
            refused(a.post(mr.begin_read().unwrap(), op, SIGNALED), holder);
            // Nor is there anything to be had at once.
            let hold = mr.begin_write().unwrap();
            refused(a.post(hold, op, inline), Holder::NicWrite);
        } else {
            let hold = mr.begin_write().unwrap();
            refused(start::<F>(&mut a, hold, op), Holder::NicWrite);
            let hold = mr.begin_write().unwrap();
            refused(a.post(hold, op, SIGNALED), Holder::NicWrite);
        }
    }
    refused(a.recv(mr.begin_read().unwrap()), Holder::NicRead);
    // One in a list: none of it is posted.
    let good = fabric.alloc(8);
    let request = |holds, op| SendRequest {
        holds,
        op,
        flags: SIGNALED,
    };
    let list = [
        request(good.begin_read().unwrap(), SEND),
        request(mr.begin_write().unwrap(), SEND),
    ];
    let partly = a.post_list(list).unwrap_err();
    assert!(partly.posted == 0 && matches!(partly.error, Error::InvalidWorkRequest { .. }));
    let list = [good.begin_write().unwrap(), mr.begin_read().unwrap()];
    assert_eq!(a.recv_list(list).unwrap_err().posted, 0);
    assert_free([&mr, &good]);
    assert_eq!(a.outstanding(), (0, 0));
}

pub fn r13_inline_is_over_when_the_post_has_returned<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let inline = SIGNALED | SendFlags::INLINE;
    let to = words(fabric, 3);
    for mr in &to {
        b.recv(mr.begin_write().unwrap()).unwrap();
    }
    let mut from = fabric.region(&1u64.to_ne_bytes());
    let first = a.post(from.begin_read().unwrap(), SEND, inline).unwrap();
    // Free, and ours to change: the NIC has its copy.
    from.try_as_mut_slice()
        .unwrap()
        .copy_from_slice(&2u64.to_ne_bytes());
    let request = |flags| SendRequest {
        holds: from.begin_read().unwrap(),
        op: SEND,
        flags,
    };
    a.post_list([request(inline), request(SIGNALED)]).unwrap();
    assert_read([&from]); // by the second one of the list, which is not inline
    assert_eq!(a.outstanding().0, 3, "the queue's room is another matter");
    finish(&mut b, 3);
    let all = finish(&mut a, 3);
    assert_succeeded(&all, (0..3).map(|n| first.after(n)));
    assert_free([&from]);
    for (mr, value) in to.iter().zip([1, 2, 2]) {
        assert_is(mr, value, SEND);
    }
}
