//! Teardown on a real device: each two objects in both orders, and orders at random, from a seed that is
//! printed (`RDMA_MR_SEED`). `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;
#[path = "teardown/ledger.rs"]
mod ledger;
#[path = "teardown/peers.rs"]
mod peers;
#[path = "teardown/place.rs"]
mod place;
#[path = "torture/random.rs"]
mod random;
#[path = "teardown/suite.rs"]
mod suite;
mod watched;
#[path = "teardown/world.rs"]
mod world;

suite::tests! { [#[ignore = "needs an RDMA device: cargo xtask vm test"]] fabric::Device }
