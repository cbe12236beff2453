//! A future that is polled by hand and given up at will, in memory that can be looked at afterwards.

use std::alloc::{Layout, dealloc};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// How a future is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Drop,
    Forget,
}

pub const CUTS: [Cut; 2] = [Cut::Drop, Cut::Forget];

/// What the memory of a dropped future is filled with: who writes there afterwards is found out.
const DROPPED: u8 = 0xA7;

/// A future in memory of its own.
pub struct Subject<'a, T> {
    future: *mut (dyn Future<Output = T> + Send + 'a),
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Alive,
    Dropped,
    Forgotten,
}

// SAFETY: it owns a future that is Send.
unsafe impl<T> Send for Subject<'_, T> {}

impl<'a, T> Subject<'a, T> {
    pub fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Subject {
            future: Box::into_raw(Box::new(future)),
            state: State::Alive,
        }
    }

    pub fn poll(&mut self, waker: &Waker) -> Poll<T> {
        assert!(self.state == State::Alive);
        // SAFETY: alive, and it never moves.
        let future = unsafe { Pin::new_unchecked(&mut *self.future) };
        future.poll(&mut Context::from_waker(waker))
    }

    /// Polled once, with nobody to be woken, and not ready.
    #[track_caller]
    pub fn pending(mut self) -> Self {
        assert!(self.poll(Waker::noop()).is_pending());
        self
    }

    pub fn cut(&mut self, cut: Cut) {
        assert!(self.state == State::Alive);
        match cut {
            Cut::Drop => self.drop_in_place(),
            Cut::Forget => self.state = State::Forgotten,
        }
    }

    fn layout(&self) -> Layout {
        // SAFETY: the memory is there until `self` is dropped; this reads the pointer's metadata only.
        Layout::for_value(unsafe { &*self.future })
    }

    fn drop_in_place(&mut self) {
        let layout = self.layout();
        self.state = State::Dropped;
        // SAFETY: it was alive, and is not used as a future any more.
        unsafe {
            std::ptr::drop_in_place(self.future);
            std::ptr::write_bytes(self.future.cast::<u8>(), DROPPED, layout.size());
        }
    }

    /// Nobody has written where a future was that is dropped.
    #[track_caller]
    pub fn assert_untouched(&self) {
        if self.state != State::Dropped {
            return;
        }
        let start = self.future.cast::<u8>();
        for at in 0..self.layout().size() {
            // SAFETY: inside of the memory, which is there and initialised.
            let byte = unsafe { start.add(at).read_volatile() };
            assert_eq!(byte, DROPPED, "written at {at} after the drop");
        }
    }
}

impl<T> Drop for Subject<'_, T> {
    fn drop(&mut self) {
        if self.state == State::Alive {
            self.drop_in_place();
        }
        let layout = self.layout();
        if self.state == State::Dropped && layout.size() > 0 {
            // SAFETY: from a box of that layout; a forgotten future keeps its memory.
            unsafe { dealloc(self.future.cast(), layout) };
        }
    }
}

/// A waker that counts.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
