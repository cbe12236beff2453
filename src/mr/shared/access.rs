//! What is done with the bytes of a shared region: all by volatile or atomic accesses, none of which
//! waits or touches the word.

use std::time::Duration;

use super::int::SharedInt;
use super::record::Record;
use super::{SharedMr, SharedMrSlice};
use crate::error::{Error, Result};
use crate::mr::access::MrAccess;
use crate::mr::token::MrToken;
use crate::raw;
use crate::registration::AtomicCap;

/// Access to the bytes of a [`SharedMr`] or [`SharedMrSlice`], which peers may write meanwhile.
///
/// Offsets are in bytes, from the start of the region or slice. Nothing here waits, allocates or
/// touches the region's word. All of it works on `&self` and from any number of threads, and nobody
/// excludes anybody: who wants order between threads of this side brings it along.
///
/// All of these fail with [`Error::RangeOutside`] for bytes beyond the end and with
/// [`Error::EmptyRange`] for none at all; where an integer is meant, with [`Error::Misaligned`] if its
/// address is not a multiple of its size. Nothing is done then.
///
/// Sealed: implemented for [`SharedMr`], `&SharedMr`, [`SharedMrSlice`].
pub trait SharedMrAccess: MrAccess {
    /// The local key, for a scatter/gather element. One load.
    fn lkey(&self) -> u32 {
        self.part().region().registration().inner().keys().0
    }

    /// What to tell a peer about these bytes, good for `timeout` from now; `None` if the clock can't
    /// express that. It grants what the registration grants, and the deadline takes none of it back
    /// (rule R5).
    fn token_with_timeout(&self, timeout: Duration) -> Option<MrToken> {
        MrToken::of(self.part(), timeout)
    }

    /// Copies bytes out, as many as `to` has, in volatile steps of the widest aligned size up to 8
    /// bytes. An aligned integer is copied whole; beyond that, what is copied may be of several
    /// writes, in any order (rule R17). Validate the copy.
    ///
    /// # Errors
    /// See the trait.
    fn read_into(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        let place = offset..offset.saturating_add(to.len());
        self.part().slice(place)?.copy_out(to);
        Ok(())
    }

    /// Copies bytes in, in the steps of [`read_into`](Self::read_into). A peer that READs meanwhile may
    /// see some of them, in any order.
    ///
    /// # Errors
    /// See the trait.
    fn write_from(&self, offset: usize, from: &[u8]) -> Result<()> {
        let place = offset..offset.saturating_add(from.len());
        self.part().slice(place)?.copy_in(from);
        Ok(())
    }

    /// Loads an aligned integer of 1, 2, 4 or 8 bytes in host byte order, never torn. One atomic load
    /// (Acquire, paired with [`store`](Self::store) on another thread).
    ///
    /// That it has changed says nothing of other bytes which a device wrote (rule R17), but for what
    /// [`try_read_record`](Self::try_read_record) tells of.
    ///
    /// # Errors
    /// See the trait.
    fn load<T: SharedInt>(&self, offset: usize) -> Result<T>
    where
        Self: Sized,
    {
        let place = self.part().int_at::<T>(offset)?;
        // SAFETY: RAW-2 by SHARED-2.
        Ok(unsafe { T::load(place.addr.as_ptr()) })
    }

    /// Stores an aligned integer of 1, 2, 4 or 8 bytes in host byte order, never torn. One atomic store
    /// (Release).
    ///
    /// A device's atomic on the same word may undo it, unless [`atomic_cap`](Self::atomic_cap) is
    /// [`AtomicCap::Global`].
    ///
    /// # Errors
    /// See the trait.
    fn store<T: SharedInt>(&self, offset: usize, value: T) -> Result<()>
    where
        Self: Sized,
    {
        let place = self.part().int_at::<T>(offset)?;
        // SAFETY: RAW-2 by SHARED-2.
        unsafe { value.store(place.addr.as_ptr()) };
        Ok(())
    }

    /// How the device's atomics relate to the CPU's.
    fn atomic_cap(&self) -> AtomicCap {
        self.part().region().registration().atomic_cap()
    }

    /// Adds to the `u64` at `offset`, wrapping around, and gives what it was: one atomic operation also
    /// towards the FETCH_ADD and CMP_SWAP of peers. One RMW on that word.
    ///
    /// # Errors
    /// [`Error::AtomicsNotGlobal`] if the device's atomics are atomic only among themselves
    /// ([`AtomicCap::Hca`], as most devices are): post an operation to a queue pair of that device
    /// instead, or, if peers use none on this word, [`cpu_fetch_add`](Self::cpu_fetch_add). And see the
    /// trait.
    fn fetch_add(&self, offset: usize, add: u64) -> Result<u64> {
        must_be_global(self.atomic_cap())?;
        self.cpu_fetch_add(offset, add)
    }

    /// Stores `swap` in the `u64` at `offset` if that is `compare`, and gives what it was: it was done if
    /// that is `compare`. Otherwise as [`fetch_add`](Self::fetch_add).
    ///
    /// # Errors
    /// As [`fetch_add`](Self::fetch_add).
    fn compare_swap(&self, offset: usize, compare: u64, swap: u64) -> Result<u64> {
        must_be_global(self.atomic_cap())?;
        self.cpu_compare_swap(offset, compare, swap)
    }

