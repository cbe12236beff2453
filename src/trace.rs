//! What is rare, told to whoever listens (feature `tracing`): each event is one function here, so that no
//! caller has a `cfg`, and all of it is nothing without the feature, and in models. The table for users is in
//! the crate's documentation; `tests/tracing.rs` holds the two together.
//!
//! Nothing on the way of an access or an operation that gets in at once comes by here.
#![cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, reason = "what is told is told to nobody")
)]

use std::fmt::{Debug, Display};
use std::time::Duration;

/// As `tracing::event!`, of target `rdma_mr::…`.
#[cfg(all(feature = "tracing", not(any(loom, shuttle))))]
macro_rules! event {
    ($level:ident, $room:literal, $($what:tt)*) => {
        tracing::event!(target: concat!("rdma_mr::", $room), tracing::Level::$level, $($what)*)
    };
}
#[cfg(not(all(feature = "tracing", not(any(loom, shuttle)))))]
macro_rules! event {
    ($($what:tt)*) => {
        ()
    };
}

/// An address as people read it.
#[cfg(all(feature = "tracing", not(any(loom, shuttle))))]
macro_rules! hex {
    ($number:expr) => {
        format_args!("{:#x}", $number)
    };
}

/// The time for which somebody waits at a gate, as a span of the thread's.
#[must_use = "the span ends with it"]
pub(crate) struct Wait(
    #[cfg(all(feature = "tracing", not(any(loom, shuttle))))]
    #[allow(dead_code, reason = "dropped")]
    tracing::span::EnteredSpan,
);

#[inline(always)]
pub(crate) fn wait<S: Display>(
    gate: usize,
    holder: impl Debug,
    held_by: impl FnOnce() -> S,
) -> Wait {
    Wait(
        #[cfg(all(feature = "tracing", not(any(loom, shuttle))))]
        tracing::trace_span!(
            target: "rdma_mr::gate",
            "wait",
            gate = hex!(gate),
            wants = ?holder,
            held_by = %held_by(),
        )
        .entered(),
    )
}

#[inline(always)]
pub(crate) fn park(gate: usize, holder: impl Debug) {
    event!(TRACE, "gate", gate = hex!(gate), wants = ?holder, "park");
}

#[inline(always)]
pub(crate) fn shutdown(gate: usize, addr: usize, length: usize) {
    event!(
        DEBUG,
        "gate",
        gate = hex!(gate),
        addr = hex!(addr),
        length,
        "closed to operations"
    );
}

#[inline(always)]
pub(crate) fn region(gate: usize, addr: usize, length: usize) {
    event!(
        DEBUG,
        "registration",
        gate = hex!(gate),
        addr = hex!(addr),
        length,
        "region"
    );
}

#[inline(always)]
pub(crate) fn registered(addr: usize, length: usize, lkey: u32, rkey: u32, access: impl Debug) {
    event!(
        DEBUG, "registration",
        addr = hex!(addr), length, lkey = hex!(lkey), rkey = hex!(rkey), access = ?access,
        "registered"
    );
}

#[inline(always)]
pub(crate) fn rotated(addr: usize, length: usize, lkey: u32, rkey: u32, access: impl Debug) {
    event!(
        DEBUG, "registration",
        addr = hex!(addr), length, lkey = hex!(lkey), rkey = hex!(rkey), access = ?access,
        "keys rotated"
    );
}

/// `count` registrations over the same bytes were ended.
#[inline(always)]
pub(crate) fn deregistered(addr: usize, length: usize, count: usize) {
    event!(
        DEBUG,
        "registration",
        addr = hex!(addr),
        length,
        count,
        "deregistered"
    );
}

#[inline(always)]
pub(crate) fn registration_refused(addr: usize, length: usize, error: &impl Display) {
    event!(WARN, "registration", addr = hex!(addr), length, %error, "registration refused");
}

#[inline(always)]
pub(crate) fn deregistration_refused(addr: usize, length: usize, error: &impl Display) {
    event!(WARN, "registration", addr = hex!(addr), length, %error, "deregistration refused");
}

#[inline(always)]
pub(crate) fn leaked_registration(addr: usize, length: usize) {
    event!(
        WARN,
        "registration",
        addr = hex!(addr),
        length,
        "registration leaked"
    );
}

#[inline(always)]
pub(crate) fn granted(gate: usize, addr: usize, length: usize, rkey: u32, access: impl Debug) {
    event!(
        DEBUG, "lease",
        gate = hex!(gate), addr = hex!(addr), length, rkey = hex!(rkey), access = ?access,
        "granted"
    );
}

#[inline(always)]
pub(crate) fn revoked(addr: usize, length: usize, rkey: u32) {
    event!(
        DEBUG,
        "lease",
        addr = hex!(addr),
        length,
        rkey = hex!(rkey),
        "ended"
    );
}

#[inline(always)]
pub(crate) fn expired(addr: usize, length: usize, rkey: u32) {
    event!(
        INFO,
        "lease",
        addr = hex!(addr),
        length,
        rkey = hex!(rkey),
        "expired"
    );
}

#[inline(always)]
pub(crate) fn revocation_refused(addr: usize, length: usize, rkey: u32, error: &impl Display) {
    event!(
        WARN, "lease",
        addr = hex!(addr), length, rkey = hex!(rkey), %error,
        "revocation refused"
    );
}

#[inline(always)]
pub(crate) fn leaked_lease(addr: usize, length: usize, rkey: u32) {
    event!(
        WARN,
        "lease",
        addr = hex!(addr),
        length,
        rkey = hex!(rkey),
        "lease leaked"
    );
}

#[inline(always)]
pub(crate) fn leaked_hold(gate: usize, wr_id: u64) {
    event!(
        WARN,
        "op",
        gate = hex!(gate),
        wr_id = hex!(wr_id),
        "hold leaked"
    );
}

#[inline(always)]
pub(crate) fn failed(wr_id: u64, status: impl Debug, vendor_err: u32) {
    event!(WARN, "op", wr_id = hex!(wr_id), status = ?status, vendor_err, "operation failed");
}

#[inline(always)]
pub(crate) fn unknown(wr_id: u64) {
    event!(WARN, "op", wr_id = hex!(wr_id), "unknown completion");
}

#[inline(always)]
pub(crate) fn polling_failed(error: &impl Display) {
    event!(ERROR, "op", %error, "polling failed");
}

#[inline(always)]
pub(crate) fn drained(qp_num: u32, completed: usize, released: usize, leaked: usize) {
    event!(DEBUG, "op", qp_num, completed, released, leaked, "drained");
}

#[inline(always)]
pub(crate) fn overdue(wr_id: u64, qp_num: u32, age: Duration, held: impl Debug) {
    event!(
        WARN, "op",
        wr_id = hex!(wr_id), qp_num, age_ms = age.as_millis() as u64, held = ?held,
        "operation overdue"
    );
}
