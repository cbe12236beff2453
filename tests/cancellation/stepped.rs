//! What needs a NIC in software that acts step by step, or fails when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{Fault, Nic, When};
use rdma_mr::op::{AsyncQueuePair, Begin, Drained, Endpoint, Poller};
use rdma_mr::work::QpCaps;
use rdma_mr::{Error, LocalMr};

use crate::fabric::{Fabric, Soft, remote};
use crate::suite::subject::{CUTS, Count, Cut, Subject};

const RECEIVES: usize = 3;
/// For what is repeated often.
const TIME: Duration = Duration::from_secs(10);

/// Polls with a waker that is woken before the next poll.
fn drained(subject: &mut Subject<'_, Drained>, woken: &mut Option<Arc<Count>>) -> Option<Drained> {
    if let Some(count) = woken.take() {
        assert!(count.get() > 0, "not woken");
    }
    let (count, waker) = Count::new();
    *woken = Some(count);
    match subject.poll(&waker) {
        Poll::Ready(drained) => Some(drained),
        Poll::Pending => None,
    }
}

/// The drain of a queue pair with three receives, of which the NIC flushes one at a time, while
/// another polls; given up after that many pending polls. Gives how many there are.
fn drain(cut: Option<(usize, Cut)>) -> usize {
    let fabric = Soft::stepped();
    let poller = Poller::new(fabric.cq(16));
    let (a, b) = fabric.asynchronous(&poller, QpCaps::default());
    let regions = [(); RECEIVES].map(|()| fabric.alloc(8));
    for mr in &regions {
        let mut receive = Subject::new(a.recv(mr)).pending();
        receive.cut(Cut::Drop);
    }
    let (mut pendings, mut woken) = (0, None);
    let mut subject = Subject::new(a.drain());
    while cut.is_none_or(|(after, _)| pendings < after) {
        let Some(drained) = drained(&mut subject, &mut woken) else {
            pendings += 1;
            let free = regions.iter().filter(|mr| mr.state().is_free());
            assert_eq!(free.count(), pendings - 1);
            if cut.is_some_and(|(after, _)| pendings == after) {
                break;
            }
            assert!(fabric.nic.step());
            assert_eq!(poller.poll().unwrap(), 1);
            continue;
        };
        assert!(cut.is_none());
        assert_eq!(
            (drained.completed, drained.released, drained.leaked),
            (RECEIVES, 0, 0)
        );
        assert!(drained.error.is_none());
        // Again: nothing is left to account for.
        let Poll::Ready(drained) = subject.poll(Waker::noop()) else {
            panic!("it has ended");
        };
        assert_eq!(
            (drained.completed, drained.released, drained.leaked),
            (0, 0, 0)
        );
        return pendings;
    }
    let (after, how) = cut.unwrap();
    let flushed = after.saturating_sub(1);
    let held = |flushed: usize| {
        for (at, mr) in regions.iter().enumerate() {
            assert_eq!(mr.state().is_free(), at < flushed);
        }
    };
    held(flushed);
    subject.cut(how);
    subject.assert_untouched();
    let queue_pairs = fabric.nic.stats().queue_pairs;
    match how {
        Cut::Drop => {
            assert_eq!(queue_pairs, 1, "destroyed");
            held(RECEIVES);
            drop(regions);
        }
        Cut::Forget => {
            assert_eq!(queue_pairs, 2, "the NIC goes on");
            held(flushed);
            // Their handles gone, they stay registered until each one's completion.
            let mut live = fabric.nic.stats().registrations;
            assert_eq!(live, RECEIVES);
            drop(regions);
            live -= flushed;
            assert_eq!(fabric.nic.stats().registrations, live);
            fabric.act();
            assert_eq!(fabric.nic.stats().registrations, live);
            poller.poll().unwrap();
        }
    }
    assert_eq!(fabric.nic.stats().registrations, 0);
    drop(b);
    pendings
}

#[test]
fn r11_a_drain_given_up_at_every_await_point() {
    assert_eq!(drain(None), RECEIVES);
    for after in 0..=RECEIVES {
        for how in CUTS {
            assert_eq!(drain(Some((after, how))), after);
        }
    }
}

