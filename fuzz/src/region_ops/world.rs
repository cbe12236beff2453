//! The region, its peers, and the reference beside them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdma_mr::backend::soft::{Nic, ProtectionDomain, QueuePair};
use rdma_mr::gate::{Barrier, ReadBias, Writer};
use rdma_mr::op::Endpoint;
use rdma_mr::work::QueuePair as _;
use rdma_mr::{Access, Lease, LocalMr, MrAccess, MrOptions, MrReadGuard, MrToken};

use super::wire::{self, Named, Wire};
use super::{Bytes, Step};
use crate::place;
use crate::reference::{Kind, Reference};

/// Bytes of the region, and of the peer's memory.
pub const LENGTH: usize = 48;

const BIAS: ReadBias = ReadBias {
    quiet: Duration::ZERO,
    barrier: Barrier::Fence,
};

/// A guard, of a part that stays where it is as long.
pub struct Guard {
    pub part: usize,
    pub range: Range<usize>,
    pub name: usize,
    pub bytes: MrReadGuard<'static>,
}

pub struct Lent {
    /// `None`: it is over.
    pub lease: Option<Lease>,
    pub token: MrToken,
    pub range: Range<usize>,
    pub rights: Access,
    pub name: usize,
}

pub struct World {
    // Guards first: they borrow the parts.
    pub guards: Vec<Guard>,
    pub holds: Vec<Named>,
    pub leases: Vec<Lent>,
    pub endpoint: Endpoint<QueuePair>,
    pub wire: Wire,
    /// By their numbers in the reference; boxed for the guards.
    pub parts: Vec<Option<Box<LocalMr>>>,
    /// The peer's memory, and what should be in it.
    pub far: LocalMr,
    pub far_bytes: Vec<u8>,
    pub pd: Arc<ProtectionDomain>,
    pub nic: Nic,
    addr: usize,
    pub reference: Reference,
}

impl World {
    pub fn new(biased: bool) -> Self {
        let nic = Nic::builder().stepped().build();
        let pd = nic.alloc_pd();
        let bytes: Vec<u8> = (0..LENGTH as u8).collect();
        let options = match biased {
            true => MrOptions::new().read_bias(BIAS),
            false => MrOptions::new(),
        };
        let mr = options.register(&pd, bytes.clone()).expect("some bytes");
        let addr = mr.addr();
        // SAFETY: REMOTE-1, REMOTE-2: no guard of it is had, and holds of it are this NIC's own.
        let far = unsafe { MrOptions::new().grant_remote_write() };
        let far = far.access(Access::all()).register(&pd, vec![0xaa; LENGTH]);
        let cq = nic.create_cq(64).expect("64 completions");
        let qp = pd.create_qp(&cq, &cq, wire::CAPS).expect("small");
        qp.connect(qp.qp_num()).expect("a new one");
        World {
            guards: Vec::new(),
            holds: Vec::new(),
            leases: Vec::new(),
            endpoint: Endpoint::new(qp),
            wire: Wire::default(),
            parts: vec![Some(Box::new(mr))],
            far: far.expect("some bytes"),
            far_bytes: vec![0xaa; LENGTH],
            pd,
            nic,
            addr,
            reference: Reference::new(bytes),
        }
    }

    /// A part that has a handle.
    pub fn part(&self, byte: u8) -> Option<usize> {
        let owned = || (0..self.parts.len()).filter(|at| self.parts[*at].is_some());
        owned().nth(place(byte, owned().count())?)
    }

    /// As that, without guards: the borrow checker would not let the others be changed.
    pub fn unborrowed(&self, byte: u8) -> Option<usize> {
        let part = self.part(byte)?;
        let borrowed = self.guards.iter().any(|guard| guard.part == part);
        (!borrowed).then_some(part)
    }

    pub fn mr(&self, part: usize) -> &LocalMr {
        self.parts[part].as_ref().expect("it has a handle")
    }

