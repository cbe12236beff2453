//! Completion queues, with or without a completion channel to sleep on.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdma_sys::{
    ibv_ack_cq_events, ibv_comp_channel, ibv_cq, ibv_create_comp_channel, ibv_create_cq,
    ibv_destroy_comp_channel, ibv_destroy_cq, ibv_get_cq_event, ibv_poll_cq, ibv_req_notify_cq,
    ibv_wc,
};

use super::{Context, check, failed, invalid, last_error, note_leak, os, wr};
use crate::error::{Error, Result};
use crate::work::{self, WorkCompletion};

/// Completions taken off the queue in one `ibv_poll_cq`, after the first.
const BATCH: usize = 16;

/// The same in the first: most polls find nothing, and those that do find little.
const FEW: usize = 4;

/// A completion queue (`struct ibv_cq`). Its queue pairs keep it alive.
///
/// It must have room for everything that is outstanding on its queue pairs (rule R15): when it is
/// overrun completions are lost, and once that has been noticed (by [`Context::async_events`] or
/// [`wait`](Self::wait)) each poll returns an error.
pub struct CompletionQueue {
    raw: NonNull<ibv_cq>,
    capacity: u32,
    overrun: Arc<AtomicBool>,
    channel: Option<Channel>,
    context: Context,
}

/// A completion channel (`struct ibv_comp_channel`) of one queue, non-blocking.
struct Channel(NonNull<ibv_comp_channel>);

// SAFETY: the verbs may be called on a completion queue and its channel from any thread at the same
// time.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl Channel {
    fn new(context: &Context) -> Result<Self> {
        // SAFETY: the context is open.
        let raw = unsafe { ibv_create_comp_channel(context.as_raw()) };
        let channel =
            Channel(NonNull::new(raw).ok_or_else(|| last_error("ibv_create_comp_channel"))?);
        os::set_nonblocking(channel.fd()).map_err(|source| Error::Provider {
            call: "fcntl",
            source,
        })?;
        Ok(channel)
    }

    fn fd(&self) -> RawFd {
        // SAFETY: the channel is alive; the field does not change.
        unsafe { (*self.0.as_ptr()).fd }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: we created it, and its one queue has been destroyed (or leaked: then EBUSY).
        if unsafe { ibv_destroy_comp_channel(self.0.as_ptr()) } != 0 {
            note_leak();
        }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        self.context.unwatch_cq(self.raw);
        // Every event that was taken has been acknowledged (`take_events`), so this does not block.
        // SAFETY: we created it; its queue pairs held an `Arc` of this and are gone.
        if unsafe { ibv_destroy_cq(self.raw.as_ptr()) } != 0 {
            note_leak();
            mem::forget(self.context.clone());
        }
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue")
            .field("capacity", &self.capacity)
            .field("channel", &self.channel.is_some())
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Creates a completion queue for at least `capacity` completions (`ibv_create_cq`).
    ///
    /// # Errors
    /// [`Error::Provider`]; a capacity of 0 or over [`Limits::max_cqe`](super::Limits::max_cqe)
    /// is one.
    pub fn create_cq(&self, capacity: u32) -> Result<Arc<CompletionQueue>> {
        self.new_cq(capacity, None)
    }

    /// The same with a completion channel (`ibv_create_comp_channel`), for
    /// [`CompletionQueue::wait`] or the caller's own event loop
    /// ([`CompletionEvents`](work::CompletionEvents)).
    ///
    /// # Errors
    /// As [`create_cq`](Self::create_cq).
    pub fn create_cq_with_channel(&self, capacity: u32) -> Result<Arc<CompletionQueue>> {
        self.new_cq(capacity, Some(Channel::new(self)?))
    }

    fn new_cq(&self, capacity: u32, channel: Option<Channel>) -> Result<Arc<CompletionQueue>> {
        let max = self.limits().max_cqe;
        let cqe = match c_int::try_from(capacity) {
            Ok(cqe) if (1..=max).contains(&capacity) => cqe,
            _ => {
                let why = format!("capacity {capacity}: the device takes 1..={max}");
                return Err(invalid("ibv_create_cq", why));
            }
        };
        let raw_channel = channel.as_ref().map_or(ptr::null_mut(), |c| c.0.as_ptr());
        // SAFETY: the context is open, the channel null or alive for as long as the queue.
        let raw = unsafe { ibv_create_cq(self.as_raw(), cqe, ptr::null_mut(), raw_channel, 0) };
        let raw = NonNull::new(raw).ok_or_else(|| last_error("ibv_create_cq"))?;
        let overrun = Arc::new(AtomicBool::new(false));
        self.watch_cq(raw, Arc::clone(&overrun));
        Ok(Arc::new(CompletionQueue {
            raw,
            // SAFETY: just created; the provider has written how many it really takes.
            capacity: u32::try_from(unsafe { (*raw.as_ptr()).cqe }).unwrap_or(capacity),
            overrun,
            channel,
            context: self.clone(),
        }))
    }
}

