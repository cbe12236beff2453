//! Every transition as a plain function of numbers.

use super::*;

const ALL: [Holder; 4] = [
    Holder::CpuRead,
    Holder::NicRead,
    Holder::CpuWrite,
    Holder::NicWrite,
];

fn word(bits: u64) -> Word {
    Word::from_bits(bits)
}

#[test]
fn fields_do_not_overlap_and_fill_the_word() {
    let flags = [
        Word::CPU_EXCL,
        Word::NIC_EXCL,
        Word::WAIT_SHARED,
        Word::WAIT_EXCL,
        Word::PENDING,
        Word::CLOSED,
        Word::ORPHANED,
        Word::BIASED,
        Word::RETIRING,
        Word::WAIT_OLD,
        Word::MAY_BIAS,
    ];
    let sum: u64 = flags.iter().sum();
    assert_eq!(sum, 0x7ff);
    assert_eq!(sum | Word::COUNTS, u64::MAX);
    let fields = [Kind::NicRead, Kind::NewRead, Kind::CpuRead];
    let counts: u64 = fields.iter().map(|kind| kind.field()).sum();
    assert_eq!(counts, Word::COUNTS);
    let reads = word(3 * Word::NIC_READ + 4 * Word::NEW_READ + 5 * Word::READER);
    assert_eq!((reads.nic_reads(), reads.readers()), (7, 5));
    assert_eq!(word(u64::MAX).readers(), (1 << 20) - 1);
}

#[test]
fn every_pair_of_holders_shares_only_if_both_are_shared() {
    for inside in ALL {
        for wants in ALL {
            let open = word(Kind::of(inside).unit()).entry(wants) == Entry::Open;
            assert_eq!(
                open,
                inside.is_shared() && wants.is_shared(),
                "{inside:?} {wants:?}"
            );
        }
    }
    for wants in ALL {
        assert_eq!(word(0).entry(wants), Entry::Open);
    }
}

#[test]
fn the_bars_are_what_keeps_the_way_from_being_open() {
    let fields = (0..64).map(|bit| 1u64 << bit);
    for bits in fields.chain([
        0,
        Word::PENDING | Word::READER,
        Word::CLOSED | Word::WAITING,
    ]) {
        for wants in ALL {
            let barred = word(bits).has(Word::bars(wants));
            let open = word(bits).entry(wants) == Entry::Open;
            let apart = word(bits).kind(wants) == Kind::NewRead;
            let biased = word(bits).has(Word::MAY_BIAS) && wants != Holder::NicRead;
            assert_eq!(barred, !open || apart || biased, "{bits:#x} {wants:?}");
            let refused = word(bits).has(Word::refuses(wants));
            assert!(!refused || !open, "{bits:#x} {wants:?}");
        }
    }
}

#[test]
fn readers_are_published_while_biased_and_nobody_is_or_wants_in_exclusively() {
    let biased = Word::BIASED | Word::MAY_BIAS;
    assert!(!word(Word::MAY_BIAS).lets_publish());
    for beside in [
        0,
        Word::READER,
        Word::NIC_READ,
        Word::CLOSED,
        Word::RETIRING,
    ] {
        assert!(word(biased | beside).lets_publish());
    }
    for beside in [Word::CPU_EXCL, Word::NIC_EXCL, Word::PENDING] {
        assert!(!word(biased | beside).lets_publish());
    }
    for holder in [Holder::CpuWrite, Holder::NicWrite] {
        let held = biased | Kind::of(holder).unit();
        assert_eq!(held & Word::exclusive_release_mask(holder), Word::MAY_BIAS);
    }
}

#[test]
fn a_count_that_is_given_back_before_it_is_there_owes_nothing() {
    let held = word(Word::NIC_EXCL | Word::WAITING | Word::MAY_BIAS);
    let owed = held.after_release(Kind::CpuRead);
    assert!(!owed.wake && !owed.last);
}

#[test]
fn pending_holds_back_shared_sides_only_and_closed_the_nic_only() {
    for wants in ALL {
        let entry = word(Word::PENDING).entry(wants);
        assert_eq!(entry == Entry::StandBack, wants.is_shared());
        let entry = word(Word::CLOSED).entry(wants);
        assert_eq!(entry == Entry::Closed, wants.is_nic());
    }
}

#[test]
fn a_shared_add_stands_unless_an_exclusive_side_or_the_close_came_first() {
    for shared in [Holder::CpuRead, Holder::NicRead] {
        let bars = Word::bars_shared(shared);
        assert!(!word(Word::READER * 3 + Word::NIC_READ + Word::PENDING).has(bars));
        assert!(word(Word::CPU_EXCL).has(bars));
        assert!(word(Word::NIC_EXCL).has(bars));
        assert_eq!(word(Word::CLOSED).has(bars), shared.is_nic());
    }
}

#[test]
fn exclusive_entry_answers_its_request_and_keeps_the_waiters() {
    let before = word(Word::PENDING | Word::WAITING | Word::CLOSED);
    let after = before.with_exclusive(Holder::CpuWrite);
    assert_eq!(after.bits(), Word::CPU_EXCL | Word::WAITING | Word::CLOSED);
    let kept = after.bits() & Word::exclusive_release_mask(Holder::CpuWrite);
    assert_eq!(kept, Word::CLOSED);
}

