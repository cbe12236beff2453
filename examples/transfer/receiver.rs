//! The side that gets the file.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use rdma_mr::op::{Begin, Hold};
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, MrAccess, MrOptions};

use crate::link::{Fabric, Link, parse};
use crate::message::{Message, Mode};
use crate::{Checksum, Clock, Failure, Summary, compare, progress_bar};

/// How long the sender may take to write a granted slot.
const GRANT: Duration = Duration::from_secs(600);

/// Where the bytes go, and what is counted on the way.
struct Sink<'a> {
    output: &'a mut dyn Write,
    checksum: Checksum,
    left: u64,
    operations: u64,
    bar: indicatif::ProgressBar,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.left = (self.left.checked_sub(bytes.len() as u64))
            .ok_or("the peer sends more than it announced")?;
        self.checksum.add(bytes);
        self.operations += 1;
        self.bar.inc(bytes.len() as u64);
        self.output
            .write_all(bytes)
            .map_err(|error| format!("cannot write the file: {error}").into())
    }
}

/// Receives one file; `link` has one receive posted.
pub fn run<F: Fabric>(mut link: Link<F>, output: &mut dyn Write) -> Result<Summary, Failure> {
    let hello = link.arrival()?;
    let (mode, length, slot, count) = match parse(&hello)? {
        Message::Hello {
            mode,
            length,
            slot,
            slots,
        } => (mode, length, slot, slots),
        other => return Err(format!("expected Hello, got {other:?}").into()),
    };
    if count == 0 || count > 1024 || slot > 1 << 30 || slot < hello.mr.length() {
        return Err(format!("the peer asks for {count} slots of {slot} bytes").into());
    }
    let mut sink = Sink {
        output,
        checksum: Checksum::default(),
        left: length,
        operations: 0,
        bar: progress_bar(length),
    };
    let clock = Clock::start();
    let (waits, last) = match mode {
        Mode::Send => by_send(&mut link, &mut sink, slot, count)?,
        Mode::Write => by_write(&mut link, &mut sink, slot, count)?,
        Mode::Read => by_read(&mut link, &mut sink, slot, count)?,
    };
    let time = clock.read();
    sink.bar.finish_and_clear();
    sink.output.flush()?;

    let Message::Finished { sha256: theirs } = last else {
        return Err(format!("expected Finished, got {last:?}").into());
    };
    let sha256 = sink.checksum.finish();
    link.tell(&Message::Received {
        sha256: sha256.clone(),
    })?;
    link.drain()?;
    compare(&sha256, &theirs)?;
    Ok(Summary {
        bytes: length,
        sha256,
        operations: sink.operations,
        waits,
        time,
    })
}

/// Each chunk is a message that lands in the slot at the head of the receive queue; so does the
/// last word.
fn by_send<F: Fabric>(
    link: &mut Link<F>,
    sink: &mut Sink<'_>,
    slot: usize,
    count: usize,
) -> Result<(u64, Message), Failure> {
    link.post_receives(slot, count)?;
    link.tell(&Message::Ready)?;
    let mut waits = 0;
    while sink.left > 0 {
        let chunk = link.arrival()?;
        sink.take(chunk.mr.as_slice().get(..chunk.length).unwrap_or_default())?;
        waits += chunk.mr.waits();
        link.post_receive(chunk.mr)?;
    }
    let last = link.message()?;
    Ok((waits, last))
}

/// The sender writes into slots that are granted one by one; the immediate data of its WRITE names
/// the slot that it has finished with.
fn by_write<F: Fabric>(
    link: &mut Link<F>,
    sink: &mut Sink<'_>,
    slot: usize,
    count: usize,
) -> Result<(u64, Message), Failure> {
    let options = MrOptions::new().access(Access::LOCAL_WRITE | Access::REMOTE_WRITE);
    // SAFETY: REMOTE-1: a slot is granted only while its hold is out, and the peer, which has the
    // key from us alone, writes a granted slot once. REMOTE-2: the hold is given back when the
    // WRITE_WITH_IMM that names the slot has completed here.
    let region = unsafe { options.grant_remote_write() }.alloc(link.pd(), slot * count)?;
    let slots: Vec<LocalMr> = region.chunks_of(slot)?.collect();
    // One receive for each WRITE_WITH_IMM that can be outstanding, and one for the last word.
    link.post_receives(crate::message::MAX_BYTES, count + 1)?;
    link.tell(&Message::Ready)?;

    let mut grants: Vec<Option<Hold>> = Vec::new();
    for (index, mr) in slots.iter().enumerate() {
        grants.push(Some(grant(link, mr, index)?));
    }
    while sink.left > 0 {
        let arrival = link.arrival()?;
        let index = arrival
            .imm
            .ok_or("expected a WRITE with its slot's number")? as usize;
        let held = grants.get_mut(index).and_then(Option::take);
        drop(held.ok_or("the peer names a slot that it was not granted")?);
        let mr = &slots[index];
        sink.take(mr.as_slice().get(..arrival.length).unwrap_or_default())?;
        link.post_receive(arrival.mr)?;
        grants[index] = Some(grant(link, mr, index)?);
    }
    let last = link.message()?;
    // The sender has said its last word: it writes no more, and the queue pair ends before the
    // region does.
    drop(grants);
    Ok((slots.iter().map(LocalMr::waits).sum(), last))
}

/// Lets the peer write the slot, which is held for the NIC from before it knows until it is done.
fn grant<F: Fabric>(link: &mut Link<F>, mr: &LocalMr, slot: usize) -> Result<Hold, Failure> {
    let hold = mr.begin_write()?;
    let token = mr
        .token_with_timeout(GRANT)
        .ok_or("the clock has no room")?;
    link.tell(&Message::Grant { slot, token })?;
    Ok(hold)
}

/// The sender offers slots; each is read into the slot of the same number.
fn by_read<F: Fabric>(
    link: &mut Link<F>,
    sink: &mut Sink<'_>,
    slot: usize,
    count: usize,
) -> Result<(u64, Message), Failure> {
    let slots: Vec<LocalMr> = LocalMr::alloc(link.pd(), slot * count)?
        .chunks_of(slot)?
        .collect();
    link.post_receives(crate::message::MAX_BYTES, count + 1)?;
    link.tell(&Message::Ready)?;

    let mut reading: VecDeque<(usize, usize)> = VecDeque::new();
    while sink.left > 0 {
        // Post a READ for every offer that is there; wait for one only if nothing is under way.
        let offer = if reading.is_empty() {
            Some(link.message()?)
        } else {
            link.try_message()?
        };
        match offer {
            Some(Message::Offer {
                slot,
                length,
                token,
            }) => {
                let into = slots
                    .get(slot)
                    .ok_or("the peer offers a slot that is not there")?;
                let hold = into.get(..length)?.begin_write_with(|| link.progress())?;
                link.read(hold, token.target(..length, Access::REMOTE_READ)?)?;
                reading.push_back((slot, length));
                continue;
            }
            Some(other) => return Err(format!("expected Offer, got {other:?}").into()),
            None => {}
        }
        if let Some((slot, length)) = reading.pop_front() {
            // Waits at the gate until the READ into the slot has completed.
            let bytes = slots[slot].as_slice_with(|| link.progress());
            link.check()?;
            sink.take(&bytes[..length])?;
            drop(bytes);
            link.tell(&Message::Taken { slot })?;
        }
    }
    let last = link.message()?;
    Ok((slots.iter().map(LocalMr::waits).sum(), last))
}
