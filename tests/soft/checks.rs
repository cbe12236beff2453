//! Keys, bounds and rights: which status on which side, and that a refusal leaves the neighbours'
//! bytes alone.

use super::*;

#[test]
fn remote_bounds_to_the_byte() {
    // The registration is the middle of the memory, so that there is something to hit beside it.
    const START: usize = 4096;
    const LENGTH: usize = 1000;
    for (offset, length, granted) in [
        (START, LENGTH, true),
        (START + LENGTH - 1, 1, true),
        (START, LENGTH + 1, false),
        (START - 1, 1, false),
        (START - 1, LENGTH + 1, false),
        (START + 1, LENGTH, false),
        (START + LENGTH, 1, false),
        (START, 3 * MTU, false),
    ] {
        for write_it in [true, false] {
            let what = format!("{offset} {length} write {write_it}");
            let pair = Pair::stepped();
            let memory = Memory::new(4 * 4096);
            memory.fill(0x55);
            // SAFETY: REG-4: inside of `memory`, deregistered below, before `memory` is dropped.
            let mut mr =
                unsafe { pair.b.pd.register(memory.start().add(START), LENGTH, ALL) }.unwrap();
            let here = pair.a.region(4 * 4096);
            here.memory.fill(0xAA);
            let remote = RemoteAddr {
                addr: memory.addr(offset),
                rkey: mr.rkey,
            };
            let op = if write_it {
                write(remote)
            } else {
                read(remote)
            };
            let sge = [here.sge(0, length)];
            if granted {
                assert_eq!(pair.run(op, &sge).status, WcStatus::Success, "{what}");
            } else {
                assert_remote_access_error(&pair, op, &sge, &what);
                assert!(
                    memory
                        .read(0, memory.len())
                        .iter()
                        .all(|byte| *byte == 0x55)
                );
                assert!(here.memory.read(0, length).iter().all(|byte| *byte == 0xAA));
            }
            mr.handle.deregister().unwrap();
        }
    }
}

#[test]
fn remote_addresses_that_overflow() {
    for addr in [u64::MAX, u64::MAX - 6, 0, 8] {
        let pair = Pair::stepped();
        let (here, there) = (pair.a.region(64), pair.b.region(64));
        let remote = RemoteAddr {
            addr,
            rkey: there.rkey,
        };
        for op in [write(remote), read(remote)] {
            let pair = Pair::stepped();
            let here = pair.a.region(64);
            assert_remote_access_error(&pair, op, &[here.sge(0, 8)], "overflow");
        }
        assert_remote_access_error(&pair, write(remote), &[here.sge(0, 8)], "overflow");
    }
}

#[test]
fn remote_keys_and_rights() {
    type Op = fn(RemoteAddr) -> SendOp;
    let none = Access::LOCAL_WRITE;
    let cases: [(&str, Access, Op); 6] = [
        ("WRITE to read-only", none | Access::REMOTE_READ, write),
        ("WRITE to atomic-only", none | Access::REMOTE_ATOMIC, write),
        ("READ of write-only", none | Access::REMOTE_WRITE, read),
        ("READ of local", none, read),
        (
            "FETCH_ADD without the right",
            none | Access::REMOTE_READ | Access::REMOTE_WRITE,
            add,
        ),
        (
            "CMP_SWAP without the right",
            none | Access::REMOTE_READ | Access::REMOTE_WRITE,
            swap,
        ),
    ];
    for (what, access, op) in cases {
        let pair = Pair::stepped();
        let here = pair.a.region(8);
        let there = Region::new(&pair.b.pd, 8, access);
        assert_remote_access_error(&pair, op(there.remote(0)), &[here.all()], what);
        assert_eq!(there.memory.load(0), 0, "{what}");
    }
    for op in [write, read, add, swap] {
        for what in [
            "unknown",
            "lkey",
            "stale",
            "other domain",
            "requester's domain",
        ] {
            let pair = Pair::stepped();
            let here = pair.a.region(8);
            here.memory.store(0, 1);
            let mut there = pair.b.region(8);
            let other = Region::new(&pair.nic.alloc_pd(), 8, ALL);
            let mut remote = there.remote(0);
            match what {
                "unknown" => remote.rkey = 0xFFFF_FFFF,
                "lkey" => remote.rkey = there.lkey,
                "stale" => there.deregister(),
                "other domain" => remote = other.remote(0),
                _ => remote = here.remote(0),
            }
            assert_remote_access_error(&pair, op(remote), &[here.all()], what);
            assert_eq!(
                (there.memory.load(0), other.memory.load(0)),
                (0, 0),
                "{what}"
            );
            assert_eq!(here.memory.load(0), 1, "{what}");
        }
    }
}

#[test]
fn local_keys_and_bounds() {
    for op in [write, read, add, swap, |_| SEND] {
        for what in [
            "unknown",
            "rkey",
            "stale",
            "other domain",
            "one too far",
            "before",
        ] {
            let pair = Pair::stepped();
            let there = pair.b.region(8);
            let mut here = pair.a.region(64);
            let other = Region::new(&pair.b.pd, 8, ALL);
            let mut sge = here.sge(0, 8);
            match what {
                "unknown" => sge.lkey = 0,
                "rkey" => sge.lkey = here.rkey,
                "stale" => here.deregister(),
                "other domain" => sge = other.all(),
                "one too far" => sge = here.sge(57, 8),
                _ => sge.addr -= 1,
            }
            assert_local_protection_error(&pair, op(there.remote(0)), &[sge], what);
        }
    }
}

#[test]
fn local_write_is_needed_where_the_nic_writes() {
    for op in [read, add, swap] {
        let pair = Pair::stepped();
        let there = pair.b.region(8);
        there.memory.store(0, 5);
        let here = Region::new(&pair.a.pd, 8, Access::empty());
        let op = op(there.remote(0));
        assert_local_protection_error(&pair, op, &[here.all()], "no LOCAL_WRITE");
        assert_eq!(here.memory.load(0), 0);
    }
    let pair = Pair::stepped();
    let there = pair.b.region(8);
    let here = Region::new(&pair.a.pd, 8, Access::empty());
    let done = pair.run(write(there.remote(0)), &[here.all()]);
    assert_eq!(done.status, WcStatus::Success, "a source needs no right");
}
