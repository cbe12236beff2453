//! Memory orderings, and what is one step weaker.

/// A memory ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Relaxed,
    Acquire,
    Release,
    AcqRel,
    SeqCst,
}

/// What an ordering is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Load,
    Store,
    /// A read-modify-write, or the success of one that can fail.
    Rmw,
    /// One that was refused, which is a load.
    Failure,
    Fence,
}

/// What becomes of one ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Order(Order),
    /// The fence is taken out.
    Nothing,
}

impl Order {
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Order::Relaxed,
            Order::Acquire,
            Order::Release,
            Order::AcqRel,
            Order::SeqCst,
        ];
        all.into_iter().find(|order| format!("{order:?}") == name)
    }

    /// What is one step weaker and legal there.
    pub fn weaker(self, role: Role) -> Vec<To> {
        let orders: &[Order] = match (self, role) {
            (Order::Relaxed, _) => &[],
            (Order::SeqCst, Role::Load | Role::Failure) => &[Order::Acquire],
            (Order::SeqCst, Role::Store) => &[Order::Release],
            (Order::SeqCst, _) => &[Order::AcqRel],
            (Order::AcqRel, _) => &[Order::Acquire, Order::Release],
            // There is no relaxed fence: it is taken out.
            (Order::Acquire | Order::Release, Role::Fence) => &[],
            (Order::Acquire | Order::Release, _) => &[Order::Relaxed],
        };
        let orders = orders.iter().copied().map(To::Order);
        let out = (role == Role::Fence).then_some(To::Nothing);
        orders.chain(out).collect()
    }

    /// What is left of it where only a load happens.
    pub fn of_a_load(self) -> Self {
        match self {
            Order::Release => Order::Relaxed,
            Order::AcqRel => Order::Acquire,
            other => other,
        }
    }
}

impl Role {
    /// That of the `nth` ordering, from 0, which an operation called `name` is given.
    pub fn of(name: &str, nth: usize) -> Option<Self> {
        match (name, nth) {
            ("load", 0) => Some(Role::Load),
            ("store", 0) => Some(Role::Store),
            ("fence", 0) => Some(Role::Fence),
            ("swap" | "fetch_add" | "fetch_sub" | "fetch_max" | "fetch_min", 0) => Some(Role::Rmw),
            ("fetch_and" | "fetch_or" | "fetch_xor" | "fetch_nand", 0) => Some(Role::Rmw),
            ("compare_exchange" | "compare_exchange_weak" | "fetch_update", 0) => Some(Role::Rmw),
            ("compare_exchange" | "compare_exchange_weak" | "fetch_update", 1) => {
                Some(Role::Failure)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_the_smallest_that_is_legal() {
        let (to, out) = (To::Order, To::Nothing);
        assert_eq!(Order::SeqCst.weaker(Role::Rmw), [to(Order::AcqRel)]);
        assert_eq!(Order::SeqCst.weaker(Role::Load), [to(Order::Acquire)]);
        assert_eq!(Order::SeqCst.weaker(Role::Store), [to(Order::Release)]);
        assert_eq!(Order::SeqCst.weaker(Role::Fence), [to(Order::AcqRel), out]);
        let both = [to(Order::Acquire), to(Order::Release)];
        assert_eq!(Order::AcqRel.weaker(Role::Rmw), both);
        assert_eq!(Order::Release.weaker(Role::Store), [to(Order::Relaxed)]);
        assert_eq!(Order::Acquire.weaker(Role::Fence), [out]);
        assert!(Order::Relaxed.weaker(Role::Rmw).is_empty());
        assert_eq!(Order::AcqRel.of_a_load(), Order::Acquire);
        assert_eq!(Order::Release.of_a_load(), Order::Relaxed);
    }
}
