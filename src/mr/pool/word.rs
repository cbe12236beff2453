//! The word of a pool: which free slot is on top, and what whoever changes that has to know. Pure: no
//! atomics here.
//!
//! ```text
//!  63      26  25     24        23       22       21   0
//! ┌──────────┬──────┬─────────┬────────┬─────────┬──────┐
//! │ takes    │ FULL │ GROWING │ CLOSED │ WAITING │ top  │
//! └──────────┴──────┴─────────┴────────┴─────────┴──────┘
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `top` | the number of the free slot on top, and one; 0: all are out |
//! | `WAITING` | somebody waits for a slot, or did: who brings one back wakes |
//! | `CLOSED` | the pool is gone: slots don't come back, they come to their end |
//! | `GROWING` | somebody registers more slots |
//! | `FULL` | no more can be registered |
//! | takes | how many slots were taken, so that a top which went and came back is not taken for the same; it comes round after 2³⁸ of them |

/// The word's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    pub(super) const WAITING: u64 = 1 << 22;
    pub(super) const CLOSED: u64 = 1 << 23;
    pub(super) const GROWING: u64 = 1 << 24;
    pub(super) const FULL: u64 = 1 << 25;
    const TAKE: u64 = 1 << 26;
    const TOP: u64 = Self::WAITING - 1;
    /// The most slots.
    pub(super) const MAX_SLOTS: usize = Self::TOP as usize;
    /// Nothing is free, nothing is told.
    pub(super) const EMPTY: Word = Word(0);

    pub(super) const fn from_bits(bits: u64) -> Self {
        Word(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    /// The free slot on top.
    pub(super) fn top(self) -> Option<usize> {
        ((self.0 & Self::TOP) as usize).checked_sub(1)
    }

    #[must_use]
    pub(super) const fn with(self, bits: u64) -> Self {
        Word(self.0 | bits)
    }

    /// Whether somebody who finds no slot may register more.
    pub(super) const fn may_grow(self) -> bool {
        !self.has(Self::GROWING | Self::FULL | Self::CLOSED)
    }

    #[must_use]
    pub(super) const fn with_top(self, slot: usize) -> Self {
        Word(self.0 & !Self::TOP | (slot as u64 + 1))
    }

    /// The value once the slot on top, above `below`, has been taken.
    #[must_use]
    pub(super) const fn taken(self, below: Link) -> Self {
        Word((self.0 & !Self::TOP | below.0 & Self::TOP).wrapping_add(Self::TAKE))
    }

    /// The value once all slots were taken.
    #[must_use]
    pub(super) const fn emptied(self) -> Self {
        Word(self.0 & !Self::TOP).taken(Link(0))
    }
}

/// What lies below a free slot: the next one, and how many there are with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(u64);

impl Link {
    const DEPTH: u32 = 32;

    pub(super) const fn from_bits(bits: u64) -> Self {
        Link(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// That of a slot that is put on what is on top in `word`, which lies on `below` itself.
    pub(super) const fn on(word: Word, below: Option<Link>) -> Self {
        let depth = match below {
            Some(below) => below.depth() as u64,
            None => 0,
        };
        Link(word.0 & Word::TOP | (depth + 1) << Self::DEPTH)
    }

    /// How many slots are free from here on.
    pub(super) const fn depth(self) -> usize {
        (self.0 >> Self::DEPTH) as usize
    }

    /// The slot below.
    pub(super) fn below(self) -> Option<usize> {
        Word(self.0).top()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_put_on_top_and_taken() {
        assert_eq!(Word::EMPTY.top(), None);
        let last = Word::MAX_SLOTS - 1;
        let first = Link::on(Word::EMPTY, None);
        let one = Word::EMPTY.with_top(last);
        let second = Link::on(one, Some(first));
        let two = one.with_top(7);
        assert_eq!((two.top(), second.depth()), (Some(7), 2));
        assert_eq!((second.below(), first.below()), (Some(last), None));
        assert_eq!(two.taken(second).top(), Some(last));
        assert_eq!(two.taken(second).taken(first).top(), None);
        assert_eq!(first.depth(), 1);
    }

    #[test]
    fn the_same_top_is_another_one_after_a_take() {
        let link = Link::on(Word::EMPTY, None);
        let before = Word::EMPTY.with_top(3);
        let after = before.taken(link).with_top(3);
        assert_ne!(before, after);
        assert_ne!(before.emptied().with_top(3), before);
        // Also when the count comes round, and nothing else is touched then.
        let bits = Word::WAITING | Word::FULL;
        let round = Word(!(Word::TAKE - 1) | bits).with_top(3);
        assert_eq!(round.taken(link), Word(bits));
    }

    #[test]
    fn marks_stay_when_slots_come_and_go() {
        let marks = Word::WAITING | Word::GROWING;
        let marked = Word(marks).with_top(1);
        assert!(marked.has(Word::WAITING) && marked.has(Word::GROWING));
        let taken = marked.taken(Link::on(Word::EMPTY, None));
        assert!(taken.has(Word::WAITING) && taken.has(Word::GROWING) && !taken.has(Word::CLOSED));
        assert!(!taken.may_grow() && Word::EMPTY.may_grow());
        assert!(!Word(Word::FULL).may_grow() && !Word(Word::CLOSED).may_grow());
    }
}
