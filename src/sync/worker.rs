//! A thread of the crate's own that goes on until it is told to end.

use std::io;

use super::thread::{self, JoinHandle};
use super::{Arc, AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Worker<T> {
    thread: Option<JoinHandle<T>>,
    stop: Stop,
}

/// Whether the thread is to end.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicU64>);

impl Stop {
    pub(crate) fn is_told(&self) -> bool {
        // Ordering: Relaxed. Nothing is handed over with it; whoever is woken to look has it from what
        // wakes.
        self.0.load(Ordering::Relaxed) != 0
    }

    fn tell(&self) {
        // Ordering: Relaxed, as in `is_told`.
        self.0.store(1, Ordering::Relaxed);
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread of that name; refused in a model, which knows its own threads alone.
    pub(crate) fn spawn(
        name: &str,
        run: impl FnOnce(Stop) -> T + Send + 'static,
    ) -> io::Result<Self> {
        if cfg!(loom) {
            let reason = "in a model: let a thread of the model's poll, or call reap()";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let stop = Stop(Arc::new(AtomicU64::new(0)));
        let told = stop.clone();
        let thread = thread::Builder::new().name(name.into());
        Ok(Worker {
            thread: Some(thread.spawn(move || run(told))?),
            stop,
        })
    }

    /// Tells the thread to end, wakes it by `wake`, and waits for it. `None` if that has been done, or if
    /// it is the thread itself that asks: a waker that it calls may be what drops its owner.
    pub(crate) fn end(&mut self, wake: impl FnOnce()) -> Option<std::thread::Result<T>> {
        self.stop.tell();
        wake();
        let thread = self.thread.take()?;
        let itself = thread.thread().id() == thread::current().id();
        (!itself).then(|| thread.join())
    }
}
