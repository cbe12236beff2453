//! What an endpoint makes of completions that are not its own, of queues that fail and of a queue
//! pair that can't be destroyed (R10, R11, R14), on queues that do what the test says.
#![cfg(all(feature = "soft", not(loom)))]

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rdma_mr::backend::soft::Nic;
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{
    CompletionQueue, QpCaps, QueuePair, RecvWr, SendFlags, SendOp, SendWr, WcStatus, WorkCompletion,
};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, Result, leaks};

const NUM: u32 = 42;

/// What a fake queue pair and its completion queue do, and what was done to them.
#[derive(Default)]
struct Script {
    completions: Mutex<VecDeque<WorkCompletion>>,
    posted: Mutex<Vec<u64>>,
    poll_fails: AtomicBool,
    post_fails: AtomicBool,
    destroy_fails: AtomicBool,
    gone: AtomicUsize,
}

impl Script {
    fn says(&self, wr_id: u64, status: WcStatus, qp_num: u32) {
        self.completions.lock().unwrap().push_back(WorkCompletion {
            wr_id,
            status,
            qp_num,
            ..WorkCompletion::EMPTY
        });
    }

    fn post(&self, wr_id: u64) -> Result<()> {
        if self.post_fails.load(Ordering::SeqCst) {
            return Err(refusal("fake post"));
        }
        self.posted.lock().unwrap().push(wr_id);
        Ok(())
    }
}

fn refusal(call: &'static str) -> Error {
    let source = io::Error::from_raw_os_error(libc::EIO);
    Error::Provider { call, source }
}

struct FakeQp(Arc<Script>, FakeCq);

// SAFETY: QP-1 to QP-5: there is no NIC; what the script says is the test's to keep.
unsafe impl QueuePair for FakeQp {
    type Cq = FakeCq;

    fn send_cq(&self) -> &FakeCq {
        &self.1
    }

    fn recv_cq(&self) -> &FakeCq {
        &self.1
    }

    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        self.0.post(wr.wr_id)
    }

    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        self.0.post(wr.wr_id)
    }

    fn caps(&self) -> QpCaps {
        QpCaps::default()
    }

    fn qp_num(&self) -> u32 {
        NUM
    }

    fn modify_to_error(&self) -> Result<()> {
        Ok(())
    }

    fn destroy(self) -> std::result::Result<(), (Self, io::Error)> {
        if self.0.destroy_fails.load(Ordering::SeqCst) {
            return Err((self, io::Error::from_raw_os_error(libc::EBUSY)));
        }
        Ok(())
    }
}

impl Drop for FakeQp {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct FakeCq(Arc<Script>);

// SAFETY: CQ-1, CQ-2: there is no NIC.
unsafe impl CompletionQueue for FakeCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        if self.0.poll_fails.load(Ordering::SeqCst) {
            return Err(refusal("fake poll"));
        }
        let mut queue = self.0.completions.lock().unwrap();
        let count = queue.len().min(out.len());
        for (slot, completion) in out.iter_mut().zip(queue.drain(..count)) {
            *slot = completion;
        }
        Ok(count)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

type Fake = Endpoint<FakeQp>;

/// An endpoint without a NIC, and regions that are held by one send and one receive each.
struct Setup {
    end: Fake,
    script: Arc<Script>,
    nic: Nic,
    sources: Vec<LocalMr>,
    targets: Vec<LocalMr>,
}

fn setup(count: usize) -> Setup {
    let script = Arc::new(Script::default());
    let cq = FakeCq(script.clone());
    let mut end = Endpoint::new(FakeQp(script.clone(), cq));
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let alloc = |_| LocalMr::alloc(&pd, 8).unwrap();
    let sources: Vec<LocalMr> = (0..count).map(alloc).collect();
    let targets: Vec<LocalMr> = (0..count).map(alloc).collect();
    for (source, target) in sources.iter().zip(&targets) {
        end.recv(target.begin_write().unwrap()).unwrap();
        end.send(source.begin_read().unwrap(), None).unwrap();
    }
    Setup {
        end,
        script,
        nic,
        sources,
        targets,
    }
}

impl Setup {
    /// The number of that send.
    fn send(&self, nth: u64) -> u64 {
        self.script.posted.lock().unwrap()[1] + nth
    }

    /// The number of that receive.
    fn recv(&self, nth: u64) -> u64 {
        self.script.posted.lock().unwrap()[0] + nth
    }

    fn says(&self, wr_id: u64, status: WcStatus) {
        self.script.says(wr_id, status, NUM);
    }

