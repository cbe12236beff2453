//! How long to wait in which way.

use std::time::Duration;

use super::Gate;

/// How long a waiter tries before it gives the processor away, and how long it lets an exclusive
/// side go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A blocked thread spins this long, a single pause between two looks at the word, before it
    /// parks. At most 4 s.
    pub spin: Duration,
    /// Who wants in shared while an exclusive side waits for the present holders to leave stands
    /// back this long, then enters past it: a thread that holds a guard and asks for another
    /// does not wait for itself. At most 4 s. A future has no clock: it stands back for one trip
    /// through its executor.
    pub stand_back: Duration,
}

impl Default for Patience {
    /// Spins 10 µs (a parked thread takes 14 to 20 µs to run again), stands back 1 ms.
    fn default() -> Self {
        Patience {
            spin: Duration::from_micros(10),
            stand_back: Duration::from_millis(1),
        }
    }
}

impl Gate {
    /// A free gate with the same patience and bias, closed if this one is.
    pub(crate) fn alike(&self) -> Self {
        let mut new = Self::with_patience(self.patience());
        if let Some(bias) = self.read_bias() {
            new = new.with_read_bias(bias);
        }
        if self.state().closed {
            new.close();
        }
        new
    }

    /// How long its waiters spin and stand back.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience {
            spin: Duration::from_nanos(self.spin_ns.into()),
            stand_back: Duration::from_nanos(self.stand_back_ns.into()),
        }
    }
}
