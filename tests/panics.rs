//! Panics while a guard, a hold, a prepared post or a lease lives; threads that end with some of them in
//! their own storage, or forgotten; a process that ends while a poller runs. What unwinding drops is given
//! back, what nobody drops stays held (R9, R14).
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::gate::ReadBias;
use rdma_mr::op::{Begin, Gather, Hold, Poller, recv_ring, send_ring};
use rdma_mr::work::{QpCaps, SendFlags, WcStatus};
use rdma_mr::{
    Access, Leaks, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, MrReadGuard,
    PoolOptions, leaks,
};
use util::*;

/// Somebody panics with what `take` gives in hand, here and on another thread.
fn panic_with<T>(take: impl Fn() -> T + Sync) {
    let fails = || {
        let taken = take();
        assert!(size_of_val(&taken) == usize::MAX, "on purpose");
    };
    catch_unwind(AssertUnwindSafe(fails)).unwrap_err();
    let joined = thread::scope(|scope| scope.spawn(fails).join());
    joined.unwrap_err();
}

#[track_caller]
fn assert_as_before(mr: &mut LocalMr) {
    assert!(mr.state().is_free(), "{}", mr.state());
    assert!(mr.try_as_mut_slice().is_some());
}

#[test]
fn r9_a_panic_with_a_guard_or_a_hold_gives_it_back() {
    let pair = Pair::stepped();
    for bias in [false, true] {
        let options = match bias {
            true => MrOptions::new().read_bias(ReadBias::default()),
            false => MrOptions::new(),
        };
        let mr = &mut options.alloc(&pair.pd, 64).unwrap();
        panic_with(|| mr.as_slice());
        panic_with(|| mr.as_ptr());
        panic_with(|| mr.as_slice_cursor());
        panic_with(|| [mr.as_slice(), mr.as_slice(), mr.as_slice(), mr.as_slice()]);
        panic_with(|| mr.begin_read().unwrap());
        panic_with(|| mr.begin_write().unwrap());
        panic_with(|| Gather::new([&*mr]).begin_write().unwrap());
        panic_with(|| mr.get(..8).unwrap().begin_read().unwrap());
        assert_as_before(mr);
        // A guard to write needs the region itself.
        let writes = || {
            mr.as_mut_slice()[0] = 7;
            let mut guard = mr.as_mut_slice();
            guard[1] = 8;
            panic!("on purpose");
        };
        catch_unwind(AssertUnwindSafe(writes)).unwrap_err();
        assert_as_before(mr);
        assert_eq!(mr.as_slice()[..2], [7, 8], "what was written is there");
    }
}

#[test]
fn r9_a_panic_in_a_wait_or_in_what_drives_it_holds_nothing() {
    let pair = Pair::stepped();
    let mut mr = pair.alloc(64);
    let hold = mr.begin_write().unwrap();
    let waits: [&dyn Fn(); 3] = [
        &|| drop(mr.as_slice_with(|| panic!("on purpose"))),
        &|| drop(mr.begin_read_with(|| panic!("on purpose"))),
        &|| drop(mr.begin_write_with(|| panic!("on purpose"))),
    ];
    for wait in waits {
        catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
    }
    // Futures that wait, too.
    panic_with(|| Driven::pending(mr.as_slice_async()));
    panic_with(|| Driven::pending(mr.begin_write_async()));
    drop(hold);
    assert_as_before(&mut mr);
}

#[test]
fn r10_a_panic_between_prepare_and_commit_takes_the_post_back() {
    let pair = Pair::stepped();
    let (mut one, mut two) = (pair.alloc(64), pair.alloc(64));
    let (mut sends, _completer) = send_ring(2, 2);
    let (mut recvs, _completer) = recv_ring(2, 2);
    for _ in 0..5 {
        let prepares = || {
            let _prepared = sends.prepare(one.begin_read().unwrap(), SendFlags::SIGNALED);
            panic!("on purpose");
        };
        catch_unwind(AssertUnwindSafe(prepares)).unwrap_err();
        let receives = || {
            let _prepared = recvs.prepare(one.begin_write().unwrap(), SendFlags::SIGNALED);
            panic!("on purpose");
        };
        catch_unwind(AssertUnwindSafe(receives)).unwrap_err();
        let chains = || {
            let mut chain = sends.chain();
            for mr in [&one, &two] {
                let pushed = chain.push(mr.begin_read().unwrap(), SendFlags::SIGNALED);
                pushed.unwrap();
            }
            panic!("on purpose");
        };
        catch_unwind(AssertUnwindSafe(chains)).unwrap_err();
        assert_eq!((sends.outstanding(), recvs.outstanding()), (0, 0));
        assert_as_before(&mut one);
        assert_as_before(&mut two);
    }
}

