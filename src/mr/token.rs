//! What is told to a peer so that it can reach bytes of ours: plain data (rule R20).

use std::ops::RangeBounds;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::part::{Part, resolve};
use crate::error::{Error, Result};
use crate::registration::Access;
use crate::work::RemoteAddr;

/// Names bytes of a region to a peer, with a deadline. Plain data: anybody may make any token, also
/// one that names nothing; it is the NIC of the bytes' owner that checks key, range and rights.
///
/// The deadline is a promise between the two sides, checked by [`target`](Self::target). It revokes
/// nothing (rule R5).
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::{Access, Error, MrToken};
///
/// let json = r#"{"addr":4096,"length":64,"rkey":7,"access":"REMOTE_READ",
///                "deadline":{"secs_since_epoch":4102444800,"nanos_since_epoch":0}}"#;
/// let token: MrToken = serde_json::from_str(json)?;
/// let target = token.target(8..16, Access::REMOTE_READ)?;
/// assert_eq!((target.addr, target.rkey), (4104, 7));
/// assert!(matches!(token.target(60..70, Access::REMOTE_READ), Err(Error::RangeOutside { .. })));
/// assert!(matches!(token.target(.., Access::REMOTE_WRITE), Err(Error::MissingRight { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MrToken {
    addr: u64,
    length: u64,
    rkey: u32,
    access: Access,
    deadline: SystemTime,
}

impl MrToken {
    /// Of these bytes, with the key and the rights of one registration; `None` if the clock can't express
    /// the deadline.
    pub(super) fn of(part: Part<'_>, timeout: Duration) -> Option<Self> {
        let inner = part.region().registration().inner().load();
        let deadline = SystemTime::now().checked_add(timeout)?;
        Some(Self::new(part, inner.rkey(), inner.access(), deadline))
    }

    /// Of these bytes, by a registration with that key and these rights.
    pub(crate) fn new(part: Part<'_>, rkey: u32, access: Access, deadline: SystemTime) -> Self {
        MrToken {
            addr: part.addr.as_ptr() as u64,
            length: part.length as u64,
            rkey,
            access,
            deadline,
        }
    }

    /// Address of the first byte in its owner's address space.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The remote key.
    #[must_use]
    pub fn rkey(&self) -> u32 {
        self.rkey
    }

    /// The rights that came with the registration.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Until when its owner expects it to be used, by the system's clock.
    #[must_use]
    pub fn deadline(&self) -> SystemTime {
        self.deadline
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        SystemTime::now() > self.deadline
    }

    /// The bytes in `range` of it as the target of an operation that needs the rights `needed`.
    /// [`RemoteMr`](crate::RemoteMr) does this by itself, for each operation. Reads the clock, which is
    /// no system call on Linux (vDSO), some 20 to 50 ns.
    ///
    /// # Errors
    /// [`Error::TokenExpired`], [`Error::MissingRight`], [`Error::RangeOutside`],
    /// [`Error::EmptyRange`], [`Error::AddressOverflow`] for a token that names no real memory.
    pub fn target(&self, range: impl RangeBounds<usize>, needed: Access) -> Result<RemoteAddr> {
        if self.is_expired() {
            return Err(Error::TokenExpired);
        }
        self.access.require(needed)?;
        let MrToken { addr, rkey, .. } = self.narrow(range)?;
        Ok(RemoteAddr { addr, rkey })
    }

    /// The token of the bytes in `range` of these.
    pub(super) fn narrow(&self, range: impl RangeBounds<usize>) -> Result<Self> {
        // A token from a peer whose addresses are wider than ours: what can't be named is outside.
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        if self.addr.checked_add(self.length).is_none() {
            let addr = self.addr;
            return Err(Error::AddressOverflow { addr, length });
        }
        let (start, length) = resolve(range, length)?;
        Ok(MrToken {
            addr: self.addr + start as u64,
            length: length as u64,
            ..*self
        })
    }
}
