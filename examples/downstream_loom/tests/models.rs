//! Models of the inbox: `RUSTFLAGS="--cfg loom" cargo test --release`.
#![cfg(loom)]

mod util;

use downstream_loom::{Bug, broken_inbox, inbox};
use loom::thread;
use rdma_mr::LocalMr;
use rdma_mr::op::Begin;
use util::{Kept, World, explore, insist};

/// Each is longer than the one before.
const MESSAGES: [&[u8]; 2] = [b"a", b"bc"];

/// Two threads: one that polls and posts, and lets the NIC carry out what there is; one that reads. Both wait
/// in a loop, and a third one that has something to do might never have its turn: loom is not fair. Both
/// are new: what a thread has written itself, or seen, loom does not show it again after a `yield_now`.
fn messages_arrive(bug: Option<Bug>) {
    // Before any thread is started: loom has nothing to explore here.
    let world = World::new();
    let sources = MESSAGES.map(|message| world.region(message));
    let World { nic, pd, mut a, b } = world;
    for source in &sources {
        a.send(source.begin_read().unwrap(), None).unwrap();
    }
    // One slot, for two messages.
    let slots = vec![LocalMr::alloc(&*pd, 8).unwrap()];
    let (feeder, reader) = match bug {
        None => inbox(slots, b.into_inner()),
        Some(bug) => broken_inbox(slots, b.into_inner(), bug),
    };
    let (mut feeder, mut reader) = (Kept::new(feeder), Kept::new(reader));
    let polling = {
        let nic = nic.clone();
        thread::spawn(move || {
            let mut came = 0;
            insist(|| {
                came += feeder.turn().unwrap();
                assert_eq!(feeder.failed(), None);
                nic.step();
                (came == MESSAGES.len()).then_some(())
            });
            (nic, feeder)
        })
    };
    let reading = thread::spawn(move || {
        for expected in MESSAGES {
            insist(|| {
                let message = Kept::new(reader.try_next()?);
                assert!(**message == *expected, "the wrong message");
                Some(())
            });
        }
        reader
    });
    drop(polling.join().unwrap());
    drop(reading.join().unwrap());
    drop((a, sources, pd));
    assert_eq!(nic.stats().registrations, 0);
}

/// Whole, in order, and each once; the slot is used twice.
#[test]
fn messages_arrive_as_they_were_sent() {
    explore(30, || messages_arrive(None));
}

/// Must fail. The reader sees that there is a message, and not how long it is.
#[test]
#[should_panic(expected = "the wrong message")]
fn a_message_that_is_published_too_weakly_is_noticed() {
    explore(1, || messages_arrive(Some(Bug::PublishedTooWeakly)));
}

/// Must fail. The NIC may have the slot when the message is read; the layer below refuses.
#[test]
#[should_panic(expected = "the message is the reader's")]
fn a_slot_that_is_given_back_too_early_is_noticed() {
    explore(1, || messages_arrive(Some(Bug::GivenBackTooEarly)));
}
