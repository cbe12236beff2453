//! One end in this process, the other in another, over an RDMA device.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rdma_mr::backend::verbs::{CompletionQueue, Context, ProtectionDomain, QueuePair, cm};
use rdma_mr::op::Endpoint;
use rdma_mr::work::{CompletionEvents as _, QpCaps};

use crate::link::{Fabric, Link};
use crate::{Failure, Options, create, open, receiver, sender};

/// How long the peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

struct Device {
    pd: Arc<ProtectionDomain>,
    connection: cm::Link,
}

impl Fabric for Device {
    type Qp = QueuePair;
    type Pd = ProtectionDomain;

    fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    fn arm(&self, cq: &Arc<CompletionQueue>) -> Result<(), Failure> {
        Ok(cq.req_notify(false)?)
    }

    fn sleep(&self, cq: &Arc<CompletionQueue>, limit: Duration) -> Result<(), Failure> {
        cq.wait_event(Some(limit))?;
        Ok(())
    }

    fn peer_is_gone(&mut self) -> bool {
        self.connection.disconnected().unwrap_or(true)
    }
}

pub fn listen(addr: &str, options: &Options) -> Result<(), Failure> {
    let mut output = create(options.output.as_deref())?;
    let listener = cm::Listener::bind(resolve(addr)?)?;
    let local = listener.local_addr();
    println!(
        "listening on {}",
        local.map_or(addr.into(), |a| a.to_string())
    );
    // So that a script which reads our output sees it at once.
    std::io::stdout().flush()?;
    let request = listener.request(None)?.ok_or("nobody came")?;
    let config = config(&request.context()?, options)?;
    let connection = request.prepare(&config)?.establish(PATIENCE)?;
    // The sender says in its first message how many slots there will be.
    let summary = receiver::run(link(connection, 1)?, &mut output)?;
    summary.print("received");
    Ok(())
}

pub fn connect(addr: &str, path: &Path, options: &Options) -> Result<(), Failure> {
    let (file, length): (File, u64) = open(path)?;
    let addr = resolve(addr)?;
    let explain = |error: rdma_mr::Error| format!("cannot reach {addr}: {error}");
    let context = cm::context_to(addr, PATIENCE).map_err(explain)?;
    let config = config(&context, options)?;
    let connection = cm::Connection::connect(addr, &config, PATIENCE).map_err(explain)?;
    let link = link(connection, options.slots + 4)?;
    let summary = sender::run(link, file, length, options)?;
    summary.print("sent");
    Ok(())
}

fn resolve(addr: &str) -> Result<SocketAddr, Failure> {
    let explain = |error| format!("{addr:?} is not an address with a port: {error}");
    let mut found = addr.to_socket_addrs().map_err(explain)?;
    Ok(found
        .next()
        .ok_or_else(|| format!("{addr:?} has no address"))?)
}

/// Both sides take as many slots as the sender may ask for, or as the device allows.
fn config(context: &Context, options: &Options) -> Result<cm::Config, Failure> {
    let most = context.limits().max_qp_wr.min(2 * 1024 + 16);
    let wanted = (4 * options.slots as u32 + 16).min(most);
    // A provider may give a queue pair more room than it was asked for.
    let cq = context.create_cq_with_channel(4 * wanted)?;
    Ok(cm::Config {
        caps: QpCaps {
            max_send_wr: wanted,
            max_recv_wr: wanted,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline: 0,
        },
        send_cq: Some(Arc::clone(&cq)),
        recv_cq: Some(cq),
        ..cm::Config::default()
    })
}

fn link(connection: cm::Connection, receives: usize) -> Result<Link<Device>, Failure> {
    let endpoint = Endpoint::new(connection.qp);
    let device = Device {
        pd: connection.pd,
        connection: connection.link,
    };
    Link::new(endpoint, device, receives)
}
