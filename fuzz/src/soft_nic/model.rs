//! What the NIC should do, a byte at a time where it can be: registrations are looked for one by one, queues are lists.

use std::collections::VecDeque;
use std::ops::Range;

use rdma_mr::Access;
use rdma_mr::work::{SendFlags, SendOp, Sge, WcStatus};

/// Which of a registration's keys is meant.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Local,
    Remote,
}

/// A registration, also one that has ended.
#[derive(Clone, Debug)]
pub struct Registration {
    pub range: Range<usize>,
    pub access: Access,
    pub domain: usize,
    pub lkey: u32,
    pub rkey: u32,
    pub live: bool,
}

/// A work request that was posted.
#[derive(Clone, Debug)]
pub struct Send {
    pub wr_id: u64,
    pub op: SendOp,
    pub flags: SendFlags,
    pub elements: Vec<Sge>,
    /// The bytes of an inline one, as they were when it was posted.
    pub inline: Vec<u8>,
}

/// A receive that was posted.
#[derive(Clone, Debug)]
pub struct Recv {
    pub wr_id: u64,
    pub elements: Vec<Sge>,
}

/// What is told of the end of a work request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    pub wr_id: u64,
    pub status: WcStatus,
    pub imm: Option<u32>,
    pub byte_len: Option<u64>,
}

/// Why a side can't go on.
enum Refused {
    Protection,
    Exhausted,
}

enum Broken {
    From,
    To(Refused),
}

/// How a message failed: its status, that of the receive that it used, and whether the other side fails, too.
type Failure = (WcStatus, Option<WcStatus>, bool);

/// Two queue pairs: the first sends to the second.
pub struct Model {
    /// Where the memory starts.
    pub base: u64,
    pub memory: Vec<u8>,
    pub registrations: Vec<Registration>,
    pub sends: VecDeque<Send>,
    pub recvs: VecDeque<Recv>,
    /// Whether each is in ERR.
    pub failed: [bool; 2],
    /// How often a missing receive is tried again; `None`: for ever.
    pub retries: Option<u64>,
    pub tries: u64,
    pub sent: Vec<End>,
    pub received: Vec<End>,
}

/// One side of a message.
struct Side<'a> {
    elements: &'a [Sge],
    key: Key,
    domain: usize,
    needs: Access,
    next: usize,
    left: Range<usize>,
    own: Option<Vec<u8>>,
}

impl<'a> Side<'a> {
    fn new(elements: &'a [Sge], key: Key, needs: Access) -> Self {
        let domain = 0;
        let (next, left, own) = (0, 0..0, None);
        Side {
            elements,
            key,
            domain,
            needs,
            next,
            left,
            own,
        }
    }

    fn of_second(self) -> Self {
        Side { domain: 1, ..self }
    }

    fn own(bytes: Vec<u8>) -> Self {
        let mut side = Side::new(&[], Key::Local, Access::empty());
        side.left = 0..bytes.len();
        side.own = Some(bytes);
        side
    }

    fn seek(&mut self, model: &Model) -> Result<(), Refused> {
        while self.left.is_empty() {
            let element = self.elements.get(self.next).ok_or(Refused::Exhausted)?;
            self.next += 1;
            if element.length > 0 {
                let found = model.resolve(self.key, element, self.domain, self.needs);
                self.left = found.ok_or(Refused::Protection)?;
            }
        }
        Ok(())
    }
}

fn length(elements: &[Sge]) -> u64 {
    elements.iter().map(|sge| u64::from(sge.length)).sum()
}

impl Model {
    /// The bytes that the element names, if it may.
    fn resolve(&self, key: Key, sge: &Sge, domain: usize, needs: Access) -> Option<Range<usize>> {
        let named = |one: &&Registration| {
            let own = match key {
                Key::Local => one.lkey,
                Key::Remote => one.rkey,
            };
            one.live && own == sge.lkey
        };
        let one = self.registrations.iter().find(named)?;
        if one.domain != domain || !one.access.contains(needs) {
            return None;
        }
        // No wrapping in this width.
        let start = i128::from(sge.addr) - i128::from(self.base);
        let end = start + i128::from(sge.length);
        let inside = one.range.start as i128 <= start && end <= one.range.end as i128;
        inside.then_some(start as usize..end as usize)
    }

    /// What the second one's bytes are that the first one names.
    fn remote(op: &SendOp, length: u64) -> [Sge; 1] {
        let remote = op.remote().unwrap_or_default();
        [Sge {
            addr: remote.addr,
            length: length as u32,
            lkey: remote.rkey,
        }]
    }

    fn transfer(
        &mut self,
        from: &mut Side<'_>,
        to: &mut Side<'_>,
        length: u64,
        real: &[u8],
    ) -> Result<(), Broken> {
        let mut done = 0;
        while done < length {
            from.seek(self).map_err(|_| Broken::From)?;
            to.seek(self).map_err(Broken::To)?;
            let step = from.left.len().min(to.left.len());
            let (read, write) = (from.left.start, to.left.start);
            let target = write..write + step;
            match &from.own {
                Some(bytes) => {
                    self.memory[target].copy_from_slice(&bytes[read..read + step]);
                }
                // Which bytes come of a copy onto itself is the NIC's affair.
                None if read < write + step && write < read + step => {
                    self.memory[target.clone()].copy_from_slice(&real[target]);
                }
                None => self.memory.copy_within(read..read + step, write),
            }
            from.left.start += step;
            to.left.start += step;
            done += step as u64;
        }
        Ok(())
    }

