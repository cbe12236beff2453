//! Memory that peers may write at any moment (R3), on the NIC in software and on a device: each case a
//! function over a [`Fabric`].

use rdma_mr::op::{Done, Endpoint};
use rdma_mr::work::{QueuePair, WcStatus};
use rdma_mr::{Access, SharedMr};

use crate::fabric::{Fabric, finish};

mod holds;
mod peers;
mod places;
mod records;

pub use holds::*;
pub use peers::*;
pub use places::*;
pub use records::*;

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { shared_suite [$($attributes)*] $fabric =>
            r3_bytes_are_copied_in_and_out
            r3_integers_of_every_size
            r19_places_that_are_none_are_refused
            r19_rights_and_lengths_are_checked
            r3_holds_exclude_nobody
            r3_the_local_side_of_every_operation
            r3_beside_other_regions_in_one_list
            r9_operations_outlive_the_handle
            r14_closed_only_when_nothing_is_in_flight
            r14_a_closed_region_is_out_of_reach
            r20_tokens_are_of_the_bytes
            r3_integers_of_a_peer_arrive_whole
            r3_atomics_of_both_sides
            r3_records_written_by_a_peer_in_three_writes
            r3_records_written_by_a_peer_with_atomics
            r3_records_written_here_and_read_by_a_peer
            r3_records_have_one_writer_at_a_time
            r3_without_the_version_a_record_is_torn
            r3_without_the_version_a_peer_reads_a_torn_record
        }
    };
}
pub(crate) use tests;

/// Zeroed bytes that peers may do everything with.
pub fn shared<F: Fabric>(fabric: &F, length: usize) -> SharedMr {
    SharedMr::alloc(fabric.pd(), length, Access::all()).unwrap()
}

/// Polls until that many operations are over, all of which must succeed.
#[track_caller]
pub fn succeed<Q: QueuePair>(endpoint: &mut Endpoint<Q>, count: usize) -> Vec<Done> {
    let all = finish(endpoint, count);
    assert!(
        all.iter().all(|done| done.status == WcStatus::Success),
        "{all:?}"
    );
    all
}

/// All bytes of it, copied out.
pub fn bytes(mr: &SharedMr, length: usize) -> Vec<u8> {
    use rdma_mr::SharedMrAccess;

    let mut copy = vec![0; length];
    mr.read_into(0, &mut copy).unwrap();
    copy
}
