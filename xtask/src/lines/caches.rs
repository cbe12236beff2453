//! Caches that keep each other coherent, one of each thread, without an end: a line is in some of them to be
//! read, or in one to be written.

use std::collections::HashMap;

use super::trace::Access;

#[derive(Default)]
pub struct Caches {
    /// Who has a line: one bit of each thread.
    have: HashMap<u64, u32>,
    /// How often a line, or the right to write it, had to come from elsewhere.
    pub fetched: u64,
}

impl Caches {
    pub fn touch(&mut self, thread: usize, Access { line, writes }: Access) {
        let (own, have) = (1 << thread, self.have.entry(line).or_default());
        let before = *have;
        *have = if writes { own } else { before | own };
        // Who has it alone writes it as well.
        self.fetched += u64::from(*have != before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sequence of reads and writes of one line costs: (thread, writes).
    fn fetched(accesses: &[(usize, bool)]) -> u64 {
        let mut caches = Caches::default();
        for &(thread, writes) in accesses {
            caches.touch(thread, Access { line: 1, writes });
        }
        caches.fetched
    }

    #[test]
    fn a_line_comes_once_to_who_has_it_alone() {
        assert_eq!(fetched(&[(0, false), (0, true), (0, false), (0, true)]), 1);
    }

    #[test]
    fn readers_share_until_somebody_writes() {
        let all_read = [(0, false), (1, false), (2, false)];
        assert_eq!(fetched(&all_read), 3);
        assert_eq!(fetched(&[&all_read[..], &all_read].concat()), 3);
        // The right to write comes, then the line to each of the others.
        let write = [(0, true), (1, false), (2, false), (0, false)];
        assert_eq!(fetched(&[&all_read[..], &write].concat()), 6);
    }

    #[test]
    fn writers_take_it_from_each_other() {
        assert_eq!(fetched(&[(0, true), (1, true), (0, true), (1, true)]), 4);
    }

    #[test]
    fn lines_know_nothing_of_each_other() {
        let mut caches = Caches::default();
        for (thread, line) in [(0, 1), (1, 2), (0, 1), (1, 2)] {
            caches.touch(thread, Access { line, writes: true });
        }
        assert_eq!(caches.fetched, 2);
    }
}
