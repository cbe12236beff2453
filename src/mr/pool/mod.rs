//! Slots of one size, carved from whole registrations, taken and given back without a lock. This file has
//! the pool and how slots are taken; `list` the free ones, `word` what its word says, `grow` how slots
//! come to be and come to their end, `slot` what users get.

mod grow;
mod list;
mod slot;
mod word;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::listener;

use super::options::MrOptions;
use crate::error::{Error, Result};
use crate::registration::Registrar;
use crate::sync::{self, Timer, now, park, spin_loop, unblock};
use grow::Growing;
pub(super) use grow::{reuse, slot_number};
pub use slot::PooledMr;

use grow::Shared;

/// How large a pool is, and how it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// The length of each slot, in bytes. Slots lie one behind the other: with a multiple of 64, no two
    /// share a cache line.
    pub slot_length: usize,
    /// How many slots each registration has.
    pub slots_per_registration: usize,
    /// How many registrations there are at most; the first one is there from the start.
    pub max_registrations: usize,
}

/// Slots of one size for operations that come and go: taking one and giving it back costs one RMW each,
/// on a line of the pool's, no registration and no allocation.
///
/// Each slot is a region with a gate of its own, [`PooledMr`]. Dropped, it goes back; if operations on it are
/// in flight then, when the last of them is over, and not before (rule R9). Its next user finds the bytes
/// as they were left. If no slot is free the pool grows by a whole registration, up to its limit; then
/// `take` waits. It never shrinks under a user: registrations end with the pool, or, if slots are out
/// then, each when the last of its slots has come back.
///
/// Used through `&`, by any number of threads; put it into an [`Arc`] to share it. Whoever waits for a slot
/// has no claim to the next one: others may be faster.
///
/// ```
/// use rdma_mr::op::Begin;
/// use rdma_mr::{LocalMrWriteAccess, MrOptions, PoolOptions, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let pool = MrOptions::new().pool(&pd, PoolOptions {
///     slot_length: 2048,
///     slots_per_registration: 64,
///     max_registrations: 4,
/// })?;
/// let mut slot = pool.take()?;
/// slot.as_mut_slice()[..5].copy_from_slice(b"hello");
/// let hold = slot.begin_read()?; // a SEND, say
/// drop(slot);
/// assert_eq!(pool.free(), 63); // the operation has it still
/// drop(hold);
/// assert_eq!(pool.free(), 64);
/// pool.close().map_err(|(_, error)| error)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct MrPool {
    shared: sync::Arc<Shared>,
}

impl MrOptions {
    /// A pool of slots with these rights and this patience; each registration's memory is mapped with these
    /// pages. Makes the first registration (`mmap`, `ibv_reg_mr`). Blocks in the kernel.
    ///
    /// # Errors
    /// [`Error::PoolSize`]; those of [`alloc`](Self::alloc) for `slot_length` times
    /// `slots_per_registration` bytes.
    pub fn pool<R: Registrar>(&self, registrar: &Arc<R>, size: PoolOptions) -> Result<MrPool> {
        self.check()?;
        let registrar: Arc<dyn Registrar> = Arc::clone(registrar) as _;
        let shared = sync::Arc::new(Shared::new(*self, registrar, size)?);
        // From here on its slots, once there are any, keep it; the pool's drop takes care of them.
        let pool = MrPool { shared };
        pool.grow()?;
        Ok(pool)
    }
}

impl MrPool {
    /// A slot; `None` if none is free. Never waits, never registers. One RMW.
    #[must_use]
    #[inline]
    pub fn try_take(&self) -> Option<PooledMr> {
        self.shared.take()
    }

    /// A slot. If none is free, registers more (`ibv_reg_mr`; blocks in the kernel); at the limit, or while
    /// another thread registers, waits for one that comes back: spins for
    /// [`Patience::spin`](crate::gate::Patience::spin), then parks the thread.
    ///
    /// # Errors
    /// If more were to be registered: [`Error::Register`] with what the provider said, [`Error::Memory`].
    /// The pool is as it was then. Who waited for these slots asks the provider in its turn.
    #[inline]
    pub fn take(&self) -> Result<PooledMr> {
        match self.try_take() {
            Some(slot) => Ok(slot),
            None => self.wait(None),
        }
    }

    /// As [`take`](Self::take), waiting at most until `deadline`. A registration that has begun is not cut
    /// short.
    ///
    /// # Errors
    /// [`Error::PoolEmpty`]; those of [`take`](Self::take).
    #[inline]
    pub fn take_until(&self, deadline: Instant) -> Result<PooledMr> {
        match self.try_take() {
            Some(slot) => Ok(slot),
            None => self.wait(Some(deadline)),
        }
    }

    /// As [`take`](Self::take), but instead of parking calls `progress` over and over: a thread that polls
    /// the completion queue, and so brings slots back, does not wait for itself.
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    pub fn take_with(&self, mut progress: impl FnMut()) -> Result<PooledMr> {
        loop {
            if let Some(slot) = self.take_or_grow()? {
                return Ok(slot);
            }
            progress();
            spin_loop();
        }
    }

