//! The models, as one program. What each shows stands in the README; each file says in which of the two builds it is.
#![cfg(loom)]

mod common;

mod bias;
mod contract_adoption;
mod contract_posts;
mod contract_queues;
mod contract_registration;
mod drain;
mod future;
mod gate;
mod lease;
mod parts;
mod poller;
mod pool;
mod ring;
mod rotation;
mod shared;
mod slots;
mod snapshot;
mod unchecked;
mod unchecked_broken;
mod unchecked_keys;
