//! Guards over a region's bytes (rule R2): they hold the region while they live, deref to the bytes
//! themselves, and can be read or written as a cursor from the front. Send and Sync.

use std::fmt;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::forms::Guard;
use super::part::Part;
use crate::gate::{Holder, Permit, Reading, Writing};
use crate::registration::LocalMrInner;

/// What every guard over bytes is: a hold, the bytes, and how far they have been read or written as
/// a stream.
struct Bytes<P> {
    addr: NonNull<u8>,
    length: usize,
    position: u64,
    _permit: P,
}

// SAFETY: GUARD-1: the pointer leads to bytes that the permit keeps others from writing; the guards
// below hand out `&[u8]`, or `&mut [u8]` behind `&mut self`, which are Send and Sync.
unsafe impl<P: Send> Send for Bytes<P> {}
// SAFETY: GUARD-1: as above.
unsafe impl<P: Sync> Sync for Bytes<P> {}

impl<P> Bytes<P> {
    #[inline(always)] // as in `forms`
    fn new<'a>(permit: Permit<'a>, part: Part<'a>) -> Self
    where
        P: From<Permit<'a>>,
    {
        debug_assert!(permit.is_of(part.gate()));
        Bytes {
            addr: part.addr,
            length: part.length,
            position: 0,
            _permit: permit.into(),
        }
    }

    #[inline]
    fn get(&self) -> &[u8] {
        // SAFETY: SLICE-1, SLICE-2, SLICE-3: the permit is a hold of the region, so neither the NIC
        // nor another thread writes the bytes while the guard lives; MEM-2: they are initialised;
        // PART-1: they lie in the region, which is no longer than `isize::MAX`.
        unsafe { std::slice::from_raw_parts(self.addr.as_ptr(), self.length) }
    }

    /// # Safety
    /// - **GUARD-2**: the permit is an exclusive one.
    #[inline]
    unsafe fn get_mut(&mut self) -> &mut [u8] {
        // SAFETY: SLICEMUT-1, SLICEMUT-2 by GUARD-2: nobody else reads or writes the bytes while the
        // guard lives; the rest as in `get`.
        unsafe { std::slice::from_raw_parts_mut(self.addr.as_ptr(), self.length) }
    }

    /// Reads as a stream.
    fn stream<R>(&mut self, f: impl FnOnce(&mut io::Cursor<&[u8]>) -> R) -> R {
        let mut cursor = io::Cursor::new(self.get());
        cursor.set_position(self.position);
        let result = f(&mut cursor);
        self.position = cursor.position();
        result
    }

    /// Writes as a stream.
    ///
    /// # Safety
    /// - **GUARD-2**.
    unsafe fn stream_mut<R>(&mut self, f: impl FnOnce(&mut io::Cursor<&mut [u8]>) -> R) -> R {
        let position = self.position;
        // SAFETY: GUARD-2, as required of the caller.
        let mut cursor = io::Cursor::new(unsafe { self.get_mut() });
        cursor.set_position(position);
        let result = f(&mut cursor);
        self.position = cursor.position();
        result
    }

    fn rest(&self) -> &[u8] {
        let start = usize::try_from(self.position).map_or(self.length, |p| p.min(self.length));
        &self.get()[start..]
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $guard:ident, $cursor:ident, $holder:expr, $permit:ident) => {
        $(#[$doc])*
        #[must_use = "a guard that is dropped at once holds nothing"]
        pub struct $guard<'a>(Bytes<$permit<'a>>);

        impl<'a> Guard<'a> for $guard<'a> {
            const HOLDER: Holder = $holder;

            #[inline]
            fn new(permit: Permit<'a>, part: Part<'a>) -> Self {
                $guard(Bytes::new(permit, part))
            }
        }

        impl<'a> $guard<'a> {
            /// The same hold as a stream with a position that can be moved.
            pub fn into_cursor(self) -> $cursor<'a> {
                $cursor(self)
            }
        }

        impl Deref for $guard<'_> {
            type Target = [u8];

            #[inline]
            fn deref(&self) -> &[u8] {
                self.0.get()
            }
        }

        impl AsRef<[u8]> for $guard<'_> {
            fn as_ref(&self) -> &[u8] {
                self
            }
        }

        impl fmt::Debug for $guard<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} bytes at {:p})", stringify!($guard), self.0.length, self.0.addr)
            }
        }

        impl Read for $guard<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.stream(|cursor| cursor.read(buf))
            }
        }

        impl BufRead for $guard<'_> {
            fn fill_buf(&mut self) -> io::Result<&[u8]> {
                Ok(self.0.rest())
            }

            fn consume(&mut self, amount: usize) {
                self.0.stream(|cursor| cursor.consume(amount));
            }
        }

        /// A guard with a position, as [`io::Cursor`] is one over a buffer. Its guard is
        /// [`get_ref`](Self::get_ref); reading and writing beyond the end is short, as it is there.
        #[must_use = "a guard that is dropped at once holds nothing"]
        #[derive(Debug)]
        pub struct $cursor<'a>($guard<'a>);

        impl<'a> $cursor<'a> {
            /// Where the next byte is read or written.
            #[must_use]
            pub fn position(&self) -> u64 {
                self.0.0.position
            }

            /// Moves the position; it may lie beyond the end.
            pub fn set_position(&mut self, position: u64) {
                self.0.0.position = position;
            }

            /// The guard.
            pub fn get_ref(&self) -> &$guard<'a> {
                &self.0
            }

            /// The guard, to change the bytes through it if it is one for writing.
            pub fn get_mut(&mut self) -> &mut $guard<'a> {
                &mut self.0
            }

            /// The guard, for good.
            pub fn into_inner(self) -> $guard<'a> {
                self.0
            }
        }

        impl<'a> Guard<'a> for $cursor<'a> {
            const HOLDER: Holder = $holder;

            #[inline]
            fn new(permit: Permit<'a>, part: Part<'a>) -> Self {
                $guard::new(permit, part).into_cursor()
            }
        }

        impl Read for $cursor<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.read(buf)
            }
        }

        impl BufRead for $cursor<'_> {
            fn fill_buf(&mut self) -> io::Result<&[u8]> {
                self.0.fill_buf()
            }

            fn consume(&mut self, amount: usize) {
                self.0.consume(amount);
            }
        }

        impl Seek for $cursor<'_> {
            fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
                self.0.0.stream(|cursor| cursor.seek(to))
            }
        }
    };
}

