//! The forms in which every guard can be had (rule R18), written once: try, wait, until a deadline,
//! with progress, as a future. The gate first, then the bytes: a refusal is one look.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::access::sealed::Sealed;
use super::part::Part;
use crate::error::Result;
use crate::gate::{Acquire, Holder, Permit};

/// A guard over a part of a region.
pub trait Guard<'a>: Sized {
    /// What it holds the region as.
    const HOLDER: Holder;

    /// Makes it of the hold.
    fn new(permit: Permit<'a>, part: Part<'a>) -> Self;
}

/// What a region's CPU side can't meet: only operations of the NIC are refused by a closed gate.
const NEVER_CLOSED: &str = "the CPU's accesses are never refused by a closed gate";

#[inline(always)] // a guard is large: in registers, if what is around it is seen
pub(super) fn attempt<'a, G: Guard<'a>>(of: &'a (impl Sealed + ?Sized)) -> Option<G> {
    let permit = of.gate().try_permit(G::HOLDER)?;
    Some(G::new(permit, of.part()))
}

#[inline(always)] // as `attempt`
pub(super) fn wait<'a, G: Guard<'a>>(of: &'a (impl Sealed + ?Sized)) -> G {
    let part = of.part();
    let permit = part.gate().acquire(G::HOLDER).expect(NEVER_CLOSED);
    G::new(permit, part)
}

pub(super) fn until<'a, G: Guard<'a>>(
    of: &'a (impl Sealed + ?Sized),
    deadline: Instant,
) -> Result<G> {
    let permit = of.gate().acquire_until(G::HOLDER, deadline)?;
    Ok(G::new(permit, of.part()))
}

pub(super) fn with<'a, G: Guard<'a>>(of: &'a (impl Sealed + ?Sized), progress: impl FnMut()) -> G {
    let permit = of.gate().acquire_with(G::HOLDER, progress);
    G::new(permit.expect(NEVER_CLOSED), of.part())
}

pub(super) fn future<'a, G: Guard<'a>>(of: &'a (impl Sealed + ?Sized)) -> GuardFuture<'a, G> {
    let part = of.part();
    GuardFuture {
        acquire: part.gate().acquire_async(G::HOLDER),
        part,
        guard: PhantomData,
    }
}

/// A guard to come: resolves when the region is free for it. Needs no runtime; dropping or
/// forgetting it abandons the wish and nothing else.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct GuardFuture<'a, G> {
    acquire: Acquire<'a>,
    part: Part<'a>,
    guard: PhantomData<fn() -> G>,
}

impl<'a, G: Guard<'a>> Future for GuardFuture<'a, G> {
    type Output = G;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<G> {
        let part = self.part;
        Pin::new(&mut self.acquire)
            .poll(cx)
            .map(|permit| G::new(permit.expect(NEVER_CLOSED), part))
    }
}
