//! The layout of the word, what can be read off it, and its transitions. Pure: no atomics here, so
//! every transition is tested as a plain function of numbers.
//!
//! ```text
//!  63        44 43         31 30         11 10       9          8          7          6          5        4         3           2             1          0
//! ┌────────────┬─────────────┬─────────────┬────────┬──────────┬──────────┬──────────┬──────────┬────────┬─────────┬───────────┬─────────────┬──────────┬──────────┐
//! │ CPU readers│ NIC reads,  │ NIC reads   │ BIASED │ WAIT_OLD │ RETIRING │ MAY_BIAS │ ORPHANED │ CLOSED │ PENDING │ WAIT_EXCL │ WAIT_SHARED │ NIC_EXCL │ CPU_EXCL │
//! │            │ the new ones│             │        │          │          │          │          │        │         │           │             │          │          │
//! └────────────┴─────────────┴─────────────┴────────┴──────────┴──────────┴──────────┴──────────┴────────┴─────────┴───────────┴─────────────┴──────────┴──────────┘
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
//! | `MAY_BIAS` | never changes: whether the gate's readers may be `BIASED` at all; in the lowest byte, since the gate keeps what is never changed as one |
//! | `RETIRING` | a registration is being retired: NIC reads that begin now are counted apart |
//! | `WAIT_OLD` | who retires it waits: an operation's release that empties its field must wake |
//! | `BIASED` | readers may be published in slots instead of being counted here: see [`bias`](super::bias) |
//! | NIC reads | operations in flight that let the NIC read the bytes; those that began while `RETIRING` stood are in a field of their own |
//! | CPU readers | guards with `&[u8]`; at the top, so that a borrow can't corrupt another field |
//!
//! | valid states | CPU readers | NIC reads | `CPU_EXCL` | `NIC_EXCL` |
//! |---|---|---|---|---|
//! | free | 0 | 0 | 0 | 0 |
//! | shared | n | m | 0 | 0 |
//! | held by the CPU | (t) | (t) | 1 | 0 |
//! | held by the NIC | (t) | (t) | 0 | 1 |
//!
//! With `BIASED`, published readers come on top in each of these states; an exclusive side that is in
//! the word first sees to it that there are none, and has the region then.
//!
//! (t): only the short-lived counts of shared acquisitions that lost the race and undo themselves; and
//! readers of the CPU's whom an exclusive side that waits has gone ahead of, for a bounded time: it has the
//! bit, and has the region when they have left.
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

    /// The bit by which a parked waiter of this kind is found.
    pub(super) const fn wait_bit(self) -> u64 {
        if self.is_shared() {
            Word::WAIT_SHARED
        } else {
            Word::WAIT_EXCL
        }
    }
}

/// A holder as the word counts it. Only a hold itself knows whether it is among the new reads: the
/// numbers of the NIC's kinds are bits that are kept in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    NicRead = 0,
    NicWrite = 1,
    CpuRead = 2,
    CpuWrite = 3,
    /// A NIC read that began while a registration was being retired.
    NewRead = 1 << 6,
    /// A NIC write of memory that is shared with peers: it excludes nobody, and is counted as a read.
    SharedWrite = 1 | 1 << 6,
}

impl Kind {
    /// How a holder is counted while nothing is retired.
    pub(crate) const fn of(holder: Holder) -> Self {
        match holder {
            Holder::CpuRead => Kind::CpuRead,
            Holder::NicRead => Kind::NicRead,
            Holder::CpuWrite => Kind::CpuWrite,
            Holder::NicWrite => Kind::NicWrite,
        }
    }

    /// This, of a holder who entered as `holder`: known without looking, but for a read of the NIC. A constant then:
    /// a release that is told by the entry what to take off would wait for the entry's RMW.
    pub(super) const fn known(self, holder: Holder) -> Self {
        match holder {
            Holder::NicRead => self,
            holder => Kind::of(holder),
        }
    }

    /// What it is to the gate.
    pub(crate) const fn holder(self) -> Holder {
        match self {
            Kind::CpuRead => Holder::CpuRead,
            Kind::NicRead | Kind::NewRead | Kind::SharedWrite => Holder::NicRead,
            Kind::CpuWrite => Holder::CpuWrite,
            Kind::NicWrite => Holder::NicWrite,
        }
    }

