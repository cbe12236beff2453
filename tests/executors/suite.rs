//! The futures run on any executor: tokio with many threads and with one, async-executor, a bare
//! `block_on`. Somebody polls meanwhile: a thread, a task that sleeps on the queue's descriptor, or the
//! one who waits. On the NIC in software and on a device.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use async_executor::{Executor, LocalExecutor};
use futures_lite::future::{block_on, zip};
use rdma_mr::op::{AsyncQueuePair, Begin, Drain, Gather, GatherFuture, HoldFuture, Poller};
use rdma_mr::work::{CompletionEvents, QpCaps, QueuePair, SendFlags, SendOp};
use rdma_mr::{GuardFuture, LocalMr, LocalMrReadAccess, MrReadGuard, MrWriteGuard, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

use crate::fabric::{Fabric, LONG, remote};

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { suite [$($attributes)*] $fabric =>
            r18_tokio_threads_and_a_thread_that_polls
            r18_tokio_threads_and_a_task_that_sleeps_on_the_descriptor
            r18_one_tokio_thread_and_a_task_that_sleeps_on_the_descriptor
            r18_an_executor_of_threads_and_a_thread_that_polls
            r18_an_executor_of_one_thread_that_polls_when_it_has_nothing_to_do
            r18_a_bare_block_on
        }
    };
}
pub(crate) use tests;

const TASKS: usize = 16;
const ROUNDS: usize = 20;
/// Fewer places than tasks, so that they wait for room as well.
const CAPS: QpCaps = QpCaps {
    max_send_wr: 8,
    max_recv_wr: 64,
    max_send_sge: 2,
    max_recv_sge: 2,
    max_inline: 0,
};

/// All of them may be sent to other threads, so that an executor may run them on any.
#[allow(dead_code, reason = "that it compiles is the test")]
fn futures_are_send<'a, Q>(a: &'a AsyncQueuePair<Q>, mr: &'a LocalMr, drain: Drain<Q>)
where
    Q: QueuePair + Send + Unpin,
    Q::Cq: Send + Sync,
{
    fn send<T: Send>(_: T) {}
    fn sync<T: Sync>() {}
    sync::<AsyncQueuePair<Q>>();
    let to = remote(mr);
    send(a.send(mr, None));
    send(a.write(mr, to));
    send(a.write_with_imm(mr, to, 1));
    send(a.read(mr, to));
    send(a.fetch_add(mr, to, 1));
    send(a.compare_swap(mr, to, 1, 2));
    send(a.recv(mr));
    send(async move {
        let part = mr.get(..8)?;
        let holds = Gather::new([&part, mr]).begin_read_async().await?;
        a.post(holds, SendOp::Send { imm: None }, SendFlags::empty())
            .await
    });
    send(async move { a.recv_held(mr.begin_write_async().await?).await });
    send(drain);
    fn both<T: Send + Sync>() {}
    both::<HoldFuture<'_>>();
    both::<GatherFuture<'_, 2>>();
    both::<GuardFuture<'_, MrReadGuard<'_>>>();
    both::<GuardFuture<'_, MrWriteGuard<'_>>>();
}

/// A queue pair, its peer, and who polls for both.
struct Line<F: Fabric> {
    a: AsyncQueuePair<F::Qp>,
    b: AsyncQueuePair<F::Qp>,
    poller: Poller<F::Cq>,
    /// Integers that peers change.
    words: LocalMr,
}

impl<F: Fabric> Line<F> {
    fn new(fabric: &F) -> Arc<Self> {
        let poller = Poller::new(fabric.cq(512));
        let (a, b) = fabric.asynchronous(&poller, CAPS);
        // SAFETY: REMOTE-1, REMOTE-2: the bytes are looked at when all is over.
        let words = unsafe { fabric.open_to_peers(&[0; 8 * TASKS]) };
        Arc::new(Line {
            a,
            b,
            poller,
            words,
        })
    }

    /// One task's operations, all through the same two queue pairs; gives its word's value.
    async fn work(self: Arc<Self>, fabric_alloc: [LocalMr; 3], at: usize) -> Result<u64> {
        let [from, into, word] = fabric_alloc;
        let mut to = remote(&self.words);
        to.addr += 8 * at as u64;
        let mut last = 0;
        for round in 0..ROUNDS {
            // One message each way, at the same time.
            let way = if round % 2 == 0 {
                (&self.a, &self.b)
            } else {
                (&self.b, &self.a)
            };
            let (received, sent) = zip(way.1.recv(&into), way.0.send(&from, Some(at as u32))).await;
            sent?;
            assert_eq!(received?.byte_len, 8);
            self.a.fetch_add(&word, to, 1).await?;
            last = u64::from_ne_bytes(word.as_slice_async().await[..].try_into().unwrap()) + 1;
            self.b.read(&word, to).await?;
            let now = u64::from_ne_bytes(word.as_slice_async().await[..].try_into().unwrap());
            assert_eq!(now, last);
        }
        Ok(last)
    }

