//! Teardown in the orders that the borrow checker allows (R14): nothing is refused or leaked, memory is
//! freed once, as soon as nobody has it, after its registrations, and no peer writes it then.

use crate::fabric::Fabric;
use crate::random::{self, Random};
use crate::world::{OBJECTS, Object, WAYS, Way, World};

pub type Order = [Object; OBJECTS.len()];

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:ty) => {
        $crate::fabric::tests! {
            suite [$($attributes)*] (<$fabric as $crate::fabric::Fabric>::open as fn() -> $fabric) =>
                r14_each_two_in_both_orders
                r14_dropped_in_orders_at_random
                r14_some_closed_in_orders_at_random
        }
    };
}
pub(crate) use tests;

/// How many orders at random.
const SOME: usize = 150;

/// What was under way: said when something panics.
#[derive(Debug)]
#[allow(dead_code, reason = "to be read")]
struct Case {
    order: Order,
    way: Way,
    /// Those that are closed, by their bits.
    closed: u64,
    hasty: bool,
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {self:?}");
        }
    }
}

/// Every order of the objects (by Heap's algorithm).
#[allow(dead_code, reason = "too many for a device")]
pub fn orders() -> impl Iterator<Item = Order> {
    let mut order = OBJECTS;
    let mut counters = [0; OBJECTS.len()];
    let mut at = 1;
    let next = move || {
        while at < order.len() {
            if counters[at] < at {
                order.swap(at, if at % 2 == 0 { 0 } else { counters[at] });
                counters[at] += 1;
                at = 1;
                return Some(order);
            }
            counters[at] = 0;
            at += 1;
        }
        None
    };
    std::iter::once(OBJECTS).chain(std::iter::from_fn(next))
}

/// Some order.
fn shuffled(random: &mut Random) -> Order {
    let mut order = OBJECTS;
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    order
}

/// Objects are dropped in that order; those in `closed` are closed, and what refuses once more after all
/// others; if it refuses still it is dropped. Gives how often that was.
pub fn take_down<F: Fabric>(fabric: F, order: Order, way: Way, closed: u64, hasty: bool) -> usize {
    let _case = Case {
        order,
        way,
        closed,
        hasty,
    };
    let mut world = World::new(fabric, way, hasty);
    world.check();
    let mut again = Vec::new();
    for object in order {
        if closed & 1 << object as u32 == 0 {
            world.drop(object);
        } else if !world.close(object) {
            again.push(object);
        }
        world.check();
    }
    let mut refused = again.len();
    for object in again {
        if !world.close(object) {
            refused += 1;
            world.drop(object);
        }
        world.check();
    }
    world.finish();
    refused
}

fn seeded() -> Random {
    let seed = random::seed();
    println!("RDMA_MR_SEED={seed}");
    Random(seed)
}

/// One of each two is the first and the other the second to go; the others, and three ways, at random.
pub fn r14_each_two_in_both_orders<F: Fabric>(open: &fn() -> F) {
    let mut random = seeded();
    for first in OBJECTS {
        for second in OBJECTS.into_iter().filter(|second| *second != first) {
            for _ in 0..3 {
                let (mut order, way) = (shuffled(&mut random), random.pick(&WAYS));
                for (at, object) in [first, second].into_iter().enumerate() {
                    let from = order.iter().position(|other| *other == object);
                    order.swap(at, from.unwrap());
                }
                take_down(open(), order, way, 0, random.once_in(2));
            }
        }
    }
}

pub fn r14_dropped_in_orders_at_random<F: Fabric>(open: &fn() -> F) {
    let mut random = seeded();
    for _ in 0..SOME {
        let (order, way) = (shuffled(&mut random), random.pick(&WAYS));
        take_down(open(), order, way, 0, random.once_in(2));
    }
}

pub fn r14_some_closed_in_orders_at_random<F: Fabric>(open: &fn() -> F) {
    let mut random = seeded();
    let mut refused = 0;
    for _ in 0..SOME {
        let (order, way) = (shuffled(&mut random), random.pick(&WAYS));
        refused += take_down(open(), order, way, random.next(), random.once_in(2));
    }
    assert_ne!(refused, 0);
}
