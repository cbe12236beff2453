//! One end of the connection: an endpoint, small messages over it, and how to wait for it.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use rdma_mr::op::{Begin, Done, Endpoint, Hold};
use rdma_mr::registration::Registrar;
use rdma_mr::work::{QueuePair, RemoteAddr};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, Rejected};

use crate::Failure;
use crate::message::{MAX_BYTES, Message};

/// How long to sleep on the completion queue before looking whether the peer is still there.
const NAP: Duration = Duration::from_millis(50);

/// What the backends differ in, beside the queues.
pub trait Fabric {
    /// Both of its completion queues are one.
    type Qp: QueuePair;
    type Pd: Registrar;

    fn pd(&self) -> &Arc<Self::Pd>;
    /// Asks for an event at the next completion; what is there already makes none.
    fn arm(&self, cq: &<Self::Qp as QueuePair>::Cq) -> Result<(), Failure>;
    /// Sleeps until the event comes, at most for `limit`.
    fn sleep(&self, cq: &<Self::Qp as QueuePair>::Cq, limit: Duration) -> Result<(), Failure>;
    /// Whether the peer has gone away.
    fn peer_is_gone(&mut self) -> bool;
}

/// The connection is of no more use; the peer may know why.
#[derive(Debug)]
pub struct Lost(String);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}

/// A message that arrived: the region that it lies in, which is free by now.
pub struct Arrival {
    pub mr: LocalMr,
    pub length: usize,
    pub imm: Option<u32>,
}

pub struct Link<F: Fabric> {
    /// `None` once something failed.
    endpoint: Option<Endpoint<F::Qp>>,
    fabric: F,
    posted: VecDeque<LocalMr>,
    arrived: VecDeque<Done>,
    outbox: VecDeque<LocalMr>,
    failure: Option<String>,
}

impl<F: Fabric> Link<F> {
    /// A link that can take `receives` messages.
    pub fn new(endpoint: Endpoint<F::Qp>, fabric: F, receives: usize) -> Result<Self, Failure> {
        let outbox = LocalMr::alloc(fabric.pd(), 8 * MAX_BYTES)?;
        let mut link = Link {
            endpoint: Some(endpoint),
            fabric,
            posted: VecDeque::new(),
            arrived: VecDeque::new(),
            outbox: outbox.chunks_of(MAX_BYTES)?.collect(),
            failure: None,
        };
        link.post_receives(MAX_BYTES, receives)?;
        Ok(link)
    }

    pub fn pd(&self) -> &Arc<F::Pd> {
        self.fabric.pd()
    }

    /// Registers memory for `count` receives of `size` bytes, and posts them.
    pub fn post_receives(&mut self, size: usize, count: usize) -> Result<(), Failure> {
        let region = LocalMr::alloc(self.pd(), size * count)?;
        for mr in region.chunks_of(size)? {
            self.post_receive(mr)?;
        }
        Ok(())
    }

    pub fn post_receive(&mut self, mr: LocalMr) -> Result<(), Failure> {
        self.endpoint()?.recv(mr.begin_write()?)?;
        self.posted.push_back(mr);
        Ok(())
    }

    fn endpoint(&mut self) -> Result<&mut Endpoint<F::Qp>, Failure> {
        let failure = self.failure.as_deref().unwrap_or_default();
        (self.endpoint.as_mut()).ok_or_else(|| Lost(failure.to_owned()).into())
    }

    /// Takes what has completed; sleeps a little if that is nothing. To be called while waiting for
    /// a region: what goes wrong is told by the next [`check`](Self::check).
    ///
    /// What goes wrong also ends the queue pair, and with it all that is outstanding: not every
    /// device completes what is posted after an error (R16), and nobody is to wait for that.
    pub fn progress(&mut self) {
        if let Err(failure) = self.poll_or_sleep() {
            self.failure.get_or_insert(failure.to_string());
        }
        if self.failure.is_some() {
            self.endpoint = None;
        }
    }

