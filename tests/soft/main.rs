//! The NIC in software by itself, without regions: what it moves, refuses, reports and flushes.
#![cfg(all(feature = "soft", not(loom)))]

#[cfg(unix)]
mod channel;
mod checks;
mod dereg;
mod faults;
mod ops;
mod order;
mod queues;
mod receives;
mod refusals;
#[path = "../soft_util/mod.rs"]
mod soft_util;
mod srq;

use std::io::ErrorKind;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{
    CompletionQueue, Distrust, Fault, MTU, Nic, ProtectionDomain, QpState, QueuePair,
    SharedRecvQueue, VENDOR_INJECTED, When,
};
use rdma_mr::registration::Registrar;
use rdma_mr::work::{
    CompletionEvents as _, CompletionQueue as _, QpCaps, QueuePair as _, RecvWr, RemoteAddr,
    SendFlags, SendOp, Sge, SharedRecvQueue as _, WcOpcode, WcStatus, WorkCompletion,
};
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

const SILENT: SendFlags = SendFlags::empty();

fn caps(max_send_wr: u32, max_recv_wr: u32) -> QpCaps {
    QpCaps {
        max_send_wr,
        max_recv_wr,
        ..QpCaps::default()
    }
}

/// A WRITE of nothing: it needs no memory and no receive.
const NOTHING: SendOp = SendOp::Write {
    remote: RemoteAddr { addr: 0, rkey: 0 },
    imm: None,
};

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
