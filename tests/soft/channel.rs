//! Events of completion queues: asked for, made, slept on, seen by `poll`.

use std::os::fd::AsRawFd;
use std::thread;

use super::*;

const SOLICITED: SendFlags = SIGNALED.union(SendFlags::SOLICITED);

/// What the system says of the descriptor, without waiting.
fn is_readable(cq: &CompletionQueue) -> bool {
    let mut fd = libc::pollfd {
        fd: cq.fd().unwrap().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one element, alive during the call.
    let count = unsafe { libc::poll(&raw mut fd, 1, 0) };
    assert!(count >= 0);
    assert_eq!(fd.revents & !libc::POLLIN, 0);
    count == 1
}

/// A stepped NIC and a queue pair that is its own peer; its sends complete at the first queue, its
/// receives at the second, both with channels.
fn looped(capacity: u32) -> (Nic, End) {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let send_cq = nic.create_cq_with_channel(capacity).unwrap();
    let recv_cq = nic.create_cq_with_channel(capacity).unwrap();
    let qp = pd.create_qp(&send_cq, &recv_cq, QpCaps::default()).unwrap();
    qp.connect(qp.qp_num()).unwrap();
    let end = End {
        pd,
        send_cq,
        recv_cq,
        qp,
    };
    (nic, end)
}

/// The events that are there, of which the descriptor must know.
fn events(cq: &CompletionQueue) -> u32 {
    let readable = is_readable(cq);
    let taken = cq.take_events().unwrap();
    assert_eq!(readable, taken > 0);
    assert!(!is_readable(cq), "taken");
    assert_eq!(cq.take_events().unwrap(), 0);
    taken
}

#[test]
fn armed_once_makes_one_event() {
    let (nic, end) = looped(16);
    let cq = &end.send_cq;
    for _ in 0..3 {
        cq.req_notify(false).unwrap();
        cq.req_notify(false).unwrap();
        assert_eq!(events(cq), 0, "nothing has completed");
        for id in 0..3 {
            end.post(id, NOTHING, &[]);
            nic.run_until_idle();
            assert!(is_readable(cq), "until it is taken");
        }
        assert_eq!(events(cq), 1);
        end.post(3, NOTHING, &[]);
        nic.run_until_idle();
        assert_eq!(events(cq), 0, "not armed again");
        assert_eq!(drain(cq).len(), 4);
    }
    // Armed again before the first is taken.
    for id in 0..2 {
        cq.req_notify(false).unwrap();
        end.post(id, NOTHING, &[]);
        nic.run_until_idle();
    }
    assert_eq!(events(cq), 2);
    assert_eq!(events(&end.recv_cq), 0, "the other queue's are its own");
}

#[test]
fn a_completion_before_arming_makes_none() {
    let (nic, end) = looped(16);
    end.post(1, NOTHING, &[]);
    nic.run_until_idle();
    end.send_cq.req_notify(false).unwrap();
    assert_eq!(events(&end.send_cq), 0);
    assert_eq!(drain(&end.send_cq).len(), 1, "which is why one polls again");
    end.post(2, NOTHING, &[]);
    nic.run_until_idle();
    assert_eq!(events(&end.send_cq), 1, "polling does not disarm");
}

#[test]
fn solicited_only_waits_for_what_the_peer_marked() {
    let (nic, end) = looped(16);
    let send = |id, op, flags| {
        end.recv(id, &[]);
        end.try_post(id, op, &[], flags).unwrap();
        nic.run_until_idle();
    };
    let with_imm = SendOp::Write {
        remote: RemoteAddr::default(),
        imm: Some(1),
    };
    for op in [SEND, with_imm] {
        end.send_cq.req_notify(true).unwrap();
        end.recv_cq.req_notify(true).unwrap();
        send(1, op, SIGNALED);
        assert_eq!(events(&end.recv_cq), 0);
        send(2, op, SOLICITED);
        assert_eq!(events(&end.recv_cq), 1);
        send(3, op, SOLICITED);
        assert_eq!(events(&end.recv_cq), 0, "one-shot");
        assert_eq!(events(&end.send_cq), 0, "the mark is for the receive");
    }
    // Asking for less afterwards takes nothing back.
    end.recv_cq.req_notify(false).unwrap();
    end.recv_cq.req_notify(true).unwrap();
    send(4, SEND, SIGNALED);
    assert_eq!(events(&end.recv_cq), 1);
    // What fails makes one, on both sides.
    end.recv_cq.req_notify(true).unwrap();
    end.recv(5, &[]);
    end.qp.modify_to_error();
    nic.run_until_idle();
    assert_eq!(events(&end.recv_cq), 1);
    end.post(6, NOTHING, &[]);
    nic.run_until_idle();
    assert_eq!(events(&end.send_cq), 1, "armed since the beginning");
}

#[test]
fn r15_an_overrun_wakes_a_sleeper() {
    for armed in [true, false] {
        let (nic, end) = looped(2);
        let cq = &end.send_cq;
        for id in 0..2 {
            end.post(id, NOTHING, &[]);
        }
        nic.run_until_idle();
        assert_eq!(events(cq), 0);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                if armed {
                    // An overrun is nobody's message, but it is a failure.
                    cq.req_notify(true).unwrap();
                }
                cq.wait_event(Some(LONG)).unwrap()
            });
            end.post(2, NOTHING, &[]);
            nic.run_until_idle();
            assert!(sleeper.join().unwrap());
        });
        for id in 3..6 {
            end.try_post(id, NOTHING, &[], SIGNALED).unwrap();
        }
        nic.run_until_idle();
        assert_eq!(events(cq), 0, "told once");
        let mut out = [WorkCompletion::EMPTY; 4];
        assert_eq!(cq.poll(&mut out).unwrap(), 2);
        assert!(cq.poll(&mut out).is_err());
    }
}

