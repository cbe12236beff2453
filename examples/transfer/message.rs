//! What the two sides tell each other, as JSON in small SENDs.

use std::str::FromStr;

use rdma_mr::MrToken;
use serde::{Deserialize, Serialize};

/// Longest message; also the shortest slot, since a message may arrive in one.
pub const MAX_BYTES: usize = 512;

/// Which operation moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The sender SENDs into the receiver's posted slots.
    Send,
    /// The sender WRITEs into slots that the receiver grants one by one.
    Write,
    /// The receiver READs slots that the sender offers one by one.
    Read,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "send" => Ok(Mode::Send),
            "write" => Ok(Mode::Write),
            "read" => Ok(Mode::Read),
            other => Err(format!("there is no mode {other:?}: send, write or read")),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Sender: what will come.
    Hello {
        mode: Mode,
        length: u64,
        slot: usize,
        slots: usize,
    },
    /// Receiver: memory is registered, receives are posted.
    Ready,
    /// Receiver, write mode: this slot may be written, once.
    Grant { slot: usize, token: MrToken },
    /// Sender, read mode: this slot may be read.
    Offer {
        slot: usize,
        length: usize,
        token: MrToken,
    },
    /// Receiver, read mode: the slot has been read.
    Taken { slot: usize },
    /// Sender: that was all; this is its digest.
    Finished { sha256: String },
    /// Receiver: this is what arrived.
    Received { sha256: String },
}
