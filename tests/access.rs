//! Accessors against operations in flight: who waits for whom (R1), what guards deref to and how they
//! are read and written as streams (R2), and what never waits (R7).
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::io::{BufRead, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rdma_mr::gate::Writer;
use rdma_mr::op::Begin;
use rdma_mr::work::WcStatus;
use rdma_mr::{
    Access, Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrConstPtr, MrCursor,
    MrCursorMut, MrMutPtr, MrReadGuard, MrWriteGuard,
};
use util::*;

/// Every way to the bytes that does not wait is shut.
fn assert_unreadable(mr: &LocalMr) {
    assert!(mr.try_as_slice().is_none());
    assert!(mr.try_as_ptr().is_none());
    assert!(mr.try_as_slice_cursor().is_none());
    assert!(mr.get(..1).unwrap().try_as_slice().is_none());
    assert!(!mr.is_readable());
}

/// Every way to change the bytes that does not wait is shut.
fn assert_unwriteable(mr: &mut LocalMr) {
    assert!(mr.try_as_mut_slice().is_none());
    assert!(mr.try_as_mut_ptr().is_none());
    assert!(mr.try_as_mut_slice_cursor().is_none());
    assert!(mr.get_mut(..1).unwrap().try_as_mut_slice().is_none());
    assert!(!mr.is_writeable());
}

#[test]
fn r1_as_slice_waits_for_a_recv_and_then_sees_its_bytes() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(1, 64)), Arc::new(pair.alloc(64)));
    pair.start_message(&from, &*to);
    let region = to.clone();
    let reader = thread::spawn(move || region.as_slice().to_vec());
    assert_parks(&reader, &to, |state| state.waiting_shared);
    pair.nic.run_until_idle();
    // The bytes have arrived, but nobody has been told so.
    assert!(!reader.is_finished());
    assert_unreadable(&to);
    assert_eq!(pair.poll().len(), 2);
    assert_eq!(reader.join().unwrap(), pattern(1, 64));
    assert_eq!(to.waits(), 1);
}

#[test]
fn r1_as_ptr_and_the_cursor_wait_for_a_read() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.readable(&pattern(2, 64)), Arc::new(pair.alloc(64)));
    pair.start_read(&from, &*to);
    let (one, two) = (to.clone(), to.clone());
    let pointer = thread::spawn(move || {
        let pointer = one.as_ptr();
        // SAFETY: PTR-1, PTR-2, PTR-3: the guard is a hold of the region.
        unsafe { pointer.add(63).read() }
    });
    let cursor = thread::spawn(move || {
        let mut bytes = Vec::new();
        two.as_slice_cursor().read_to_end(&mut bytes).unwrap();
        bytes
    });
    eventually("both wait, or are through", || {
        to.waits() == 2 || pointer.is_finished() || cursor.is_finished()
    });
    assert!(!pointer.is_finished() && !cursor.is_finished());
    pair.finish(1);
    assert_eq!(pointer.join().unwrap(), pattern(2, 64)[63]);
    assert_eq!(cursor.join().unwrap(), pattern(2, 64));
}

#[test]
fn r1_nothing_reads_or_writes_while_the_nic_writes() {
    let mut pair = Pair::stepped();
    // SAFETY: REMOTE-1, REMOTE-2: the peers' atomics are over whenever the bytes are looked at.
    let word = unsafe { pair.shared_word(7) };
    let mut to = pair.alloc(8);
    for round in 0..4 {
        let hold = to.begin_write().unwrap();
        let target = remote(&word);
        match round {
            0 => pair.a.read(hold, target),
            1 => pair.a.fetch_add(hold, target, 5),
            2 => pair.a.compare_swap(hold, target, 12, 99),
            _ => pair.a.recv(hold),
        }
        .unwrap();
        if round == 3 {
            pair.b.send(word.begin_read().unwrap(), None).unwrap();
        }
        assert_eq!(to.state().writer, Some(Writer::Nic));
        assert_unreadable(&to);
        assert_unwriteable(&mut to);
        pair.nic.run_until_idle();
        assert_unreadable(&to);
        assert!(pair.poll().iter().all(|d| d.status == WcStatus::Success));
        let expected: u64 = [7, 7, 12, 99][round];
        assert_eq!(*to.as_slice(), expected.to_ne_bytes(), "round {round}");
        assert!(to.is_readable() && to.is_writeable());
    }
}

