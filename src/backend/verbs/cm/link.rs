//! The connection manager's side of an established connection: who it is with, and its end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdma_sys::{rdma_cm_event_type as event, rdma_disconnect};

use super::super::os;
use super::id::CmId;
use crate::error::{Error, Result};

/// What an established connection has beside its queue pair. Dropping it disconnects.
pub struct Link {
    id: Arc<CmId>,
    private_data: Vec<u8>,
    /// The peer, or the device, is gone.
    gone: AtomicBool,
    /// We have said that we disconnect, or answered that the peer does.
    said: AtomicBool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(id: Arc<CmId>, private_data: Vec<u8>) -> Self {
        Link {
            id,
            private_data,
            gone: AtomicBool::new(false),
            said: AtomicBool::new(false),
        }
    }

    /// What the peer sent with its connect request or its accept. RoCE and InfiniBand pad it with
    /// zeros to the full size.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// The address of this side.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.id.addresses().0
    }

    /// The address of the peer.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.id.addresses().1
    }

    /// The descriptor of its event channel, non-blocking: readable when
    /// [`disconnected`](Self::disconnected) has something to look at.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the channel, which the id keeps.
        unsafe { BorrowedFd::borrow_raw(self.id.channel().fd()) }
    }

    /// Whether the connection has ended: the peer disconnected or its process is gone, this side
    /// did, or the device was removed (`rdma_get_cm_event`). Does not wait. Notices no peer that
    /// fell silent: that shows as an error completion (`IBV_WC_RETRY_EXC_ERR`) of the next
    /// operation.
    ///
    /// The queue pair is left as it is: receives that are posted stay, until it is brought into
    /// ERR ([`QueuePair::modify_to_error`](super::super::QueuePair::modify_to_error)) or destroyed.
    ///
    /// # Errors
    /// [`Error::Provider`].
    pub fn disconnected(&self) -> Result<bool> {
        while let Some(event) = self.id.channel().next()? {
            if matches!(
                event.kind,
                event::RDMA_CM_EVENT_DISCONNECTED
                    | event::RDMA_CM_EVENT_TIMEWAIT_EXIT
                    | event::RDMA_CM_EVENT_DEVICE_REMOVAL
            ) {
                // Ordering: Relaxed, a flag that stands for itself; it publishes nothing.
                self.gone.store(true, Ordering::Relaxed);
            }
        }
        // Ordering: Relaxed, as above.
        let gone = self.gone.load(Ordering::Relaxed);
        if gone {
            // Answers the peer, which otherwise asks again until it times out.
            self.disconnect()?;
        }
        Ok(gone)
    }

    /// Waits until the connection has ended, or `timeout` has passed; see
    /// [`disconnected`](Self::disconnected), whose value it returns. Blocks.
    ///
    /// # Errors
    /// [`Error::Provider`].
    pub fn wait_disconnected(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = os::deadline(timeout);
        loop {
            if self.disconnected()? {
                return Ok(true);
            }
            if !self.id.channel().wait(deadline)? {
                return self.disconnected();
            }
        }
    }

    /// Tells the peer that the connection is over (`rdma_disconnect`). Does not wait for it, and
    /// leaves the queue pair as it is. A second call does nothing.
    ///
    /// # Errors
    /// [`Error::Provider`].
    pub fn disconnect(&self) -> Result<()> {
        // Ordering: Relaxed, of several callers one makes the call; it publishes nothing.
        if self.said.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the id is alive.
        if unsafe { rdma_disconnect(self.id.as_raw()) } == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        // EINVAL: it is disconnected already.
        if source.raw_os_error() == Some(libc::EINVAL) {
            return Ok(());
        }
        let call = "rdma_disconnect";
        Err(Error::Provider { call, source })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // If it fails, the peer learns it when the id is destroyed.
        let _ = self.disconnect();
    }
}
