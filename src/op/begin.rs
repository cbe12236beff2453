//! How an operation's hold begins, in the forms of R18.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::hold::{Hold, length_of_sge, require};
use crate::counts;
use crate::error::{Error, Result};
use crate::gate::{Acquire, Gate, Holder, Kind};
use crate::mr::{MrAccess, Part};

/// Beginning an operation of the NIC on a region, a slice or a part: in the forms of R18.
///
/// `begin_read`: the NIC will read the bytes (SEND, the source of a WRITE); any number at a time,
/// beside readers. `begin_write`: the NIC will write them (RECV, READ, the result of an atomic); one
/// at a time, and nobody beside it. On a [`SharedMr`](crate::SharedMr) neither excludes anybody, and
/// neither waits.
///
/// All of them fail with [`Error::Closed`] after [`shutdown`](crate::LocalMr::shutdown), with
/// [`Error::MissingRight`] if the NIC shall write and the region lacks LOCAL_WRITE, and with
/// [`Error::InvalidWorkRequest`] over 4 GiB or more. One RMW if nobody is in the way.
///
/// # Panics
/// With 2¹⁹ operations that read one region at a time.
pub trait Begin: MrAccess {
    /// Holds the bytes for an operation that reads them. Blocks the thread while they are written.
    ///
    /// # Errors
    /// See the trait.
    fn begin_read(&self) -> Result<Hold> {
        begin(self, Holder::NicRead, None)
    }

    /// As [`begin_read`](Self::begin_read). Never waits.
    ///
    /// # Errors
    /// [`Error::Held`] with who has them, and see the trait.
    fn try_begin_read(&self) -> Result<Hold> {
        try_begin(self, Holder::NicRead)
    }

    /// As [`begin_read`](Self::begin_read), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`] with who has them, and see the trait.
    fn begin_read_until(&self, deadline: Instant) -> Result<Hold> {
        begin(self, Holder::NicRead, Some(deadline))
    }

    /// As [`begin_read`](Self::begin_read), calling `progress` over and over while they are written.
    ///
    /// # Errors
    /// See the trait.
    fn begin_read_with(&self, progress: impl FnMut()) -> Result<Hold>
    where
        Self: Sized,
    {
        begin_with(self, Holder::NicRead, progress)
    }

    /// As [`begin_read`](Self::begin_read), as a future. Needs no runtime.
    fn begin_read_async(&self) -> HoldFuture<'_> {
        let refused = checked(self, Holder::NicRead).err();
        HoldFuture::new(self.part(), Holder::NicRead, refused)
    }

    /// Holds the bytes for an operation that writes them. Blocks the thread while anybody has them.
    ///
    /// # Errors
    /// See the trait.
    fn begin_write(&self) -> Result<Hold> {
        begin(self, Holder::NicWrite, None)
    }

    /// As [`begin_write`](Self::begin_write). Never waits.
    ///
    /// # Errors
    /// [`Error::Held`] with who has them, and see the trait.
    fn try_begin_write(&self) -> Result<Hold> {
        try_begin(self, Holder::NicWrite)
    }

    /// As [`begin_write`](Self::begin_write), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`] with who has them, and see the trait.
    fn begin_write_until(&self, deadline: Instant) -> Result<Hold> {
        begin(self, Holder::NicWrite, Some(deadline))
    }

    /// As [`begin_write`](Self::begin_write), calling `progress` over and over while anybody has
    /// them.
    ///
    /// # Errors
    /// See the trait.
    fn begin_write_with(&self, progress: impl FnMut()) -> Result<Hold>
    where
        Self: Sized,
    {
        begin_with(self, Holder::NicWrite, progress)
    }

    /// As [`begin_write`](Self::begin_write), as a future. Needs no runtime.
    fn begin_write_async(&self) -> HoldFuture<'_> {
        let refused = checked(self, Holder::NicWrite).err();
        HoldFuture::new(self.part(), Holder::NicWrite, refused)
    }
}

impl<T: MrAccess + ?Sized> Begin for T {}