#[test]
fn r1_readers_share_with_nic_reads_and_writers_do_not() {
    let mut pair = Pair::stepped();
    let (mut from, to) = (pair.region(&pattern(3, 64)), pair.alloc(64));
    pair.start_message(&from, &to);
    assert_eq!(from.state().nic_reads, 1);
    assert_eq!(*from.as_slice(), *pattern(3, 64), "does not wait");
    assert!(from.try_as_ptr().is_some() && from.is_readable());
    assert!(from.try_begin_read().is_ok());
    assert_unwriteable(&mut from);
    assert!(matches!(from.try_begin_write(), Err(Error::Held { .. })));
    pair.finish(2);
    from.try_as_mut_slice().unwrap().fill(0);
    assert_eq!(*to.as_slice(), *pattern(3, 64));
}

#[test]
fn r1_as_mut_slice_waits_for_nic_reads() {
    let mut pair = Pair::stepped();
    let (mut from, to) = (pair.region(&pattern(4, 64)), pair.alloc(64));
    pair.start_message(&from, &to);
    let started = Arc::new(AtomicBool::new(false));
    let polled = Arc::new(AtomicBool::new(false));
    let (starts, polls) = (started.clone(), polled.clone());
    let writer = thread::spawn(move || {
        starts.store(true, Ordering::SeqCst);
        let mut guard = from.as_mut_slice();
        let waited = polls.load(Ordering::SeqCst);
        guard.fill(0);
        waited
    });
    eventually("it starts", || started.load(Ordering::SeqCst));
    pair.nic.run_until_idle();
    // Time for one that does not wait to be seen; one that does needs none.
    thread::sleep(Duration::from_millis(20));
    assert!(!writer.is_finished());
    polled.store(true, Ordering::SeqCst);
    assert_eq!(pair.poll().len(), 2);
    assert!(writer.join().unwrap(), "it got in before the completion");
    assert_eq!(*to.as_slice(), *pattern(4, 64));
}

#[test]
fn r1_an_operation_waits_for_readers_and_writers() {
    let pair = Pair::stepped();
    let mr = Arc::new(pair.alloc(64));
    let guard = mr.as_slice();
    assert!(matches!(mr.try_begin_write(), Err(Error::Held { state }) if state.cpu_readers == 1));
    let region = mr.clone();
    let begins = thread::spawn(move || region.begin_write().map(drop));
    assert_parks(&begins, &mr, |state| state.waiting_exclusive);
    drop(guard);
    begins.join().unwrap().unwrap();
    let writing = mr.write_inner();
    assert_eq!((writing.lkey(), writing.addr()), (mr.lkey(), mr.addr()));
    assert!(matches!(mr.try_begin_read(), Err(Error::Held { state })
        if state.writer == Some(Writer::Cpu)));
    assert_unreadable(&mr);
}

#[test]
fn r1_slices_share_their_parents_gate() {
    let mut pair = Pair::stepped();
    let from = pair.region(&pattern(5, 16));
    let mut to = pair.alloc(64);
    pair.b
        .recv(to.get(16..32).unwrap().begin_write().unwrap())
        .unwrap();
    assert_unreadable(&to);
    assert!(to.get(40..).unwrap().try_as_slice().is_none());
    assert!(to.get_mut(40..).unwrap().try_as_mut_slice().is_none());
    pair.a.send(from.begin_read().unwrap(), None).unwrap();
    pair.finish(2);
    let mut expected = [0; 64];
    expected[16..32].copy_from_slice(&pattern(5, 16));
    assert_eq!(*to.as_slice(), expected, "the hold's bytes and no others");

    let mut slice = to.get_mut(8..24).unwrap();
    slice.as_mut_slice()[0] = 0xAA;
    assert_eq!(slice.get(..1).unwrap().as_slice()[0], 0xAA);
    slice.get_mut(1..2).unwrap().as_mut_slice()[0] = 0xBB;
    assert_eq!(to.as_slice()[8..10], [0xAA, 0xBB]);
    let inner = to.get(8..24).unwrap().get(1..=1).unwrap();
    let guard = inner.as_slice();
    assert_eq!(*guard, [0xBB]);
    assert_eq!(to.state().cpu_readers, 1);
}

