//! Where atomics, locks, threads, time and the table of waiters come from, chosen in this one place: of
//! std, or under `--cfg loom` of loom, or under `--cfg shuttle` of shuttle. Each of the three files has the
//! same names; `same.rs` has what std and shuttle have alike.

#[cfg(all(loom, shuttle))]
compile_error!("one at a time: `--cfg loom` or `--cfg shuttle`");

mod barrier;
mod number;
#[cfg(loom)]
mod of_loom;
#[cfg(shuttle)]
mod of_shuttle;
#[cfg(not(any(loom, shuttle)))]
mod of_std;
#[cfg(not(loom))]
mod same;
mod worker;

pub(crate) use barrier::{heavy, light, prepare};
pub(crate) use number::thread_number;
#[cfg(loom)]
pub(crate) use of_loom::*;
#[cfg(shuttle)]
pub(crate) use of_shuttle::*;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use of_std::*;
#[cfg(not(loom))]
pub(crate) use same::*;
pub(crate) use worker::{Stop, Worker};

/// Leaves a moment to the other cores. Not [`spin_loop`], which in a model lets others go on first: nothing is
/// waited for here.
#[inline]
pub(crate) fn pause() {
    std::hint::spin_loop();
}

/// Something that all of the process share, made when it is first used; in a model, by each execution
/// anew.
#[cfg(not(any(loom, shuttle)))]
macro_rules! global {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$about])*
        static $name: std::sync::LazyLock<$type> = std::sync::LazyLock::new(|| $value);
    };
}
#[cfg(any(loom, shuttle))]
macro_rules! global {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $crate::sync::lazy_static! {
            $(#[$about])*
            static ref $name: $type = $value;
        }
    };
}
pub(crate) use global;

/// Something that each thread has of its own.
#[cfg(not(any(loom, shuttle)))]
macro_rules! local {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        std::thread_local! {
            $(#[$about])*
            static $name: $type = const { $value };
        }
    };
}
#[cfg(any(loom, shuttle))]
macro_rules! local {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $crate::sync::thread_local! {
            $(#[$about])*
            static $name: $type = $value;
        }
    };
}
pub(crate) use local;
