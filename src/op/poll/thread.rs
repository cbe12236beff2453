//! A thread that polls, for those who have none to spare.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::poller::Poller;
use crate::error::{Error, Result};
use crate::work::CompletionEvents;

/// How long it sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(50);

/// A thread that polls a completion queue, and sleeps on its event while there is nothing. Dropped, it
/// ends the thread, which takes up to 50 ms.
#[derive(Debug)]
pub struct PollerThread {
    thread: Option<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
}

impl<C: CompletionEvents + Send + Sync + 'static> Poller<C> {
    /// Starts a thread of that name which polls until it is stopped or polling fails.
    ///
    /// # Errors
    /// The operating system's, for a thread.
    pub fn spawn(&self, name: &str) -> io::Result<PollerThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let (poller, stopped) = (self.clone(), Arc::clone(&stop));
        let run = move || {
            // Ordering: Relaxed. A request; nothing is handed over with it.
            while !stopped.load(Ordering::Relaxed) {
                match poller.wait(Some(NAP), |_| ()) {
                    Ok(_) | Err(Error::UnknownCompletion { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(PollerThread {
            thread: Some(thread),
            stop,
        })
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
        match self.join() {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    fn join(&mut self) -> Option<std::thread::Result<Result<()>>> {
        // Ordering: Relaxed, as in `spawn`.
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        // A waker that it calls may be what drops it.
        let itself = thread.thread().id() == std::thread::current().id();
        (!itself).then(|| thread.join())
    }
}

impl Drop for PollerThread {
    fn drop(&mut self) {
        let _ = self.join();
    }
}