guard! {
    /// A shared hold of the region: `&[u8]` while neither the NIC nor a thread writes.
    ///
    /// ```
    /// use std::io::Read;
    /// use rdma_mr::{LocalMr, LocalMrReadAccess, backend::soft::Nic};
    ///
    /// let pd = Nic::new().alloc_pd();
    /// let mr = LocalMr::register(&pd, b"hello, NIC".to_vec())?;
    /// let mut guard = mr.as_slice();
    /// assert_eq!(&guard[..5], b"hello");
    /// let mut first = [0; 7];
    /// guard.read_exact(&mut first)?; // a stream from the front; the bytes stay where they are
    /// assert_eq!((&first, guard.len()), (b"hello, ", 10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    MrReadGuard, MrCursor, Holder::CpuRead, Reading
}

guard! {
    /// An exclusive hold of the region: `&mut [u8]` while no operation has the bytes.
    ///
    /// ```
    /// use std::io::Write;
    /// use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, backend::soft::Nic};
    ///
    /// let pd = Nic::new().alloc_pd();
    /// let mut mr = LocalMr::alloc(&pd, 8)?;
    /// assert_eq!(mr.as_mut_slice().write(b"bytes")?, 5);
    /// mr.as_mut_slice()[7] = b'!';
    /// assert_eq!(&*mr.as_slice(), b"bytes\0\0!");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    MrWriteGuard, MrCursorMut, Holder::CpuWrite, Writing
}

impl DerefMut for MrWriteGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: GUARD-2: `HOLDER` of this guard is exclusive.
        unsafe { self.0.get_mut() }
    }
}

impl AsMut<[u8]> for MrWriteGuard<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Write for MrWriteGuard<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // SAFETY: GUARD-2: `HOLDER` of this guard is exclusive.
        unsafe { self.0.stream_mut(|cursor| cursor.write(buf)) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for MrCursorMut<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! pointer_guard {
    ($(#[$doc:meta])* $guard:ident, $target:ty, $holder:expr, $permit:ident, $cast:ident) => {
        $(#[$doc])*
        #[must_use = "a guard that is dropped at once holds nothing"]
        #[derive(Debug)]
        pub struct $guard<'a> {
            pointer: $target,
            _permit: $permit<'a>,
        }

        // SAFETY: GUARD-1: a raw pointer, which is used under its user's own promise, and a hold.
        unsafe impl Send for $guard<'_> {}
        // SAFETY: GUARD-1: as above.
        unsafe impl Sync for $guard<'_> {}

        impl<'a> Guard<'a> for $guard<'a> {
            const HOLDER: Holder = $holder;

            #[inline]
            fn new(permit: Permit<'a>, part: Part<'a>) -> Self {
                let pointer = part.addr.as_ptr().$cast();
                $guard { pointer, _permit: permit.into() }
            }
        }

        impl Deref for $guard<'_> {
            type Target = $target;

            #[inline]
            fn deref(&self) -> &$target {
                &self.pointer
            }
        }
    };
}

pointer_guard! {
    /// A shared hold of the region that derefs to the address of its first byte. The pointer is
    /// good for reading while the guard lives.
    MrConstPtr, *const u8, Holder::CpuRead, Reading, cast_const
}

pointer_guard! {
    /// An exclusive hold of the region that derefs to the address of its first byte. The pointer
    /// is good for reading and writing while the guard lives.
    MrMutPtr, *mut u8, Holder::CpuWrite, Writing, cast
}

/// An exclusive hold of the region beside a copy of its state: what the seed's write lock of the
/// inner state becomes.
#[must_use = "a guard that is dropped at once holds nothing"]
#[derive(Debug)]
pub struct WriteInnerGuard<'a> {
    inner: LocalMrInner,
    _permit: Writing<'a>,
}

impl<'a> Guard<'a> for WriteInnerGuard<'a> {
    const HOLDER: Holder = Holder::CpuWrite;

    fn new(permit: Permit<'a>, part: Part<'a>) -> Self {
        WriteInnerGuard {
            inner: part.region().registration().inner().load(),
            _permit: permit.into(),
        }
    }
}

impl Deref for WriteInnerGuard<'_> {
    type Target = LocalMrInner;

    fn deref(&self) -> &LocalMrInner {
        &self.inner
    }
}
