//! What becomes of the holds of operations, event by event: the cases behind the table in SAFETY.md
//! ("When is a hold released?"), each a function over a [`Fabric`], so that the NIC in software and a
//! device answer to the same ones.

use rdma_mr::gate::Writer;
use rdma_mr::op::{Begin, Done, OpId};
use rdma_mr::work::{SendFlags, SendOp, WcStatus};
use rdma_mr::{LocalMr, LocalMrReadAccess};

#[allow(unused_imports, reason = "not every suite checks")]
pub use crate::fabric::Checked;
use crate::fabric::Fabric;

mod by_hand;
mod dereg;
mod drain;
mod errors;
mod lists;
mod opcodes;
mod overrun;
mod pollers;
mod queues;
mod shared;

pub use by_hand::*;
pub use dereg::*;
pub use drain::*;
pub use errors::*;
pub use lists::*;
pub use opcodes::*;
pub use overrun::*;
pub use pollers::*;
pub use queues::*;
pub use shared::*;

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { suite [$($attributes)*] $fabric =>
            r13_every_opcode_has_its_hold
            r13_holds_of_the_wrong_kind_are_refused
            r13_inline_is_over_when_the_post_has_returned
            r9_one_hold_over_several_regions
            r9_ranges_of_one_region_are_one_hold
            r9_as_many_regions_as_the_device_takes
            r10_a_list_that_fails_in_the_middle_keeps_what_was_before
            r10_a_list_that_does_not_fit_posts_nothing
            r10_a_chain_of_sends_that_the_provider_cuts
            r10_a_chain_of_receives_that_the_provider_cuts
            r11_one_signalled_in_16_releases_all_of_them
            r11_what_no_later_completion_covers_stays
            r11_a_queue_is_not_filled_with_unsignalled_ones
            r10_a_full_queue_gives_the_hold_back
            r11_destruction_releases_all_and_nothing_before_it
            r11_err_releases_nothing_and_its_flushes_do
            r16_a_receive_that_is_posted_in_err
            r12_a_remote_access_error_releases_and_ends_the_queue_pair
            r12_a_peer_that_is_gone
            r16_drain_until_all_is_flushed
            r16_drain_is_bounded
            r16_drain_flushes_what_was_posted_in_err
            r16_drain_ends_at_once
            r16_drain_one_step_at_a_time
            r16_drain_as_a_future
            r9_a_dropped_handle_keeps_the_memory_under_its_receive
            r14_a_held_region_is_not_closed
            r11_deregistered_under_a_receive
            r15_an_overrun_releases_nothing_and_the_end_all
            r15_an_overrun_is_told_to_futures
            r11_shared_receives_end_in_any_order
            r10_a_full_shared_queue_gives_the_hold_back
            r11_a_wr_id_is_good_for_one_completion
            r16_err_of_one_leaves_the_receives_to_the_other
            r16_a_shared_receive_that_was_begun
            r14_a_shared_queue_in_use_comes_back
            r11_two_completion_queues_release_their_own
            r11_two_threads_poll_for_many
            r18_a_poller_sleeps_until_there_is_something
            r18_a_descriptor_tells_of_completions
            r18_waits_drive_the_poller
            r11_completions_of_a_closed_endpoint_are_nobodys
            r11_rings_beside_queues_of_ones_own
            r11_rings_released_by_destruction
            r9_the_hold_as_wr_id
        }
    };
}
pub(crate) use tests;

pub const SEND: SendOp = SendOp::Send { imm: None };
pub const SIGNALED: SendFlags = SendFlags::SIGNALED;
pub const UNSIGNALED: SendFlags = SendFlags::empty();

/// Nobody has any of them.
#[track_caller]
pub fn assert_free<'a>(mrs: impl IntoIterator<Item = &'a LocalMr>) {
    for (at, mr) in mrs.into_iter().enumerate() {
        assert!(mr.state().is_free(), "region {at}: {}", mr.state());
    }
}

/// Each is held once for a NIC that writes: nobody may look.
#[track_caller]
pub fn assert_written<'a>(mrs: impl IntoIterator<Item = &'a LocalMr>) {
    for (at, mr) in mrs.into_iter().enumerate() {
        let state = mr.state();
        assert_eq!(state.writer, Some(Writer::Nic), "region {at}: {state}");
        assert!(mr.try_as_slice().is_none() && mr.try_begin_read().is_err());
    }
}

/// Each is held once for a NIC that reads: everybody may look, nobody may write.
#[track_caller]
pub fn assert_read<'a>(mrs: impl IntoIterator<Item = &'a LocalMr>) {
    for (at, mr) in mrs.into_iter().enumerate() {
        let state = mr.state();
        assert_eq!((state.nic_reads, state.writer), (1, None), "region {at}");
        assert!(mr.try_as_slice().is_some() && mr.try_begin_write().is_err());
    }
}

/// Regions of 8 bytes each, in one registration, with a gate each.
pub fn words<F: Fabric>(fabric: &F, count: usize) -> Vec<LocalMr> {
    fabric.alloc(8 * count).chunks_of(8).unwrap().collect()
}

pub fn statuses(all: &[Done]) -> Vec<WcStatus> {
    all.iter().map(|done| done.status).collect()
}

/// They ended in this order, each of them well.
#[track_caller]
pub fn assert_succeeded(all: &[Done], ids: impl IntoIterator<Item = OpId>) {
    let told: Vec<_> = all.iter().map(|done| (done.id, done.status)).collect();
    let ids = ids.into_iter().map(|id| (id, WcStatus::Success));
    assert_eq!(told, ids.collect::<Vec<_>>());
}
