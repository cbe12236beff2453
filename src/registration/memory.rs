//! Where a region's bytes come from: the crate's own mappings, or whatever the user owns.

use std::any::{Any, TypeId};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use super::adopt::Adopted;
use crate::error::{Error, Rejected, Result};

/// Memory that a region can be made of: it stays where it is, whatever happens to its owner.
///
/// Implemented for `Vec<u8>`, `Box<[u8]>`, [`Mapping`] and, as memory that is refused because it is
/// read-only, `&'static [u8]` and `Arc<[u8]>`.
///
/// # Safety
/// - **MEM-1**: [`as_mut_ptr`](Self::as_mut_ptr) and [`length`](Self::length) stay the same for as
///   long as the value lives, also when it is moved, and the bytes stay allocated that long.
/// - **MEM-2**: the bytes are initialised, and any byte is a valid value for them.
/// - **MEM-3**: while the region lives nobody else reads or writes the bytes: the value owns them,
///   and does not touch them itself when it is moved.
/// - **MEM-4**: if [`is_writable`](Self::is_writable), the bytes may be written through the pointer.
pub unsafe trait StableMemory: Send + Sync + 'static {
    /// Address of the first byte. Called once, when the region is made.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// How many bytes.
    fn length(&self) -> usize;

    /// Whether the bytes may be written. A region needs memory that can be.
    fn is_writable(&self) -> bool {
        true
    }
}

// SAFETY: MEM-1: the heap block of a Vec stays until the Vec is changed or dropped, and a value that
// a region owns is neither changed nor read. MEM-2: its first `len` bytes are initialised. MEM-3: it
// owns them. MEM-4: the pointer comes from a heap block that may be written.
unsafe impl StableMemory for Vec<u8> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        Vec::as_mut_ptr(self)
    }

    fn length(&self) -> usize {
        self.len()
    }
}

// SAFETY: MEM-1 to MEM-4 as for Vec.
unsafe impl StableMemory for Box<[u8]> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        <[u8]>::as_mut_ptr(self)
    }

    fn length(&self) -> usize {
        self.len()
    }
}

macro_rules! read_only {
    ($($memory:ty),*) => {$(
        // SAFETY: MEM-1, MEM-2: the slice stays where it is. MEM-3: others may read it, nobody
        // writes it, and no region is ever made of it because of MEM-4: it says so.
        unsafe impl StableMemory for $memory {
            fn as_mut_ptr(&mut self) -> *mut u8 {
                <[u8]>::as_ptr(self).cast_mut()
            }

            fn length(&self) -> usize {
                self.len()
            }

            fn is_writable(&self) -> bool {
                false
            }
        }
    )*};
}
read_only!(&'static [u8], Arc<[u8]>);

/// Anonymous, zeroed, page-aligned memory of its own (`mmap`), outside of Rust's allocator; huge
/// pages on request.
///
/// ```
/// use rdma_mr::registration::{Mapping, Pages, StableMemory};
///
/// let mut mapping = Mapping::new(10_000, Pages::Default)?;
/// assert_eq!(mapping.length(), 10_000);
/// assert_eq!(mapping.as_mut_ptr() as usize % 4096, 0);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Debug)]
pub struct Mapping(MmapRaw);

/// Which pages a [`Mapping`] is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pages {
    /// The system's usual ones.
    #[default]
    Default,
    /// Huge pages of 2 MiB from the system's reserve (`MAP_HUGETLB`; `vm.nr_hugepages`): fewer
    /// entries in the NIC's translation table. An error if the reserve does not suffice.
    Huge,
    /// Usual pages that the kernel is asked to merge into huge ones (`MADV_HUGEPAGE`); never an
    /// error.
    Transparent,
}

