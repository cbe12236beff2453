//! Models for loom of what the NIC promises its callers: `cargo test --lib` with `--cfg loom`.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::doorbell::Doorbell;
use super::memory::{KeyKind, KeyTable};
use super::ring::WorkQueue;
use super::state::AtomicState;
use super::{MTU, Nic, QpState, QueuePair};
use crate::Access;
use crate::registration::{Registered, Registrar};
use crate::sync::{AtomicU64, Ordering};
use crate::work::{
    CompletionEvents as _, CompletionQueue as _, QpCaps, QueuePair as _, RecvWr, RemoteAddr,
    SendFlags, SendOp, SendWr, Sge, SharedRecvQueue as _, WcStatus, WorkCompletion,
};

// As for the models in `loom_tests/`.
#[path = "../../../loom_tests/common/explore.rs"]
#[allow(dead_code, reason = "models there use more of it")]
mod explore;

fn model(name: &str, least: usize, test: impl Fn() + Sync + Send + 'static) {
    explore::exhaust(name, 2, least, test);
}

/// The bytes are a cell that loom watches.
/// Shows: DEREG-1.
#[test]
fn dereg_1_a_pin_and_the_end_of_the_registration() {
    model("dereg_1_a_pin_and_the_end_of_the_registration", 5, || {
        let keys = Arc::new(KeyTable::new());
        let bytes = Arc::new(UnsafeCell::new(0_u8));
        let start = NonNull::<u8>::dangling();
        let mr = keys.insert(start, 1, Access::LOCAL_WRITE, 1).unwrap();
        let nic = {
            let (keys, bytes) = (keys.clone(), bytes.clone());
            let (key, addr) = (mr.lkey, start.as_ptr().addr() as u64);
            thread::spawn(move || {
                for _ in 0..2 {
                    let needs = Access::LOCAL_WRITE;
                    let found = keys.resolve((KeyKind::Local, key), 1, needs, addr, 1);
                    let Some((mr, _)) = found else { return };
                    let Some(_pin) = mr.pin() else { return };
                    // SAFETY: the claim under test: the pin keeps the owner out.
                    bytes.with_mut(|bytes| unsafe { *bytes = 1 });
                }
            })
        };
        keys.remove(&mr);
        // SAFETY: the claim under test: the NIC is out for good.
        bytes.with_mut(|bytes| unsafe { *bytes = 2 });
        nic.join().unwrap();
    });
}

/// Two packets of memory, half source and half target, that outlive the model's run.
struct Bytes {
    start: NonNull<u8>,
    mr: Registered,
}

impl Bytes {
    const HALF: usize = MTU + 8;

    fn new(pd: &impl Registrar) -> Self {
        let mut bytes = vec![1_u8; 2 * Self::HALF].into_boxed_slice();
        bytes[Self::HALF..].fill(0);
        let start = NonNull::new(Box::into_raw(bytes).cast::<u8>()).unwrap();
        // SAFETY: REG-4: freed in `free`, after all is over.
        let mr = unsafe { pd.register(start, 2 * Self::HALF, Access::all()) }.unwrap();
        Bytes { start, mr }
    }

    fn source(&self) -> [Sge; 1] {
        [Sge {
            addr: self.start.as_ptr() as u64,
            length: Self::HALF as u32,
            lkey: self.mr.lkey,
        }]
    }

    fn target(&self) -> [Sge; 1] {
        let [source] = self.source();
        [Sge {
            addr: source.addr + Self::HALF as u64,
            ..source
        }]
    }

    /// The owner's again: the target is written.
    fn take_back(&self) {
        // SAFETY: inside; the claim under test is that the NIC is out (loom runs one thread at a
        // time, so that a broken claim shows in the bytes and is no race).
        unsafe { self.start.add(Self::HALF).write_bytes(0xEE, Self::HALF) };
    }

    fn is_taken_back(&self) -> bool {
        (Self::HALF..2 * Self::HALF)
            // SAFETY: inside.
            .all(|i| unsafe { self.start.add(i).read() } == 0xEE)
    }

    fn free(self) {
        let bytes = NonNull::slice_from_raw_parts(self.start, 2 * Self::HALF);
        // SAFETY: made by `Box::into_raw` in `new`; the NIC is gone.
        drop(unsafe { Box::from_raw(bytes.as_ptr()) });
    }
}

fn write(bytes: &Bytes) -> SendOp {
    SendOp::Write {
        remote: RemoteAddr {
            addr: bytes.target()[0].addr,
            rkey: bytes.mr.rkey,
        },
        imm: None,
    }
}

