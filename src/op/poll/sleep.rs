//! Sleeping while there is nothing to poll.

use std::time::Duration;

use super::poller::Poller;
use crate::error::Result;
use crate::op::queue::done::Done;
use crate::sync::now;
use crate::work::CompletionEvents;

impl<C: CompletionEvents> Poller<C> {
    /// As [`poll_with`](Self::poll_with), and sleeps while there is nothing, until `timeout` has passed
    /// (`None`: for ever): arms the queue, polls once more, then sleeps on its event. Returns 0 after
    /// the timeout. Blocks.
    ///
    /// One thread may sleep at a time: of several, an event wakes only one.
    ///
    /// # Errors
    /// As [`poll`](Self::poll), and what [`CompletionEvents`] says.
    pub fn wait(&self, timeout: Option<Duration>, mut done: impl FnMut(Done)) -> Result<usize> {
        let deadline = timeout.and_then(|timeout| now().checked_add(timeout));
        loop {
            let taken = self.poll_with(&mut done)?;
            if taken > 0 {
                return Ok(taken);
            }
            let taken = self.arm(&mut done)?;
            if taken > 0 {
                return Ok(taken);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now()));
            let event = self.cq().wait_event(left)?;
            if !event && left.is_some_and(|left| left.is_zero()) {
                return self.poll_with(done);
            }
        }
    }

    /// Asks for an event when the next completion comes, then polls once more, for those that were
    /// there already; if that returns 0, it is safe to sleep on [`CompletionEvents::fd`] until the
    /// event, and then to call this again. Waits at most for another thread's poll.
    ///
    /// So a task that polls is written; here on tokio, with a duplicate of the descriptor:
    ///
    /// ```
    /// use rdma_mr::op::Poller;
    /// use rdma_mr::work::CompletionEvents;
    /// use tokio::io::{Interest, unix::AsyncFd};
    ///
    /// async fn poll_for_ever<C: CompletionEvents>(poller: Poller<C>) -> std::io::Result<()> {
    ///     let fd = poller.cq().fd().expect("the queue was created with a channel");
    ///     let fd = fd.try_clone_to_owned()?;
    ///     // SAFETY: it owns its descriptor, and keeps it.
    ///     let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
    ///     loop {
    ///         match poller.arm(|_| ())? {
    ///             0 => fd.readable().await?.clear_ready(),
    ///             _ => tokio::task::yield_now().await,
    ///         }
    ///     }
    /// }
    /// # use rdma_mr::backend::soft::{Nic, QueuePair};
    /// # use rdma_mr::op::{AsyncQueuePair, Endpoint};
    /// # use rdma_mr::work::{QpCaps, QueuePair as _};
    /// # use rdma_mr::{LocalMr, LocalMrReadAccess};
    /// #
    /// # let nic = Nic::new();
    /// # let pd = nic.alloc_pd();
    /// # let cq = nic.create_cq_with_channel(64)?;
    /// # let poller = Poller::new(cq.clone());
    /// # let qp = pd.create_qp(&cq, &cq, QpCaps::default())?;
    /// # qp.connect(qp.qp_num())?;
    /// # let qp = AsyncQueuePair::new(Endpoint::attach(qp, &poller)?);
    /// # let (from, to) = (LocalMr::alloc(&pd, 64)?, LocalMr::alloc(&pd, 64)?);
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    /// # runtime.unwrap().block_on(async {
    /// tokio::spawn(poll_for_ever(poller.clone()));
    /// let (sent, received) = futures_lite::future::zip(qp.send(&from, None), qp.recv(&to)).await;
    /// assert_eq!(received?.byte_len, 64);
    /// # sent
    /// # })?;
    /// # Ok::<(), rdma_mr::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn arm(&self, mut done: impl FnMut(Done)) -> Result<usize> {
        self.cq().take_events()?;
        self.cq().req_notify(false)?;
        // Another thread may have looked before the queue was armed: wait for the turn.
        let first = std::cell::Cell::new(true);
        let turn = || match first.replace(false) {
            true => self.turns().take(),
            false => self.turns().try_take(),
        };
        self.poll_turns(turn, &mut done)
    }
}