    /// As [`fetch_add`](Self::fetch_add), but atomic towards threads of this side alone: if a peer uses
    /// atomics on the word, or writes it, either change may be lost. Works with every device.
    ///
    /// # Errors
    /// See the trait.
    fn cpu_fetch_add(&self, offset: usize, add: u64) -> Result<u64> {
        let place = self.part().int_at::<u64>(offset)?;
        // SAFETY: RAW-2 by SHARED-2.
        Ok(unsafe { raw::fetch_add(place.addr.as_ptr(), add) })
    }

    /// As [`compare_swap`](Self::compare_swap), but atomic towards threads of this side alone, as
    /// [`cpu_fetch_add`](Self::cpu_fetch_add).
    ///
    /// # Errors
    /// See the trait.
    fn cpu_compare_swap(&self, offset: usize, compare: u64, swap: u64) -> Result<u64> {
        let place = self.part().int_at::<u64>(offset)?;
        // SAFETY: RAW-2 by SHARED-2.
        Ok(unsafe { raw::compare_swap(place.addr.as_ptr(), compare, swap) })
    }

    /// Copies the body of a record out if it is of one write, and gives its version; `None` if it was
    /// being written, then `body` holds anything.
    ///
    /// A record is a version, a `u64` in host byte order at an `offset` of which the address is a
    /// multiple of 8, and right behind it the body. The version is even while the body is whole; it
    /// starts as 0 with the zeroed memory and only grows. One side writes it: a peer, or threads of this
    /// side by [`write_record`](Self::write_record).
    ///
    /// **A peer as the writer.** The version has to be seen odd before any byte of the new body is, and
    /// even after all of them are. One WRITE over version and body does not do that, and a second
    /// version behind the body would not help: the bytes of one WRITE arrive in any order (rule R17).
    /// So it takes three operations on one reliable queue pair, one peer at a time:
    /// 1. FETCH_ADD of 1 to the version, 2. a WRITE of the body with
    ///    [`FENCE`](crate::work::SendFlags::FENCE), or after the completion of the first, 3. FETCH_ADD
    ///    of 1. The InfiniBand specification promises it: an atomic that was answered has been done,
    ///    and who sees the update of an atomic sees the WRITEs before it.
    /// 2. The same with WRITEs of the version, 8 bytes each. The specification does not promise that
    ///    these become visible in order. Devices that place the WRITEs of a queue pair in order do so:
    ///    the NIC in software, soft-RoCE, and adapters without relaxed ordering (the registrations
    ///    here never ask for it).
    ///
    /// **A peer as a reader** of what [`write_record`](Self::write_record) writes needs three READs, each
    /// posted after the completion of the one before: the version, the body, the version again. Both
    /// the same and even: the body is of that version. The bytes of one READ are fetched in any order,
    /// so one READ over all of it proves nothing.
    ///
    /// ```
    /// # use rdma_mr::{Access, SharedMr, SharedMrAccess, backend::soft::Nic};
    /// # let mr = SharedMr::alloc(&Nic::new().alloc_pd(), 4096, Access::all())?;
    /// let mut body = [0; 16];
    /// assert_eq!(mr.write_record(64, b"sixteen bytes...")?, 2);
    /// assert_eq!(mr.try_read_record(64, &mut body)?, Some(2));
    /// assert_eq!(&body, b"sixteen bytes...");
    /// mr.store(64, 3u64)?; // a writer has begun
    /// assert_eq!(mr.try_read_record(64, &mut body)?, None);
    /// # Ok::<(), rdma_mr::Error>(())
    /// ```
    ///
    /// # Errors
    /// See the trait.
    fn try_read_record(&self, offset: usize, body: &mut [u8]) -> Result<Option<u64>> {
        Ok(Record::at(self.part(), offset, body.len())?.look(body))
    }

    /// As [`try_read_record`](Self::try_read_record), up to `looks` times, spinning in between.
    ///
    /// # Errors
    /// [`Error::RecordBusy`] if it was being written each time: its writer is fast, or died in the
    /// middle. And see the trait.
    fn read_record(&self, offset: usize, body: &mut [u8], looks: u32) -> Result<u64> {
        let record = Record::at(self.part(), offset, body.len())?;
        (0..looks)
            .find_map(|_| {
                let version = record.look(body);
                if version.is_none() {
                    std::hint::spin_loop();
                }
                version
            })
            .ok_or_else(|| record.busy())
    }

    /// Writes the body of a record and gives its new version. Readers of this side and peers that READ
    /// as [`try_read_record`](Self::try_read_record) says see all of it or none. One RMW on the version.
    ///
    /// Peers must not write the record. Threads of this side may do so at once: one is let in.
    ///
    /// # Errors
    /// [`Error::RecordBusy`] if another thread is writing it, or the version was left odd; nothing is
    /// written then. And see the trait.
    fn write_record(&self, offset: usize, body: &[u8]) -> Result<u64> {
        let record = Record::at(self.part(), offset, body.len())?;
        record.write(body).ok_or_else(|| record.busy())
    }
}

impl MrAccess for SharedMr {}
impl MrAccess for &SharedMr {}
impl MrAccess for SharedMrSlice<'_> {}

impl SharedMrAccess for SharedMr {}
impl SharedMrAccess for &SharedMr {}
impl SharedMrAccess for SharedMrSlice<'_> {}

fn must_be_global(cap: AtomicCap) -> Result<()> {
    match cap {
        AtomicCap::Global => Ok(()),
        _ => Err(Error::AtomicsNotGlobal { cap }),
    }
}