fn post(qp: &QueuePair, op: SendOp, sge: &[Sge]) {
    let wr = SendWr {
        wr_id: 1,
        sge,
        op,
        flags: SendFlags::SIGNALED,
    };
    // SAFETY: POST-1: nobody touches the bytes before they are taken back.
    unsafe { qp.post_send(&wr) }.unwrap();
}

/// Shows: DEREG-1.
#[test]
fn dereg_1_in_the_middle_of_a_message() {
    model("dereg_1_in_the_middle_of_a_message", 5, || {
        let nic = Nic::new();
        let pd = nic.alloc_pd();
        let cq = nic.create_cq(4).unwrap();
        let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
        qp.connect(qp.qp_num()).unwrap();
        let mut bytes = Bytes::new(&*pd);
        post(&qp, write(&bytes), &bytes.source());
        let stepper = {
            let nic = nic.clone();
            thread::spawn(move || nic.run_until_idle())
        };
        bytes.mr.handle.deregister().unwrap();
        bytes.take_back();
        stepper.join().unwrap();
        assert!(bytes.is_taken_back());
        let mut out = [WorkCompletion::EMPTY; 2];
        assert_eq!(cq.poll(&mut out).unwrap(), 1);
        bytes.free();
    });
}

/// Shows: QP-4.
#[test]
fn qp_4_destroyed_as_requester_or_responder() {
    for responder in [false, true] {
        model("qp_4_destroyed_as_requester_or_responder", 5, move || {
            let nic = Nic::new();
            let pd = nic.alloc_pd();
            let cq = nic.create_cq(4).unwrap();
            let make = || pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
            let (a, b) = (make(), make());
            QueuePair::connect_pair(&a, &b).unwrap();
            let bytes = Bytes::new(&*pd);
            let wr = RecvWr {
                wr_id: 2,
                sge: &bytes.target(),
            };
            // SAFETY: POST-2: nobody touches the bytes before they are taken back.
            unsafe { b.post_recv(&wr) }.unwrap();
            post(&a, SendOp::Send { imm: None }, &bytes.source());
            let stepper = {
                let nic = nic.clone();
                thread::spawn(move || nic.run_until_idle())
            };
            let (victim, other) = if responder { (b, a) } else { (a, b) };
            assert!(victim.destroy().is_ok());
            bytes.take_back();
            stepper.join().unwrap();
            assert!(bytes.is_taken_back());
            drop(other);
            bytes.free();
        });
    }
}

/// Shows: SRQ-3.
#[test]
fn srq_3_destroyed_while_its_last_queue_pair_goes() {
    model("srq_3_destroyed_while_its_last_queue_pair_goes", 5, || {
        let nic = Nic::new();
        let pd = nic.alloc_pd();
        let cq = nic.create_cq(4).unwrap();
        let srq = pd.create_srq(1, 1).unwrap();
        let from = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
        let to = pd
            .create_qp_with_srq(&cq, &cq, &srq, QpCaps::default())
            .unwrap();
        QueuePair::connect_pair(&from, &to).unwrap();
        let bytes = Bytes::new(&*pd);
        let wr = RecvWr {
            wr_id: 2,
            sge: &bytes.target(),
        };
        // SAFETY: POST-2: nobody touches the bytes before they are taken back.
        unsafe { srq.post_recv(&wr) }.unwrap();
        post(&from, SendOp::Send { imm: None }, &bytes.source());
        let stepper = {
            let nic = nic.clone();
            thread::spawn(move || nic.run_until_idle())
        };
        let dropper = thread::spawn(move || drop(to));
        let destroyed = srq.destroy().is_ok();
        if destroyed {
            bytes.take_back();
        }
        stepper.join().unwrap();
        dropper.join().unwrap();
        assert!(!destroyed || bytes.is_taken_back());
        drop(from);
        bytes.free();
    });
}

/// Shows: CQ-1, CQ-2.
#[test]
fn cq_2_what_a_completion_says_has_arrived() {
    model("cq_2_what_a_completion_says_has_arrived", 5, || {
        let nic = Nic::new();
        let pd = nic.alloc_pd();
        let cq = nic.create_cq(4).unwrap();
        let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
        qp.connect(qp.qp_num()).unwrap();
        let bytes = Bytes::new(&*pd);
        let stepper = {
            let nic = nic.clone();
            thread::spawn(move || {
                nic.step();
            })
        };
        post(&qp, write(&bytes), &bytes.source());
        let mut out = [WorkCompletion::EMPTY; 2];
        if cq.poll(&mut out).unwrap() == 1 {
            assert_eq!(out[0].status, WcStatus::Success);
            bytes.take_back();
            stepper.join().unwrap();
            assert!(bytes.is_taken_back());
        } else {
            stepper.join().unwrap();
        }
        drop(qp);
        bytes.free();
    });
}

