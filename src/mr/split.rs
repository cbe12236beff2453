//! Owned parts of one registration, with a gate each, in the words of the `bytes` crate: a receive
//! into one part makes no reader of another wait.

use std::iter::FusedIterator;

use super::access::sealed::Sealed;
use super::local::LocalMr;
use super::region::RegionRef;
use crate::error::{Error, Rejected, Result};
use crate::registration::Region;

impl LocalMr {
    /// Splits the region in two: returns the bytes in `0..at`, keeps those in `at..`. Both share
    /// the registration and its keys; each has a gate of its own, shut down if this one is. One
    /// allocation, no system call.
    ///
    /// ```
    /// use rdma_mr::{LocalMr, LocalMrReadAccess, MrAccess, backend::soft::Nic};
    ///
    /// let pd = Nic::new().alloc_pd();
    /// let mut tail = LocalMr::register(&pd, b"headbody".to_vec())?;
    /// let head = tail.split_to(4)?;
    /// assert_eq!((&*head.as_slice(), &*tail.as_slice()), (&b"head"[..], &b"body"[..]));
    /// assert_eq!(head.lkey(), tail.lkey());
    /// # Ok::<(), rdma_mr::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RangeOutside`] if `at` is beyond the end, [`Error::EmptyRange`] if one side would be
    /// empty, [`Error::Held`] if an operation is in flight. The region is as it was then.
    pub fn split_to(&mut self, at: usize) -> Result<LocalMr> {
        self.check_split(at)?;
        let region = self.part().region();
        let front = RegionRef::new(Region::new(
            region.gate().alike(),
            region.traits(),
            (region.addr, at),
            region.registered,
        ));
        // SAFETY: REGION-4: the handle is borrowed mutably, and no hold is out.
        let (addr, length) = unsafe { self.region.bytes_mut() };
        // SAFETY: PART-1: `at` lies within the region.
        *addr = unsafe { addr.add(at) };
        *length -= at;
        Ok(LocalMr::new(front))
    }

    /// Splits the region in two: returns the bytes in `at..`, keeps those in `0..at`. Otherwise as
    /// [`split_to`](Self::split_to).
    ///
    /// # Errors
    /// Those of [`split_to`](Self::split_to).
    pub fn split_off(&mut self, at: usize) -> Result<LocalMr> {
        let mut front = self.split_to(at)?;
        std::mem::swap(&mut front, self);
        Ok(front)
    }

    /// Joins `next`, which must lie right behind this region on the same registration, to it.
    /// The inverse of [`split_off`](Self::split_off); shut down if either was. No allocation, no
    /// system call.
    ///
    /// # Errors
    /// `next` as it was, with [`Error::NotAdjacent`], or [`Error::Held`] if an operation is in
    /// flight on either.
    pub fn unsplit(&mut self, next: LocalMr) -> Result<(), Rejected<LocalMr>> {
        if let Err(error) = self.can_join(&next) {
            return Err(Rejected::new(next, error));
        }
        let length = next.part().length;
        if next.state().closed {
            self.shutdown();
        }
        drop(next);
        // SAFETY: REGION-4: the handle is borrowed mutably, and no hold is out.
        let (_, own) = unsafe { self.region.bytes_mut() };
        *own += length;
        Ok(())
    }

    /// Splits the region into parts of `size` bytes, the last one shorter if need be: slots of a
    /// receive ring, pieces of a pipeline. Each `next` is one [`split_to`](Self::split_to).
    ///
    /// ```
    /// use rdma_mr::{LocalMr, MrAccess, backend::soft::Nic};
    ///
    /// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 10_000)?;
    /// let lengths: Vec<_> = mr.chunks_of(4096)?.map(|mr| mr.length()).collect();
    /// assert_eq!(lengths, [4096, 4096, 1808]);
    /// # Ok::<(), rdma_mr::Error>(())
    /// ```
    ///
    /// # Errors
    /// The region as it was, with [`Error::EmptyRange`] if `size` is 0, or [`Error::Held`] if an
    /// operation is in flight.
    pub fn chunks_of(self, size: usize) -> Result<Chunks, Rejected<LocalMr>> {
        if size == 0 {
            return Err(Rejected::new(self, Error::EmptyRange { start: 0 }));
        }
        if let Err(error) = self.part().must_be_free() {
            return Err(Rejected::new(self, error));
        }
        Ok(Chunks {
            rest: Some(self),
            size,
        })
    }

    fn can_join(&self, next: &LocalMr) -> Result<()> {
        let (front, back) = (self.part(), next.part());
        let adjacent = front.addr.as_ptr() as usize + front.length == back.addr.as_ptr() as usize;
        let registered = front.region().registered;
        if !adjacent || registered != back.region().registered {
            return Err(Error::NotAdjacent);
        }
        front.must_be_free()?;
        back.must_be_free()
    }

    /// Whether it can be split at `at`.
    fn check_split(&self, at: usize) -> Result<()> {
        let part = self.part();
        // Both sides must hold a byte, and lie inside.
        part.slice(..at)?;
        part.slice(at..)?;
        part.must_be_free()
    }
}

/// The parts of a region, from the front. What was not taken is dropped with it.
#[derive(Debug)]
#[must_use = "the parts that are not taken are dropped"]
pub struct Chunks {
    rest: Option<LocalMr>,
    size: usize,
}

impl Iterator for Chunks {
    type Item = LocalMr;

    fn next(&mut self) -> Option<LocalMr> {
        let rest = self.rest.as_mut()?;
        if rest.part().length <= self.size {
            return self.rest.take();
        }
        let chunk = rest.split_to(self.size);
        Some(chunk.expect("inside, and nobody holds what nobody was given"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.as_ref().map_or(0, |rest| rest.part().length);
        let count = left.div_ceil(self.size);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Chunks {}
impl FusedIterator for Chunks {}
