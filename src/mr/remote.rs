//! A peer's memory as this side sees it: what operations name as their target (rules R19, R20).

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, RangeBounds};

use super::token::MrToken;
use crate::error::Result;
use crate::registration::Access;
use crate::work::RemoteAddr;

pub(crate) mod sealed {
    //! Keeps the traits this crate's own.
    use super::{Access, RemoteAddr, Result};

    /// What can be asked for its first `length` bytes.
    pub trait Locate: Send + Sync {
        /// Where they are, if an operation that needs these rights may be posted on them now.
        fn locate(&self, length: usize, needed: Access) -> Result<RemoteAddr>;
    }
}
use sealed::Locate;

/// The peer's bytes that an operation reads (READ), or changes as a whole (the atomics).
///
/// Sealed. [`RemoteMr`] and its slices check, for each operation and before it is posted, that this
/// side's bytes are no more than theirs, that the token grants the right, and that its deadline has
/// not passed; that reads the clock once, and is no RMW. A [`RemoteAddr`] is taken as it is: the
/// peer's NIC refuses what its key does not grant, and the queue pair ends with that.
///
/// The atomics take a shared reference, as those of `std` do: to be used by several at a time is what
/// they are for.
pub trait Remote: Locate {}

/// The peer's bytes that an operation writes (WRITE). Sealed; `&mut` where [`Remote`] is `&`.
pub trait RemoteMut: Remote {}

/// A peer's memory as this side sees it, made of the [`MrToken`] that the peer gave out: the target of
/// WRITE, READ and the atomics. It derefs to that token, for address, length, key, rights and
/// deadline.
///
/// `&mut` is needed to write to it, as to memory of this side. That orders what this handle does;
/// other handles and other sides are the users' to order.
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::prelude::*;
/// use rdma_mr::work::QpCaps;
/// use rdma_mr::{Error, MrOptions, RemoteMr};
///
/// let nic = Nic::new();
/// let pd = nic.alloc_pd();
/// let (cq_a, cq_b) = (nic.create_cq(128)?, nic.create_cq(128)?);
/// let a = pd.create_qp(&cq_a, &cq_a, QpCaps::default())?;
/// let b = pd.create_qp(&cq_b, &cq_b, QpCaps::default())?;
/// QueuePair::connect_pair(&a, &b)?;
/// let mut a = Endpoint::new(a);
///
/// let readable = MrOptions::new().access(Access::LOCAL_WRITE | Access::REMOTE_READ);
/// let theirs = readable.register(&pd, (0..100).collect::<Vec<u8>>())?;
/// let token = theirs.token_with_timeout(Duration::from_secs(60)).unwrap();
///
/// let mut remote = RemoteMr::new(token)?; // the token has come here by a message
/// let ours = LocalMr::alloc(&pd, 8)?;
/// a.read(ours.begin_write()?, remote.get(10..18)?)?;
/// let bytes = ours.as_slice_with(|| drop(a.poll(|_| {})));
/// assert_eq!(*bytes, [10, 11, 12, 13, 14, 15, 16, 17]);
/// drop(bytes);
///
/// let long = a.read(ours.begin_write()?, remote.get(..4)?).map_err(|rejected| rejected.error);
/// assert!(matches!(long, Err(Error::RangeOutside { end: 8, length: 4, .. })));
/// let refused = a.write(ours.begin_read()?, &mut remote, None).map_err(|rejected| rejected.error);
/// assert!(matches!(refused, Err(Error::MissingRight { .. })));
/// # Ok::<(), Error>(())
/// ```
pub struct RemoteMr(MrToken);

impl RemoteMr {
    /// The memory that `token` names.
    ///
    /// # Errors
    /// [`Error::TokenExpired`](crate::Error::TokenExpired); for a token that names no real memory
    /// [`Error::EmptyRange`](crate::Error::EmptyRange) or
    /// [`Error::AddressOverflow`](crate::Error::AddressOverflow).
    pub fn new(token: MrToken) -> Result<Self> {
        token.target(.., Access::empty())?;
        Ok(RemoteMr(token))
    }

    /// The bytes in `range`, to read, or for atomics.
    ///
    /// # Errors
    /// [`Error::RangeOutside`](crate::Error::RangeOutside),
    /// [`Error::EmptyRange`](crate::Error::EmptyRange).
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<RemoteMrSlice<'_>> {
        Ok(RemoteMrSlice(self.narrow(range)?, PhantomData))
    }

    /// The bytes in `range`, to read and write.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_mut(&mut self, range: impl RangeBounds<usize>) -> Result<RemoteMrSliceMut<'_>> {
        Ok(RemoteMrSliceMut(self.narrow(range)?, PhantomData))
    }
}