// SAFETY: CQ-1 and CQ-2 are what ibv_poll_cq does: it takes each completion off once, after the
// device has finished with the work request, behind the provider's read barrier.
unsafe impl work::CompletionQueue for CompletionQueue {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        // Ordering: Relaxed, a flag that stands for itself; it publishes nothing.
        if self.overrun.load(Ordering::Relaxed) {
            return Err(failed(
                "ibv_poll_cq",
                io::ErrorKind::Other,
                "the completion queue was overrun and has lost completions",
            ));
        }
        let mut taken = 0;
        while taken < out.len() {
            let most = if taken == 0 { FEW } else { BATCH };
            let end = out.len().min(taken + most);
            let out = &mut out[taken..end];
            let mut batch = [const { MaybeUninit::<ibv_wc>::uninit() }; BATCH];
            // Providers leave out fields that mean nothing after an error: don't read garbage.
            for wc in &mut batch[..out.len()] {
                *wc = MaybeUninit::zeroed();
            }
            let room = out.len() as c_int; // at most BATCH
            // SAFETY: the queue is alive, and `batch` has at least `room` elements.
            let got = unsafe { ibv_poll_cq(self.raw.as_ptr(), room, batch.as_mut_ptr().cast()) };
            let Ok(got) = usize::try_from(got) else {
                if taken > 0 {
                    break; // these are over; the error will be there at the next poll, too
                }
                return Err(Error::Provider {
                    call: "ibv_poll_cq",
                    source: match got {
                        // rxe and others return -1 without setting errno.
                        -1 => io::Error::other("the provider could not read the queue"),
                        errno => io::Error::from_raw_os_error(-errno),
                    },
                });
            };
            for (to, from) in out.iter_mut().zip(&batch[..got]) {
                // SAFETY: all zeros is a valid `ibv_wc`, which is plain numbers, and the provider
                // has written over it.
                *to = wr::completion(unsafe { from.assume_init_ref() });
            }
            taken += got;
            if got < out.len() {
                break;
            }
        }
        Ok(taken)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

/// `take_events` gives 0 without a channel. The descriptor is non-blocking.
impl work::CompletionEvents for CompletionQueue {
    fn req_notify(&self, solicited_only: bool) -> Result<()> {
        // SAFETY: the queue is alive.
        check("ibv_req_notify_cq", unsafe {
            ibv_req_notify_cq(self.raw.as_ptr(), i32::from(solicited_only))
        })
    }

    fn take_events(&self) -> Result<u32> {
        let Some(channel) = &self.channel else {
            return Ok(0);
        };
        let mut taken = 0;
        loop {
            let (mut cq, mut user) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the channel is alive, and so are the two results, for the call.
            if unsafe { ibv_get_cq_event(channel.0.as_ptr(), &mut cq, &mut user) } == 0 {
                taken += 1;
                // SAFETY: one event was taken just now, and it is of this queue: the channel has
                // no other. Nothing stands between the two calls that could return or panic.
                unsafe { ibv_ack_cq_events(self.raw.as_ptr(), 1) };
                continue;
            }
            let source = io::Error::last_os_error();
            match source.kind() {
                io::ErrorKind::WouldBlock => return Ok(taken),
                io::ErrorKind::Interrupted => {}
                _ => {
                    let call = "ibv_get_cq_event";
                    return Err(Error::Provider { call, source });
                }
            }
        }
    }

    fn wait_event(&self, timeout: Option<Duration>) -> Result<bool> {
        let fd = self.channel_fd("CompletionQueue::wait_event")?;
        self.sleep(fd, os::deadline(timeout))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let channel = self.channel.as_ref()?;
        // SAFETY: the descriptor is open as long as the channel, which `self` owns.
        Some(unsafe { BorrowedFd::borrow_raw(channel.fd()) })
    }
}

impl CompletionQueue {
    /// How many completions it holds; at least what was asked for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The device that it is of.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The queue itself, for code that makes its own queue pairs. It is there as long as `self` is
    /// kept; it must not be destroyed, and events taken from its channel by other means have to be
    /// acknowledged before `self` is dropped, or the drop blocks.
    #[must_use]
    pub fn as_raw(&self) -> *mut ibv_cq {
        self.raw.as_ptr()
    }

    /// Polls, and sleeps on the completion channel while there is nothing, until `timeout` has
    /// passed (`None`: for ever). Returns how many completions it put into `out`, 0 after the
    /// timeout.
    ///
    /// Blocks. One thread may wait at a time: of several, an event wakes only one, and that one may
    /// take the completions that another waits for.
    ///
    /// # Errors
    /// [`Error::Provider`]; a queue that was created without a channel, an empty `out`, and a queue
    /// that was overrun are some.
    pub fn wait(&self, out: &mut [WorkCompletion], timeout: Option<Duration>) -> Result<usize> {
        use work::{CompletionEvents as _, CompletionQueue as _};

        let fd = self.channel_fd("CompletionQueue::wait")?;
        if out.is_empty() {
            return Err(invalid("CompletionQueue::wait", "no room for a completion"));
        }
        let deadline = os::deadline(timeout);
        loop {
            // In this order: what completes after the first poll is seen by the second, or makes
            // an event.
            for armed in [false, true] {
                if armed {
                    self.req_notify(false)?;
                }
                let taken = self.poll(out)?;
                if taken > 0 {
                    return Ok(taken);
                }
            }
            if !self.sleep(fd, deadline)? {
                // An event may have come with the deadline.
                return self.poll(out);
            }
        }
    }

    /// The descriptor to sleep on, for `call`.
    fn channel_fd(&self, call: &'static str) -> Result<RawFd> {
        let why = "the queue has no completion channel: use create_cq_with_channel";
        let channel = self.channel.as_ref().ok_or_else(|| invalid(call, why))?;
        Ok(channel.fd())
    }

    /// Sleeps until the channel or the device has an event, and takes it; `false` at the deadline.
    fn sleep(&self, fd: RawFd, deadline: Option<Instant>) -> Result<bool> {
        use work::CompletionEvents as _;

        let fds = [fd, self.context.async_fd()];
        let ready = os::wait_readable(fds, deadline).map_err(|source| Error::Provider {
            call: "poll",
            source,
        })?;
        self.context.async_events()?;
        self.take_events()?;
        Ok(ready)
    }
}
