//! Operations as futures, driven by a loop that polls the queues in between.

use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_lite::future::{poll_once, zip};
use rdma_mr::op::{AsyncQueuePair, Begin, Poller};
use rdma_mr::work::{QueuePair, SendFlags, SendOp};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

use crate::contest::{Contestant, Endpoints, NUMBER, check};
use crate::wire::{Patience, Wire};
use crate::{Failure, Options};

/// Other than the rest, a round awaits its sends, too.
pub struct Futures {
    from: [LocalMr; 2],
    to: [LocalMr; 2],
    flags: SendFlags,
    yields: bool,
}

impl Futures {
    pub fn new<W: Wire>(wire: &W, options: &Options) -> Result<Self, Failure> {
        let region = || LocalMr::alloc(wire.pd(), options.size);
        let mut flags = SendFlags::SIGNALED;
        flags.set(SendFlags::INLINE, options.inline);
        Ok(Futures {
            from: [region()?, region()?],
            to: [region()?, region()?],
            flags,
            yields: options.yields,
        })
    }

    async fn round<Q: QueuePair>(
        &mut self,
        pair: &[AsyncQueuePair<Q>; 2],
        number: u64,
    ) -> Result<(), Failure> {
        let ([a, b], flags) = (pair, self.flags);
        let ([from_a, from_b], [to_a, to_b]) = (&mut self.from, &self.to);
        let (mut ping, mut pong) = (pin!(b.recv(to_b)), pin!(a.recv(to_a)));
        // Futures do nothing until they are polled: this posts the receives.
        for recv in [poll_once(&mut ping).await, poll_once(&mut pong).await] {
            recv.transpose()?;
        }
        let send = SendOp::Send { imm: None };
        from_a.as_mut_slice_async().await[..NUMBER].copy_from_slice(&number.to_ne_bytes());
        let sent = a.post(from_a.begin_read_async().await?, send, flags);
        let answer = async {
            ping.await?;
            check(&to_b.as_slice_async().await[..NUMBER], number)?;
            from_b.as_mut_slice_async().await[..NUMBER].copy_from_slice(&(!number).to_ne_bytes());
            b.post(from_b.begin_read_async().await?, send, flags)
                .await?;
            Ok::<_, Failure>(())
        };
        let ((sent, answered), ponged) = zip(zip(sent, answer), pong).await;
        answered?;
        sent?;
        ponged?;
        check(&to_a.as_slice_async().await[..NUMBER], !number)
    }
}

impl<W: Wire> Contestant<W> for Futures {
    fn play(
        &mut self,
        endpoints: Endpoints<W>,
        numbers: Range<u64>,
        times: &mut Vec<u64>,
    ) -> Result<Endpoints<W>, Failure> {
        let pollers = endpoints.each_ref().map(|end| end.recv_poller().clone());
        let pair = endpoints.map(AsyncQueuePair::new);
        for number in numbers {
            let start = Instant::now();
            drive(&pollers, self.yields, self.round(&pair, number))??;
            times.push(start.elapsed().as_nanos() as u64);
        }
        Ok(pair.map(AsyncQueuePair::into_endpoint))
    }
}

/// Runs the future to its end. All that it waits for are completions, and this thread polls for them:
/// so it need not be woken.
fn drive<C, T>(
    pollers: &[Poller<C>; 2],
    yields: bool,
    future: impl Future<Output = T>,
) -> Result<T, Failure>
where
    C: rdma_mr::work::CompletionQueue,
{
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut patience = Patience::new(yields);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Ok(value);
        }
        while pollers[0].poll()? + pollers[1].poll()? == 0 {
            patience.turn()?;
        }
    }
}
