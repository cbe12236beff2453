//! The end of a work request: its completions, and who goes to ERR.

use std::sync::Arc;

use super::context::QpInner;
use super::cq::Entry;
use super::delivery::complete;
use super::engine::Step;
use super::fault::VENDOR_INJECTED;
use super::message::Failure;
use super::nic::Core;
use super::ring::SendHeader;
use crate::sync::Ordering;
use crate::work::{SendFlags, SendOp, WcOpcode, WcStatus, WorkCompletion};

/// Whether it takes a receive of the responder.
pub(super) fn uses_receive(op: &SendOp) -> bool {
    matches!(op, SendOp::Send { .. } | SendOp::Write { imm: Some(_), .. })
}

fn opcode(op: &SendOp) -> WcOpcode {
    match op {
        SendOp::Send { .. } => WcOpcode::Send,
        SendOp::Write { .. } => WcOpcode::Write,
        SendOp::Read { .. } => WcOpcode::Read,
        SendOp::FetchAdd { .. } => WcOpcode::FetchAdd,
        SendOp::CompareSwap { .. } => WcOpcode::CompareSwap,
    }
}

/// Takes the work request off its queue, completes it on the side or sides that learn of it, and
/// moves to ERR who failed.
pub(super) fn finish(
    core: &Core,
    qp: &Arc<QpInner>,
    responder: Option<&Arc<QpInner>>,
    wr: &SendHeader,
    end: Result<u64, Failure>,
) -> Step {
    let (status, receive, responder_fails, vendor_err) = match end {
        Ok(_) => (
            WcStatus::Success,
            uses_receive(&wr.op).then_some(WcStatus::Success),
            false,
            0,
        ),
        Err(Failure::Here(status)) => (status, None, false, 0),
        Err(Failure::There { status, receive }) => (status, receive, true, 0),
        Err(Failure::Injected(status)) => {
            let remote = matches!(
                status,
                WcStatus::RemAccessErr | WcStatus::RemInvReqErr | WcStatus::RemOpErr
            );
            // A receive of its own is flushed like the rest; a shared one is this message's.
            let taken = remote
                && matches!(wr.op, SendOp::Send { .. })
                && responder.is_some_and(|qp| qp.srq.is_some());
            let receive = taken.then_some(WcStatus::WrFlushErr);
            (status, receive, remote, VENDOR_INJECTED)
        }
        Err(Failure::Gone) => return Step::Done,
    };
    let length = end.unwrap_or(0);
    if let Some(responder) = responder {
        // First the state, so that who polls the error finds it.
        if responder_fails {
            responder.state.set_error();
        }
        if let Some(status) = receive {
            receive_done(core, responder, wr, status, length as u32);
        }
    }
    if status.is_success() {
        // Ordering: Relaxed, both: numbers for `stats`; one thread at a time writes them.
        core.messages.fetch_add(1, Ordering::Relaxed);
        core.bytes.fetch_add(length, Ordering::Relaxed);
    } else {
        qp.state.set_error();
    }
    let Some((_, freed)) = qp.send.pop() else {
        return Step::Done;
    };
    if !status.is_success() || wr.flags.contains(SendFlags::SIGNALED) {
        let completion = WorkCompletion {
            wr_id: wr.wr_id,
            status,
            opcode: opcode(&wr.op),
            byte_len: length as u32,
            imm: None,
            qp_num: qp.num,
            vendor_err,
        };
        complete(
            core,
            &qp.send_cq,
            Entry::new(completion, qp.send.credit(), freed),
        );
    }
    Step::Done
}

/// Completes the receive at the head of the queue that the responder takes from.
fn receive_done(core: &Core, qp: &QpInner, wr: &SendHeader, status: WcStatus, length: u32) {
    let receive = match &qp.srq {
        None => qp.recv.pop(),
        // Nothing is left for `poll` to give back: its own queue is of no capacity.
        Some(srq) => srq.take().map(|receive| (receive, 0)),
    };
    let Some((recv, freed)) = receive else {
        return;
    };
    let (opcode, imm) = match wr.op {
        SendOp::Write { imm, .. } => (WcOpcode::RecvWriteWithImm, imm),
        SendOp::Send { imm } => (WcOpcode::Recv, imm),
        _ => (WcOpcode::Recv, None),
    };
    let completion = WorkCompletion {
        wr_id: recv.wr_id,
        status,
        opcode,
        byte_len: length,
        imm: imm.filter(|_| status.is_success()),
        qp_num: qp.num,
        vendor_err: 0,
    };
    let mut entry = Entry::new(completion, qp.recv.credit(), freed);
    entry.solicited |= wr.flags.contains(SendFlags::SOLICITED);
    complete(core, &qp.recv_cq, entry);
}

/// One work request of a queue pair in ERR: sends first, each queue in order.
pub(super) fn flush_one(core: &Core, qp: &QpInner) -> Step {
    let flushed = |wr_id, opcode| WorkCompletion {
        wr_id,
        status: WcStatus::WrFlushErr,
        opcode,
        byte_len: 0,
        imm: None,
        qp_num: qp.num,
        vendor_err: 0,
    };
    if let Some((wr, freed)) = qp.send.pop() {
        let completion = flushed(wr.wr_id, opcode(&wr.op));
        complete(
            core,
            &qp.send_cq,
            Entry::new(completion, qp.send.credit(), freed),
        );
    } else if let Some((wr, freed)) = qp.recv.pop() {
        let completion = flushed(wr.wr_id, WcOpcode::Recv);
        complete(
            core,
            &qp.recv_cq,
            Entry::new(completion, qp.recv.credit(), freed),
        );
    } else {
        return Step::Idle;
    }
    Step::Done
}
