//! What a process does to registered memory, and what it may not do: fork, and lock more than it is allowed to.
//! `cargo xtask vm test` runs it.
#![cfg(feature = "verbs")]

mod fabric;

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use fabric::{Device, Fabric, LONG, finish};
use rdma_mr::backend::verbs::{Forking, fork_init, forking};
use rdma_mr::op::Begin;
use rdma_mr::work::{QpCaps, WcStatus};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

const PAGE: usize = 4096;

/// Runs one test of this file in a process of its own, for what can be done only once in each.
fn alone(test: &str, part: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--include-ignored", "--nocapture"]);
    let mut child = command.env("RDMA_MR_PART", part).spawn().unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LONG {
            child.kill().unwrap();
            panic!("{part}: it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn part() -> Option<String> {
    std::env::var("RDMA_MR_PART").ok()
}

/// What the child of a fork sees of a byte: it, or that it may not look.
fn seen_by_child(byte: *const u8, tell: impl FnOnce()) -> Result<u8, i32> {
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child reads a descriptor and a byte, and ends; it does nothing that needs a lock.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let mut go = 0_u8;
        // SAFETY: the descriptor is one of the pipe, the byte is mapped, or this process ends by a signal.
        unsafe {
            libc::read(pipe[0], (&raw mut go).cast(), 1);
            libc::_exit(byte.read_volatile().into());
        }
    }
    tell();
    let mut status = 0;
    // SAFETY: a descriptor of the pipe and a byte; the child's number, and a place for its status.
    unsafe {
        assert_eq!(libc::write(pipe[1], [1_u8].as_ptr().cast(), 1), 1);
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
    }
    match libc::WIFEXITED(status) {
        true => Ok(libc::WEXITSTATUS(status) as u8),
        false => Err(libc::WTERMSIG(status)),
    }
}

/// Posts a receive, forks, writes to the source, and has the NIC move it: the NIC and this process see the
/// same memory all the time.
fn fork_with_work_outstanding() {
    let device = Device::open();
    let (mut a, mut b) = device.pair(QpCaps::default());
    let (mut from, to) = (device.region(&[1; PAGE]), device.region(&[2; PAGE]));
    b.recv(to.begin_write().unwrap()).unwrap();
    let at: *const u8 = *from.as_ptr();
    let seen = seen_by_child(at, || {
        // The child lives, and has not looked: whatever was shared with it is written to now.
        from.as_mut_slice().fill(9);
        a.send(from.begin_read().unwrap(), None).unwrap();
        for end in [&mut a, &mut b] {
            assert_eq!(finish(end, 1)[0].status, WcStatus::Success);
        }
        assert_eq!(*to.as_slice(), [9; PAGE]);
    });
    println!("{:?}: the child sees {seen:?}", forking());
    match forking() {
        // As it was at the fork.
        Forking::Copied => assert_eq!(seen, Ok(1)),
        _ => assert_eq!(seen, Err(libc::SIGSEGV)),
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_fork_with_work_outstanding_leaves_the_nic_its_memory() {
    match part() {
        None => {
            let status = alone(
                "a_fork_with_work_outstanding_leaves_the_nic_its_memory",
                "fork",
            );
            assert!(status.success(), "{status}");
        }
        Some(_) => {
            fork_init().unwrap();
            assert_ne!(forking(), Forking::Forbidden);
            fork_with_work_outstanding();
        }
    }
}

/// Lets this process lock that many bytes, and be nobody.
fn limit_memory(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: a pointer to a limit; a user's number. This process has one thread that matters.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
        assert_eq!(libc::setuid(65534), 0);
    }
}

fn register_more_than_may_be_locked() {
    const LIMIT: usize = 256 * 1024;
    limit_memory(LIMIT as u64);
    let device = Device::open();
    // What queues and such have locked counts as well.
    let small = device.region(&[3; PAGE]);
    let rejected = LocalMr::register(device.pd(), vec![4_u8; 2 * LIMIT]).unwrap_err();
    let text = rejected.error.to_string();
    println!("{text}");
    assert!(matches!(&rejected.error, Error::Register(source)
        if source.kind() == std::io::ErrorKind::OutOfMemory));
    for word in ["RLIMIT_MEMLOCK", &LIMIT.to_string(), "ulimit -l"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(rejected.value, vec![4; 2 * LIMIT], "the memory comes back");
    assert!(LocalMr::alloc(device.pd(), 2 * LIMIT).is_err());
    // Nothing was kept: what there was room for before there is room for now.
    assert_eq!(device.registered(), 1);
    drop((small, device.alloc(LIMIT / 4)));
    assert_eq!(device.registered(), 0);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r19_more_than_may_be_locked_is_refused_and_says_what_to_do() {
    match part() {
        None => {
            let test = "r19_more_than_may_be_locked_is_refused_and_says_what_to_do";
            let status = alone(test, "limit");
            assert!(status.success(), "{status}");
        }
        Some(_) => register_more_than_may_be_locked(),
    }
}