impl Mapping {
    /// Maps `length` bytes. One or two system calls.
    ///
    /// # Errors
    /// [`Error::ZeroLength`], [`Error::TooLong`], [`Error::Memory`] if the system has not got them.
    pub fn new(length: usize, pages: Pages) -> Result<Self> {
        check_length(length)?;
        let mut options = MmapOptions::new();
        options.len(length);
        if pages == Pages::Huge {
            const TWO_MIB: u8 = 21;
            options.huge(Some(TWO_MIB));
        }
        let map = options
            .map_anon()
            .map_err(|source| Error::Memory { length, source })?;
        let map = MmapRaw::from(map);
        if pages == Pages::Transparent {
            // A wish: a kernel that can't grant it answers EINVAL, and the pages stay as they are.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Mapping(map))
    }

    fn addr(&self) -> NonNull<u8> {
        NonNull::new(self.0.as_mut_ptr()).expect("no mapping lies at null")
    }
}

// SAFETY: MEM-1: a mapping stays where it is until it is dropped. MEM-2: anonymous mappings are
// zeroed. MEM-3: it is private and owned. MEM-4: it is mapped for writing.
unsafe impl StableMemory for Mapping {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn length(&self) -> usize {
        self.0.len()
    }
}

/// The memory of a region, given back by `close()`; its type is found out by
/// [`downcast`](Self::downcast).
///
/// ```
/// use rdma_mr::{LocalMr, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let mr = LocalMr::register(&pd, vec![7u8; 100])?;
/// let memory = mr.close().map_err(|(_, error)| error)?;
/// assert_eq!(memory.downcast::<Vec<u8>>().unwrap(), [7; 100]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Memory(Owner);

enum Owner {
    /// Needs no place of its own.
    Mapping(Mapping),
    Other(Box<Owned<dyn Any + Send + Sync>>),
}

/// The user's memory, as `Owned<Option<T>>`.
struct Owned<T: ?Sized> {
    /// Looked up once: the owner is not touched again, so that no reference to the bytes comes between the
    /// region's pointer and them.
    addr: NonNull<u8>,
    length: usize,
    owner: T,
}

impl Memory {
    /// Takes `memory` if a region can be made of it; hands it back with the reason if not.
    pub(crate) fn new<T: StableMemory>(memory: T) -> Result<Self, Rejected<T>> {
        let length = memory.length();
        if let Err(error) = check_length(length) {
            return Err(Rejected::new(memory, error));
        }
        if !memory.is_writable() {
            return Err(Rejected::new(memory, Error::ReadOnlyMemory));
        }
        let memory = match cast(memory) {
            Ok(mapping) => return Ok(Memory(Owner::Mapping(mapping))),
            Err(memory) => memory,
        };
        let mut owned = Box::new(Owned {
            addr: NonNull::dangling(),
            length,
            owner: Some(memory),
        });
        let pointer = owned.owner.as_mut().map(T::as_mut_ptr);
        let pointer = pointer.expect("put there just now");
        let error = match NonNull::new(pointer) {
            None => Error::NullAddress,
            Some(_) if (pointer as usize).checked_add(length).is_none() => Error::AddressOverflow {
                addr: pointer as u64,
                length,
            },
            Some(addr) => {
                owned.addr = addr;
                return Ok(Memory(Owner::Other(owned)));
            }
        };
        Err(Rejected::new(owned.owner.take().expect("as above"), error))
    }

    pub(crate) fn addr(&self) -> NonNull<u8> {
        match &self.0 {
            Owner::Mapping(mapping) => mapping.addr(),
            Owner::Other(owned) => owned.addr,
        }
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        match &self.0 {
            Owner::Mapping(mapping) => mapping.length(),
            Owner::Other(owned) => owned.length,
        }
    }

    /// Whether it is a `T`.
    #[must_use]
    pub fn is<T: StableMemory>(&self) -> bool {
        match &self.0 {
            Owner::Mapping(_) => TypeId::of::<T>() == TypeId::of::<Mapping>(),
            Owner::Other(owned) => owned.owner.is::<Option<T>>(),
        }
    }

    /// What an [adopted](crate::MrOptions::adopt) region was kept alive by.
    ///
    /// # Errors
    /// The memory itself if it was not adopted with a `K`.
    pub fn into_keepalive<K: Send + Sync + 'static>(self) -> Result<K, Memory> {
        self.downcast::<Adopted<K>>()
            .map(|adopted| adopted.keepalive)
    }

    /// The value that the region was made of.
    ///
    /// # Errors
    /// The memory itself if it is not a `T`.
    pub fn downcast<T: StableMemory>(self) -> Result<T, Memory> {
        match self.0 {
            Owner::Mapping(mapping) => {
                cast(mapping).map_err(|mapping| Memory(Owner::Mapping(mapping)))
            }
            Owner::Other(mut owned) => match owned.owner.downcast_mut().and_then(Option::take) {
                Some(memory) => Ok(memory),
                None => Err(Memory(Owner::Other(owned))),
            },
        }
    }
}

/// A value as one of its own type; given back if it is of another one.
fn cast<T: 'static, U: 'static>(value: T) -> Result<U, T> {
    let mut value = Some(value);
    let as_other = (&mut value as &mut dyn Any).downcast_mut::<Option<U>>();
    match as_other.and_then(Option::take) {
        Some(other) => Ok(other),
        None => Err(value.expect("it was taken by nobody")),
    }
}

// SAFETY: MEM-3: the pointer leads to bytes that the owner, which is Send and Sync, owns.
unsafe impl Send for Memory {}
// SAFETY: MEM-3: as above; a shared `Memory` gives no access to the bytes.
unsafe impl Sync for Memory {}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes at {:p})", self.length(), self.addr())
    }
}

/// Refuses what no slice can be.
fn check_length(length: usize) -> Result<()> {
    match length {
        0 => Err(Error::ZeroLength),
        n if n > isize::MAX as usize => Err(Error::TooLong { length }),
        _ => Ok(()),
    }
}
