//! Protection domains and the handles of their registrations.

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::memory::Mr;
use super::nic::{Alive, Core};
use super::{CompletionQueue, Nic, QueuePair, SharedRecvQueue};
use crate::registration::{AtomicCap, Deregister, Registered, Registrar};
use crate::work::QpCaps;
use crate::{Access, Error, Result};

/// A protection domain of a [`Nic`] (`struct ibv_pd`): its keys work with its queue pairs, and with
/// no others.
///
/// Registrations are numbers in the NIC's table: they stay in force when their domain is dropped
/// (verbs refuse to free a domain with live ones).
pub struct ProtectionDomain {
    alive: Arc<Alive>,
    id: u64,
}

impl ProtectionDomain {
    pub(super) fn new(alive: Arc<Alive>, id: u64) -> Self {
        ProtectionDomain { alive, id }
    }

    /// A queue pair in state `RESET` (`ibv_create_qp`, reliable connected). Its completions go to
    /// these two queues, which may be one and the same. The NIC's thread starts with the first one.
    ///
    /// # Errors
    /// [`Error::Provider`] if `caps` is more than the NIC takes (16,384 work requests a queue, 16
    /// elements, 1,024 inline bytes), if a completion queue belongs to another NIC or was overrun,
    /// or if the thread can't start.
    pub fn create_qp(
        &self,
        send_cq: &CompletionQueue,
        recv_cq: &CompletionQueue,
        caps: QpCaps,
    ) -> Result<QueuePair> {
        QueuePair::create(&self.alive, self.id, (send_cq, recv_cq), None, caps)
    }

    /// The same with a shared receive queue: its messages take receives from `srq`, and none can be
    /// posted to it alone (`srq` of `struct ibv_qp_init_attr`). What `caps` says of receives counts
    /// as 0.
    ///
    /// # Errors
    /// As [`create_qp`](Self::create_qp); a shared queue of another NIC is one.
    pub fn create_qp_with_srq(
        &self,
        send_cq: &CompletionQueue,
        recv_cq: &CompletionQueue,
        srq: &SharedRecvQueue,
        caps: QpCaps,
    ) -> Result<QueuePair> {
        QueuePair::create(&self.alive, self.id, (send_cq, recv_cq), Some(srq), caps)
    }

    /// A shared receive queue for `capacity` receives of up to `max_sge` elements
    /// (`ibv_create_srq`).
    ///
    /// # Errors
    /// [`Error::Provider`] for a capacity of 0, or if it is more than the NIC takes (16,384 receives,
    /// 16 elements).
    pub fn create_srq(&self, capacity: u32, max_sge: u32) -> Result<SharedRecvQueue> {
        SharedRecvQueue::create(&self.alive, self.id, capacity, max_sge)
    }

    /// The NIC that it belongs to.
    #[must_use]
    pub fn nic(&self) -> Nic {
        Nic::of(self.alive.clone())
    }

    fn check(&self, addr: NonNull<u8>, length: usize, access: Access) -> io::Result<()> {
        let addr = addr.as_ptr() as u64;
        let most = self.alive.core.config.max_mr_size;
        if length == 0 {
            return Err(Error::ZeroLength.into());
        }
        if length > isize::MAX as usize {
            return Err(Error::TooLong { length }.into());
        }
        if length > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{length} bytes are more than the NIC registers at once ({most})"),
            ));
        }
        if addr.checked_add(length as u64).is_none() {
            return Err(Error::AddressOverflow { addr, length }.into());
        }
        if !Access::all().contains(access) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{access:?} has bits that the NIC does not know"),
            ));
        }
        access.validate()?;
        if self.alive.core.faults.register() {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "injected fault: the registration is refused",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain")
            .field("nic", &self.alive.core.config.name)
            .field("id", &self.id)
            .finish()
    }
}

// SAFETY: REG-1: the table gives keys that no live registration has, and `KeyTable::resolve` checks
// bounds and rights each time. REG-2: the engine reaches registered bytes through `resolve` only.
// REG-3: `insert` is the last thing that can fail. REG-5:
// `raw` has the atomics.
unsafe impl Registrar for ProtectionDomain {
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered> {
        self.check(addr, length, access)?;
        // Copies get their pointers from `addr`; inline posts and nothing else make theirs from the
        // number in the element.
        let core = self.alive.core.clone();
        let mr = core.keys.insert(addr, length, access, self.id)?;
        Ok(Registered {
            lkey: mr.lkey,
            rkey: mr.rkey,
            handle: Box::new(MrHandle { core, mr }),
        })
    }

    /// They are the CPU's own instructions.
    fn atomic_cap(&self) -> AtomicCap {
        AtomicCap::Global
    }
}

/// The handle of one registration. It keeps the NIC's tables alive, not its thread.
struct MrHandle {
    core: Arc<Core>,
    mr: Arc<Mr>,
}

// SAFETY: DEREG-1: `KeyTable::remove` returns when no copy on the bytes is under way and none can
// begin. DEREG-2: an injected refusal comes before anything is changed. DEREG-3: there is no `Drop`;
// the table keeps the registration.
unsafe impl Deregister for MrHandle {
    fn deregister(&mut self) -> io::Result<()> {
        if self.core.faults.deregister() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "injected fault: the deregistration is refused, the registration stays",
            ));
        }
        self.core.keys.remove(&self.mr);
        Ok(())
    }
}