/// Some bytes of a [`RemoteMr`], to read, or for atomics. Derefs to the token of these bytes.
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::{LocalMr, LocalMrReadAccess, MrAccess, RemoteMr, backend::soft::Nic};
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 100)?;
/// let remote = RemoteMr::new(mr.token_with_timeout(Duration::from_secs(60)).unwrap())?;
/// let slice = remote.get(10..20)?.get(5..)?;
/// assert_eq!((slice.addr(), slice.length()), (mr.addr() as u64 + 15, 5));
/// assert_eq!(slice.rkey(), mr.rkey());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct RemoteMrSlice<'a>(MrToken, PhantomData<&'a RemoteMr>);

impl<'a> RemoteMrSlice<'a> {
    /// The bytes in `range` of these.
    ///
    /// # Errors
    /// As [`RemoteMr::get`].
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<RemoteMrSlice<'a>> {
        Ok(RemoteMrSlice(self.narrow(range)?, PhantomData))
    }
}

/// Some bytes of a [`RemoteMr`], to read and write. Derefs to the token of these bytes.
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::{LocalMr, LocalMrReadAccess, RemoteMr, backend::soft::Nic};
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 100)?;
/// let mut remote = RemoteMr::new(mr.token_with_timeout(Duration::from_secs(60)).unwrap())?;
/// let mut slice = remote.get_mut(10..20)?;
/// assert_eq!(slice.get_mut(..4)?.length(), 4);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct RemoteMrSliceMut<'a>(MrToken, PhantomData<&'a mut RemoteMr>);

impl RemoteMrSliceMut<'_> {
    /// The bytes in `range` of these, to read, or for atomics.
    ///
    /// # Errors
    /// As [`RemoteMr::get`].
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<RemoteMrSlice<'_>> {
        Ok(RemoteMrSlice(self.narrow(range)?, PhantomData))
    }

    /// The bytes in `range` of these, to read and write.
    ///
    /// # Errors
    /// As [`RemoteMr::get`].
    pub fn get_mut(&mut self, range: impl RangeBounds<usize>) -> Result<RemoteMrSliceMut<'_>> {
        Ok(RemoteMrSliceMut(self.narrow(range)?, PhantomData))
    }
}

macro_rules! derefs_to_its_token {
    ($($remote:ident $(<$a:lifetime>)?),*) => {$(
        impl Deref for $remote $(<$a>)? {
            type Target = MrToken;

            fn deref(&self) -> &MrToken {
                &self.0
            }
        }

        impl Locate for $remote $(<$a>)? {
            fn locate(&self, length: usize, needed: Access) -> Result<RemoteAddr> {
                // A WRITE without bytes, for its immediate data, has a target all the same.
                self.target(..length.max(1), needed)
            }
        }

        impl Remote for $remote $(<$a>)? {}

        impl fmt::Debug for $remote $(<$a>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($remote)).field(&self.0).finish()
            }
        }
    )*};
}
derefs_to_its_token!(RemoteMr, RemoteMrSlice<'_>, RemoteMrSliceMut<'_>);

impl RemoteMut for RemoteMr {}
impl RemoteMut for RemoteMrSliceMut<'_> {}

impl Locate for RemoteAddr {
    #[inline]
    fn locate(&self, _length: usize, _needed: Access) -> Result<RemoteAddr> {
        Ok(*self)
    }
}

impl Remote for RemoteAddr {}
impl RemoteMut for RemoteAddr {}

impl<T: Locate + ?Sized> Locate for &T {
    #[inline]
    fn locate(&self, length: usize, needed: Access) -> Result<RemoteAddr> {
        T::locate(self, length, needed)
    }
}

impl<T: Locate + ?Sized> Locate for &mut T {
    #[inline]
    fn locate(&self, length: usize, needed: Access) -> Result<RemoteAddr> {
        T::locate(self, length, needed)
    }
}

impl<T: Remote + ?Sized> Remote for &T {}
impl<T: Remote + ?Sized> Remote for &mut T {}
impl<T: RemoteMut + ?Sized> RemoteMut for &mut T {}
