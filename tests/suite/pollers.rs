//! Who polls: two queues, two threads, waits with an event, and waits that poll (R11, R18).

use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::op::{Endpoint, Poller};
use rdma_mr::work::{CompletionEvents, QpCaps, QueuePair};

use super::*;
use crate::fabric::{LONG, finish};

pub fn r11_two_completion_queues_release_their_own<F: Fabric>(fabric: &F) {
    let (sends, recvs) = (Poller::new(fabric.cq(64)), Poller::new(fabric.cq(64)));
    let caps = QpCaps::default();
    let qp = fabric.qp(sends.cq(), recvs.cq(), caps);
    let cq = fabric.cq(64);
    let peer = fabric.qp(&cq, &cq, caps);
    fabric.connect(&qp, &peer);
    let mut a = Endpoint::attach_two(qp, &sends, &recvs).unwrap();
    let mut b = Endpoint::new(peer);
    let (from, to) = (words(fabric, 2), words(fabric, 2));
    let received = a.recv(to[0].begin_write().unwrap()).unwrap();
    b.recv(to[1].begin_write().unwrap()).unwrap();
    let sent = a.send(from[0].begin_read().unwrap(), None).unwrap();
    b.send(from[1].begin_read().unwrap(), None).unwrap();
    finish(&mut b, 2);
    let until_one = |poller: &Poller<F::Cq>| {
        let (mut all, start) = (Vec::new(), Instant::now());
        while poller.poll_with(|done| all.push(done)).unwrap() == 0 {
            assert!(start.elapsed() < LONG);
        }
        all
    };
    assert_succeeded(&until_one(&recvs), [received]);
    assert_free(&to);
    assert_read(&from[..1]);
    assert_succeeded(&until_one(&sends), [sent]);
    assert_free(&from);
    // And both at the end.
    a.send(from[0].begin_read().unwrap(), None).unwrap();
    a.recv(to[0].begin_write().unwrap()).unwrap();
    drop(a);
    assert_free(from.iter().chain(&to));
    assert_eq!(sends.unknown() + recvs.unknown(), 0);
}

pub fn r11_two_threads_poll_for_many<F: Fabric>(fabric: &F) {
    const PAIRS: usize = 4;
    const ROUNDS: usize = 50;
    let poller = Poller::new(fabric.cq(1024));
    let pair = |_| fabric.attached(&poller, QpCaps::default());
    let mut pairs: Vec<_> = (0..PAIRS).map(pair).collect();
    let (from, to) = (words(fabric, PAIRS), words(fabric, PAIRS));
    let (told, count) = (Mutex::new(HashSet::new()), AtomicUsize::new(0));
    let total = 2 * PAIRS * ROUNDS;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let start = Instant::now();
                while count.load(Ordering::Relaxed) < total && start.elapsed() < LONG {
                    let taken = poller.poll_with(|done| {
                        assert_eq!(done.status, WcStatus::Success);
                        assert!(told.lock().unwrap().insert(done.id), "told twice");
                    });
                    count.fetch_add(taken.unwrap(), Ordering::Relaxed);
                    thread::yield_now();
                }
            });
        }
        for _ in 0..ROUNDS {
            for ((a, b), (from, to)) in pairs.iter_mut().zip(from.iter().zip(&to)) {
                // Each waits until one of the threads has released the one before.
                let deadline = Instant::now() + LONG;
                b.recv(to.begin_write_until(deadline).unwrap()).unwrap();
                let hold = from.begin_read_until(deadline).unwrap();
                a.send(hold, None).unwrap();
            }
        }
    });
    assert_eq!(told.into_inner().unwrap().len(), total);
    assert_free(from.iter().chain(&to));
    assert_eq!(poller.unknown(), 0);
}