    /// What one hold of this kind adds to the word.
    pub(super) const fn unit(self) -> u64 {
        match self {
            Kind::CpuRead => Word::READER,
            Kind::NicRead | Kind::SharedWrite => Word::NIC_READ,
            Kind::NewRead => Word::NEW_READ,
            Kind::CpuWrite => Word::CPU_EXCL,
            Kind::NicWrite => Word::NIC_EXCL,
        }
    }

    /// All bits of the field that it is counted in.
    const fn field(self) -> u64 {
        match self {
            Kind::NicRead | Kind::SharedWrite => Word::NEW_READ - Word::NIC_READ,
            Kind::NewRead => Word::READER - Word::NEW_READ,
            Kind::CpuRead => !(Word::READER - 1),
            Kind::CpuWrite | Kind::NicWrite => self.unit(),
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
    pub(super) const MAY_BIAS: u64 = 1 << 7;
    pub(super) const RETIRING: u64 = 1 << 8;
    pub(super) const WAIT_OLD: u64 = 1 << 9;
    pub(super) const BIASED: u64 = 1 << 10;
    pub(super) const NIC_READ: u64 = 1 << 11;
    pub(super) const NEW_READ: u64 = 1 << 31;
    pub(super) const READER: u64 = 1 << 44;

    pub(super) const EXCL: u64 = Self::CPU_EXCL | Self::NIC_EXCL;
    pub(super) const WAITING: u64 = Self::WAIT_SHARED | Self::WAIT_EXCL;
    const COUNTS: u64 = !(Self::NIC_READ - 1);
    /// The top bit of each count. A field counts twice as many holds as are let in, so that those
    /// that are refused beyond can't overflow it before they have undone themselves.
    const READERS_FULL: u64 = 1 << 63;
    const NIC_READS_FULL: u64 = Self::NEW_READ >> 1;
    const NEW_READS_FULL: u64 = Self::READER >> 1;
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
        (self.0 % Self::NEW_READ) / Self::NIC_READ + (self.0 % Self::READER) / Self::NEW_READ
    }

    /// How a holder is counted that begins at this value. Few new reads have room in their field; the
    /// others are counted as old ones, which keeps a registration longer than need be.
    pub(super) const fn kind(self, holder: Holder) -> Kind {
        match holder {
            Holder::NicRead if self.has(Self::RETIRING) && !self.has(Self::NEW_READS_FULL) => {
                Kind::NewRead
            }
            holder => Kind::of(holder),
        }
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

    /// The bits of which one at least is set if `holder` does not find the way [open](Entry::Open), is
    /// to be counted apart, or may have to do with published readers: one test on the hot path, before
    /// [`entry`](Self::entry) says why.
    pub(super) const fn bars(holder: Holder) -> u64 {
        match holder {
            Holder::CpuRead => Self::bars_shared(holder) | Self::PENDING | Self::MAY_BIAS,
            Holder::NicRead => Self::bars_shared(holder) | Self::PENDING | Self::RETIRING,
            Holder::CpuWrite | Holder::NicWrite => Self::refuses(holder) | Self::MAY_BIAS,
        }
    }

    /// The bits of which one at least is set in the refusals that hot paths meet; what else
    /// [bars](Self::bars) is rare.
    pub(super) const fn refuses(holder: Holder) -> u64 {
        match holder {
            Holder::CpuRead | Holder::NicRead => Self::EXCL,
            Holder::CpuWrite => Self::EXCL | Self::COUNTS,
            Holder::NicWrite => Self::EXCL | Self::COUNTS | Self::CLOSED,
        }
    }

    /// Whether a reader may be published: who has published one looks at that once more.
    pub(super) const fn lets_publish(self) -> bool {
        self.0 & (Self::BIASED | Self::EXCL | Self::PENDING) == Self::BIASED
    }

    /// Whether nobody but readers of the CPU's keeps `holder` out, an exclusive kind.
    pub(super) const fn lets_ahead(self, holder: Holder) -> bool {
        !self.has(Self::refuses(holder) & !Kind::CpuRead.field())
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
        Word((self.0 | Kind::of(holder).unit()) & !Self::PENDING)
    }

    /// The mask that an exclusive release keeps: it takes the waiters' bits in the same RMW, since
    /// it wakes them all; what says that a registration is being retired: when an exclusive hold
    /// ends, all operations are over that began before it; and the bias, which was for times without
    /// exclusive holds.
    pub(super) const fn exclusive_release_mask(holder: Holder) -> u64 {
        !(Kind::of(holder).unit() | Self::WAITING | Self::RETIRING | Self::WAIT_OLD | Self::BIASED)
    }

    /// What one who has just given back one hold of that kind owes, seen from the value before.
    pub(super) const fn after_release(self, kind: Kind) -> Owed {
        // Wraps for a moment where a reader is moved from its slot, see `Place::say_moved`: then there is an
        // exclusive holder, and nothing is owed.
        let left = Word(self.0.wrapping_sub(kind.unit()));
        let emptied = left.has(Self::WAIT_OLD) && !left.has(kind.field());
        Owed {
            // An exclusive release took the bits off, so it wakes whatever else it sees.
            wake: match kind.holder() {
                Holder::CpuRead => left.is_free() && left.has(Self::WAIT_EXCL),
                Holder::NicRead => left.is_free() && left.has(Self::WAIT_EXCL) || emptied,
                _ => left.has(Self::WAITING | Self::WAIT_OLD),
            },
            last: left.is_free() && left.has(Self::ORPHANED),
            make_way: matches!(kind, Kind::CpuRead) && left.has(Self::EXCL),
        }
    }

    /// Whether a release of `holder` from this value has nothing more to do. One test: it is all that
    /// a release with nobody waiting pays after its RMW.
    pub(super) const fn release_is_done(self, holder: Holder) -> bool {
        let owing = match holder {
            Holder::CpuRead => Self::WAIT_EXCL | Self::ORPHANED | Self::EXCL,
            Holder::NicRead => Self::WAIT_EXCL | Self::ORPHANED | Self::WAIT_OLD,
            _ => Self::WAITING | Self::ORPHANED | Self::WAIT_OLD,
        };
        !self.has(owing)
    }

    /// One step of a retirement that has come to `stage`.
    #[must_use]
    pub(super) const fn retire(self, stage: Stage) -> (Self, Stage) {
        let old_reads = self.has(Kind::NicRead.field());
        match stage {
            Stage::Over => (self, Stage::Over),
            // The field of the new ones has to be empty first: those in it are the old ones now.
            Stage::Start if self.has(Kind::NewRead.field()) => (
                Word(self.0 & !Self::RETIRING | Self::WAIT_OLD),
                Stage::Start,
            ),
            Stage::Start if self.has(Self::NIC_EXCL) => {
                (Word(self.0 | Self::RETIRING | Self::WAIT_OLD), Stage::Write)
            }
            Stage::Start if old_reads => {
                (Word(self.0 | Self::RETIRING | Self::WAIT_OLD), Stage::Reads)
            }
            // Taken off by the end of an exclusive hold, which began when no read was in flight.
            Stage::Reads | Stage::Write if !self.has(Self::RETIRING) => {
                (Word(self.0 & !Self::WAIT_OLD), Stage::Over)
            }
            Stage::Write => (Word(self.0 | Self::WAIT_OLD), Stage::Write),
            Stage::Reads if old_reads => (Word(self.0 | Self::WAIT_OLD), Stage::Reads),
            Stage::Start | Stage::Reads => (
                Word(self.0 & !(Self::RETIRING | Self::WAIT_OLD)),
                Stage::Over,
            ),
        }
    }
}

/// How far a gate is on the way to the end of all operations that began before a retirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not begun, or new reads of the retirement before are in flight still.
    Start,
    /// Reads that began before are in flight.
    Reads,
    /// An exclusive operation that began before is in flight.
    Write,
    /// None is.
    Over,
}

/// What a release owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Owed {
    /// Wake who waits.
    pub(super) wake: bool,
    /// The handle is gone and this was the last hold: free.
    pub(super) last: bool,
    /// Leave the line alone for a moment: an exclusive side has gone ahead of readers, and looks whether they have
    /// left. A reader that comes right back would be counted, and taken back, before it gets to look.
    pub(super) make_way: bool,
}

#[cfg(test)]
mod tests;
