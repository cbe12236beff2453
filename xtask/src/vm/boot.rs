//! Starting the emulator, and learning how the guest's command ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

use crate::process::{Exit, need_program};

/// The exit status for a time limit that was exceeded, as of `timeout(1)`.
const TIMED_OUT: u8 = 124;

/// A panic reboots, and with `-no-reboot` that ends the emulator. An oops may leave a guest that
/// hangs, so it is made a panic.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off";

/// A processor that sleeps takes long to be woken in an emulator, longer than a round trip over soft-RoCE:
/// idle ones look around instead. Not those of two machines, which would take the time from each other.
const ALONE: &str = "idle=poll";

/// Without cmpxchg16b, which the kernel's allocator would use. After it, QEMU 7.2 was seen to keep a
/// pointer's bits in the flags; an interrupt at that point ended in a double fault, once in some 60
/// boots.
const CPU: &str = "qemu64,-cx16";

/// How long a machine goes on whose peer has failed: it may have something to say to that.
const GRACE: Duration = Duration::from_secs(15);

/// A machine that is ready to be booted.
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// Where the machine's logs go.
    pub work_dir: &'a Path,
    pub memory_mib: u32,
    pub timeout: Duration,
    pub host: Option<Host<'a>>,
}

/// What makes a machine one of two that are joined by a wire.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// 1 or 2.
    pub number: u8,
    /// Where the ends of the wire are.
    pub wire: &'a Path,
    /// When one of the two failed.
    pub failed: &'a OnceLock<Instant>,
}

impl Host<'_> {
    /// The peer has failed, and this one has had its time since.
    fn is_alone(&self) -> bool {
        (self.failed.get()).is_some_and(|failed| failed.elapsed() > GRACE)
    }

    /// The network card, its wire as two sockets that take whole packets: neither end waits for the other
    /// to be there.
    fn network(&self) -> [String; 2] {
        let (number, peer) = (self.number, 3 - self.number);
        let wire = self.wire.display();
        [
            format!(
                "dgram,id=wire,local.type=unix,local.path={wire}/{number},\
                 remote.type=unix,remote.path={wire}/{peer}"
            ),
            format!("virtio-net-pci,netdev=wire,romfile=,mac=52:54:00:00:00:0{number}"),
        ]
    }
}

/// How far the guest came, by its reports.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Booting,
    SetupFailed(String),
    Running,
    Exited(u8),
}

/// How often a machine is started that goes down before it is up: the emulator's fault, and nothing was
/// run yet.
const BOOTS: u32 = 3;

/// Boots the machine, copies the command's output to stdout as it comes, and hands on the status.
pub fn run(machine: &Machine<'_>) -> Result<()> {
    let console = machine.work_dir.join("console");
    let log = || tail(&console);
    let mut boots = 1;
    loop {
        match boot(machine, &console)? {
            (Progress::Exited(0), _) => return Ok(()),
            (Progress::Exited(code), _) => bail!(Exit::new(code, "")),
            (Progress::SetupFailed(what), _) => {
                bail!("the guest's setup failed: {what}\n{}", log())
            }
            (Progress::Booting, None) => bail!(timed_out(machine, &format!("booting\n{}", log()))),
            (_, None) => bail!(timed_out(machine, "running the command")),
            (Progress::Booting, Some(status)) if boots == BOOTS => {
                bail!("the guest did not boot (emulator: {status})\n{}", log())
            }
            (Progress::Booting, Some(status)) => {
                eprintln!("the guest did not boot (emulator: {status}); once more");
                boots += 1;
            }
            (Progress::Running, Some(status)) => bail!(
                "the guest went down before the command ended (emulator: {status})\n{}",
                log()
            ),
        }
    }
}

/// How far the guest came, and how the emulator ended; `None`: it had to be killed.
fn boot(machine: &Machine<'_>, console: &Path) -> Result<(Progress, Option<ExitStatus>)> {
    let reports = machine.work_dir.join("reports");
    let mut emulator = Emulator(command(machine, console, &reports)?.spawn()?);
    let mut output = emulator.0.stdout.take().context("the emulator's stdout")?;
    let host = machine.host;
    let label = host.map(|host| format!("{} ", host.number));
    let copier = thread::spawn(move || match label {
        None => io::copy(&mut output, &mut io::stdout()).map(drop),
        Some(label) => copy_lines(output, &label),
    });
    let status = emulator.wait(machine.timeout, || host.is_some_and(|host| host.is_alone()))?;
    // The emulator has ended, so this thread sees the end of its output.
    let _ = copier.join();
    let reports = fs::read_to_string(&reports).unwrap_or_default();
    Ok((progress(&reports), status))
}

