//! How work requests end.

use std::fmt;

/// How a work request ended (`enum ibv_wc_status`, same numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the names are those of the verbs' manual: IBV_WC_*"
)]
pub enum WcStatus {
    Success = 0,
    LocLenErr = 1,
    LocQpOpErr = 2,
    LocEecOpErr = 3,
    LocProtErr = 4,
    WrFlushErr = 5,
    MwBindErr = 6,
    BadRespErr = 7,
    LocAccessErr = 8,
    RemInvReqErr = 9,
    RemAccessErr = 10,
    RemOpErr = 11,
    RetryExcErr = 12,
    RnrRetryExcErr = 13,
    LocRddViolErr = 14,
    RemInvRdReqErr = 15,
    RemAbortErr = 16,
    InvEecnErr = 17,
    InvEecStateErr = 18,
    FatalErr = 19,
    RespTimeoutErr = 20,
    GeneralErr = 21,
    TmErr = 22,
    TmRndvIncomplete = 23,
}

impl WcStatus {
    const ALL: [(WcStatus, &'static str); 24] = [
        (WcStatus::Success, "IBV_WC_SUCCESS"),
        (WcStatus::LocLenErr, "IBV_WC_LOC_LEN_ERR"),
        (WcStatus::LocQpOpErr, "IBV_WC_LOC_QP_OP_ERR"),
        (WcStatus::LocEecOpErr, "IBV_WC_LOC_EEC_OP_ERR"),
        (WcStatus::LocProtErr, "IBV_WC_LOC_PROT_ERR"),
        (WcStatus::WrFlushErr, "IBV_WC_WR_FLUSH_ERR"),
        (WcStatus::MwBindErr, "IBV_WC_MW_BIND_ERR"),
        (WcStatus::BadRespErr, "IBV_WC_BAD_RESP_ERR"),
        (WcStatus::LocAccessErr, "IBV_WC_LOC_ACCESS_ERR"),
        (WcStatus::RemInvReqErr, "IBV_WC_REM_INV_REQ_ERR"),
        (WcStatus::RemAccessErr, "IBV_WC_REM_ACCESS_ERR"),
        (WcStatus::RemOpErr, "IBV_WC_REM_OP_ERR"),
        (WcStatus::RetryExcErr, "IBV_WC_RETRY_EXC_ERR"),
        (WcStatus::RnrRetryExcErr, "IBV_WC_RNR_RETRY_EXC_ERR"),
        (WcStatus::LocRddViolErr, "IBV_WC_LOC_RDD_VIOL_ERR"),
        (WcStatus::RemInvRdReqErr, "IBV_WC_REM_INV_RD_REQ_ERR"),
        (WcStatus::RemAbortErr, "IBV_WC_REM_ABORT_ERR"),
        (WcStatus::InvEecnErr, "IBV_WC_INV_EECN_ERR"),
        (WcStatus::InvEecStateErr, "IBV_WC_INV_EEC_STATE_ERR"),
        (WcStatus::FatalErr, "IBV_WC_FATAL_ERR"),
        (WcStatus::RespTimeoutErr, "IBV_WC_RESP_TIMEOUT_ERR"),
        (WcStatus::GeneralErr, "IBV_WC_GENERAL_ERR"),
        (WcStatus::TmErr, "IBV_WC_TM_ERR"),
        (WcStatus::TmRndvIncomplete, "IBV_WC_TM_RNDV_INCOMPLETE"),
    ];

    /// The status with that number in `enum ibv_wc_status`; [`WcStatus::GeneralErr`] for a number
    /// that is not in it (a newer provider's).
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        Self::ALL
            .get(raw as usize)
            .map_or(WcStatus::GeneralErr, |(status, _)| *status)
    }

    /// The name in the verbs' headers, such as `IBV_WC_REM_ACCESS_ERR`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether the work request did what it said. After anything else the target's bytes are
    /// unspecified, and some may have been written (rule R12).
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, WcStatus::Success)
    }
}

impl fmt::Display for WcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What completed (`enum ibv_wc_opcode`). Meaningful only with [`WcStatus::Success`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the names are those of the verbs' manual: IBV_WC_*"
)]
pub enum WcOpcode {
    Send,
    Write,
    Read,
    CompareSwap,
    FetchAdd,
    Recv,
    RecvWriteWithImm,
    /// One that this crate does not know.
    Other(u32),
}

/// The end of one work request (`struct ibv_wc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkCompletion {
    /// The number that the work request carried.
    pub wr_id: u64,
    /// How it ended.
    pub status: WcStatus,
    /// What it was; unspecified after an error.
    pub opcode: WcOpcode,
    /// Bytes received or read; unspecified for SEND and WRITE and after an error.
    pub byte_len: u32,
    /// Immediate data that came with a receive, in host byte order.
    pub imm: Option<u32>,
    /// The queue pair that it was posted to.
    pub qp_num: u32,
    /// The provider's own code after an error.
    pub vendor_err: u32,
}

impl WorkCompletion {
    /// A value to fill the array with that [`CompletionQueue::poll`](super::CompletionQueue::poll) writes into.
    pub const EMPTY: WorkCompletion = WorkCompletion {
        wr_id: 0,
        status: WcStatus::GeneralErr,
        opcode: WcOpcode::Other(u32::MAX),
        byte_len: 0,
        imm: None,
        qp_num: 0,
        vendor_err: 0,
    };
}
