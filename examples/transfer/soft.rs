//! Both ends in this process, over the NIC in software.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use rdma_mr::op::Endpoint;
use rdma_mr::work::{CompletionEvents as _, QpCaps};

use crate::link::{Fabric, Link, Lost};
use crate::{Failure, Options, create, open, receiver, sender};

/// Bytes in the file that is made when none is given.
const MADE: usize = 64 << 20;

#[derive(Clone)]
struct Soft {
    pd: Arc<ProtectionDomain>,
    /// One for each end.
    alive: Arc<()>,
}

impl Fabric for Soft {
    type Qp = QueuePair;
    type Pd = ProtectionDomain;

    fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    fn arm(&self, cq: &CompletionQueue) -> Result<(), Failure> {
        Ok(cq.req_notify(false)?)
    }

    fn sleep(&self, cq: &CompletionQueue, limit: Duration) -> Result<(), Failure> {
        cq.wait_event(Some(limit))?;
        Ok(())
    }

    fn peer_is_gone(&mut self) -> bool {
        Arc::strong_count(&self.alive) == 1
    }
}

pub fn run(path: Option<&Path>, options: &Options) -> Result<(), Failure> {
    let (file, length) = match path {
        Some(path) => open(path)?,
        None => made()?,
    };
    let mut output = create(options.output.as_deref())?;

    let nic = Nic::new();
    let pd = nic.alloc_pd();
    let outstanding = 2 * options.slots as u32 + 16;
    let caps = QpCaps {
        max_send_wr: outstanding,
        max_recv_wr: outstanding,
        ..QpCaps::default()
    };
    let end = || {
        let cq = nic.create_cq(2 * outstanding)?;
        pd.create_qp(&cq, &cq, caps)
    };
    let (a, b) = (end()?, end()?);
    QueuePair::connect_pair(&a, &b)?;
    let soft = Soft {
        pd: Arc::clone(&pd),
        alive: Arc::default(),
    };
    let sending = Link::new(Endpoint::new(a), soft.clone(), options.slots + 4)?;
    let receiving = Link::new(Endpoint::new(b), soft, 1)?;

    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(move || receiver::run(receiving, &mut output));
        let sent = sender::run(sending, file, length, options);
        (sent, receiver.join())
    });
    let received = received.map_err(|_| "the receiver panicked")?;
    let (sent, received) = match (sent, received) {
        (Ok(sent), Ok(received)) => (sent, received),
        // One who lost the connection did so because the other gave up: that one knows why.
        (Err(error), Err(reason)) if error.is::<Lost>() => return Err(reason),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    sent.print("sent");
    received.print("received");
    Ok(())
}

/// A file of pseudo-random bytes, gone with the program.
fn made() -> Result<(File, u64), Failure> {
    let explain = |error| format!("cannot make a file of {MADE} bytes: {error}");
    let mut file = tempfile::tempfile().map_err(explain)?;
    let mut bytes = vec![0; MADE];
    SmallRng::seed_from_u64(64).fill_bytes(&mut bytes);
    file.write_all(&bytes).map_err(explain)?;
    file.rewind().map_err(explain)?;
    Ok((file, MADE as u64))
}