#[inline]
pub(super) fn try_enter(gate: &Gate, holder: Holder) -> Result<Kind> {
    match counts::attempt(gate.try_enter(holder)) {
        Some(kind) => Ok(kind),
        None => Err(gate.refusal(holder)),
    }
}

#[inline(always)] // the result is large: in registers, if what is around it is seen
fn try_begin<T: MrAccess + ?Sized>(mr: &T, holder: Holder) -> Result<Hold> {
    try_begin_part(checked(mr, holder)?, holder)
}

#[inline(always)] // as `try_begin`
fn begin<T: MrAccess + ?Sized>(mr: &T, holder: Holder, deadline: Option<Instant>) -> Result<Hold> {
    begin_part(checked(mr, holder)?, holder, deadline)
}

fn begin_with<T: MrAccess + ?Sized>(
    mr: &T,
    holder: Holder,
    progress: impl FnMut(),
) -> Result<Hold> {
    begin_part_with(checked(mr, holder)?, holder, progress)
}

#[inline(always)] // as `try_begin`
pub(crate) fn try_begin_part(part: Part<'_>, holder: Holder) -> Result<Hold> {
    begin_by(part, holder, |gate| try_enter(gate, holder))
}

#[inline(always)] // as `try_begin`
pub(crate) fn begin_part(
    part: Part<'_>,
    holder: Holder,
    deadline: Option<Instant>,
) -> Result<Hold> {
    begin_by(part, holder, |gate| gate.enter(holder, deadline))
}

#[inline(always)] // as `try_begin`
fn begin_by(
    part: Part<'_>,
    holder: Holder,
    enter: impl FnOnce(&Gate) -> Result<Kind>,
) -> Result<Hold> {
    if part.counts(holder) != holder {
        return Hold::of_shared(part.region, part.addr, part.length);
    }
    let kind = enter(part.gate())?;
    // SAFETY: HOLD-1: entered just now.
    unsafe { Hold::new(part, holder, kind) }
}

pub(crate) fn begin_part_with(
    part: Part<'_>,
    holder: Holder,
    progress: impl FnMut(),
) -> Result<Hold> {
    let kind = part.enter(holder, |gate| gate.enter_with(holder, progress))?;
    // SAFETY: HOLD-1: entered just now.
    unsafe { Hold::new(part, holder, kind) }
}

/// The future of [`begin_read_async`](Begin::begin_read_async) and
/// [`begin_write_async`](Begin::begin_write_async). Dropping or forgetting it abandons the wish and
/// nothing else.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct HoldFuture<'a> {
    /// What is waited for, or why not; the reason is taken when it has been told.
    acquire: Result<Acquire<'a>, Option<Error>>,
    part: Part<'a>,
    holder: Holder,
}

impl<'a> HoldFuture<'a> {
    /// For a hold that is `refused` from the start, if it is.
    pub(crate) fn new(part: Part<'a>, holder: Holder, refused: Option<Error>) -> Self {
        HoldFuture {
            acquire: match refused {
                None => Ok(part.gate().acquire_async(part.counts(holder))),
                refused => Err(refused),
            },
            part,
            holder,
        }
    }
}

impl Future for HoldFuture<'_> {
    type Output = Result<Hold>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (part, holder) = (self.part, self.holder);
        match &mut self.acquire {
            Ok(acquire) => acquire.poll_enter(cx).map(|entered| {
                let kind = part.told(holder, entered?);
                // SAFETY: HOLD-1: entered just now.
                unsafe { Hold::new(part, holder, kind) }
            }),
            Err(refused) => Poll::Ready(Err(refused.take().expect("polled after completion"))),
        }
    }
}

#[inline]
pub(super) fn checked<T: MrAccess + ?Sized>(mr: &T, holder: Holder) -> Result<Part<'_>> {
    let part = mr.part();
    // By way of the region, whose line is needed next, and whose registration is asked once more then.
    require(part.region().registration().inner().access(), holder)?;
    length_of_sge(part)?;
    Ok(part)
}
