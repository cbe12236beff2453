//! What the fuzz targets do: one module for each. Any bytes are a program, which is carried out by the crate and by a
//! plain reference; the two must agree after every step. No clock and no chance decides anything (the one exception is
//! [`gate_threads`]), so that the same bytes do the same again.

pub mod gate_ops;
pub mod gate_threads;
#[allow(missing_docs, reason = "a test's")]
#[path = "../../tests/reference/mod.rs"]
mod reference;
pub mod region_ops;
pub mod soft_nic;
pub mod token;
pub mod word;
pub mod wr_dispatch;

/// The place in a list of that length which a byte of a program names; `None` if there is none.
fn place(byte: u8, length: usize) -> Option<usize> {
    (length > 0).then(|| usize::from(byte) % length)
}