#[test]
fn r14_a_panic_with_a_lease_a_slot_or_an_endpoint_ends_them() {
    let pair = Pair::stepped();
    let mut mr = pair.alloc(64);
    let before = pair.nic.stats().registrations;
    let hour = Duration::from_secs(3600);
    panic_with(|| mr.lease(.., Access::REMOTE_WRITE, hour).unwrap());
    assert_eq!(pair.nic.stats().registrations, before);
    assert_as_before(&mut mr);

    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: 2,
        max_registrations: 1,
    };
    let pool = MrOptions::new().pool(&pair.pd, size).unwrap();
    panic_with(|| pool.take().unwrap());
    panic_with(|| {
        let slot = pool.take().unwrap();
        (slot.begin_write().unwrap(), slot)
    });
    assert_eq!(pool.free(), 2);
    pool.close().map_err(|(_, error)| error).unwrap();

    // Operations are outstanding: they end with the queue pair, and are released after it.
    let nic = &pair.nic;
    panic_with(|| {
        let mut ends = Pair::in_domain(nic, &pair.pd, QpCaps::default());
        ends.a.recv(mr.begin_write().unwrap()).unwrap();
        let drain = ends.a.drain();
        (ends.b, drain)
    });
    assert_as_before(&mut mr);
    panic_with(|| {
        let mut ends = Pair::in_domain(nic, &pair.pd, QpCaps::default());
        ends.a.recv(mr.begin_write().unwrap()).unwrap();
        ends
    });
    assert_as_before(&mut mr);
    assert_eq!(leaks(), Leaks::default());
}

#[test]
fn r11_a_panic_of_who_is_told_releases_all_that_was_polled() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.alloc(8), [pair.alloc(8), pair.alloc(8)]);
    for to in &to {
        pair.start_message(&from, to);
    }
    pair.nic.run_until_idle();
    let polls = || pair.b.poll(|_| panic!("on purpose"));
    catch_unwind(AssertUnwindSafe(polls)).unwrap_err();
    assert!(to.iter().all(|to| to.state().is_free()));
    // And the poller goes on.
    assert_eq!(pair.poll().len(), 2);
    pair.start_message(&from, &to[0]);
    pair.finish(2);
}

thread_local! {
    static HOLD: RefCell<Option<Hold>> = const { RefCell::new(None) };
    static GUARDS: RefCell<Vec<MrReadGuard<'static>>> = const { RefCell::new(Vec::new()) };
}

/// For as long as the process lives.
fn forever(options: MrOptions) -> &'static LocalMr {
    let mr = options.alloc(&Pair::stepped().pd, 64).unwrap();
    Box::leak(Box::new(mr))
}

#[test]
fn r9_what_a_thread_has_in_its_own_storage_is_given_back_when_it_ends() {
    for bias in [false, true] {
        let mr = forever(match bias {
            true => MrOptions::new().read_bias(ReadBias::default()),
            false => MrOptions::new(),
        });
        for used_before in [false, true] {
            // Its storage goes in the reverse order of first use: the crate's own before, or after.
            let (told, asks) = mpsc::channel();
            let (done, waits) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                if used_before {
                    drop(mr.as_slice());
                } else {
                    HOLD.with(|_| ());
                    GUARDS.with(|_| ());
                }
                HOLD.set(Some(mr.begin_read().unwrap()));
                // More than a thread has places for.
                GUARDS.with_borrow_mut(|guards| guards.extend((0..5).map(|_| mr.as_slice())));
                told.send(()).unwrap();
                waits.recv().unwrap();
            });
            asks.recv().unwrap();
            assert_eq!((mr.state().cpu_readers, mr.state().nic_reads), (5, 1));
            assert!(mr.try_begin_write().is_err());
            done.send(()).unwrap();
            thread.join().unwrap();
            assert!(mr.state().is_free(), "{}", mr.state());
        }
        assert!(mr.try_begin_write().is_ok());
    }
}