#[test]
fn only_the_last_release_wakes_and_frees() {
    let two = word((2 * Word::READER) | Word::WAITING | Word::ORPHANED);
    let none = Owed {
        wake: false,
        last: false,
        make_way: false,
    };
    assert_eq!(two.after_release(Kind::CpuRead), none);
    let mixed = word(Word::READER | Word::NIC_READ | Word::WAITING | Word::ORPHANED);
    assert_eq!(mixed.after_release(Kind::NicRead), none);
    let last = word(Word::NIC_READ | Word::WAIT_EXCL | Word::ORPHANED);
    assert_eq!(
        last.after_release(Kind::NicRead),
        Owed {
            wake: true,
            last: true,
            make_way: false
        }
    );
    assert!(!last.release_is_done(Holder::NicRead));
    let shared_only = word(Word::NIC_READ | Word::WAIT_SHARED);
    assert_eq!(shared_only.after_release(Kind::NicRead), none);
    assert!(shared_only.release_is_done(Holder::NicRead));
    for waiter in [Word::WAIT_SHARED, Word::WAIT_EXCL] {
        let held = word(Word::NIC_EXCL | waiter);
        assert!(held.after_release(Kind::NicWrite).wake);
        let with_undo_under_way = word(Word::NIC_EXCL | waiter | Word::READER);
        assert!(with_undo_under_way.after_release(Kind::NicWrite).wake);
    }
}

#[test]
fn a_full_field_is_told_at_half_of_what_it_counts() {
    let full = |n, unit, holder| word(n * unit).entry(holder) == Entry::Full;
    for (unit, holder, other) in [
        (Word::READER, Holder::CpuRead, Holder::NicRead),
        (Word::NIC_READ, Holder::NicRead, Holder::CpuRead),
    ] {
        assert!(!full(Word::MAX_COUNT - 1, unit, holder));
        assert!(full(Word::MAX_COUNT, unit, holder));
        assert!(full(2 * Word::MAX_COUNT - 1, unit, holder));
        assert!(!full(Word::MAX_COUNT, unit, other));
    }
    assert_eq!(Word::MAX_COUNT, 1 << 19);
}

#[test]
fn reads_are_counted_apart_while_something_retires_and_there_is_room() {
    let read = Kind::NicRead;
    assert_eq!(word(0).kind(Holder::NicRead), read);
    assert_eq!(word(Word::RETIRING).kind(Holder::NicRead), Kind::NewRead);
    let full = word(Word::RETIRING | Word::NEW_READS_FULL);
    assert_eq!(full.kind(Holder::NicRead), read);
    for other in [Holder::CpuRead, Holder::CpuWrite, Holder::NicWrite] {
        assert_eq!(word(Word::RETIRING).kind(other), Kind::of(other));
    }
}

#[test]
fn a_retirement_ends_when_what_was_in_flight_has_ended() {
    let marks = Word::RETIRING | Word::WAIT_OLD;
    let step = |bits, stage| {
        let (after, stage) = word(bits).retire(stage);
        (after.bits(), stage)
    };
    // Nothing in flight; a CPU's holds don't matter.
    for bits in [0, 3 * Word::READER, Word::CPU_EXCL | Word::WAITING] {
        assert_eq!(step(bits, Stage::Start), (bits, Stage::Over));
    }
    // Reads: those in the old field, whatever is in the new one by now.
    let reads = 2 * Word::NIC_READ;
    assert_eq!(step(reads, Stage::Start), (reads | marks, Stage::Reads));
    let later = Word::NIC_READ | Word::NEW_READ | marks;
    assert_eq!(step(later, Stage::Reads), (later, Stage::Reads));
    let none = Word::NEW_READ | marks;
    assert_eq!(step(none, Stage::Reads), (Word::NEW_READ, Stage::Over));
    // The next one waits for those first, and they get no more.
    let next = step(Word::NEW_READ | Word::NIC_READ, Stage::Start);
    let waits = Word::NEW_READ | Word::NIC_READ | Word::WAIT_OLD;
    assert_eq!(next, (waits, Stage::Start));
    // An exclusive operation: its own end says so, also if another one has begun since.
    let held = Word::NIC_EXCL;
    assert_eq!(step(held, Stage::Start), (held | marks, Stage::Write));
    assert_eq!(
        step(held | marks, Stage::Write),
        (held | marks, Stage::Write)
    );
    assert_eq!(step(held, Stage::Write), (held, Stage::Over));
    assert_eq!(step(held, Stage::Reads), (held, Stage::Over));
    let kept = (held | marks) & Word::exclusive_release_mask(Holder::NicWrite);
    assert_eq!(kept, 0);
}

#[test]
fn a_reader_makes_way_for_who_has_gone_ahead_of_it() {
    for ahead in [Word::CPU_EXCL, Word::NIC_EXCL] {
        let two = word((2 * Word::READER) | ahead);
        assert!(!two.release_is_done(Holder::CpuRead));
        let owed = two.after_release(Kind::CpuRead);
        assert!(owed.make_way && !owed.wake && !owed.last);
    }
    assert!(word(2 * Word::READER).release_is_done(Holder::CpuRead));
    let exclusive = word(Word::NIC_EXCL | Word::WAIT_EXCL);
    assert!(!exclusive.after_release(Kind::NicWrite).make_way);
}

#[test]
fn the_release_that_ends_what_is_waited_for_wakes() {
    let (read, new) = (Kind::NicRead, Kind::NewRead);
    let two = word(2 * Word::NIC_READ + Word::NEW_READ + Word::WAIT_OLD);
    assert!(!two.after_release(read).wake && two.after_release(new).wake);
    let one = word(Word::NIC_READ + Word::NEW_READ + Word::READER + Word::WAIT_OLD);
    assert!(one.after_release(read).wake && !one.release_is_done(Holder::NicRead));
    assert!(one.release_is_done(Holder::CpuRead));
    let held = word(Word::NIC_EXCL | Word::WAIT_OLD);
    assert!(held.after_release(Kind::NicWrite).wake);
    assert!(!held.release_is_done(Holder::NicWrite));
}
