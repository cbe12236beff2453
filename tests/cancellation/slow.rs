//! A queue pair whose post takes its time when it is told to: whoever wants to post meanwhile waits for
//! the turn.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use rdma_mr::Result;
use rdma_mr::work::{QpCaps, QueuePair, RecvWr, SendWr};

pub struct Slow<Q> {
    pub qp: Q,
    /// No more than the queue pair's.
    pub caps: QpCaps,
    pub door: Arc<Door>,
}

/// Where a post stays.
#[derive(Default)]
pub struct Door {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The next one that comes stays.
    Shut,
    Inside,
}

impl Door {
    pub fn shut(&self) {
        self.set(State::Shut);
    }

    pub fn open(&self) {
        self.set(State::Open);
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap() = state;
        self.changed.notify_all();
    }

    /// Until somebody stays.
    pub fn wait_inside(&self) {
        let state = self.state.lock().unwrap();
        let inside = self.changed.wait_while(state, |s| *s != State::Inside);
        drop(inside.unwrap());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if *state == State::Shut {
            *state = State::Inside;
            self.changed.notify_all();
            let open = self.changed.wait_while(state, |s| *s != State::Open);
            drop(open.unwrap());
        }
    }
}

// SAFETY: QP-1 to QP-5: all of it is the queue pair's inside.
unsafe impl<Q: QueuePair> QueuePair for Slow<Q> {
    type Cq = Q::Cq;

    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        self.door.pass();
        // SAFETY: POST-1, POST-3, as required of the caller.
        unsafe { self.qp.post_send(wr) }
    }

    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        self.door.pass();
        // SAFETY: POST-2, POST-3, as required of the caller.
        unsafe { self.qp.post_recv(wr) }
    }

    fn send_cq(&self) -> &Q::Cq {
        self.qp.send_cq()
    }

    fn recv_cq(&self) -> &Q::Cq {
        self.qp.recv_cq()
    }

    fn caps(&self) -> QpCaps {
        self.caps
    }

    fn qp_num(&self) -> u32 {
        self.qp.qp_num()
    }

    fn modify_to_error(&self) -> Result<()> {
        self.qp.modify_to_error()
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        let Slow { qp, caps, door } = self;
        let back = |(qp, error)| (Slow { qp, caps, door }, error);
        qp.destroy().map_err(back)
    }
}
