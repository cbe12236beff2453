//! What operations do.

use std::time::Instant;

use rdma_mr::op::{Begin, Gather};
use rdma_mr::work::{RemoteAddr, SendOp};
use rdma_mr::{LocalMrReadAccess, MrAccess};

use super::Bytes;
use super::wire::{self, Holder, Named, Posted, What};
use super::world::{LENGTH, World, kind};
use crate::reference::Kind;

impl World {
    pub fn begin(&mut self, part: u8, bytes: Bytes, writes: bool, late: bool) {
        let Some(part) = self.part(part) else {
            return;
        };
        let (start, end) = self.range(part, bytes);
        let Some(range) = self.reference.place(part, (start, end)) else {
            return;
        };
        let slice = self.mr(part).get(start..end).expect("inside");
        let hold = match (writes, late) {
            (true, false) => slice.try_begin_write(),
            (true, true) => slice.begin_write_until(Instant::now()),
            (false, false) => slice.try_begin_read(),
            (false, true) => slice.begin_read_until(Instant::now()),
        };
        let kind = kind(writes);
        assert_eq!(hold.is_ok(), self.reference.admits(part, kind), "{hold:?}");
        if let Ok(hold) = hold {
            assert_eq!(hold.sge().lkey, self.mr(part).lkey());
            let name = self.reference.hold(kind, &[part], vec![range]);
            let hold = Holder::One(hold);
            self.holds.push(Named { name, hold });
        }
    }

    pub fn begin_two(&mut self, parts: [u8; 2], bytes: [Bytes; 2], writes: bool) {
        let [Some(one), Some(two)] = parts.map(|part| self.part(part)) else {
            return;
        };
        let (first, second) = (self.range(one, bytes[0]), self.range(two, bytes[1]));
        let ranges = [
            self.reference.place(one, first),
            self.reference.place(two, second),
        ];
        let [Some(a), Some(b)] = ranges else {
            return;
        };
        let slices = (
            self.mr(one).get(first.0..first.1).expect("inside"),
            self.mr(two).get(second.0..second.1).expect("inside"),
        );
        let gather = Gather::new([&slices.0, &slices.1]);
        let holds = match writes {
            true => gather.try_begin_write(),
            false => gather.try_begin_read(),
        };
        let kind = kind(writes);
        let admitted = [one, two]
            .iter()
            .all(|part| self.reference.admits(*part, kind));
        assert_eq!(holds.is_ok(), admitted, "{holds:?}");
        if let Ok(holds) = holds {
            let name = self.reference.hold(kind, &[one, two], vec![a, b]);
            let hold = Holder::Two(holds);
            self.holds.push(Named { name, hold });
        }
    }

    pub fn end_hold(&mut self, at: usize) {
        let Named { name, hold } = self.holds.swap_remove(at);
        drop(hold);
        self.reference.release(name);
    }

    /// Posts with a hold; if the queue is full, the hold is there as before.
    pub fn posted(&mut self, Named { name, hold }: Named, op: Option<SendOp>, what: What) {
        let length = self.reference.gather(name).len();
        let queue = match op {
            Some(_) => &mut self.wire.sends,
            None => &mut self.wire.recvs,
        };
        let full = queue.len() == wire::CAPS.max_send_wr as usize;
        let posted = wire::post(&mut self.endpoint, hold, op);
        assert_eq!(posted.is_err(), full);
        match posted {
            Ok(()) => queue.push_back(Posted {
                what,
                name: Some(name),
                length,
            }),
            Err(hold) => self.holds.push(Named { name, hold }),
        }
    }

    pub fn is_write(&self, name: usize) -> bool {
        self.reference
            .held(name)
            .is_some_and(|held| held.kind == Kind::NicWrite)
    }

    pub fn post(&mut self, at: usize, to: u8) {
        let name = self.holds[at].name;
        let length = self.reference.gather(name).len();
        if length > LENGTH {
            return;
        }
        let at_far = usize::from(to) % (LENGTH - length + 1);
        let remote = RemoteAddr {
            addr: (self.far.addr() + at_far) as u64,
            rkey: self.far.rkey(),
        };
        let named = self.holds.swap_remove(at);
        let (op, what) = match self.is_write(name) {
            true => (SendOp::Read { remote }, What::Read { at: at_far, length }),
            false => (
                SendOp::Write { remote, imm: None },
                What::Write { at: at_far },
            ),
        };
        self.posted(named, Some(op), what);
    }

    pub fn message(&mut self, at: usize) {
        let name = self.holds[at].name;
        let length = self.reference.gather(name).len();
        let recv = self.is_write(name);
        if self.wire.fits(length, recv) {
            let named = self.holds.swap_remove(at);
            let op = (!recv).then_some(SendOp::Send { imm: None });
            self.posted(named, op, What::Send);
        }
    }

    /// One step of the NIC; whether there was one.
    pub fn nic(&mut self) -> bool {
        let next = self.wire.next().cloned();
        assert_eq!(self.nic.step(), next.is_some());
        let Some(Posted { what, name, .. }) = next else {
            return false;
        };
        let name = name.unwrap_or(0);
        match what {
            What::Write { at } => {
                let bytes = self.reference.gather(name);
                self.far_bytes[at..][..bytes.len()].copy_from_slice(&bytes);
            }
            What::Read { at, length } => {
                self.reference
                    .scatter(name, &self.far_bytes[at..][..length]);
            }
            What::Send => {
                let bytes = self.reference.gather(name);
                let target = self.wire.recvs[self.wire.over[1]].name.unwrap_or(0);
                self.reference.scatter(target, &bytes);
                self.wire.over[1] += 1;
            }
            What::Peer {
                start,
                length,
                writes,
                ..
            } => {
                let bytes = &mut self.reference.bytes[start..][..length];
                match writes {
                    true => bytes.copy_from_slice(&self.far_bytes[..length]),
                    false => self.far_bytes[..length].copy_from_slice(bytes),
                }
            }
        }
        self.wire.over[0] += 1;
        true
    }

    pub fn poll(&mut self) {
        let mut failed = None;
        let count = self.endpoint.poll(|done| {
            if !done.status.is_success() {
                failed = Some(done);
            }
        });
        assert_eq!(failed, None);
        let over = self.wire.take();
        assert_eq!(count.ok(), Some(over.len()));
        over.into_iter()
            .flatten()
            .for_each(|name| self.reference.release(name));
    }
}