/// When the completion queue fails, all who wait on it are told, also those who wait for room or come
/// later; the holds of what was posted stay until the queue pair's end.
#[test]
fn r11_futures_are_told_when_the_queue_fails_and_holds_stay() {
    let fabric = Soft::on(Nic::builder().stepped().build());
    let poller = Poller::new(fabric.cq(1));
    let caps = QpCaps {
        max_send_wr: 2,
        ..QpCaps::default()
    };
    let (a, b) = fabric.asynchronous(&poller, caps);
    // SAFETY: REMOTE-1, REMOTE-2: nobody looks at the bytes.
    let to = unsafe { fabric.open_to_peers(&[0; 8]) };
    let regions: [LocalMr; 5] = [(); 5].map(|()| fabric.region(&[1; 8]));
    let (count, waker) = Count::new();
    let mut writes: Vec<_> = regions
        .iter()
        .map(|mr| Subject::new(a.write(mr, remote(&to))))
        .collect();
    // Two are posted, two wait for room.
    for write in &mut writes[..4] {
        assert!(write.poll(&waker).is_pending());
    }
    fabric.act();
    assert_eq!(poller.poll().unwrap(), 1);
    assert!(poller.poll().is_err(), "overrun");
    assert_eq!(count.get(), 4);
    assert!(matches!(writes[0].poll(&waker), Poll::Ready(Ok(_))));
    // One that was posted, one that finds room now, and two that don't.
    for (at, write) in writes.iter_mut().enumerate().skip(1) {
        let Poll::Ready(told) = write.poll(&waker) else {
            panic!("{at} waits for what can't come");
        };
        assert!(matches!(told, Err(Error::CompletionsLost)), "{told:?}");
        assert_eq!(regions[at].state().nic_reads, u64::from(at < 3));
    }
    drop(writes);
    drop((a, b));
    assert!(regions.iter().all(|mr| mr.state().is_free()));
}

/// Dropped and forgotten by one thread at any moment of the delivery by another.
#[test]
fn r9_dropped_by_another_thread_while_it_is_told() {
    // Fewer where others want the processors, too.
    let (rounds, end) = (if cfg!(miri) { 40 } else { 10_000 }, Instant::now() + TIME);
    let fabric = Soft::open();
    let poller = Poller::new(fabric.cq(64));
    let (a, b) = fabric.asynchronous(&poller, QpCaps::default());
    // SAFETY: REMOTE-1, REMOTE-2: nobody looks at the bytes.
    let to = unsafe { fabric.open_to_peers(&[0; 8]) };
    let mr = fabric.region(&[1; 8]);
    let stop = AtomicBool::new(false);
    let polled = AtomicUsize::new(0);
    let (mut done, mut finished) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let taken = poller.poll().unwrap();
                polled.fetch_add(taken, Ordering::Relaxed);
                if taken == 0 {
                    thread::yield_now();
                }
            }
        });
        for round in (0..rounds).take_while(|_| Instant::now() < end) {
            let mut write = Subject::new(a.write(&mr, remote(&to)));
            let mut pending = write.poll(Waker::noop()).is_pending();
            // A while that differs, up to longer than the operation takes.
            for _ in 0..round % 97 * 8 {
                std::hint::spin_loop();
            }
            if pending && round % 3 == 0 {
                pending = write.poll(Waker::noop()).is_pending();
            }
            done += 1;
            finished += usize::from(!pending);
            write.cut(Cut::Drop);
            // Its operation has to be over, then the memory is looked at.
            drop(mr.begin_write().unwrap());
            write.assert_untouched();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(poller.poll().unwrap() + polled.into_inner(), done);
    assert!(finished < done, "none was dropped in flight");
    drop((a, b));
}

/// The delivery to a future whose queue pair ends meanwhile, of a list that failed: told in order.
#[test]
fn r12_futures_behind_a_failed_operation_are_told() {
    let fabric = Soft::stepped();
    fabric.nic.inject(
        Fault::Completion(rdma_mr::work::WcStatus::RemOpErr),
        When::Nth(1),
    );
    let (poller_a, poller_b) = (Poller::new(fabric.cq(16)), Poller::new(fabric.cq(16)));
    let (a, b) = fabric.queue_pairs(poller_a.cq(), poller_b.cq(), QpCaps::default());
    let of = |qp, poller| {
        Endpoint::attach(qp, poller)
            .map_err(|rejected| rejected.error)
            .unwrap()
    };
    let a = AsyncQueuePair::new(of(a, &poller_a));
    let _b = of(b, &poller_b);
    // SAFETY: REMOTE-1, REMOTE-2: nobody looks at the bytes.
    let to = unsafe { fabric.open_to_peers(&[0; 8]) };
    let regions = [(); 2].map(|()| fabric.region(&[1; 8]));
    let mut writes = regions
        .each_ref()
        .map(|mr| Subject::new(a.write(mr, remote(&to))).pending());
    fabric.act();
    poller_a.poll().unwrap();
    for write in &mut writes {
        let told = write.poll(Waker::noop());
        assert!(matches!(
            told,
            Poll::Ready(Err(Error::OperationFailed { .. }))
        ));
    }
    assert!(regions.iter().all(|mr| mr.try_begin_write().is_ok()));
}
