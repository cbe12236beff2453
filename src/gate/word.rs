//! The layout of the word, what can be read off it, and its transitions. Pure: no atomics here, so
//! every transition is tested as a plain function of numbers.
//!
//! ```text
//!  63        36 35         8  7   6          5        4         3           2             1             0
//! ┌────────────┬────────────┬───┬──────────┬────────┬─────────┬───────────┬─────────────┬─────────────┬─────────────┐
//! │ CPU readers│ NIC reads  │ 0 │ ORPHANED │ CLOSED │ PENDING │ WAIT_EXCL │ WAIT_SHARED │ NIC_EXCL    │ CPU_EXCL    │
//! └────────────┴────────────┴───┴──────────┴────────┴─────────┴───────────┴─────────────┴─────────────┴─────────────┘
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `CPU_EXCL` | the CPU holds the bytes for writing (`&mut [u8]`) |
//! | `NIC_EXCL` | an operation in flight lets the NIC write the bytes |
//! | `WAIT_SHARED` | somebody who wants in shared is parked: the exclusive release must wake |
//! | `WAIT_EXCL` | somebody who wants in exclusively is parked: the last release must wake |
//! | `PENDING` | somebody who wants in exclusively asks new shared holders to stand back |
//! | `CLOSED` | no new operation of the NIC may begin |
//! | `ORPHANED` | the handle is gone: whoever releases the last hold frees |
//! | bit 7 | zero; kept for the read bias |
//! | NIC reads | operations in flight that let the NIC read the bytes |
//! | CPU readers | guards with `&[u8]`; at the top, so that a borrow can't corrupt another field |
//!
//! | valid states | CPU readers | NIC reads | `CPU_EXCL` | `NIC_EXCL` |
//! |---|---|---|---|---|
//! | free | 0 | 0 | 0 | 0 |
//! | shared | n | m | 0 | 0 |
//! | held by the CPU | (t) | (t) | 1 | 0 |
//! | held by the NIC | (t) | (t) | 0 | 1 |
//!
//! (t): only the short-lived counts of shared acquisitions that lost the race and undo themselves.
//! While such a count stands, an exclusive `try` may fail although nobody holds the region; it
//! never succeeds wrongly. One who waits looks again when the count is taken back, because taking it
//! back is an ordinary release and wakes whom it finds.

/// Who holds a region, and how. The CPU's and the NIC's holds of one kind behave alike; they are
/// counted apart so that [`Snapshot`](super::Snapshot) can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// `&[u8]` on the CPU: shared.
    CpuRead,
    /// An operation in flight that reads the bytes (SEND, the source of a WRITE): shared.
    NicRead,
    /// `&mut [u8]` on the CPU: exclusive.
    CpuWrite,
    /// An operation in flight that writes the bytes (RECV, READ, the result of an atomic):
    /// exclusive.
    NicWrite,
}

impl Holder {
    /// Whether others of a shared kind may hold the region at the same time.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Holder::CpuRead | Holder::NicRead)
    }

    /// Whether it is an operation of the NIC.
    #[must_use]
    pub const fn is_nic(self) -> bool {
        matches!(self, Holder::NicRead | Holder::NicWrite)
    }

    /// What one hold of this kind adds to the word.
    pub(super) const fn unit(self) -> u64 {
        match self {
            Holder::CpuRead => Word::READER,
            Holder::NicRead => Word::NIC_READ,
            Holder::CpuWrite => Word::CPU_EXCL,
            Holder::NicWrite => Word::NIC_EXCL,
        }
    }

    /// The bit by which a parked waiter of this kind is found.
    pub(super) const fn wait_bit(self) -> u64 {
        if self.is_shared() {
            Word::WAIT_SHARED
        } else {
            Word::WAIT_EXCL
        }
    }
}

/// What somebody who wants in finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Entry {
    /// Nothing is in the way.
    Open,
    /// An exclusive side waits for the shared holders to leave and asks to stand back.
    StandBack,
    /// Somebody holds it in a way that can't be shared.
    Held,
    /// No new operation may begin.
    Closed,
    /// So many holds of this kind that another could not be counted.
    Full,
}

