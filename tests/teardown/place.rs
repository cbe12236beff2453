//! What holds and leases are on: a region and its part, or a pool and its slots.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rdma_mr::op::{Begin, Hold};
use rdma_mr::registration::Registrar;
use rdma_mr::{
    Access, Error, Lease, Lend, LocalMr, LocalMrReadAccess, MrAccess, MrOptions, MrPool,
    PoolOptions, PooledMr,
};

use crate::ledger::Bytes;

/// Of each region, part and slot.
pub const LENGTH: usize = 64;

/// How many slots a pool has.
const SLOTS: usize = 2;

pub enum Place {
    Mr(LocalMr),
    Pool(MrPool),
    Slot(PooledMr),
}

use Place::{Mr, Pool, Slot};

/// Who has what, as it should be: what a [`Place`] is asked against.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Something holds it; of a pool, a slot of it whose handle is gone.
    pub held: bool,
    /// So that it can't be read.
    pub written: bool,
    /// The other one is there, or held.
    pub other: bool,
}

impl Expected {
    fn slots_out(self) -> usize {
        usize::from(self.held) + usize::from(self.other)
    }

    /// Nothing stands against its end.
    pub fn may_close(self) -> bool {
        !self.held && !self.other
    }
}

impl Place {
    /// A region, of what is left after a split, and its part, the one or the other in front.
    pub fn region_and_part<R: Registrar>(pd: &Arc<R>, bytes: Bytes, off: bool) -> [Place; 2] {
        let mut region = LocalMr::register(pd, bytes).unwrap();
        let part = match off {
            true => region.split_off(LENGTH),
            false => region.split_to(LENGTH),
        };
        [Mr(region), Mr(part.unwrap())]
    }

    /// A pool and a slot of it.
    pub fn pool_and_slot<R: Registrar>(pd: &Arc<R>) -> [Place; 2] {
        let size = PoolOptions {
            slot_length: LENGTH,
            slots_per_registration: SLOTS,
            max_registrations: 1,
        };
        let pool = MrOptions::new().pool(pd, size).unwrap();
        let slot = pool.take().unwrap();
        [Pool(pool), Slot(slot)]
    }

    /// A hold; of a pool, on a slot whose handle is dropped at once.
    pub fn begin(&self, write: bool) -> Hold {
        let hold = match (self, write) {
            (Mr(mr), true) => mr.begin_write(),
            (Mr(mr), false) => mr.begin_read(),
            (Slot(slot), true) => slot.begin_write(),
            (Slot(slot), false) => slot.begin_read(),
            (Pool(pool), true) => pool.take().unwrap().begin_write(),
            (Pool(pool), false) => pool.take().unwrap().begin_read(),
        };
        hold.unwrap()
    }

    /// A lease of some of its bytes.
    pub fn lease(&self, access: Access) -> Lease {
        let (bytes, hour) = (16..48, Duration::from_secs(3600));
        let lease = match self {
            Mr(mr) => mr.lease(bytes, access, hour),
            Slot(slot) => slot.lease(bytes, access, hour),
            Pool(_) => unreachable!("slots are lent"),
        };
        lease.unwrap()
    }

    /// It is as it should be.
    pub fn check(&self, expected: Expected) {
        let (free, readable, length) = match self {
            Mr(mr) => (
                mr.state().is_free(),
                mr.try_as_slice().is_some(),
                mr.length(),
            ),
            Slot(slot) => (
                slot.state().is_free(),
                slot.try_as_slice().is_some(),
                slot.length(),
            ),
            Pool(pool) => {
                assert_eq!(pool.free(), SLOTS - expected.slots_out(), "{pool:?}");
                return;
            }
        };
        let seen = (free, readable, length);
        assert_eq!(seen, (!expected.held, !expected.written, LENGTH));
    }

    /// Closes it.
    pub fn close(self) -> Result<(), (Self, io::Error)> {
        match self {
            Mr(mr) => {
                let memory = mr.close().map_err(|(mr, error)| (Mr(mr), error))?;
                assert!(memory.is::<Bytes>(), "what was handed in comes back");
            }
            Pool(pool) => pool.close().map_err(|(pool, error)| (Pool(pool), error))?,
            Slot(_) => unreachable!("a slot has only its drop"),
        }
        Ok(())
    }

    /// Whether its close had to be refused for that reason.
    pub fn had_to_refuse(&self, expected: Expected, error: &io::Error) -> bool {
        let typed = error.get_ref().and_then(|inner| inner.downcast_ref());
        match (self, error.kind(), typed) {
            (Mr(mr), ErrorKind::WouldBlock, Some(Error::Held { state })) => {
                expected.held && *state == mr.state()
            }
            (Mr(_), ErrorKind::ResourceBusy, Some(Error::PartsAlive { others: 1 })) => {
                !expected.held && expected.other
            }
            (Pool(_), ErrorKind::ResourceBusy, Some(Error::SlotsOut { out, slots: SLOTS })) => {
                *out > 0 && *out == expected.slots_out()
            }
            (_, ErrorKind::ResourceBusy, Some(Error::Deregister(_))) => expected.may_close(),
            _ => false,
        }
    }
}
