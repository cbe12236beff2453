//! The events of a completion queue: asked for, made, taken; with a descriptor for `epoll` if the
//! queue was created with one.

#[cfg(unix)]
use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
};
#[cfg(not(loom))]
use {
    super::sleep,
    crate::sync::{Condvar, Mutex, MutexGuard},
    std::time::Instant,
};

/// What the lock of the queue guards.
pub(super) struct Events {
    armed: Armed,
    /// Made and not taken.
    made: u32,
}

/// Which completion makes the next event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Armed {
    None,
    Solicited,
    Any,
}

impl Events {
    pub(super) fn new() -> Self {
        Events {
            armed: Armed::None,
            made: 0,
        }
    }

    /// Asks for one. As on a device, asking for less takes back nothing.
    pub(super) fn arm(&mut self, solicited_only: bool) {
        let asked = if solicited_only {
            Armed::Solicited
        } else {
            Armed::Any
        };
        self.armed = self.armed.max(asked);
    }

    /// Whether such a completion makes one.
    pub(super) fn wants(&self, solicited: bool) -> bool {
        match self.armed {
            Armed::None => false,
            Armed::Solicited => solicited,
            Armed::Any => true,
        }
    }
}

/// Where the events are waited for. All but [`fd`](Self::fd) is called under the lock of the queue.
pub(super) struct Channel {
    /// What is written to the second is read from the first: one byte as long as there are events,
    /// so that it fits at any time.
    #[cfg(unix)]
    ends: Option<(UnixStream, UnixStream)>,
    #[cfg(not(loom))]
    made: Condvar,
}

impl Channel {
    /// One without a descriptor.
    pub(super) fn new() -> Self {
        Channel {
            #[cfg(unix)]
            ends: None,
            #[cfg(not(loom))]
            made: Condvar::new(),
        }
    }

    #[cfg(unix)]
    pub(super) fn with_descriptor() -> io::Result<Self> {
        let ends = UnixStream::pair()?;
        ends.0.set_nonblocking(true)?;
        ends.1.set_nonblocking(true)?;
        Ok(Channel {
            ends: Some(ends),
            ..Channel::new()
        })
    }

    #[cfg(unix)]
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ends.as_ref().map(|(read, _)| read.as_fd())
    }

    /// Makes an event, and disarms.
    pub(super) fn make(&self, events: &mut Events) {
        events.armed = Armed::None;
        events.made = events.made.saturating_add(1);
        #[cfg(unix)]
        if let (1, Some((_, write))) = (events.made, &self.ends) {
            // Both ends are open and the buffer is empty: it can't fail, and nobody is here to tell.
            let _ = { write }.write_all(&[1]);
        }
        #[cfg(not(loom))]
        self.made.notify_all();
    }

    /// Takes all, and says how many.
    pub(super) fn take(&self, events: &mut Events) -> u32 {
        let taken = std::mem::take(&mut events.made);
        #[cfg(unix)]
        if let (1.., Some((read, _))) = (taken, &self.ends) {
            // As in `make`.
            let _ = { read }.read_exact(&mut [0]);
        }
        taken
    }

    /// Sleeps until one is made, or a little shorter.
    #[cfg(not(loom))]
    pub(super) fn wait<'a, T>(
        &self,
        lock: &'a Mutex<T>,
        queue: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        sleep(&self.made, lock, queue, deadline)
    }
}
