//! A completion queue: who may poll it, whose completions come there, and who is told.

pub(super) mod dispatch;
pub(super) mod poller;
pub(super) mod seat;
pub(super) mod sleep;
pub(super) mod table;
pub(super) mod thread;
pub(super) mod turn;
pub(super) mod watch;
