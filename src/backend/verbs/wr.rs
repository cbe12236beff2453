//! Work requests and completions: from the crate's plain data to the C structures and back, and the
//! checks that the providers leave to the caller.

use std::ffi::c_int;
use std::mem::{self, offset_of};
use std::ptr;

use rdma_sys::{
    atomic_t, ibv_recv_wr, ibv_send_wr, ibv_sge, ibv_wc, ibv_wc_flags, ibv_wc_opcode,
    ibv_wr_opcode, imm_data_invalidated_rkey_union_t, rdma_t, wr_t,
};

use crate::error::{Error, Result};
use crate::work::{
    QpCaps, RecvWr, SendFlags, SendOp, SendWr, Sge, WcOpcode, WcStatus, WorkCompletion,
};

/// The longest message of a reliable connection.
const MAX_MESSAGE: u64 = 1 << 31;

// The provider reads the caller's scatter/gather list where it is.
const _: () = {
    assert!(size_of::<Sge>() == size_of::<ibv_sge>() && align_of::<Sge>() == align_of::<ibv_sge>());
    assert!(offset_of!(Sge, addr) == offset_of!(ibv_sge, addr));
    assert!(offset_of!(Sge, length) == offset_of!(ibv_sge, length));
    assert!(offset_of!(Sge, lkey) == offset_of!(ibv_sge, lkey));
};

/// A scatter/gather list as C takes it.
struct SgeList {
    /// The caller's; providers only read it.
    list: *mut ibv_sge,
    count: c_int,
    /// Bytes of all elements together.
    bytes: u64,
}

impl SgeList {
    /// Of `sge`, of which the queue takes `max` elements.
    fn new(sge: &[Sge], max: u32) -> Result<Self> {
        let given = sge.len();
        let count = match c_int::try_from(given) {
            Ok(count) if given <= max as usize => count,
            _ => return Err(Error::TooManySge { given, max }),
        };
        let bytes = sge.iter().map(|sge| u64::from(sge.length)).sum();
        if bytes > MAX_MESSAGE {
            return Err(Error::InvalidWorkRequest {
                reason: "a message has 2^31 bytes at most",
            });
        }
        Ok(SgeList {
            list: sge.as_ptr().cast_mut().cast(),
            count,
            bytes,
        })
    }
}

/// Refuses what providers take but can't carry out, or refuse without saying why.
fn check(wr: &SendWr<'_>, list: &SgeList, caps: &QpCaps) -> Result<()> {
    let refuse = |reason| Err(Error::InvalidWorkRequest { reason });
    if !SendFlags::all().contains(wr.flags) {
        return refuse("unknown send flags");
    }
    if wr.flags.contains(SendFlags::INLINE) {
        if wr.op.writes_locally() {
            return refuse("a READ or an atomic can't be INLINE: it writes to this side");
        }
        if list.bytes > u64::from(caps.max_inline) {
            return Err(Error::InlineTooLong {
                given: list.bytes as usize,
                max: caps.max_inline,
            });
        }
    }
    if let (true, Some(remote)) = (wr.op.is_atomic(), wr.op.remote()) {
        remote.check_aligned()?;
        if list.count != 1 || list.bytes != 8 {
            return refuse("an atomic's result takes one scatter/gather element of 8 bytes");
        }
    }
    Ok(())
}

/// The C form of `wr`, which points to its scatter/gather list.
pub(super) fn send(wr: &SendWr<'_>, caps: &QpCaps) -> Result<ibv_send_wr> {
    use ibv_wr_opcode as op;

    let list = SgeList::new(wr.sge, caps.max_send_sge)?;
    check(wr, &list, caps)?;
    // SAFETY: all zeros is a valid `ibv_send_wr`: numbers, and pointers that may be null.
    let mut raw: ibv_send_wr = unsafe { mem::zeroed() };
    raw.wr_id = wr.wr_id;
    raw.sg_list = list.list;
    raw.num_sge = list.count;
    raw.send_flags = wr.flags.bits();
    let rdma = |remote: crate::work::RemoteAddr| wr_t {
        rdma: rdma_t {
            remote_addr: remote.addr,
            rkey: remote.rkey,
        },
    };
    let atomic = |remote: crate::work::RemoteAddr, compare_add, swap| wr_t {
        atomic: atomic_t {
            remote_addr: remote.addr,
            compare_add,
            swap,
            rkey: remote.rkey,
        },
    };
    let mut imm_data = None;
    raw.opcode = match wr.op {
        SendOp::Send { imm } => {
            imm_data = imm;
            match imm {
                None => op::IBV_WR_SEND,
                Some(_) => op::IBV_WR_SEND_WITH_IMM,
            }
        }
        SendOp::Write { remote, imm } => {
            raw.wr = rdma(remote);
            imm_data = imm;
            match imm {
                None => op::IBV_WR_RDMA_WRITE,
                Some(_) => op::IBV_WR_RDMA_WRITE_WITH_IMM,
            }
        }
        SendOp::Read { remote } => {
            raw.wr = rdma(remote);
            op::IBV_WR_RDMA_READ
        }
        SendOp::FetchAdd { remote, add } => {
            raw.wr = atomic(remote, add, 0);
            op::IBV_WR_ATOMIC_FETCH_AND_ADD
        }
        SendOp::CompareSwap {
            remote,
            compare,
            swap,
        } => {
            raw.wr = atomic(remote, compare, swap);
            op::IBV_WR_ATOMIC_CMP_AND_SWP
        }
    };
    if let Some(imm) = imm_data {
        raw.imm_data_invalidated_rkey_union = imm_data_invalidated_rkey_union_t {
            imm_data: imm.to_be(),
        };
    }
    Ok(raw)
}