/// Copies the output to stdout, each line behind the label.
fn copy_lines(output: impl Read, label: &str) -> io::Result<()> {
    for line in BufReader::new(output).split(b'\n') {
        let line = [label.as_bytes(), &line?, b"\n"].concat();
        io::stdout().write_all(&line)?;
    }
    Ok(())
}

fn timed_out(machine: &Machine<'_>, doing: &str) -> Exit {
    if machine.host.is_some_and(|host| host.is_alone()) {
        return Exit::new(1, format!("its peer has failed, VM killed while {doing}"));
    }
    let limit = machine.timeout.as_secs();
    Exit::new(
        TIMED_OUT,
        format!("time limit of {limit} s exceeded, VM killed while {doing}"),
    )
}

fn command(machine: &Machine<'_>, console: &Path, reports: &Path) -> Result<Command> {
    // The emulator must not outlive this program, however that ends.
    let mut command = Command::new(need_program("setpriv")?);
    command
        .args(["--pdeathsig", "KILL"])
        .arg(need_program("qemu-system-x86_64")?)
        .args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-m"])
        .arg(format!("{}M", machine.memory_mib))
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .arg("-kernel")
        .arg(machine.kernel)
        .arg("-initrd")
        .arg(machine.initramfs)
        .arg("-append");
    match machine.host {
        None => command
            .arg(format!("{CMDLINE} {ALONE}"))
            .args(["-smp", "2"]),
        Some(host) => {
            let [netdev, device] = host.network();
            let number = host.number;
            command
                .arg(format!("{CMDLINE} RDMA_MR_VM_HOST={number}"))
                .args(["-smp", "1", "-netdev", &netdev, "-device", &device])
        }
    };
    let output = PathBuf::from("/dev/stdout");
    for path in [console, &output, reports] {
        let mut serial = std::ffi::OsString::from("file:");
        serial.push(path);
        command.arg("-serial").arg(serial);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// The running emulator, killed when dropped.
struct Emulator(Child);

impl Emulator {
    /// Waits until the emulator ends; kills it after `limit`, or when it is told to, and returns `None`.
    fn wait(&mut self, limit: Duration, stop: impl Fn() -> bool) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if start.elapsed() >= limit || stop() {
                self.kill();
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        // Fails only if the child has ended by itself, which is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads the guest's reports; see `init.sh` for their form. A report without its end of line may
/// be cut short and does not count.
fn progress(reports: &str) -> Progress {
    let complete = reports.rfind('\n').map_or("", |end| &reports[..end]);
    let mut progress = Progress::Booting;
    for report in complete.lines() {
        let (word, rest) = report.split_once(' ').unwrap_or((report, ""));
        progress = match (word, rest.parse()) {
            ("running", _) => Progress::Running,
            ("exit", Ok(code)) => Progress::Exited(code),
            ("setup", _) => Progress::SetupFailed(rest.to_owned()),
            _ => continue,
        };
    }
    progress
}

/// The last lines of the kernel's console.
fn tail(console: &Path) -> String {
    let log = fs::read(console).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    // The firmware clears the screen before it starts the kernel.
    let log = log.rsplit("\x1b[2J").next().unwrap_or(&log);
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(50)..];
    format!("--- the guest's console\n{}\n---", last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_counts() {
        assert_eq!(progress(""), Progress::Booting);
        assert_eq!(progress("running\n"), Progress::Running);
        assert_eq!(progress("running\nexit 7\n"), Progress::Exited(7));
        assert_eq!(
            progress("setup insmod x\n"),
            Progress::SetupFailed("insmod x".into())
        );
    }

    #[test]
    fn a_broken_report_is_no_exit_status() {
        for broken in ["exit 1", "exit\n", "exit 300\n", "exit x\n", "exit -1\n"] {
            let reports = format!("running\n{broken}");
            assert_eq!(progress(&reports), Progress::Running, "{broken:?}");
        }
    }
}
