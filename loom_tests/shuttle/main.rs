//! Models of what is too large for loom: the whole layer, over the NIC in software, with 4 to 8 threads that
//! take turns by chance. Whoever reads bytes knows what they must be. A failure says how it is had again;
//! see the README beside the models in loom, `cargo xtask shuttle` runs these.
#![cfg(shuttle)]

mod ends;
mod futures;
mod layer;
mod leases;
mod place;
mod pools;
mod rings;
mod run;
mod shared;
mod transfers;
mod world;
