//! What is outstanding on one queue: holds from the post to the completion, between one who posts and
//! those who complete. Rings for queues whose completions come in order, slots for the others. Knows
//! neither providers nor completion queues.

pub(super) mod completer;
pub(super) mod done;
pub(super) mod look;
pub(super) mod poster;
pub(super) mod prepared;
pub(super) mod ring;
pub(super) mod slots;
pub(super) mod ticket;