/// Shows: QP-4.
#[test]
fn qp_4_no_completion_after_the_destruction() {
    model("qp_4_no_completion_after_the_destruction", 5, || {
        let nic = Nic::new();
        let cq = nic.create_cq(4).unwrap();
        let qp = nic
            .alloc_pd()
            .create_qp(&cq, &cq, QpCaps::default())
            .unwrap();
        qp.modify_to_error();
        for wr_id in 0..2 {
            // SAFETY: POST-2: it names no bytes.
            unsafe { qp.post_recv(&RecvWr { wr_id, sge: &[] }) }.unwrap();
        }
        let stepper = {
            let nic = nic.clone();
            thread::spawn(move || nic.run_until_idle())
        };
        assert!(qp.destroy().is_ok());
        let mut out = [WorkCompletion::EMPTY; 2];
        cq.poll(&mut out).unwrap();
        stepper.join().unwrap();
        assert_eq!(cq.poll(&mut out).unwrap(), 0);
    });
}

/// Arm, poll again, sleep: what completes meanwhile is polled or makes the event.
#[test]
fn no_event_of_an_armed_queue_is_lost() {
    model("no_event_of_an_armed_queue_is_lost", 5, || {
        let nic = Nic::new();
        let pd = nic.alloc_pd();
        let cq = nic.create_cq(4).unwrap();
        let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
        qp.connect(qp.qp_num()).unwrap();
        let nothing = SendOp::Write {
            remote: RemoteAddr::default(),
            imm: None,
        };
        post(&qp, nothing, &[]);
        let stepper = {
            let nic = nic.clone();
            thread::spawn(move || nic.run_until_idle())
        };
        cq.req_notify(false).unwrap();
        let polled = cq.poll(&mut [WorkCompletion::EMPTY; 2]).unwrap();
        stepper.join().unwrap();
        let events = cq.take_events().unwrap();
        assert!(polled == 1 || events == 1, "{polled} {events}");
    });
}

/// A post, then the bell; the bell is heard, then the queue is looked at: nobody sleeps over a post.
#[test]
fn no_post_is_slept_over() {
    model("no_post_is_slept_over", 5, || {
        let shared = Arc::new((Doorbell::new(), WorkQueue::new(1, 1, 0)));
        let poster = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.post((), &[]).unwrap();
                shared.0.ring();
            })
        };
        let (bell, queue) = &*shared;
        let heard = bell.listen().unwrap();
        let slept = !queue.has_pending() && bell.lie_down(heard);
        poster.join().unwrap();
        assert!(!slept || !bell.get_up(), "it sleeps, and there is work");
    });
}

/// Who sees that a queue pair is connected sees to whom.
#[test]
fn who_is_connected_is_so_with_somebody() {
    model("who_is_connected_is_so_with_somebody", 5, || {
        let shared = Arc::new((AtomicState::new(QpState::Init), AtomicU64::new(0)));
        let owner = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.store(5, Ordering::Relaxed);
                shared.0.transition(QpState::Init, QpState::Rtr).unwrap();
                shared.0.transition(QpState::Rtr, QpState::Rts).unwrap();
            })
        };
        let (state, peer) = &*shared;
        if matches!(state.get(), QpState::Rtr | QpState::Rts) {
            assert_eq!(peer.load(Ordering::Relaxed), 5);
        }
        owner.join().unwrap();
    });
}

/// The last queue pair leaves a shared receive queue after the NIC has written for it; whoever destroys
/// the queue then has the bytes.
/// Shows: SRQ-3.
#[test]
fn srq_3_what_the_nic_wrote_comes_before_the_destruction() {
    model(
        "srq_3_what_the_nic_wrote_comes_before_the_destruction",
        5,
        || {
            let srq = Nic::new().alloc_pd().create_srq(1, 1).unwrap();
            let bytes = Arc::new(UnsafeCell::new(0_u8));
            srq.inner().join();
            let user = {
                let (srq, bytes) = (srq.inner().clone(), bytes.clone());
                thread::spawn(move || {
                    // SAFETY: as the NIC's thread, before it lets go of the queue pair.
                    bytes.with_mut(|bytes| unsafe { *bytes = 1 });
                    srq.leave();
                })
            };
            if srq.destroy().is_ok() {
                // SAFETY: the claim under test: the NIC is out.
                bytes.with_mut(|bytes| unsafe { *bytes = 2 });
            }
            user.join().unwrap();
        },
    );
}
