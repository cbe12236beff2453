//! Futures of operations that are given up: at every await point, by dropping and by forgetting (R9).
//! On the NIC in software and on a device.

mod every;
mod pieces;
mod slow;
pub mod subject;
mod wakers;
mod world;

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { suite [$($attributes)*] $fabric =>
            r9_futures_given_up_at_every_await_point
            r9_a_gather_given_up_after_each_region
            r9_holds_and_guards_given_up_at_every_await_point
            r9_a_forgotten_future_is_told_whatever_becomes_of_the_queue_pair
            r9_a_waker_may_drop_futures_and_the_queue_pair
            r9_a_future_unwound_after_the_post_is_told_no_more
            r18_a_waker_may_poll_when_the_operation_is_over
            r19_a_receive_where_there_is_no_queue_for_it_is_refused
            r19_a_future_polled_after_completion_does_no_harm
        }
    };
}
pub(crate) use tests;

pub use every::*;
pub use pieces::*;
pub use wakers::*;