#[test]
fn r1_a_forgotten_guard_keeps_the_region_held() {
    let pair = Pair::stepped();
    let mut mr = pair.alloc(8);
    std::mem::forget(mr.as_slice());
    assert!(mr.try_as_slice().is_some() && mr.try_as_mut_slice().is_none());
    std::mem::forget(pair.alloc(8).as_mut_slice());
    assert!(matches!(mr.try_begin_write(), Err(Error::Held { .. })));
    drop(mr);
    assert_eq!(pair.nic.stats().registrations, 2, "leaked, not freed");
}

#[test]
fn r2_guards_deref_to_the_bytes_and_pointers_to_the_pointer() {
    fn bytes<G: Deref<Target = [u8]>>() {}
    fn pointer<G: Deref<Target = P>, P>() {}
    bytes::<MrReadGuard<'_>>();
    bytes::<MrWriteGuard<'_>>();
    pointer::<MrConstPtr<'_>, *const u8>();
    pointer::<MrMutPtr<'_>, *mut u8>();
    let mut mr = Pair::stepped().region(&[1, 2, 3]);
    let addr = mr.addr();
    assert_eq!(mr.as_slice().as_ptr() as usize, addr);
    assert_eq!(*mr.as_ptr() as usize, addr);
    assert_eq!(*mr.as_mut_ptr() as usize, addr);
    assert_eq!(mr.as_ptr_unchecked() as usize, addr);
    assert_eq!(mr.as_mut_ptr_unchecked() as usize, addr);
    assert_eq!(*mr.get(1..).unwrap().as_ptr() as usize, addr + 1);
    assert_eq!(mr.as_slice().as_ref(), [1, 2, 3]);
    mr.as_mut_slice().as_mut()[0] = 9;
    {
        let pointer = mr.as_mut_ptr();
        // SAFETY: PTRMUT-1, PTRMUT-2, PTRMUT-3: the guard is an exclusive hold of 3 bytes.
        unsafe { pointer.add(2).write(7) };
    }
    // SAFETY: SLICEMUT-1, SLICEMUT-2, SLICEMUT-3: no operation and no other thread has the region.
    unsafe { mr.as_mut_slice_unchecked()[1] = 8 };
    // SAFETY: SLICE-1, SLICE-2, SLICE-3: as above.
    assert_eq!(unsafe { mr.as_slice_unchecked() }, [9, 8, 7]);
}

#[test]
fn r2_guards_are_streams_from_the_front_and_the_bytes_keep_their_place() {
    let mut mr = Pair::stepped().region(b"one\ntwo\nthree");
    let mut guard = mr.as_slice();
    let mut line = String::new();
    guard.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    assert_eq!(guard.fill_buf().unwrap(), b"two\nthree");
    guard.consume(4);
    let mut rest = Vec::new();
    guard.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"three");
    assert_eq!(guard.read(&mut [0; 4]).unwrap(), 0);
    assert_eq!(&*guard, b"one\ntwo\nthree");
    assert_eq!(guard.into_cursor().position(), 13);

    let mut guard = mr.as_mut_slice();
    assert_eq!(guard.write(b"ONE").unwrap(), 3);
    let mut two = [0; 4];
    guard.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"\ntwo", "one position for both");
    guard.flush().unwrap();
    guard[12] = b'E';
    assert_eq!(guard.write(b"123456789").unwrap(), 6, "short at the end");
    assert_eq!(guard.write(b"x").unwrap(), 0);
    assert_eq!(kind(guard.write_all(b"x")), ErrorKind::WriteZero);
    drop(guard);
    assert_eq!(
        mr.as_mut_slice().write(b"new").unwrap(),
        3,
        "from the front"
    );
    assert_eq!(&*mr.as_slice(), b"new\ntwo123456");
}