/// The word's value: a copy of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    pub(super) const CPU_EXCL: u64 = 1;
    pub(super) const NIC_EXCL: u64 = 1 << 1;
    pub(super) const WAIT_SHARED: u64 = 1 << 2;
    pub(super) const WAIT_EXCL: u64 = 1 << 3;
    pub(super) const PENDING: u64 = 1 << 4;
    pub(super) const CLOSED: u64 = 1 << 5;
    pub(super) const ORPHANED: u64 = 1 << 6;
    pub(super) const NIC_READ: u64 = 1 << 8;
    pub(super) const READER: u64 = 1 << 36;

    pub(super) const EXCL: u64 = Self::CPU_EXCL | Self::NIC_EXCL;
    pub(super) const WAITING: u64 = Self::WAIT_SHARED | Self::WAIT_EXCL;
    const COUNTS: u64 = !(Self::NIC_READ - 1);
    /// The top bit of each count. A field counts twice as many holds as are let in, so that those
    /// that are refused beyond can't overflow it before they have undone themselves.
    const READERS_FULL: u64 = 1 << 63;
    const NIC_READS_FULL: u64 = Self::READER >> 1;
    /// The most holds of one shared kind.
    pub(super) const MAX_COUNT: u64 = Self::READERS_FULL / Self::READER;

    pub(super) const fn from_bits(bits: u64) -> Self {
        Word(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    pub(super) const fn readers(self) -> u64 {
        self.0 / Self::READER
    }

    pub(super) const fn nic_reads(self) -> u64 {
        (self.0 % Self::READER) / Self::NIC_READ
    }

    pub(super) const fn has_shared_holders(self) -> bool {
        self.has(Self::COUNTS)
    }

    /// Whether nobody holds the region.
    pub(super) const fn is_free(self) -> bool {
        !self.has(Self::COUNTS | Self::EXCL)
    }

    /// The bits of which none may be set for a hold of a shared kind that was added to a value to
    /// stand: one test on the hot path.
    pub(super) const fn bars_shared(holder: Holder) -> u64 {
        match holder {
            Holder::CpuRead => Self::EXCL | Self::READERS_FULL,
            _ => Self::EXCL | Self::CLOSED | Self::NIC_READS_FULL,
        }
    }

    /// The bits of which one at least is set if `holder` does not find the way [open](Entry::Open):
    /// one test on the hot path, before [`entry`](Self::entry) says why.
    pub(super) const fn bars(holder: Holder) -> u64 {
        match holder {
            Holder::CpuRead | Holder::NicRead => Self::bars_shared(holder) | Self::PENDING,
            Holder::CpuWrite => Self::EXCL | Self::COUNTS,
            Holder::NicWrite => Self::EXCL | Self::COUNTS | Self::CLOSED,
        }
    }

    /// What `holder` finds if it wants in now.
    pub(super) const fn entry(self, holder: Holder) -> Entry {
        if holder.is_nic() && self.has(Self::CLOSED) {
            Entry::Closed
        } else if self.has(Self::EXCL) {
            Entry::Held
        } else if !holder.is_shared() {
            if self.has_shared_holders() {
                Entry::Held
            } else {
                Entry::Open
            }
        } else if self.has(Self::bars_shared(holder)) {
            Entry::Full
        } else if self.has(Self::PENDING) {
            Entry::StandBack
        } else {
            Entry::Open
        }
    }

    /// The value with `holder`, an exclusive kind, in a region that is free: its own request to
    /// stand back is answered, waiters stay waiters.
    #[must_use]
    pub(super) const fn with_exclusive(self, holder: Holder) -> Self {
        Word((self.0 | holder.unit()) & !Self::PENDING)
    }

    /// The mask that an exclusive release keeps: it takes the waiters' bits in the same RMW, since
    /// it wakes them all.
    pub(super) const fn exclusive_release_mask(holder: Holder) -> u64 {
        !(holder.unit() | Self::WAITING)
    }

    /// What one who has just given back one hold of `holder` owes, seen from the value before.
    pub(super) const fn after_release(self, holder: Holder) -> Owed {
        let left = Word(self.0 - holder.unit());
        Owed {
            // An exclusive release took the bits off, so it wakes whatever else it sees.
            wake: if holder.is_shared() {
                left.is_free() && left.has(Self::WAIT_EXCL)
            } else {
                left.has(Self::WAITING)
            },
            last: left.is_free() && left.has(Self::ORPHANED),
        }
    }

    /// Whether a release of `holder` from this value has nothing more to do. One test: it is all that
    /// a release with nobody waiting pays after its RMW.
    pub(super) const fn release_is_done(self, holder: Holder) -> bool {
        let owing = if holder.is_shared() {
            Self::WAIT_EXCL | Self::ORPHANED
        } else {
            Self::WAITING | Self::ORPHANED
        };
        !self.has(owing)
    }
}

/// What a release owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Owed {
    /// Wake who waits.
    pub(super) wake: bool,
    /// The handle is gone and this was the last hold: free.
    pub(super) last: bool,
}

