//! A network between two soft-RoCE devices of one machine, which can be spoiled.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::fabric::LONG;

/// Runs a command, of which the words are separated by blanks.
fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    // Not the shell's own of that name.
    let mut process = Command::new(format!("/usr/sbin/{program}"));
    let status = process.args(words).status();
    assert!(status.unwrap().success(), "{command}");
}

/// The network between two devices; as it was when it is dropped.
pub struct Wire {
    /// What these were before, by their path.
    settings: Vec<(String, String)>,
}

impl Wire {
    const ROUTES: [&str; 2] = [
        "route replace 10.0.0.2 dev veth0 src 10.0.0.1 table 200",
        "route replace 10.0.0.1 dev veth1 src 10.0.0.2 table 201",
    ];
    /// What comes in is for this machine, what goes out goes by the tables above.
    const RULES: [&str; 5] = [
        "pref 10 iif veth0 lookup local",
        "pref 11 iif veth1 lookup local",
        "pref 20 to 10.0.0.2 lookup 200",
        "pref 21 to 10.0.0.1 lookup 201",
        "pref 30 lookup local",
    ];

    pub fn new() -> Self {
        let set = |(interface, key, value)| {
            let path = format!("/proc/sys/net/ipv4/conf/{interface}/{key}");
            let before = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, value).unwrap();
            (path, before)
        };
        let settings = [
            ("veth0", "accept_local", "1"),
            ("veth1", "accept_local", "1"),
            ("veth0", "rp_filter", "0"),
            ("veth1", "rp_filter", "0"),
            ("all", "rp_filter", "0"),
        ];
        let settings = settings.map(set).into();
        for rule in Self::RULES {
            run(&format!("ip rule add {rule}"));
        }
        run("ip rule del pref 0");
        Self::routes();
        run("rdma link add rxe1 type rxe netdev veth1");
        let start = Instant::now();
        let gid = || std::fs::read_to_string("/sys/class/infiniband/rxe1/ports/1/gids/1");
        while !gid().is_ok_and(|gid| gid.contains("ffff:")) {
            assert!(start.elapsed() < LONG, "{:?}", gid());
            thread::sleep(Duration::from_millis(10));
        }
        Wire { settings }
    }

    fn routes() {
        for route in Self::ROUTES {
            run(&format!("ip {route}"));
        }
    }

    /// What happens to packets of both directions, in netem's words.
    pub fn spoil(&self, how: &str) {
        for interface in ["veth0", "veth1"] {
            run(&format!(
                "tc qdisc replace dev {interface} root netem {how}"
            ));
        }
    }

    /// How many packets were dropped on purpose.
    pub fn dropped() -> usize {
        let output = Command::new("/usr/sbin/tc")
            .args(["-s", "qdisc", "show"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let netem = text
            .split("qdisc ")
            .filter(|qdisc| qdisc.starts_with("netem"));
        let counts = netem.filter_map(|qdisc| qdisc.split("(dropped ").nth(1)?.split(',').next());
        counts
            .map(|count| count.trim().parse::<usize>().unwrap())
            .sum()
    }

    pub fn mend(&self) {
        for interface in ["veth0", "veth1"] {
            run(&format!("tc qdisc del dev {interface} root"));
        }
    }

    pub fn down(&self) {
        run("ip link set veth0 down");
    }

    pub fn up(&self) {
        run("ip link set veth0 up");
        // They went with the link.
        Self::routes();
        // Of two ways to one network the first is taken: veth0's, which has come back as the last.
        run("ip route del 10.0.0.0/24 dev veth1");
        run("ip route append 10.0.0.0/24 dev veth1 proto kernel scope link src 10.0.0.2");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        run("rdma link delete rxe1");
        run("ip rule add pref 0 lookup local");
        for rule in Self::RULES {
            run(&format!("ip rule del {rule}"));
        }
        for (path, before) in &self.settings {
            std::fs::write(path, before).unwrap();
        }
    }
}
