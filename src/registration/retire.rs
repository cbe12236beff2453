//! Waiting until the registrations before the one in force are ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use event_listener::{EventListener, listener};

use super::Registration;
use crate::error::{Error, Result};
use crate::sync::{now, park, spin_loop, waiters};

impl Registration {
    /// Ends what is retired; waits for the operations that use it.
    pub(crate) fn retire(&self, deadline: Option<Instant>) -> Result<()> {
        loop {
            let Err(busy) = self.try_retire()? else {
                return Ok(());
            };
            listener!(waiters(busy.address) => listener);
            // Once more, now that there is a place on the list. See `Gate::retire`.
            match self.try_retire()? {
                Ok(()) => return Ok(()),
                Err(again) if again.address != busy.address => continue,
                Err(_) => {}
            }
            if deadline.is_some_and(|deadline| now() >= deadline) {
                return Err(Error::Deadline { state: busy.state });
            }
            park(listener, deadline);
        }
    }

    /// As [`retire`](Self::retire), calling `progress` between two looks instead of parking.
    pub(crate) fn retire_with(&self, mut progress: impl FnMut()) -> Result<()> {
        while self.try_retire()?.is_err() {
            progress();
            spin_loop();
        }
        Ok(())
    }
}

/// The future of [`LocalMr::retire_async`](crate::LocalMr::retire_async). Dropped or forgotten, it ends
/// nothing, and what it has not ended stays for the next one.
#[must_use = "futures do nothing unless polled"]
pub struct Retire<'a> {
    registration: &'a Registration,
    /// The address of the list that it is on.
    listener: Option<(usize, EventListener)>,
}

impl<'a> Retire<'a> {
    pub(crate) fn new(registration: &'a Registration) -> Self {
        Retire {
            registration,
            listener: None,
        }
    }
}

impl Future for Retire<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let Err(busy) = self.registration.try_retire()? else {
                self.listener = None;
                return Poll::Ready(Ok(()));
            };
            match &mut self.listener {
                // On the list before that look: then it is told of what comes after it.
                Some((address, listener)) if *address == busy.address => {
                    if Pin::new(listener).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.listener = None;
                }
                listener => {
                    let listening = waiters(busy.address).listen();
                    *listener = Some((busy.address, listening));
                }
            }
        }
    }
}

impl fmt::Debug for Retire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retire").finish_non_exhaustive()
    }
}
