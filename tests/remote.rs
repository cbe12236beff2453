//! A peer's memory as the target of operations: on the NIC in software, and of any token (R20).
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "remote/suite.rs"]
mod suite;

use fabric::{Fabric, Soft};
use proptest::prelude::*;
use rdma_mr::op::{Begin, SendRequest};
use rdma_mr::work::RemoteAddr;
use rdma_mr::{Access, LocalMrReadAccess, MrToken, Rejected, RemoteMr};
use serde_json::json;

suite::tests! { [] <fabric::Soft as fabric::Fabric>::open() }

/// What a token is, by its numbers alone.
#[derive(Clone, Debug)]
struct Model {
    addr: u64,
    length: u64,
    rkey: u32,
    access: Access,
    expired: bool,
}

impl Model {
    fn token(&self) -> MrToken {
        let secs = if self.expired { 1_u64 } else { 4_102_444_800 };
        let text = json!({
            "addr": self.addr, "length": self.length, "rkey": self.rkey, "access": self.access,
            "deadline": { "secs_since_epoch": secs, "nanos_since_epoch": 0 },
        });
        serde_json::from_value(text).unwrap()
    }

    fn names_memory(&self) -> bool {
        self.length > 0 && u128::from(self.addr) + u128::from(self.length) < 1 << 64
    }

    fn slice(&self, (start, end): (u64, u64)) -> Option<Model> {
        (start < end && end <= self.length).then(|| Model {
            addr: self.addr + start,
            length: end - start,
            ..self.clone()
        })
    }

    /// Where that many bytes of it may be used with these rights.
    fn target(&self, length: u64, needed: Access) -> Option<RemoteAddr> {
        let fits = length <= self.length && !self.expired && self.access.contains(needed);
        fits.then_some(RemoteAddr {
            addr: self.addr,
            rkey: self.rkey,
        })
    }
}

/// A number, often one at an edge.
fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..100u64,
        any::<u64>(),
        Just(u64::MAX),
        u64::MAX - 100..u64::MAX
    ]
}

fn model() -> impl Strategy<Value = Model> {
    let numbers = (edgy(), edgy(), any::<u32>(), any::<u32>());
    let expired = prop::bool::weighted(0.1);
    (numbers, expired).prop_map(|((addr, length, rkey, rights), expired)| Model {
        addr,
        length,
        rkey,
        access: Access::from_bits_retain(rights),
        expired,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r20_any_token_is_what_its_numbers_say(
        token in model(), ranges in prop::collection::vec((edgy(), edgy()), 0..4),
        length in 1..100usize,
    ) {
        let mut model = token;
        let remote = RemoteMr::new(model.token());
        prop_assert_eq!(remote.is_ok(), model.names_memory() && !model.expired);
        let Ok(mut remote) = remote else { return Ok(()) };
        prop_assert_eq!(*remote.get_mut(..).unwrap(), model.token());
        let mut slice = remote.get(..).unwrap();
        for range in ranges {
            let bounds = range.0 as usize..range.1 as usize;
            let (got, expected) = (slice.get(bounds), model.slice(range));
            prop_assert_eq!(got.is_ok(), expected.is_some());
            let (Ok(narrower), Some(expected)) = (got, expected) else { continue };
            (slice, model) = (narrower, expected);
            prop_assert_eq!(*slice, model.token());
        }

        let fabric = Soft::stepped();
        let mr = fabric.alloc(length);
        let target = |request: Result<SendRequest<_>, Rejected<_>>| {
            request.ok().and_then(|request| request.op.remote())
        };
        let (read, write) = (|| mr.begin_read().unwrap(), || mr.begin_write().unwrap());
        let bytes = length as u64;
        let written = SendRequest::write(read(), RemoteMr::new(*slice).unwrap(), None);
        prop_assert_eq!(target(written), model.target(bytes, Access::REMOTE_WRITE));
        let wanted = SendRequest::read(write(), slice);
        prop_assert_eq!(target(wanted), model.target(bytes, Access::REMOTE_READ));
        let integer = model.target(8, Access::REMOTE_ATOMIC).filter(|at| at.addr % 8 == 0);
        let added = SendRequest::fetch_add(write(), slice, 1);
        prop_assert_eq!(target(added), integer);
        let swapped = SendRequest::compare_swap(write(), slice, 1, 2);
        prop_assert_eq!(target(swapped), integer);
        prop_assert!(mr.try_as_slice().is_some());
    }
}
