//! One message: the bytes that it moves between the requester and the responder, and how that can
//! fail on either side.

use super::context::QpInner;
use super::nic::Core;
use super::ring::{SendHeader, Taken};
use super::transfer::{Broken, Change, Cursor, Refused, change_word, transfer};
use crate::Access;
use crate::work::{RemoteAddr, SendFlags, SendOp, Sge, WcStatus};

/// How a work request failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// The requester's own fault; the responder does not learn of it.
    Here(WcStatus),
    /// The responder found it, and fails too: with that completion of its receive, if it used one.
    There {
        status: WcStatus,
        receive: Option<WcStatus>,
    },
    /// A test asked for it.
    Injected(WcStatus),
    /// The requester's queue pair is being destroyed: no completion.
    Gone,
}

/// The two ends of a message, while both are held.
pub(super) struct Ends<'a> {
    pub(super) core: &'a Core,
    pub(super) requester: &'a QpInner,
    pub(super) responder: &'a QpInner,
    /// The fault that strikes, and after how many bytes.
    pub(super) strike: Option<(WcStatus, u64)>,
}

impl Ends<'_> {
    /// Moves the bytes.
    pub(super) fn run(
        &self,
        wr: &SendHeader,
        send: &Taken,
        recv: &Taken,
        length: u64,
    ) -> Result<(), Failure> {
        let local = |needs| Cursor::local(&send.elements, self.requester.pd, needs);
        let source = || {
            if wr.flags.contains(SendFlags::INLINE) {
                Cursor::own(&send.bytes)
            } else {
                local(Access::empty())
            }
        };
        match wr.op {
            SendOp::Send { .. } => {
                let (_, pd) = self.responder.receives();
                let mut to = Cursor::local(&recv.elements, pd, Access::LOCAL_WRITE);
                self.transfer(&mut source(), &mut to, length)
                    .map_err(|end| match end {
                        Broken::From(_) => Failure::Here(WcStatus::LocProtErr),
                        Broken::To(Refused::Exhausted) => Failure::There {
                            status: WcStatus::RemInvReqErr,
                            receive: Some(WcStatus::LocLenErr),
                        },
                        Broken::To(Refused::Protection) => Failure::There {
                            status: WcStatus::RemOpErr,
                            receive: Some(WcStatus::LocProtErr),
                        },
                        Broken::Interrupted(failure) => failure,
                    })
            }
            SendOp::Write { remote, .. } => {
                let element = remote_element(remote, length);
                let mut to = self.remote(&element, Access::REMOTE_WRITE);
                self.transfer(&mut source(), &mut to, length)
                    .map_err(|end| match end {
                        Broken::From(_) => Failure::Here(WcStatus::LocProtErr),
                        Broken::To(_) => REMOTE_ACCESS,
                        Broken::Interrupted(failure) => failure,
                    })
            }
            SendOp::Read { remote } => {
                let element = remote_element(remote, length);
                let mut from = self.remote(&element, Access::REMOTE_READ);
                self.transfer(&mut from, &mut local(Access::LOCAL_WRITE), length)
                    .map_err(|end| match end {
                        Broken::From(_) => REMOTE_ACCESS,
                        Broken::To(_) => Failure::Here(WcStatus::LocProtErr),
                        Broken::Interrupted(failure) => failure,
                    })
            }
            SendOp::FetchAdd { remote, add } => {
                let mut to = local(Access::LOCAL_WRITE);
                self.atomic(remote, Change::Add(add), &mut to)
            }
            SendOp::CompareSwap {
                remote,
                compare,
                swap,
            } => {
                let mut to = local(Access::LOCAL_WRITE);
                self.atomic(remote, Change::Swap { compare, swap }, &mut to)
            }
        }?;
        // A strike at an empty message finds no packet to strike at.
        self.strike
            .map_or(Ok(()), |(status, _)| Err(Failure::Injected(status)))
    }

    fn remote<'a>(&self, element: &'a [Sge; 1], needs: Access) -> Cursor<'a> {
        Cursor::remote(element, self.responder.pd, needs)
    }

    /// As a device does: the peer's integer changes first; a result that can't be stored does not
    /// undo that.
    fn atomic(
        &self,
        remote: RemoteAddr,
        change: Change,
        to: &mut Cursor<'_>,
    ) -> Result<(), Failure> {
        let element = remote_element(remote, 8);
        let mut word = self.remote(&element, Access::REMOTE_ATOMIC);
        self.go_on(0)?;
        let before = change_word(&self.core.keys, &mut word, change)
            .map_err(|_| REMOTE_ACCESS)?
            .to_ne_bytes();
        self.transfer(&mut Cursor::own(&before), to, 8)
            .map_err(|end| match end {
                Broken::From(_) | Broken::To(_) => Failure::Here(WcStatus::LocProtErr),
                Broken::Interrupted(failure) => failure,
            })
    }

    fn transfer(
        &self,
        from: &mut Cursor<'_>,
        to: &mut Cursor<'_>,
        length: u64,
    ) -> Result<(), Broken<Failure>> {
        transfer(&self.core.keys, from, to, length, |done| self.go_on(done))
    }

    /// Asked before each packet.
    fn go_on(&self, done: u64) -> Result<(), Failure> {
        if self.requester.is_destroyed() {
            return Err(Failure::Gone);
        }
        if self.responder.is_destroyed() {
            return Err(Failure::Here(WcStatus::RetryExcErr));
        }
        match self.strike {
            Some((status, after)) if done > 0 && done >= after => Err(Failure::Injected(status)),
            _ => Ok(()),
        }
    }
}

/// What a bad rkey, bounds or rights come to.
const REMOTE_ACCESS: Failure = Failure::There {
    status: WcStatus::RemAccessErr,
    receive: None,
};

fn remote_element(remote: RemoteAddr, length: u64) -> [Sge; 1] {
    [Sge {
        addr: remote.addr,
        // Messages are no longer than `MAX_MESSAGE`.
        length: length as u32,
        lkey: remote.rkey,
    }]
}