    fn poll_or_sleep(&mut self) -> Result<(), Failure> {
        if self.poll()? > 0 {
            return Ok(());
        }
        // What completes between the poll and the sleep makes an event, or is polled before it.
        if let Some(endpoint) = &self.endpoint {
            self.fabric.arm(endpoint.qp().send_cq())?;
        }
        if self.poll()? > 0 {
            return Ok(());
        }
        if let Some(endpoint) = &self.endpoint {
            self.fabric.sleep(endpoint.qp().send_cq(), NAP)?;
        }
        // Its last message may have come just before it went.
        if self.fabric.peer_is_gone() && self.poll()? == 0 {
            return Err("the peer has gone away".into());
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<usize, Failure> {
        let Some(endpoint) = &mut self.endpoint else {
            return Ok(0);
        };
        let (arrived, failure) = (&mut self.arrived, &mut self.failure);
        let polled = endpoint.poll(|done| {
            if !done.status.is_success() {
                failure.get_or_insert(format!("an operation failed: {}", done.status));
            } else if done.id.is_recv() {
                arrived.push_back(done);
            }
        });
        Ok(polled?)
    }

    /// What went wrong so far.
    pub fn check(&mut self) -> Result<(), Failure> {
        match &self.failure {
            Some(failure) => Err(Box::new(Lost(failure.clone()))),
            None => Ok(()),
        }
    }

    /// The next message that has arrived, if there is one.
    pub fn try_arrival(&mut self) -> Result<Option<Arrival>, Failure> {
        if self.arrived.is_empty() {
            self.check()?;
            return Ok(None);
        }
        let (done, mr) = (self.arrived.pop_front(), self.posted.pop_front());
        Ok(done.zip(mr).map(|(done, mr)| Arrival {
            mr,
            length: done.byte_len as usize,
            imm: done.imm,
        }))
    }

    /// The next message, once it has arrived.
    pub fn arrival(&mut self) -> Result<Arrival, Failure> {
        loop {
            if let Some(arrival) = self.try_arrival()? {
                return Ok(arrival);
            }
            self.progress();
        }
    }

    /// The next message as one of ours; its receive is posted again.
    pub fn message(&mut self) -> Result<Message, Failure> {
        let arrival = self.arrival()?;
        self.decode(arrival)
    }

    /// As [`message`](Self::message), if there is one.
    pub fn try_message(&mut self) -> Result<Option<Message>, Failure> {
        match self.try_arrival()? {
            Some(arrival) => self.decode(arrival).map(Some),
            None => Ok(None),
        }
    }

    fn decode(&mut self, arrival: Arrival) -> Result<Message, Failure> {
        let message = parse(&arrival)?;
        self.post_receive(arrival.mr)?;
        Ok(message)
    }

    pub fn tell(&mut self, message: &Message) -> Result<(), Failure> {
        let text = serde_json::to_vec(message)?;
        // Out of the way while `self` polls; the slot is free again when its SEND is over.
        let mut mr = self.outbox.pop_front().expect("put back below");
        mr.as_mut_slice_with(|| self.progress()).write_all(&text)?;
        let hold = mr.get(..text.len())?.begin_read()?;
        self.outbox.push_back(mr);
        self.send(hold)
    }

    pub fn send(&mut self, hold: Hold) -> Result<(), Failure> {
        self.post(hold, |endpoint, hold| endpoint.send(hold, None))
    }

    pub fn write(&mut self, hold: Hold, to: RemoteAddr, imm: u32) -> Result<(), Failure> {
        self.post(hold, |endpoint, hold| endpoint.write(hold, to, Some(imm)))
    }

    pub fn read(&mut self, hold: Hold, from: RemoteAddr) -> Result<(), Failure> {
        self.post(hold, |endpoint, hold| endpoint.read(hold, from))
    }

    /// Posts; while the queue is full, polls.
    fn post<T>(
        &mut self,
        mut hold: Hold,
        post: impl Fn(&mut Endpoint<F::Qp>, Hold) -> Result<T, Rejected<Hold>>,
    ) -> Result<(), Failure> {
        loop {
            match post(self.endpoint()?, hold) {
                Ok(_) => return Ok(()),
                Err(Rejected {
                    value,
                    error: rdma_mr::Error::QueueFull { .. },
                }) => hold = value,
                Err(rejected) => return Err(rejected.error.into()),
            }
            self.progress();
            self.check()?;
        }
    }

    /// Waits until all that was posted to the send queue is over.
    pub fn drain(&mut self) -> Result<(), Failure> {
        while self.endpoint()?.outstanding().0 > 0 {
            self.progress();
        }
        self.check()
    }
}

/// Reads a message of ours.
pub fn parse(arrival: &Arrival) -> Result<Message, Failure> {
    let bytes = arrival.mr.as_slice();
    let text = bytes.get(..arrival.length).unwrap_or_default();
    serde_json::from_slice(text).map_err(|error| format!("not a message of ours: {error}").into())
}