    fn tasks(
        self: &Arc<Self>,
        fabric: &F,
    ) -> Vec<impl Future<Output = Result<u64>> + Send + use<F>> {
        (0..TASKS)
            .map(|at| self.clone().work([(); 3].map(|()| fabric.alloc(8)), at))
            .collect()
    }

    fn assert_done(&self, last: impl IntoIterator<Item = Result<u64>>) {
        for last in last {
            assert_eq!(last.unwrap(), ROUNDS as u64);
        }
        assert_eq!(
            (self.a.outstanding(), self.b.outstanding()),
            ((0, 0), (0, 0))
        );
        assert_eq!(self.poller.unknown(), 0);
    }
}

/// A task that polls, and sleeps on the queue's descriptor while there is nothing.
async fn poll_for_ever<C: CompletionEvents>(poller: Poller<C>) {
    let fd = poller.cq().fd().expect("created with a channel");
    let fd = fd.try_clone_to_owned().unwrap();
    // SAFETY: it owns its descriptor, and keeps it.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.unwrap();
    loop {
        match poller.arm(|_| ()).unwrap() {
            // Nothing is there, and an event comes with the next completion.
            0 => fd.readable().await.unwrap().clear_ready(),
            _ => tokio::task::yield_now().await,
        }
    }
}

fn on_tokio<F: Fabric>(fabric: &F, mut runtime: Builder, sleeping_task: bool) {
    let line = Line::new(fabric);
    let thread = (!sleeping_task).then(|| line.poller.spawn("polls").unwrap());
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let polling = sleeping_task.then(|| tokio::spawn(poll_for_ever(line.poller.clone())));
        let tasks: Vec<_> = line.tasks(fabric).into_iter().map(tokio::spawn).collect();
        let mut last = Vec::new();
        for task in tasks {
            let done = tokio::time::timeout(LONG, task).await;
            last.push(done.expect("it hangs").unwrap());
        }
        line.assert_done(last);
        if let Some(polling) = polling {
            polling.abort();
        }
    });
    if let Some(thread) = thread {
        thread.stop().unwrap();
    }
}

pub fn r18_tokio_threads_and_a_thread_that_polls<F: Fabric>(fabric: &F) {
    on_tokio(fabric, Builder::new_multi_thread(), false);
}

pub fn r18_tokio_threads_and_a_task_that_sleeps_on_the_descriptor<F: Fabric>(fabric: &F) {
    on_tokio(fabric, Builder::new_multi_thread(), true);
}

pub fn r18_one_tokio_thread_and_a_task_that_sleeps_on_the_descriptor<F: Fabric>(fabric: &F) {
    on_tokio(fabric, Builder::new_current_thread(), true);
}

pub fn r18_an_executor_of_threads_and_a_thread_that_polls<F: Fabric>(fabric: &F) {
    let line = Line::new(fabric);
    let polling = line.poller.spawn("polls").unwrap();
    let executor = Executor::new();
    let tasks: Vec<_> = line
        .tasks(fabric)
        .into_iter()
        .map(|task| executor.spawn(task))
        .collect();
    thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        scope.spawn(|| block_on(executor.run(stopped)));
        let all = async {
            let mut last = Vec::new();
            for task in tasks {
                last.push(task.await);
            }
            last
        };
        line.assert_done(block_on(executor.run(all)));
        drop(stop);
    });
    polling.stop().unwrap();
}

pub fn r18_an_executor_of_one_thread_that_polls_when_it_has_nothing_to_do<F: Fabric>(fabric: &F) {
    let line = Line::new(fabric);
    let executor = LocalExecutor::new();
    let tasks: Vec<_> = line
        .tasks(fabric)
        .into_iter()
        .map(|task| executor.spawn(task))
        .collect();
    let start = std::time::Instant::now();
    while !tasks.iter().all(|task| task.is_finished()) {
        if !executor.try_tick() {
            line.poller.progress();
        }
        assert!(start.elapsed() < LONG);
    }
    line.assert_done(tasks.into_iter().map(block_on));
}

/// An executor in a few lines: polls, parks.
fn bare<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park_timeout(LONG);
    }
}

/// Each task on a thread of its own.
pub fn r18_a_bare_block_on<F: Fabric>(fabric: &F) {
    let line = Line::new(fabric);
    let polling = line.poller.spawn("polls").unwrap();
    let threads: Vec<_> = line
        .tasks(fabric)
        .into_iter()
        .map(|task| thread::spawn(|| bare(task)))
        .collect();
    line.assert_done(threads.into_iter().map(|thread| thread.join().unwrap()));
    polling.stop().unwrap();
}
