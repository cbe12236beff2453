//! Sends a file from one memory region to another, by operations that hold the regions.
//!
//! ```text
//! transfer [OPTIONS] [FILE]               over the NIC in software, both ends in this process;
//!                                         without FILE, one of 64 MiB is made
//! transfer --listen ADDR [OPTIONS]        over an RDMA device: receives one file
//! transfer --connect ADDR [OPTIONS] FILE  over an RDMA device: sends FILE
//!
//!   --mode send|write|read   which operation moves the bytes (default: send; the sender's counts)
//!   --slot BYTES             bytes in one operation (default: 65536)
//!   --slots N                operations in flight (default: 16)
//!   --output PATH            where the receiver puts the file (default: it only checks it)
//! ```
//!
//! The file goes through `chunks_of` slots, each with a gate of its own: while the NIC has one, the
//! CPU fills or empties another. There is no other flow control inside one side: who wants a slot
//! that is in flight waits at its gate.

mod link;
mod message;
mod receiver;
mod sender;
mod soft;
#[cfg(feature = "verbs")]
mod verbs;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use message::Mode;
use sha2::{Digest, Sha256};

/// Anything that ends the program, as one line.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) slot: usize,
    pub(crate) slots: usize,
    pub(crate) output: Option<PathBuf>,
}

#[cfg_attr(
    not(feature = "verbs"),
    expect(dead_code, reason = "only told to the device")
)]
enum Task {
    Local(Option<PathBuf>),
    Listen(String),
    Connect(String, PathBuf),
}

fn main() -> ExitCode {
    match parse().and_then(|(task, options)| run(&task, &options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("transfer: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<(Task, Options), Failure> {
    use lexopt::prelude::*;

    let mut options = Options {
        mode: Mode::Send,
        slot: 64 << 10,
        slots: 16,
        output: None,
    };
    let (mut listen, mut connect, mut file) = (None, None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("mode") => options.mode = parser.value()?.parse()?,
            Long("slot") => options.slot = parser.value()?.parse()?,
            Long("slots") => options.slots = parser.value()?.parse()?,
            Long("output") => options.output = Some(parser.value()?.into()),
            Long("listen") => listen = Some(parser.value()?.string()?),
            Long("connect") => connect = Some(parser.value()?.string()?),
            Value(path) if file.is_none() => file = Some(PathBuf::from(path)),
            other => return Err(other.unexpected().into()),
        }
    }
    if options.slot < message::MAX_BYTES || options.slot > 1 << 30 {
        let least = message::MAX_BYTES;
        return Err(format!("--slot takes {least} to {} bytes", 1 << 30).into());
    }
    if !(1..=1024).contains(&options.slots) {
        return Err("--slots takes 1 to 1024".into());
    }
    let task = match (listen, connect, file) {
        (None, None, file) => Task::Local(file),
        (Some(addr), None, None) => Task::Listen(addr),
        (None, Some(addr), Some(file)) => Task::Connect(addr, file),
        (None, Some(_), None) => return Err("--connect ADDR needs a FILE to send".into()),
        _ => return Err("--listen takes no FILE and does not go with --connect".into()),
    };
    Ok((task, options))
}

fn run(task: &Task, options: &Options) -> Result<(), Failure> {
    match task {
        Task::Local(path) => soft::run(path.as_deref(), options),
        #[cfg(feature = "verbs")]
        Task::Listen(addr) => verbs::listen(addr, options),
        #[cfg(feature = "verbs")]
        Task::Connect(addr, path) => verbs::connect(addr, path, options),
        #[cfg(not(feature = "verbs"))]
        Task::Listen(_) | Task::Connect(..) => {
            Err("--listen and --connect need an RDMA device: build with --features verbs".into())
        }
    }
}

/// Opens the file that is to be sent.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Failure> {
    let explain = |error| format!("cannot open {}: {error}", path.display());
    let file = File::open(path).map_err(explain)?;
    let meta = file.metadata().map_err(explain)?;
    if !meta.is_file() {
        return Err(format!("{} is not a file", path.display()).into());
    }
    Ok((file, meta.len()))
}

/// Where the receiver puts what it gets.
pub(crate) fn create(path: Option<&Path>) -> Result<Box<dyn Write + Send>, Failure> {
    let Some(path) = path else {
        return Ok(Box::new(std::io::sink()));
    };
    let explain = |error| format!("cannot create {}: {error}", path.display());
    Ok(Box::new(BufWriter::new(
        File::create(path).map_err(explain)?,
    )))
}

/// A bar on the terminal, where there is one.
pub(crate) fn progress_bar(length: u64) -> ProgressBar {
    let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressBar::new(length).with_style(ProgressStyle::with_template(template).expect("valid"))
}

/// The digest of what one side saw, over all of it.
#[derive(Default)]
pub(crate) struct Checksum(Sha256);

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            hex.push_str(&format!("{byte:02x}"));
        }
        hex
    }
}

/// What one side reports at the end.
pub(crate) struct Summary {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) operations: u64,
    /// How often it found a slot held and had to wait at its gate.
    pub(crate) waits: u64,
    pub(crate) time: Duration,
}

impl Summary {
    pub(crate) fn print(&self, what: &str) {
        let rate = self.bytes as f64 / self.time.as_secs_f64().max(1e-9);
        println!(
            "{what}: {} in {:.3} s, {}/s; {} operations, waited {} times at a gate",
            HumanBytes(self.bytes),
            self.time.as_secs_f64(),
            HumanBytes(rate as u64),
            self.operations,
            self.waits,
        );
        println!("{what}: sha256 {}", self.sha256);
    }
}

/// Both ends must have seen the same bytes.
pub(crate) fn compare(ours: &str, theirs: &str) -> Result<(), Failure> {
    if ours == theirs {
        return Ok(());
    }
    Err(format!("the digests differ: {ours} here, {theirs} at the peer").into())
}

/// Measures one side's time from the first byte on.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Clock(Instant::now())
    }

    pub(crate) fn read(&self) -> Duration {
        self.0.elapsed()
    }
}