#[test]
fn r2_cursors_seek_also_beyond_the_end() {
    let mut mr = Pair::stepped().region(&pattern(6, 10));
    let mut cursor: MrCursor<'_> = mr.as_slice_cursor();
    let mut two = [0; 2];
    assert_eq!(cursor.seek(SeekFrom::End(-2)).unwrap(), 8);
    assert_eq!(cursor.read(&mut two).unwrap(), 2);
    assert_eq!(two, pattern(6, 10)[8..]);
    assert_eq!(cursor.seek(SeekFrom::Current(-10)).unwrap(), 0);
    assert_eq!(
        kind(cursor.seek(SeekFrom::Current(-1))),
        ErrorKind::InvalidInput
    );
    assert_eq!(cursor.position(), 0, "a refused seek moves nothing");
    for beyond in [10, 11, u64::from(u32::MAX) + 5, u64::MAX] {
        cursor.set_position(beyond);
        assert_eq!(cursor.read(&mut two).unwrap(), 0);
        assert_eq!(cursor.fill_buf().unwrap(), b"");
        assert_eq!(cursor.position(), beyond);
    }
    cursor.set_position(1);
    assert_eq!(cursor.get_ref()[..], *pattern(6, 10));
    assert_eq!(cursor.get_mut().read(&mut two).unwrap(), 2);
    assert_eq!(cursor.position(), 3, "the guard's position is the cursor's");
    drop(cursor.into_inner());

    let mut cursor: MrCursorMut<'_> = mr.as_mut_slice_cursor();
    cursor.seek(SeekFrom::Start(8)).unwrap();
    assert_eq!(cursor.write(&[1, 2, 3]).unwrap(), 2, "short at the end");
    for beyond in [10, 11, u64::MAX] {
        cursor.set_position(beyond);
        assert_eq!(cursor.write(&[4]).unwrap(), 0);
    }
    cursor.get_mut()[0] = 5;
    cursor.set_position(8);
    assert_eq!(cursor.read(&mut two).unwrap(), 2);
    assert_eq!(two, [1, 2]);
    drop(cursor);
    assert_eq!((mr.as_slice()[0], &mr.as_slice()[8..]), (5, &[1, 2][..]));
}

#[test]
fn r7_keys_address_and_rights_never_wait() {
    let mut pair = Pair::stepped();
    let mr = Arc::new(pair.readable(&[0; 64]));
    pair.b.recv(mr.begin_write().unwrap()).unwrap();
    let (told, tells) = mpsc::channel();
    let region = mr.clone();
    thread::spawn(move || {
        let inner = region.read_inner();
        let token = region.token_with_timeout(LONG).unwrap();
        // SAFETY: LKEY-1, RKEY-1, TOKEN-1: nothing rotates the keys.
        let unchecked = unsafe {
            let token = region.token_with_timeout_unchecked(LONG).unwrap();
            (region.lkey_unchecked(), region.rkey_unchecked(), token)
        };
        assert_eq!((unchecked.0, unchecked.1), (inner.lkey(), inner.rkey()));
        assert_eq!(
            (unchecked.2.rkey(), token.rkey()),
            (inner.rkey(), inner.rkey())
        );
        assert_eq!(region.get_inner().keys(), (region.lkey(), region.rkey()));
        assert_eq!(region.get_inner().load(), inner);
        assert_eq!(
            (region.addr(), region.length()),
            (inner.addr(), inner.length())
        );
        assert_eq!(token.addr(), region.as_ptr_unchecked() as u64);
        let slice = region.get(8..16).unwrap();
        assert_eq!(
            (slice.lkey(), slice.addr()),
            (region.lkey(), region.addr() + 8)
        );
        told.send((region.access(), inner.access(), token.access()))
    });
    let rights = Access::LOCAL_WRITE | Access::REMOTE_READ;
    let seen = tells.recv_timeout(LONG).expect("it waits for the NIC");
    assert_eq!(seen, (rights, rights, rights));
    assert_eq!(mr.waits(), 0);
    assert_eq!(mr.state().writer, Some(Writer::Nic), "all that while");
}
