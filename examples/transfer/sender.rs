//! The side that has the file.

use std::io::Read;
use std::time::Duration;

use rdma_mr::op::{Begin, Hold};
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions};

use crate::link::{Fabric, Link};
use crate::message::{Message, Mode};
use crate::{Checksum, Clock, Failure, Options, Summary, compare, progress_bar};

/// How long the receiver may take to read an offered slot.
const OFFER: Duration = Duration::from_secs(600);

pub fn run<F: Fabric>(
    mut link: Link<F>,
    mut file: impl Read,
    length: u64,
    options: &Options,
) -> Result<Summary, Failure> {
    let Options {
        mode, slot, slots, ..
    } = *options;
    let access = match mode {
        Mode::Read => Access::LOCAL_WRITE | Access::REMOTE_READ,
        _ => Access::LOCAL_WRITE,
    };
    let region = MrOptions::new()
        .access(access)
        .alloc(link.pd(), slot * slots)?;
    let mut slots: Vec<LocalMr> = region.chunks_of(slot)?.collect();

    link.tell(&Message::Hello {
        mode,
        length,
        slot,
        slots: slots.len(),
    })?;
    match link.message()? {
        Message::Ready => {}
        other => return Err(format!("expected Ready, the peer says {other:?}").into()),
    }

    let clock = Clock::start();
    let bar = progress_bar(length);
    let mut checksum = Checksum::default();
    // Read mode: what holds a slot while the receiver may read it.
    let mut offers: Vec<Option<Hold>> = slots.iter().map(|_| None).collect();
    let mut left = length;
    let mut operations = 0;
    while left > 0 {
        let index = (operations % slots.len() as u64) as usize;
        while offers[index].is_some() {
            take_back(&mut offers, link.message()?)?;
        }
        let count = left.min(slot as u64) as usize;
        let mr = &mut slots[index];
        // The gate is the flow control: while the NIC still reads the slot, this waits, and takes
        // completions meanwhile.
        let mut guard = mr.as_mut_slice_with(|| link.progress());
        file.read_exact(&mut guard[..count])
            .map_err(|error| format!("cannot read the file: {error}"))?;
        checksum.add(&guard[..count]);
        drop(guard);

        let chunk = mr.get(..count)?;
        match mode {
            Mode::Send => link.send(chunk.begin_read()?)?,
            Mode::Write => {
                let (slot, token) = match link.message()? {
                    Message::Grant { slot, token } => (slot, token),
                    other => return Err(format!("expected Grant, got {other:?}").into()),
                };
                let target = token.target(..count, Access::REMOTE_WRITE)?;
                link.write(chunk.begin_read()?, target, u32::try_from(slot)?)?;
            }
            Mode::Read => {
                let token = chunk
                    .token_with_timeout(OFFER)
                    .ok_or("the clock has no room")?;
                offers[index] = Some(chunk.begin_read()?);
                link.tell(&Message::Offer {
                    slot: index,
                    length: count,
                    token,
                })?;
            }
        }
        left -= count as u64;
        operations += 1;
        bar.inc(count as u64);
    }
    while offers.iter().any(Option::is_some) {
        take_back(&mut offers, link.message()?)?;
    }
    link.drain()?;
    bar.finish_and_clear();
    let time = clock.read();

    let sha256 = checksum.finish();
    link.tell(&Message::Finished {
        sha256: sha256.clone(),
    })?;
    // Grants that were not needed may come before the answer.
    let theirs = loop {
        match link.message()? {
            Message::Received { sha256 } => break sha256,
            Message::Grant { .. } => {}
            other => return Err(format!("expected Received, got {other:?}").into()),
        }
    };
    compare(&sha256, &theirs)?;
    Ok(Summary {
        bytes: length,
        sha256,
        operations,
        waits: slots.iter().map(LocalMr::waits).sum(),
        time,
    })
}

/// The receiver has read a slot: it is ours again.
fn take_back(offers: &mut [Option<Hold>], message: Message) -> Result<(), Failure> {
    match message {
        Message::Taken { slot } if slot < offers.len() => {
            offers[slot] = None;
            Ok(())
        }
        other => Err(format!("expected Taken, got {other:?}").into()),
    }
}
