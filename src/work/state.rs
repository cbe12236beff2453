//! The states of a queue pair.

use std::fmt;

/// The state of a queue pair (`enum ibv_qp_state`, same numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum QpState {
    /// New: takes no work request.
    Reset = 0,
    /// Takes receives.
    Init = 1,
    /// Takes receives and carries out what its peer sends.
    Rtr = 2,
    /// Sends as well.
    Rts = 3,
    /// The send queue is drained.
    Sqd = 4,
    /// The send queue has failed.
    Sqe = 5,
    /// Failed, or told to: everything that is posted is flushed.
    Err = 6,
}

impl QpState {
    /// The state with that number in `enum ibv_qp_state`; [`QpState::Err`] for one that is not in it.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => QpState::Reset,
            1 => QpState::Init,
            2 => QpState::Rtr,
            3 => QpState::Rts,
            4 => QpState::Sqd,
            5 => QpState::Sqe,
            _ => QpState::Err,
        }
    }

    /// The verbs' word for it, such as `RTS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            QpState::Reset => "RESET",
            QpState::Init => "INIT",
            QpState::Rtr => "RTR",
            QpState::Rts => "RTS",
            QpState::Sqd => "SQD",
            QpState::Sqe => "SQE",
            QpState::Err => "ERR",
        }
    }
}

impl fmt::Display for QpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_verbs() {
        let names: Vec<_> = (0..8).map(|raw| QpState::from_raw(raw).name()).collect();
        let verbs = ["RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR", "ERR"];
        assert_eq!(names, verbs);
        assert!((0..7).all(|raw| QpState::from_raw(raw) as u32 == raw));
    }
}