pub fn r18_a_poller_sleeps_until_there_is_something<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(64));
    let (mut a, mut b) = fabric.attached(&poller, QpCaps::default());
    let (from, to) = (fabric.alloc(8), fabric.alloc(8));
    b.recv(to.begin_write().unwrap()).unwrap();
    let (nap, start) = (Duration::from_millis(30), Instant::now());
    assert_eq!(poller.wait(Some(nap), |_| ()).unwrap(), 0);
    assert!(start.elapsed() >= nap);
    assert_written([&to]);
    for round in 0..20 {
        if round > 0 {
            b.recv(to.begin_write().unwrap()).unwrap();
        }
        let (mut taken, start) = (0, Instant::now());
        thread::scope(|scope| {
            let (a, from) = (&mut a, &from);
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(round % 4));
                a.send(from.begin_read().unwrap(), None).unwrap();
            });
            while taken < 2 {
                taken += poller.wait(Some(LONG), |_| ()).unwrap();
            }
        });
        assert!(start.elapsed() < LONG / 2, "it slept through an event");
        assert_free([&from, &to]);
    }
}

/// Whether the descriptor is readable within that time.
fn is_readable<C: CompletionEvents>(cq: &C, within: Duration) -> bool {
    let mut fd = libc::pollfd {
        fd: cq.fd().unwrap().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one element, alive during the call.
    let count = unsafe { libc::poll(&raw mut fd, 1, within.as_millis() as i32) };
    assert!(count >= 0);
    count == 1
}

pub fn r18_a_descriptor_tells_of_completions<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(64));
    let (mut a, mut b) = fabric.attached(&poller, QpCaps::default());
    let (from, to) = (words(fabric, 10), words(fabric, 10));
    for (from, to) in from.iter().zip(&to) {
        b.recv(to.begin_write().unwrap()).unwrap();
        assert_eq!(poller.arm(|_| ()).unwrap(), 0);
        assert!(!is_readable(poller.cq(), Duration::ZERO));
        a.send(from.begin_read().unwrap(), None).unwrap();
        let (mut taken, start) = (0, Instant::now());
        while taken < 2 {
            assert!(is_readable(poller.cq(), LONG), "{taken} of 2");
            // What there is, until it is safe to sleep again.
            loop {
                match poller.arm(|_| ()).unwrap() {
                    0 => break,
                    more => taken += more,
                }
            }
            assert!(start.elapsed() < LONG);
        }
        assert_free([from, to]);
    }
}

pub fn r18_waits_drive_the_poller<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(64));
    let (mut a, mut b) = fabric.attached(&poller, QpCaps::default());
    let (from, to) = (fabric.region(&[9; 8]), fabric.alloc(8));
    for _ in 0..10 {
        // The wait for the one before is what lets this one begin.
        let into = to.begin_write_with(|| poller.progress()).unwrap();
        b.recv(into).unwrap();
        a.send(from.begin_read().unwrap(), None).unwrap();
        assert_written([&to]);
    }
    assert_eq!(*to.as_slice_with(|| poller.progress()), [9; 8]);
    // From nothing but polls in between.
    drop(from.begin_write_with(|| poller.progress()).unwrap());
    assert_free([&from, &to]);
}

pub fn r11_completions_of_a_closed_endpoint_are_nobodys<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(64));
    let (mut a, mut b) = fabric.attached(&poller, QpCaps::default());
    let (from, to) = (fabric.alloc(8), words(fabric, 2));
    b.recv(to[0].begin_write().unwrap()).unwrap();
    a.send(from.begin_read().unwrap(), None).unwrap();
    // Both completions are in the queue when both ends go.
    thread::sleep(Duration::from_millis(50));
    b.qp().modify_to_error().unwrap();
    drop((a, b));
    assert_free([&from].into_iter().chain(&to));
    // Others on the same queue are not taken for them.
    let (mut a, mut b) = fabric.attached(&poller, QpCaps::default());
    let received = b.recv(to[1].begin_write().unwrap()).unwrap();
    thread::sleep(Duration::from_millis(5));
    assert_eq!(poller.poll().unwrap(), 0);
    assert_written(&to[1..]);
    let sent = a.send(from.begin_read().unwrap(), None).unwrap();
    let mut all = finish(&mut a, 2);
    all.sort_by_key(|done| done.id);
    assert_succeeded(&all, [sent, received]);
    assert_eq!(poller.unknown(), 0);
}