#[test]
fn without_a_channel_one_sleeps_as_well() {
    let pair = Pair::new();
    let cq = &pair.b.recv_cq;
    assert!(cq.fd().is_none());
    let start = Instant::now();
    let short = Duration::from_millis(10);
    assert!(!cq.wait_event(Some(short)).unwrap());
    assert!(start.elapsed() >= short);
    assert!(!cq.wait_event(Some(Duration::ZERO)).unwrap());

    pair.b.recv(1, &[]);
    cq.req_notify(false).unwrap();
    pair.a.post(1, SEND, &[]);
    assert!(cq.wait_event(None).unwrap());
    assert!(!cq.wait_event(Some(short)).unwrap(), "taken");
    let mut out = [WorkCompletion::EMPTY; 2];
    assert_eq!(cq.poll(&mut out).unwrap(), 1);
    assert_eq!(out[1], WorkCompletion::EMPTY);

    pair.b.recv(2, &[]);
    cq.req_notify(false).unwrap();
    pair.a.post(2, SEND, &[]);
    assert!(cq.wait_event(Some(Duration::MAX)).unwrap(), "for ever");
}

/// Arm, poll again, sleep in the system: no completion is slept through.
#[test]
fn a_loop_over_the_descriptor_sees_all() {
    const COUNT: u64 = 2000;
    let nic = Nic::new();
    let pd = nic.alloc_pd();
    let cq = nic.create_cq_with_channel(64).unwrap();
    let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
    qp.connect(qp.qp_num()).unwrap();
    let mut out = [WorkCompletion::EMPTY; 4];
    let (mut posted, mut polled) = (0, 0);
    while polled < COUNT {
        while posted < COUNT && post(&qp, posted, NOTHING, &[], SIGNALED).is_ok() {
            posted += 1;
        }
        cq.req_notify(false).unwrap();
        let got = cq.poll(&mut out).unwrap();
        polled += got as u64;
        if got > 0 {
            continue;
        }
        let mut fd = libc::pollfd {
            fd: cq.fd().unwrap().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one element, alive during the call.
        let ready = unsafe { libc::poll(&raw mut fd, 1, LONG.as_millis() as i32) };
        assert_eq!(ready, 1, "slept through after {polled}");
        cq.take_events().unwrap();
    }
}

#[test]
fn of_several_sleepers_one_gets_the_event() {
    let (nic, end) = looped(16);
    let cq = &end.send_cq;
    let woken = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                assert!(cq.wait_event(Some(LONG)).unwrap());
                woken.fetch_add(1, Ordering::Relaxed);
            });
        }
        for count in 1..=3 {
            cq.req_notify(false).unwrap();
            end.post(count, NOTHING, &[]);
            nic.run_until_idle();
            eventually("one wakes", || woken.load(Ordering::Relaxed) >= count);
            thread::sleep(Duration::from_millis(2));
            assert_eq!(woken.load(Ordering::Relaxed), count);
        }
    });
    assert_eq!(events(cq), 0);
}
