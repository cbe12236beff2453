//! What peers may write: a region of which the midst is lent, and what may be in there.

use std::time::Duration;

use rdma_mr::work::RemoteAddr;
use rdma_mr::{
    Access, Leaks, Lease, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrToken, leaks,
};

use crate::soft_util::pattern;
use crate::world::World;

/// A packet and a bit; a cell of what is lent is as long.
pub const SLOT: usize = 4096 + 512;

const HOUR: Duration = Duration::from_secs(3600);
/// What is beside the cells.
const BESIDE: u8 = 0xEE;
/// The pattern of a cell that nobody has written to.
const FIRST: u8 = 0xFF;

/// What may be in each cell: the pattern of the last WRITE that is known to be done, and of those after it
/// that are not known not to be (R12: each byte is of one of them).
pub struct Cells([Vec<u8>; Cells::COUNT]);

impl Cells {
    pub const COUNT: usize = 2;

    pub fn possible(&self, cell: usize) -> &[u8] {
        &self.0[cell]
    }

    pub fn written(&mut self, cell: usize, pattern: u8, done: bool) {
        if done {
            self.0[cell].clear();
        }
        self.0[cell].push(pattern);
    }

    pub fn is_one_of(&self, bytes: &[u8], possible: &[u8]) -> bool {
        let patterns: Vec<Vec<u8>> = possible.iter().map(|one| pattern(*one, SLOT)).collect();
        let mut bytes = bytes.iter().enumerate();
        bytes.all(|(at, byte)| patterns.iter().any(|pattern| pattern[at] == *byte))
    }
}

/// The region, and what is known of it.
pub struct Ground {
    mr: LocalMr,
    pub cells: Cells,
}

impl Ground {
    pub fn new(world: &mut World) -> Self {
        let mut mr = world.alloc((Cells::COUNT + 2) * SLOT);
        let mut bytes = mr.as_mut_slice();
        bytes.fill(BESIDE);
        let mut cells = bytes[SLOT..].chunks_exact_mut(SLOT);
        for cell in cells.by_ref().take(Cells::COUNT) {
            cell.copy_from_slice(&pattern(FIRST, SLOT));
        }
        drop(bytes);
        Ground {
            mr,
            cells: Cells([(); Cells::COUNT].map(|()| vec![FIRST])),
        }
    }

    /// Lends the cells.
    pub fn lend(&self, world: &mut World) -> Lease {
        let end = (Cells::COUNT + 1) * SLOT;
        let rights = Access::REMOTE_WRITE | Access::REMOTE_READ;
        let lease = world.insist(|_| {
            assert!(self.mr.state().is_free(), "a lease that failed holds");
            self.mr.try_lease(SLOT..end, rights, HOUR)
        });
        assert!(self.mr.try_as_slice().is_none(), "it is lent");
        lease
    }

    /// After the end of a lease: whatever is in the cells was written there, and beside them nothing was.
    pub fn check(&self) {
        let bytes = self.mr.try_as_slice().expect("the lease is over");
        let (head, rest) = bytes.split_at(SLOT);
        let (inside, tail) = rest.split_at(Cells::COUNT * SLOT);
        let untouched = head.iter().chain(tail).all(|byte| *byte == BESIDE);
        assert!(untouched, "written beside the lease");
        for (cell, bytes) in inside.chunks_exact(SLOT).enumerate() {
            let possible = self.cells.possible(cell);
            assert!(self.cells.is_one_of(bytes, possible), "in cell {cell}");
        }
    }

    /// Closed, or, if that is to be tried, dropped.
    pub fn end(self, world: &mut World, dropped: bool) {
        if dropped {
            return;
        }
        let mut mr = Some(self.mr);
        world.insist(|_| match mr.take().expect("it came back").close() {
            Ok(_) => Ok(()),
            Err((back, error)) => {
                mr = Some(back);
                Err(unwrap(error))
            }
        });
    }
}

/// So far from the first byte that the token names.
pub fn at(token: MrToken, by: i64) -> RemoteAddr {
    RemoteAddr {
        addr: token.addr().wrapping_add_signed(by),
        rkey: token.rkey(),
    }
}

/// The crate's error in it.
pub fn unwrap(error: std::io::Error) -> rdma_mr::Error {
    let inner = error.into_inner().expect("ours");
    *inner.downcast().expect("ours")
}

/// What has been leaked since then.
pub fn since(before: Leaks) -> (u64, u64) {
    let now = leaks();
    let registrations = now.registrations - before.registrations;
    (registrations, now.holds - before.holds)
}