    /// Which sources and which targets are held.
    fn held(&self) -> (Vec<bool>, Vec<bool>) {
        let held = |all: &[LocalMr]| all.iter().map(|mr| !mr.state().is_free()).collect();
        (held(&self.sources), held(&self.targets))
    }

    /// Polls, and tells how many were over and which number belonged to nothing.
    fn poll(&mut self) -> (usize, Option<u64>) {
        let mut told = 0;
        match self.end.poll(|_| told += 1) {
            Ok(total) => {
                assert_eq!(total, told);
                (told, None)
            }
            Err(Error::UnknownCompletion { wr_id }) => (told, Some(wr_id)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn r11_a_foreign_completion_releases_nothing() {
    let mut setup = setup(2);
    for wr_id in [setup.send(0), setup.send(1), setup.recv(0), setup.recv(1)] {
        setup.script.says(wr_id, WcStatus::Success, NUM + 1);
        assert_eq!(setup.poll(), (0, Some(wr_id)));
        assert_eq!(setup.held(), (vec![true; 2], vec![true; 2]));
    }
    assert_eq!(setup.end.outstanding(), (2, 2));
}

#[test]
fn r11_a_completion_that_an_earlier_owner_left_releases_nothing() {
    let (before, mut now) = (setup(2), setup(2));
    for wr_id in [before.send(1), before.recv(1)] {
        now.says(wr_id, WcStatus::Success);
        assert_eq!(now.poll(), (0, Some(wr_id)));
    }
    assert_eq!(now.held(), (vec![true; 2], vec![true; 2]));
    assert_ne!((before.send(0), before.recv(0)), (now.send(0), now.recv(0)));
}

#[test]
fn r11_an_unknown_completion_releases_nothing() {
    let mut setup = setup(2);
    let (send, recv) = (setup.send(2), setup.recv(2));
    for wr_id in [
        send,
        send + 1,
        recv,
        recv + 1,
        setup.send(0).wrapping_sub(1),
        u64::MAX,
    ] {
        for status in [WcStatus::Success, WcStatus::WrFlushErr] {
            setup.says(wr_id, status);
            assert_eq!(setup.poll(), (0, Some(wr_id)));
        }
    }
    assert_eq!(setup.held(), (vec![true; 2], vec![true; 2]));
    // Those around it are not lost.
    setup.says(setup.recv(0), WcStatus::Success);
    setup.says(send, WcStatus::Success);
    setup.says(setup.send(0), WcStatus::LocProtErr);
    assert_eq!(setup.poll(), (2, Some(send)));
    assert_eq!(setup.held(), (vec![false, true], vec![false, true]));
}

#[test]
fn r11_a_duplicate_completion_releases_nothing() {
    let mut setup = setup(3);
    for _ in 0..2 {
        setup.says(setup.send(1), WcStatus::Success);
    }
    setup.says(setup.recv(0), WcStatus::Success);
    setup.says(setup.send(0), WcStatus::WrFlushErr);
    assert_eq!(setup.poll(), (3, Some(setup.send(0))));
    assert_eq!(
        setup.held(),
        (vec![false, false, true], vec![false, true, true])
    );
    setup.says(setup.recv(0), WcStatus::Success);
    assert_eq!(setup.poll(), (0, Some(setup.recv(0))));
    assert_eq!(setup.end.outstanding(), (1, 2));
}

#[test]
fn r11_sends_and_receives_are_kept_apart() {
    let mut setup = setup(2);
    setup.says(setup.send(1), WcStatus::Success);
    assert_eq!(setup.poll(), (2, None));
    assert_eq!(setup.held(), (vec![false; 2], vec![true; 2]));
    // A receive is over by its own completion only, in whatever order they come.
    setup.says(setup.recv(1), WcStatus::Success);
    assert_eq!(setup.poll(), (1, None));
    assert_eq!(setup.held(), (vec![false; 2], vec![true, false]));
    setup.says(setup.recv(1), WcStatus::Success);
    assert_eq!(setup.poll(), (0, Some(setup.recv(1))));
    setup.says(setup.recv(0), WcStatus::Success);
    assert_eq!(setup.poll(), (1, None));
    assert_eq!(setup.held(), (vec![false; 2], vec![false; 2]));
    assert_eq!(setup.end.outstanding(), (0, 0));
}

#[test]
fn r11_a_poll_error_releases_nothing() {
    let mut setup = setup(1);
    setup.says(setup.send(0), WcStatus::Success);
    setup.script.poll_fails.store(true, Ordering::SeqCst);
    let error = setup.end.poll(|_| unreachable!()).unwrap_err();
    assert!(matches!(
        error,
        Error::Provider {
            call: "fake poll",
            ..
        }
    ));
    assert_eq!(setup.held(), (vec![true], vec![true]));
    setup.script.poll_fails.store(false, Ordering::SeqCst);
    assert_eq!(setup.poll(), (1, None));
}

#[test]
fn r11_one_poll_takes_all_that_is_there() {
    let mut setup = setup(40);
    for nth in 0..40 {
        setup.says(setup.send(nth), WcStatus::Success);
        setup.says(setup.recv(nth), WcStatus::Success);
    }
    assert_eq!(setup.poll(), (80, None));
    assert_eq!(setup.held(), (vec![false; 40], vec![false; 40]));
}

#[test]
fn r10_what_the_provider_refuses_takes_no_number() {
    let mut setup = setup(1);
    let mr = LocalMr::alloc(&setup.nic.alloc_pd(), 8).unwrap();
    setup.script.post_fails.store(true, Ordering::SeqCst);
    let rejected = setup.end.send(mr.begin_read().unwrap(), None).unwrap_err();
    assert!(matches!(
        rejected.error,
        Error::Provider {
            call: "fake post",
            ..
        }
    ));
    drop(rejected);
    let rejected = setup.end.recv(mr.try_begin_write().unwrap()).unwrap_err();
    drop(rejected.value);
    assert!(mr.state().is_free());
    setup.script.post_fails.store(false, Ordering::SeqCst);
    setup.end.send(mr.begin_read().unwrap(), None).unwrap();
    let posted = setup.script.posted.lock().unwrap().clone();
    assert_eq!(posted, [setup.recv(0), setup.send(0), setup.send(1)]);
    let op = SendOp::Send { imm: None };
    let inline = setup
        .end
        .post(mr.begin_read().unwrap(), op, SendFlags::INLINE)
        .unwrap();
    assert_eq!((inline.sequence(), mr.state().nic_reads), (2, 1));
}

#[test]
fn r11_a_panic_in_done_loses_no_completion() {
    let mut setup = setup(2);
    setup.says(setup.send(0), WcStatus::Success);
    setup.says(setup.send(1), WcStatus::Success);
    let polls = AssertUnwindSafe(|| setup.end.poll(|_| panic!("the user's")));
    assert!(catch_unwind(polls).is_err());
    assert_eq!(setup.held().0, [false, false], "both are over, told or not");
    setup.end.close().map_err(|(_, error)| error).unwrap();
    assert!(setup.targets.iter().all(|mr| mr.state().is_free()));
}

#[test]
fn r11_a_panic_in_done_keeps_nothing_that_one_completion_ends() {
    let mut setup = setup(2);
    setup.says(setup.send(1), WcStatus::Success);
    let polls = AssertUnwindSafe(|| setup.end.poll(|_| panic!("the user's")));
    assert!(catch_unwind(polls).is_err());
    assert_eq!(setup.held().0, [false, false]);
    assert_eq!(setup.end.outstanding(), (0, 2));
}

#[test]
fn r14_an_endpoint_that_can_not_be_destroyed_keeps_its_holds() {
    let mut setup = setup(2);
    setup.script.destroy_fails.store(true, Ordering::SeqCst);
    let (end, error) = setup.end.close().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    setup.end = end;
    assert_eq!(setup.end.outstanding(), (2, 2), "as it was");
    setup.says(setup.send(0), WcStatus::Success);
    assert_eq!(setup.poll(), (1, None));
    assert_eq!(setup.held(), (vec![false, true], vec![true; 2]));

    let before = leaks().holds;
    let Setup {
        end,
        script,
        nic,
        sources,
        targets,
    } = setup;
    drop(end);
    assert_eq!(leaks().holds - before, 3);
    assert_eq!(script.gone.load(Ordering::SeqCst), 0, "leaked as well");
    assert!(sources[1].state().nic_reads == 1 && targets[0].try_as_slice().is_none());
    drop((sources, targets));
    assert_eq!(nic.stats().registrations, 3, "the NIC may still touch them");
}

#[test]
fn r11_the_end_of_a_queue_pair_releases_the_rest() {
    let setup = setup(2);
    let (script, sources) = (setup.script.clone(), setup.sources);
    setup.end.close().map_err(|(_, error)| error).unwrap();
    assert_eq!(script.gone.load(Ordering::SeqCst), 1);
    assert!(sources.iter().all(|mr| mr.state().is_free()));
    assert!(setup.targets.iter().all(|mr| mr.try_as_slice().is_some()));
}