    /// A range of the part, mostly inside.
    pub fn range(&self, part: usize, (start, end): Bytes) -> (usize, usize) {
        let (start, end) = (usize::from(start), usize::from(end));
        let length = self.reference.parts[part].range.len();
        if start >= 0xf0 {
            return (start % 4, end);
        }
        let start = start % length;
        (start, start + 1 + end % (length - start))
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Read { part, bytes } => self.read(part, bytes),
            Step::EndRead(at) => with(at, self.guards.len(), |at| self.end_read(at)),
            Step::Write { part, bytes, byte } => self.write(part, bytes, byte),
            Step::Begin {
                part,
                bytes,
                writes,
                late,
            } => self.begin(part, bytes, writes, late),
            Step::BeginTwo {
                parts,
                bytes,
                writes,
            } => self.begin_two(parts, bytes, writes),
            Step::EndHold(at) => with(at, self.holds.len(), |at| self.end_hold(at)),
            Step::Post { hold, at } => with(hold, self.holds.len(), |hold| self.post(hold, at)),
            Step::Message(at) => with(at, self.holds.len(), |at| self.message(at)),
            Step::Nic => drop(self.nic()),
            Step::Poll => self.poll(),
            Step::Lease {
                part,
                bytes,
                rights,
            } => self.lease(part, bytes, rights),
            Step::EndLease { lease, drop } => {
                with(lease, self.leases.len(), |at| self.end_lease(at, drop));
            }
            Step::Peer { lease, bytes } => {
                with(lease, self.leases.len(), |at| self.peer(at, bytes));
            }
            Step::Intrude {
                lease,
                offset,
                length,
            } => {
                with(lease, self.leases.len(), |at| {
                    self.intrude(at, offset, length)
                });
            }
            Step::Rotate { part, rights } => self.rotate(part, rights),
            Step::Retire(part) => self.retire(part),
            Step::Split { part, at, front } => self.split(part, at, front),
            Step::Join { part, next } => self.join(part, next),
            Step::Shutdown(part) => {
                if let Some(part) = self.part(part) {
                    self.mr(part).shutdown();
                    self.reference.parts[part].closed = true;
                }
            }
            Step::Drop(part) => self
                .unborrowed(part)
                .into_iter()
                .for_each(|at| self.drop_part(at)),
            Step::Close(part) => self
                .unborrowed(part)
                .into_iter()
                .for_each(|at| self.close(at)),
        }
    }

    pub fn check(&self) {
        let reference = &self.reference;
        for (at, mr) in self.parts.iter().enumerate() {
            let Some(mr) = mr else {
                continue;
            };
            let (state, part) = (mr.state(), &reference.parts[at]);
            assert_eq!(mr.addr(), self.addr + part.range.start);
            assert_eq!(mr.length(), part.range.len());
            assert_eq!(state.cpu_readers, reference.count(at, Kind::CpuRead));
            assert_eq!(state.nic_reads, reference.count(at, Kind::NicRead));
            let writes = reference.count(at, Kind::NicWrite) == 1;
            assert_eq!(state.writer, writes.then_some(Writer::Nic));
            assert_eq!(state.closed, part.closed);
            let registrations = mr.registrations();
            let least = 1 + usize::from(reference.uses_old_keys());
            assert!((least..=1 + reference.keys).contains(&registrations));
        }
        assert_eq!(wire::bytes_at(self.far.addr(), LENGTH), self.far_bytes);
        if !reference.is_over() {
            assert_eq!(wire::bytes_at(self.addr, LENGTH), reference.bytes);
        }
    }

    /// All comes to its end.
    pub fn end(mut self) {
        while self.nic() {}
        self.poll();
        while !self.guards.is_empty() {
            self.end_read(0);
        }
        self.check();
        let World { nic, .. } = &self;
        let nic = nic.clone();
        drop(self);
        let stats = nic.stats();
        assert_eq!((stats.registrations, stats.queue_pairs), (0, 0));
    }
}

fn with(byte: u8, length: usize, f: impl FnOnce(usize)) {
    if let Some(at) = place(byte, length) {
        f(at);
    }
}

/// How an operation holds the bytes.
pub fn kind(writes: bool) -> Kind {
    match writes {
        true => Kind::NicWrite,
        false => Kind::NicRead,
    }
}