#[cfg(test)]
mod tests {
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
    fn fields_do_not_overlap_and_fill_the_word_but_bit_7() {
        let flags = [
            Word::CPU_EXCL,
            Word::NIC_EXCL,
            Word::WAIT_SHARED,
            Word::WAIT_EXCL,
            Word::PENDING,
            Word::CLOSED,
            Word::ORPHANED,
        ];
        let sum: u64 = flags.iter().sum();
        assert_eq!(sum, 0x7f);
        assert_eq!(sum | Word::COUNTS, !(1 << 7));
        assert_eq!(
            word(Word::READER - Word::NIC_READ).nic_reads(),
            (1 << 28) - 1
        );
        assert_eq!(word(u64::MAX).readers(), (1 << 28) - 1);
    }

    #[test]
    fn every_pair_of_holders_shares_only_if_both_are_shared() {
        for inside in ALL {
            for wants in ALL {
                let open = word(inside.unit()).entry(wants) == Entry::Open;
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
        let fields = (0..64).filter(|bit| *bit != 7).map(|bit| 1u64 << bit);
        for bits in fields.chain([
            0,
            Word::PENDING | Word::READER,
            Word::CLOSED | Word::WAITING,
        ]) {
            for wants in ALL {
                let barred = word(bits).has(Word::bars(wants));
                let open = word(bits).entry(wants) == Entry::Open;
                assert_eq!(barred, !open, "{bits:#x} {wants:?}");
            }
        }
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
        };
        assert_eq!(two.after_release(Holder::CpuRead), none);
        let mixed = word(Word::READER | Word::NIC_READ | Word::WAITING | Word::ORPHANED);
        assert_eq!(mixed.after_release(Holder::NicRead), none);
        let last = word(Word::NIC_READ | Word::WAIT_EXCL | Word::ORPHANED);
        assert_eq!(
            last.after_release(Holder::NicRead),
            Owed {
                wake: true,
                last: true
            }
        );
        assert!(!last.release_is_done(Holder::NicRead));
        let shared_only = word(Word::NIC_READ | Word::WAIT_SHARED);
        assert_eq!(shared_only.after_release(Holder::NicRead), none);
        assert!(shared_only.release_is_done(Holder::NicRead));
        for waiter in [Word::WAIT_SHARED, Word::WAIT_EXCL] {
            let held = word(Word::NIC_EXCL | waiter);
            assert!(held.after_release(Holder::NicWrite).wake);
            let with_undo_under_way = word(Word::NIC_EXCL | waiter | Word::READER);
            assert!(with_undo_under_way.after_release(Holder::NicWrite).wake);
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
        assert_eq!(Word::MAX_COUNT, 1 << 27);
    }
}
