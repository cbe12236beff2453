//! Access rights of a registration, with the numbers of `IBV_ACCESS_*`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

bitflags::bitflags! {
    /// What a registration lets the NIC do; the bits are those of `enum ibv_access_flags`.
    ///
    /// The default is [`Access::LOCAL_WRITE`] alone (rule R4): no peer reaches the bytes.
    ///
    /// ```
    /// use rdma_mr::Access;
    ///
    /// assert_eq!(Access::default(), Access::LOCAL_WRITE);
    /// assert_eq!((Access::LOCAL_WRITE | Access::REMOTE_READ).bits(), 0b0101);
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Access: u32 {
        /// The NIC may write the bytes for this side: as the target of a RECV, of a READ, of an
        /// atomic's result.
        const LOCAL_WRITE = 1;
        /// Peers may WRITE the bytes.
        const REMOTE_WRITE = 1 << 1;
        /// Peers may READ the bytes.
        const REMOTE_READ = 1 << 2;
        /// Peers may use FETCH_ADD and CMP_SWAP on the bytes.
        const REMOTE_ATOMIC = 1 << 3;
    }
}

impl Default for Access {
    fn default() -> Self {
        Access::LOCAL_WRITE
    }
}

impl Access {
    /// The rights with which a peer changes bytes: WRITE and the atomics.
    pub const REMOTE_MUTATION: Access = Access::REMOTE_WRITE.union(Access::REMOTE_ATOMIC);

    /// All rights that are peers'.
    pub const REMOTE: Access = Access::REMOTE_MUTATION.union(Access::REMOTE_READ);

    /// Whether a peer can change bytes with these rights.
    #[must_use]
    pub const fn lets_peers_write(self) -> bool {
        self.intersects(Self::REMOTE_MUTATION)
    }

    /// Refuses what every provider refuses: remote writes or atomics without local write.
    ///
    /// # Errors
    /// [`Error::RemoteWithoutLocalWrite`].
    pub fn validate(self) -> Result<()> {
        if self.lets_peers_write() && !self.contains(Access::LOCAL_WRITE) {
            return Err(Error::RemoteWithoutLocalWrite { access: self });
        }
        Ok(())
    }

    /// Refuses rights that lack any of `needed`.
    ///
    /// # Errors
    /// [`Error::MissingRight`].
    pub fn require(self, needed: Access) -> Result<()> {
        if self.contains(needed) {
            Ok(())
        } else {
            Err(Error::MissingRight {
                needed,
                access: self,
            })
        }
    }
}