    /// As [`take`](Self::take), as a future. Needs no runtime, never blocks the thread: more slots are
    /// registered by a thread of the `blocking` crate's. Dropping or forgetting it abandons the wish and
    /// nothing else; what was being registered comes to the pool. One allocation if it waits, and those
    /// of a registration.
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    pub async fn take_async(&self) -> Result<PooledMr> {
        loop {
            if let Some(slot) = self.try_take() {
                return Ok(slot);
            }
            if let Some(growing) = self.begin_growth() {
                match unblock(move || growing.take()).await? {
                    Some(slot) => return Ok(slot),
                    None => continue,
                }
            }
            let listener = self.shared.list.waiting.listen();
            if self.shared.list.mark() {
                listener.await;
            }
        }
    }

    /// Registers slots ahead of need (`mmap`, `ibv_reg_mr`), as many as a registration has. Blocks in the
    /// kernel, and while another thread does the same.
    ///
    /// # Errors
    /// [`Error::PoolFull`] at the limit, [`Error::Register`] with what the provider said,
    /// [`Error::Memory`]. The pool is as it was then.
    pub fn grow(&self) -> Result<()> {
        Shared::grow(&self.shared)
    }

    /// How many slots there are, free and out. One load.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.registrations() * self.shared.size.slots_per_registration
    }

    /// How many slots are free, at this moment. Two loads.
    #[must_use]
    pub fn free(&self) -> usize {
        self.shared.list.free()
    }

    /// How many registrations there are. One load.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.shared.registrations()
    }

    /// What the pool was made with: the length of a slot, and the limit.
    #[must_use]
    pub fn options(&self) -> PoolOptions {
        self.shared.size
    }

    /// Registers all of the pool's memory anew (`ibv_reg_mr`), so that the keys of all slots are others, as
    /// [`LocalMr::rotate_keys`](crate::LocalMr::rotate_keys) does it for one registration. Slots that are out
    /// have the new keys as well; their operations that began before complete under the old ones, which are
    /// ended by a later call of this, or with the pool. Blocks in the kernel, and while another thread
    /// grows the pool. O(slots).
    ///
    /// # Errors
    /// [`Error::Register`] with what the provider said: registrations that had their turn have new keys,
    /// the others have not.
    pub fn rotate_keys(&self) -> Result<()> {
        self.shared.rotate_keys()
    }

    /// Deregisters all (`ibv_dereg_mr`) and frees the memory. Blocks in the kernel, and while a thread that
    /// [`take_async`](Self::take_async) has sent registers more; waits for no slot.
    ///
    /// # Errors
    /// The pool, as it was, with [`Error::SlotsOut`] if slots, or operations on them, are out (forgotten ones
    /// stay so for ever). With [`Error::Deregister`] and what the provider said, the pool without the
    /// registrations that were ended. As an [`io::Error`].
    pub fn close(self) -> Result<(), (Self, io::Error)> {
        match self.shared.end() {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error.into())),
        }
    }

    fn begin_growth(&self) -> Option<Growing> {
        Growing::begin(&self.shared)
    }

    /// A slot, registering more if none is free and nobody else does that.
    fn take_or_grow(&self) -> Result<Option<PooledMr>> {
        loop {
            if let Some(slot) = self.try_take() {
                return Ok(Some(slot));
            }
            let Some(growing) = self.begin_growth() else {
                return Ok(None);
            };
            if let Some(slot) = growing.take()? {
                return Ok(Some(slot));
            }
        }
    }

    #[cold]
    fn wait(&self, deadline: Option<Instant>) -> Result<PooledMr> {
        let mut spin = Timer::after(self.patience());
        loop {
            if let Some(slot) = self.take_or_grow()? {
                return Ok(slot);
            }
            self.check_deadline(deadline)?;
            if spin.expired() {
                break;
            }
            spin_loop();
        }
        loop {
            listener!(self.shared.list.waiting => listener);
            if self.shared.list.mark() {
                self.check_deadline(deadline)?;
                park(listener, deadline);
            }
            if let Some(slot) = self.take_or_grow()? {
                return Ok(slot);
            }
        }
    }

    fn patience(&self) -> Duration {
        self.shared.options.patience.spin
    }

    fn check_deadline(&self, deadline: Option<Instant>) -> Result<()> {
        match deadline {
            Some(deadline) if now() >= deadline => Err(Error::PoolEmpty {
                slots: self.slots(),
            }),
            _ => Ok(()),
        }
    }
}

impl Drop for MrPool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for MrPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MrPool")
            .field("slots", &self.slots())
            .field("free", &self.free())
            .field("registrations", &self.registrations())
            .field("waiting", &self.shared.list.is_waited_for())
            .field("options", &self.options())
            .finish()
    }
}
