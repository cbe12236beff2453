//! A region on the NIC in software, and all that can be done with it, in any order: guards, slices, holds, operations and
//! messages, splitting, new keys, leases and what peers do with them, the end of handles. Against a plain reference:
//! `tests/reference`.

mod cpu;
mod nic;
mod parts;
mod peers;
mod wire;
mod world;

use arbitrary::Arbitrary;

use world::World;

/// What is done.
#[derive(Arbitrary, Debug)]
pub struct Program {
    /// Whether the region is biased to readers, again at once after each exclusive hold.
    biased: bool,
    steps: Vec<Step>,
}

/// A range of a part, as two bytes say it: mostly inside.
type Bytes = (u8, u8);

#[derive(Arbitrary, Debug)]
enum Step {
    Read {
        part: u8,
        bytes: Bytes,
    },
    EndRead(u8),
    Write {
        part: u8,
        bytes: Bytes,
        byte: u8,
    },
    Begin {
        part: u8,
        bytes: Bytes,
        writes: bool,
        /// Whether it waits, until a deadline that has passed.
        late: bool,
    },
    BeginTwo {
        parts: [u8; 2],
        bytes: [Bytes; 2],
        writes: bool,
    },
    EndHold(u8),
    /// RDMA WRITE or READ, by the kind of the hold.
    Post {
        hold: u8,
        at: u8,
    },
    /// A SEND or a receive, by the kind of the hold.
    Message(u8),
    Nic,
    Poll,
    Lease {
        part: u8,
        bytes: Bytes,
        rights: u8,
    },
    EndLease {
        lease: u8,
        drop: bool,
    },
    /// A peer does what the lease lets it.
    Peer {
        lease: u8,
        bytes: Bytes,
    },
    /// Another peer tries what no lease may let it.
    Intrude {
        lease: u8,
        offset: i8,
        length: u8,
    },
    Rotate {
        part: u8,
        rights: u8,
    },
    Retire(u8),
    Split {
        part: u8,
        at: u8,
        front: bool,
    },
    Join {
        part: u8,
        next: u8,
    },
    Shutdown(u8),
    Drop(u8),
    Close(u8),
}

/// Carries it out.
///
/// # Panics
/// If the region is not what the reference is.
pub fn run(Program { biased, steps }: Program) {
    let leaks = rdma_mr::leaks();
    let mut world = World::new(biased);
    for step in steps {
        world.step(step);
        world.check();
        if world.reference.is_over() {
            break;
        }
    }
    world.end();
    assert_eq!(rdma_mr::leaks(), leaks);
}