/// The C form of `wr`, which points to its scatter/gather list; the queue takes `max_sge` elements.
pub(super) fn recv(wr: &RecvWr<'_>, max_sge: u32) -> Result<ibv_recv_wr> {
    let list = SgeList::new(wr.sge, max_sge)?;
    Ok(ibv_recv_wr {
        wr_id: wr.wr_id,
        next: ptr::null_mut(),
        sg_list: list.list,
        num_sge: list.count,
    })
}

/// A completion in the crate's form.
pub(super) fn completion(wc: &ibv_wc) -> WorkCompletion {
    // rxe sets the flag on the completion of the send, too.
    let has_imm = wc.opcode & ibv_wc_opcode::IBV_WC_RECV != 0
        && wc.wc_flags & ibv_wc_flags::IBV_WC_WITH_IMM.0 != 0;
    WorkCompletion {
        wr_id: wc.wr_id,
        status: WcStatus::from_raw(wc.status),
        opcode: match wc.opcode {
            ibv_wc_opcode::IBV_WC_SEND => WcOpcode::Send,
            ibv_wc_opcode::IBV_WC_RDMA_WRITE => WcOpcode::Write,
            ibv_wc_opcode::IBV_WC_RDMA_READ => WcOpcode::Read,
            ibv_wc_opcode::IBV_WC_COMP_SWAP => WcOpcode::CompareSwap,
            ibv_wc_opcode::IBV_WC_FETCH_ADD => WcOpcode::FetchAdd,
            ibv_wc_opcode::IBV_WC_RECV => WcOpcode::Recv,
            ibv_wc_opcode::IBV_WC_RECV_RDMA_WITH_IMM => WcOpcode::RecvWriteWithImm,
            other => WcOpcode::Other(other),
        },
        byte_len: wc.byte_len,
        imm: has_imm.then(|| {
            // SAFETY: both fields of the union are 32-bit numbers, and `wc` is initialised.
            u32::from_be(unsafe { wc.imm_data_invalidated_rkey_union.imm_data })
        }),
        qp_num: wc.qp_num,
        vendor_err: wc.vendor_err,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::RemoteAddr;

    const SGE: Sge = Sge {
        addr: 0x1000,
        length: 8,
        lkey: 7,
    };

    fn built(op: SendOp, sge: &[Sge], flags: SendFlags) -> Result<ibv_send_wr> {
        let caps = QpCaps::default();
        let wr = SendWr {
            wr_id: 1,
            sge,
            op,
            flags,
        };
        send(&wr, &caps)
    }

    #[test]
    fn the_structures_have_the_size_of_the_headers() {
        assert_eq!(size_of::<ibv_wc>(), 48);
        assert_eq!(offset_of!(ibv_wc, wc_flags), 36);
        assert_eq!(size_of::<ibv_send_wr>(), 128);
        assert_eq!(offset_of!(ibv_send_wr, wr), 40);
        assert_eq!(size_of::<rdma_sys::ibv_qp_attr>(), 144);
        assert_eq!(size_of::<rdma_sys::rdma_cm_event>(), 80);
        assert_eq!(size_of::<rdma_sys::rdma_cm_id>(), 416);
    }

    #[test]
    fn immediate_data_goes_out_in_network_byte_order() {
        let send = SendOp::Send {
            imm: Some(0x0102_0304),
        };
        let raw = built(send, &[SGE], SendFlags::SIGNALED).unwrap();
        assert_eq!(raw.opcode, ibv_wr_opcode::IBV_WR_SEND_WITH_IMM);
        assert_eq!(raw.send_flags, 2);
        // SAFETY: a number in either form.
        let imm = unsafe { raw.imm_data_invalidated_rkey_union.imm_data };
        assert_eq!(imm.to_ne_bytes(), [1, 2, 3, 4]);
    }

    #[test]
    fn r19_what_no_queue_can_take_is_refused_before_it_is_posted() {
        let remote = RemoteAddr {
            addr: 0x2004,
            rkey: 9,
        };
        let add = SendOp::FetchAdd { remote, add: 1 };
        let none = SendFlags::empty();
        assert!(matches!(
            built(add, &[SGE], none),
            Err(Error::Misaligned {
                addr: 0x2004,
                align: 8
            })
        ));
        let remote = RemoteAddr {
            addr: 0x2008,
            ..remote
        };
        let add = SendOp::FetchAdd { remote, add: 1 };
        assert!(built(add, &[SGE], none).is_ok());
        for (op, sge, flags) in [
            (add, vec![], none),
            (add, vec![SGE, SGE], none),
            (SendOp::Read { remote }, vec![SGE], SendFlags::INLINE),
            (add, vec![SGE], SendFlags::from_bits_retain(1 << 9)),
            (
                SendOp::Read { remote },
                vec![Sge {
                    length: u32::MAX,
                    ..SGE
                }],
                none,
            ),
        ] {
            assert!(matches!(
                built(op, &sge, flags),
                Err(Error::InvalidWorkRequest { .. })
            ));
        }
        let send = SendOp::Send { imm: None };
        assert!(matches!(
            built(send, &[SGE; 5], none),
            Err(Error::TooManySge { given: 5, max: 4 })
        ));
        let long = Sge { length: 65, ..SGE };
        assert!(matches!(
            built(send, &[long], SendFlags::INLINE),
            Err(Error::InlineTooLong { given: 65, max: 64 })
        ));
    }
}
