//! Random sequences of what can be done with a region, its parts, operations and leases, against the plain reference in
//! `tests/reference`. One thread; `tests/linearizable.rs` has several, and the fuzz target `region_ops` more operations.
#![cfg(all(feature = "soft", not(loom)))]

#[path = "model/expected.rs"]
mod expected;
mod reference;
mod util;

use std::time::Duration;

use expected::{Expected, LENGTH, Step};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use proptest_state_machine::{StateMachineTest, prop_state_machine};
use rdma_mr::gate::Writer;
use rdma_mr::op::{Begin, Hold};
use rdma_mr::{
    Access, Lease, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, RemoteMr,
};
use reference::Kind;
use util::Pair;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The region, by the numbers of the reference.
struct Real {
    /// Before the step.
    expected: Expected,
    parts: Vec<Option<LocalMr>>,
    holds: Vec<Hold>,
    leases: Vec<Lease>,
    pair: Pair,
}

impl Real {
    fn mr(&mut self, part: usize) -> &mut LocalMr {
        self.parts[part].as_mut().expect("it has a handle")
    }

    /// The operation of that hold, with the same byte on the other side.
    fn carry_out(&mut self, hold: Hold, byte: u8) {
        let mut far = self.pair.readable(&[byte; LENGTH]);
        far.as_mut_slice().fill(byte);
        if hold.holder() == rdma_mr::gate::Holder::NicWrite {
            self.pair.a.read(hold, util::remote(&far)).unwrap();
        } else {
            self.pair.b.recv(far.begin_write().unwrap()).unwrap();
            self.pair.a.send(hold, None).unwrap();
        }
        let done = self.pair.settle();
        assert!(done.iter().all(|done| done.status.is_success()), "{done:?}");
    }

    fn apply(&mut self, step: &Step, next: &Expected) {
        let now = self.expected.clone();
        match *step {
            Step::Read { part, bytes } => {
                let Some(part) = now.owned(part) else { return };
                let admitted = now.reference.admits(part, Kind::CpuRead);
                let slice = self.mr(part).get(now.range(part, bytes)).unwrap();
                let guard = slice.try_as_slice();
                assert_eq!(guard.is_some(), admitted);
                if let Some(guard) = guard {
                    assert_eq!(*guard, now.reference.bytes[now.place(part, bytes)]);
                }
            }
            Step::Write { part, bytes, byte } => {
                let Some(part) = now.owned(part) else { return };
                let admitted = now.reference.admits(part, Kind::CpuWrite);
                let mut slice = self.mr(part).get_mut(now.range(part, bytes)).unwrap();
                let guard = slice.try_as_mut_slice();
                assert_eq!(guard.is_some(), admitted);
                guard.into_iter().for_each(|mut guard| guard.fill(byte));
            }
            Step::Begin {
                part,
                bytes,
                writes,
            } => {
                let Some(part) = now.owned(part) else { return };
                let slice = self.mr(part).get(now.range(part, bytes)).unwrap();
                let hold = match writes {
                    true => slice.try_begin_write(),
                    false => slice.try_begin_read(),
                };
                assert_eq!(hold.is_ok(), next.holds.len() > now.holds.len(), "{hold:?}");
                self.holds.extend(hold);
            }
            Step::End { hold, carried_out } if !now.holds.is_empty() => {
                let hold = self.holds.swap_remove(hold % now.holds.len());
                match carried_out {
                    Some(byte) => self.carry_out(hold, byte),
                    None => drop(hold),
                }
            }
            Step::Lease {
                part,
                bytes,
                writes,
            } => {
                let Some(part) = now.owned(part) else { return };
                let rights = if writes {
                    Access::REMOTE_WRITE
                } else {
                    Access::REMOTE_READ
                };
                let lease = self.mr(part).try_lease(now.range(part, bytes), rights, DAY);
                assert_eq!(
                    lease.is_ok(),
                    next.leases.len() > now.leases.len(),
                    "{lease:?}"
                );
                self.leases.extend(lease);
            }
            Step::Revoke { lease, byte } if !now.leases.is_empty() => {
                let lease = self.leases.swap_remove(lease % now.leases.len());
                let token = lease.token();
                if let Some(byte) = byte.filter(|_| token.access() == Access::REMOTE_WRITE) {
                    let mut remote = RemoteMr::new(token).unwrap();
                    let from = self.pair.region(&vec![byte; token.length() as usize]);
                    self.pair
                        .a
                        .write(from.begin_read().unwrap(), &mut remote, None)
                        .unwrap();
                    let done = self.pair.settle();
                    assert!(done.iter().all(|done| done.status.is_success()), "{done:?}");
                }
                lease.revoke().unwrap();
            }
            Step::End { .. } | Step::Revoke { .. } => {}
            Step::Split { part, at } => {
                let Some(part) = now.owned(part) else { return };
                let front = self.mr(part).split_to(at);
                let splits = next.reference.parts.len() > now.reference.parts.len();
                assert_eq!(front.is_ok(), splits, "{front:?}");
                self.parts.extend(front.ok().map(Some));
            }
            Step::Join { part, next: other } => {
                let Some((part, other)) = now.pair(part, other) else {
                    return;
                };
                let taken = self.parts[other].take().unwrap();
                let joined = self.mr(part).unsplit(taken);
                assert_eq!(
                    joined.is_ok(),
                    !next.reference.parts[other].owned,
                    "{joined:?}"
                );
                self.parts[other] = joined.err().map(|rejected| rejected.value);
            }
            Step::Rotate { part, local_write } => {
                let Some(part) = now.owned(part) else { return };
                let mut rights = Access::REMOTE_READ;
                rights.set(Access::LOCAL_WRITE, local_write);
                self.mr(part).reregister(rights).unwrap();
            }
            Step::Shutdown { part } => {
                let Some(part) = now.owned(part) else { return };
                self.mr(part).shutdown();
            }
            Step::Drop { part } => {
                let Some(part) = now.owned(part) else { return };
                self.parts[part] = None;
            }
        }
    }
}

impl StateMachineTest for Real {
    type SystemUnderTest = Real;
    type Reference = Expected;

    fn init_test(expected: &Expected) -> Real {
        let pair = Pair::stepped();
        let mr = pair.region(&expected.reference.bytes);
        Real {
            expected: expected.clone(),
            parts: vec![Some(mr)],
            holds: Vec::new(),
            leases: Vec::new(),
            pair,
        }
    }

    fn apply(mut real: Real, next: &Expected, step: Step) -> Real {
        real.apply(&step, next);
        real.expected = next.clone();
        real
    }

    fn check_invariants(real: &Real, expected: &Expected) {
        let reference = &expected.reference;
        for (at, mr) in real.parts.iter().enumerate() {
            assert_eq!(mr.is_some(), reference.parts[at].owned);
            let Some(mr) = mr else { continue };
            let state = mr.state();
            assert_eq!(state.nic_reads, reference.count(at, Kind::NicRead));
            let writes = reference.count(at, Kind::NicWrite) == 1;
            assert_eq!(state.writer, writes.then_some(Writer::Nic));
            assert_eq!(mr.length(), reference.parts[at].range.len());
            assert!(mr.registrations() > usize::from(reference.uses_old_keys()));
            if let Some(bytes) = mr.try_as_slice() {
                assert_eq!(*bytes, reference.bytes[reference.parts[at].range.clone()]);
            }
        }
    }

    fn teardown(real: Real, _: Expected) {
        let nic = real.pair.nic.clone();
        drop(real);
        assert_eq!(nic.stats().registrations, 0);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn a_region_does_what_the_reference_does(sequential 1..60 => Real);
}