    /// Does what the work request says.
    fn message(&mut self, send: &Send, recv: Option<&Recv>, real: &[u8]) -> Result<u64, Failure> {
        const REMOTE: Failure = (WcStatus::RemAccessErr, None, true);
        const LOCAL: Failure = (WcStatus::LocProtErr, None, false);
        let inline = send.flags.contains(SendFlags::INLINE);
        let length = length(&send.elements);
        let remote = Self::remote(&send.op, length);
        let mut source = match inline {
            true => Side::own(send.inline.clone()),
            false => Side::new(&send.elements, Key::Local, Access::empty()),
        };
        let mut target = Side::new(&send.elements, Key::Local, Access::LOCAL_WRITE);
        match send.op {
            SendOp::Send { .. } => {
                let elements = recv.map_or(&[][..], |recv| &recv.elements);
                let mut to = Side::new(elements, Key::Local, Access::LOCAL_WRITE).of_second();
                self.transfer(&mut source, &mut to, length, real).map_err(
                    |broken| match broken {
                        Broken::From => LOCAL,
                        Broken::To(Refused::Exhausted) => {
                            (WcStatus::RemInvReqErr, Some(WcStatus::LocLenErr), true)
                        }
                        Broken::To(Refused::Protection) => {
                            (WcStatus::RemOpErr, Some(WcStatus::LocProtErr), true)
                        }
                    },
                )?;
            }
            SendOp::Write { .. } => {
                let mut to = Side::new(&remote, Key::Remote, Access::REMOTE_WRITE).of_second();
                self.transfer(&mut source, &mut to, length, real).map_err(
                    |broken| match broken {
                        Broken::From => LOCAL,
                        Broken::To(_) => REMOTE,
                    },
                )?;
            }
            SendOp::Read { .. } => {
                let mut from = Side::new(&remote, Key::Remote, Access::REMOTE_READ).of_second();
                self.transfer(&mut from, &mut target, length, real)
                    .map_err(|broken| match broken {
                        Broken::From => REMOTE,
                        Broken::To(_) => LOCAL,
                    })?;
            }
            op => {
                let element = &remote[0];
                let word = self
                    .resolve(Key::Remote, element, 1, Access::REMOTE_ATOMIC)
                    .ok_or(REMOTE)?;
                let mut before = [0; 8];
                before.copy_from_slice(&self.memory[word.clone()]);
                let old = u64::from_ne_bytes(before);
                let new = match op {
                    SendOp::FetchAdd { add, .. } => old.wrapping_add(add),
                    SendOp::CompareSwap { compare, swap, .. } if compare == old => swap,
                    _ => old,
                };
                self.memory[word].copy_from_slice(&new.to_ne_bytes());
                self.transfer(&mut Side::own(before.to_vec()), &mut target, 8, real)
                    .map_err(|_| LOCAL)?;
            }
        }
        Ok(length)
    }

    /// The first one's turn: whether it does anything. `real` is the memory as the NIC left it.
    pub fn first(&mut self, real: &[u8]) -> bool {
        let Some(send) = self.sends.front().cloned() else {
            return false;
        };
        if self.failed[0] {
            self.finish(&send, (WcStatus::WrFlushErr, None, false));
            return true;
        }
        if self.failed[1] {
            self.finish(&send, (WcStatus::RetryExcErr, None, false));
            return true;
        }
        let imm = match send.op {
            SendOp::Send { imm } | SendOp::Write { imm, .. } => imm,
            _ => None,
        };
        let uses = matches!(send.op, SendOp::Send { .. }) || imm.is_some();
        let recv = self.recvs.front().cloned();
        if uses && recv.is_none() {
            match self.retries {
                None => {
                    self.tries = 0;
                    return false;
                }
                Some(most) if self.tries < most => self.tries += 1,
                Some(_) => {
                    self.tries = 0;
                    self.finish(&send, (WcStatus::RnrRetryExcErr, None, false));
                }
            }
            return true;
        }
        self.tries = 0;
        match self.message(&send, recv.as_ref(), real) {
            Err(failure) => self.finish(&send, failure),
            Ok(length) => {
                if uses {
                    self.receive(WcStatus::Success, imm, Some(length));
                }
                self.sends.pop_front();
                if send.flags.contains(SendFlags::SIGNALED) {
                    self.sent.push(End {
                        wr_id: send.wr_id,
                        status: WcStatus::Success,
                        imm: None,
                        byte_len: Some(length),
                    });
                }
            }
        }
        true
    }

    fn finish(&mut self, send: &Send, (status, receive, both): Failure) {
        if let Some(status) = receive {
            self.receive(status, None, None);
        }
        self.failed[1] |= both;
        self.failed[0] = true;
        self.sends.pop_front();
        self.sent.push(End {
            wr_id: send.wr_id,
            status,
            imm: None,
            byte_len: None,
        });
    }

    fn receive(&mut self, status: WcStatus, imm: Option<u32>, byte_len: Option<u64>) {
        if let Some(recv) = self.recvs.pop_front() {
            self.received.push(End {
                wr_id: recv.wr_id,
                status,
                imm,
                byte_len,
            });
        }
    }

    /// The second one's turn: whether it flushes anything.
    pub fn second(&mut self) -> bool {
        let flushes = self.failed[1] && !self.recvs.is_empty();
        if flushes {
            self.receive(WcStatus::WrFlushErr, None, None);
        }
        flushes
    }
}
