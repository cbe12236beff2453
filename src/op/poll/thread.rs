//! A thread that polls, for those who have none to spare.

use std::io;
use std::time::Duration;

use super::poller::Poller;
use super::watch::{Limits, Overdue};
use crate::error::{Error, Result};
use crate::sync::{Stop, Worker, now};
use crate::work::CompletionEvents;

/// How long it sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(50);

/// A thread that polls a completion queue, and sleeps on its event while there is nothing. Dropped, it
/// ends the thread, which takes up to 50 ms.
#[derive(Debug)]
pub struct PollerThread(Worker<Result<()>>);

impl<C: CompletionEvents + Send + Sync + 'static> Poller<C> {
    /// Starts a thread of that name which polls until it is stopped or polling fails.
    ///
    /// # Errors
    /// The operating system's, for a thread.
    pub fn spawn(&self, name: &str) -> io::Result<PollerThread> {
        self.spawn_with(name, NAP, || ())
    }

    /// As [`spawn`](Self::spawn), with a [`Watch`](crate::op::Watch): `report` is told once of each operation that
    /// is outstanding for longer than its limit, also if no completion comes at all. The thread wakes up four times
    /// in the shorter limit. What `report` waits for, completions wait for as well.
    ///
    /// # Errors
    /// The operating system's, for a thread.
    pub fn spawn_watched(
        &self,
        name: &str,
        limits: Limits,
        mut report: impl FnMut(Overdue) + Send + 'static,
    ) -> io::Result<PollerThread> {
        let mut watch = self.watch(limits);
        let interval = watch.interval().unwrap_or(NAP);
        let mut next = now();
        let look = move || {
            if now() >= next {
                watch.look(&mut report);
                next = now() + interval;
            }
        };
        self.spawn_with(name, interval.min(NAP), look)
    }

    /// A thread that calls `beside` after each poll, and sleeps no longer than `nap`.
    fn spawn_with(
        &self,
        name: &str,
        nap: Duration,
        mut beside: impl FnMut() + Send + 'static,
    ) -> io::Result<PollerThread> {
        let poller = self.clone();
        let run = move |stop: Stop| {
            while !stop.is_told() {
                match poller.wait(Some(nap), |_| ()) {
                    Ok(_) | Err(Error::UnknownCompletion { .. }) => {}
                    Err(error) => return Err(error),
                }
                beside();
            }
            Ok(())
        };
        Worker::spawn(name, run).map(PollerThread)
    }
}

impl PollerThread {
    /// Ends the thread. Blocks for up to 50 ms.
    ///
    /// # Errors
    /// What made it end by itself, if something did: polling failed.
    ///
    /// # Panics
    /// If the thread has panicked.
    pub fn stop(mut self) -> Result<()> {
        match self.0.end(|| ()) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for PollerThread {
    fn drop(&mut self) {
        let _ = self.0.end(|| ());
    }
}