#[test]
fn r9_what_a_thread_forgot_or_left_to_others_outlives_it() {
    for bias in [false, true] {
        let mr = forever(match bias {
            true => MrOptions::new().read_bias(ReadBias::default()),
            false => MrOptions::new(),
        });
        // Left to us.
        let guard = thread::spawn(|| mr.as_slice()).join().unwrap();
        assert_eq!(mr.state().cpu_readers, 1);
        // The thread's number may be another's by now.
        thread::spawn(|| drop(mr.as_slice())).join().unwrap();
        assert!(mr.try_begin_write().is_err());
        drop(guard);
        assert!(mr.try_begin_write().is_ok());
        // Forgotten: whoever writes is refused for ever.
        thread::spawn(|| std::mem::forget(mr.as_slice()))
            .join()
            .unwrap();
        assert_eq!(mr.state().cpu_readers, 1);
        assert!(mr.try_begin_write().is_err() && mr.try_as_slice().is_some());
    }
}

/// Names the child, and what it does.
const CHILD: &str = "RDMA_MR_PANICS_CHILD";
const STATUS: i32 = 17;

/// A process of which a thread polls, waits and holds, and how it ends.
#[test]
fn child() {
    let Ok(how) = std::env::var(CHILD) else {
        return;
    };
    let nic = rdma_mr::backend::soft::Nic::new();
    let pd = nic.alloc_pd();
    let poller = Poller::new(nic.create_cq(64).unwrap());
    let polling = poller.spawn("polls").unwrap();
    let qp = pd.create_qp(poller.cq(), poller.cq(), QpCaps::default());
    let qp = qp.unwrap();
    qp.connect(rdma_mr::work::QueuePair::qp_num(&qp)).unwrap();
    let mut end = rdma_mr::op::Endpoint::attach(qp, &poller).unwrap();
    let mr = LocalMr::alloc(&pd, 64).unwrap();
    let mr: &'static LocalMr = Box::leak(Box::new(mr));
    for _ in 0..20 {
        let to = LocalMr::alloc(&pd, 64).unwrap();
        end.recv(to.begin_write().unwrap()).unwrap();
        let from = LocalMr::alloc(&pd, 64).unwrap();
        end.send(from.begin_read().unwrap(), None).unwrap();
    }
    let hold = mr.begin_write().unwrap();
    // Parked for good.
    thread::spawn(|| drop(mr.as_slice()));
    eventually("it waits", || mr.state().waiting_shared);
    match how.as_str() {
        "exit" => std::process::exit(STATUS),
        "abandon" => {
            std::mem::forget((polling, end, hold, poller));
            std::process::exit(STATUS)
        }
        // As a main function that has returned: all is dropped, threads are not waited for.
        _ => {
            drop(end);
            drop((hold, polling, poller, nic, pd));
            std::process::exit(STATUS)
        }
    }
}

#[test]
fn a_process_ends_while_a_poller_runs_and_others_wait() {
    for how in ["exit", "abandon", "drop"] {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, how)
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > LONG {
                child.kill().unwrap();
                panic!("{how}: it does not end");
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(STATUS), "{how}: {status}");
    }
}

/// A panic says nothing of the operation: it goes on, and its completion is one like others.
#[test]
fn r9_a_panic_of_who_posted_does_not_end_the_operation() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(3, 64)), pair.alloc(64));
    let posts = || {
        pair.start_message(&from, &to);
        panic!("on purpose");
    };
    catch_unwind(AssertUnwindSafe(posts)).unwrap_err();
    assert!(to.try_as_slice().is_none() && from.try_begin_write().is_err());
    let done = pair.settle();
    assert!(done.iter().all(|done| done.status == WcStatus::Success));
    assert_eq!(*to.try_as_slice().unwrap(), *pattern(3, 64));
}
