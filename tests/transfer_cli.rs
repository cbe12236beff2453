//! The example as a user runs it: over the NIC in software, and what it says when it can't.
#![cfg(all(feature = "soft", not(loom)))]

mod cli_util;

fn transfer(args: &[&str]) -> std::process::Output {
    cli_util::run("transfer", args)
}

fn refusal(args: &[&str]) -> String {
    cli_util::refusal("transfer", args)
}

#[test]
fn a_file_arrives_as_it_was_in_every_mode_and_size() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for mode in ["send", "write", "read"] {
        for (length, slot) in [(0, "512"), (1, "512"), (512, "512"), (100_001, "1000")] {
            let bytes: Vec<u8> = (0..length).map(|i: usize| (i * 7 / 3) as u8).collect();
            std::fs::write(&from, &bytes).unwrap();
            let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
            let output = transfer(&["--mode", mode, "--slot", slot, "--output", to, from]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{mode} {length}: {text}");
            assert_eq!(std::fs::read(to).unwrap(), bytes, "{mode} {length}");
            let said = String::from_utf8(output.stdout).unwrap();
            let digests: Vec<_> = said
                .lines()
                .filter_map(|l| l.split("sha256 ").nth(1))
                .collect();
            assert!(digests.len() == 2 && digests[0] == digests[1], "{said}");
        }
    }
}

#[test]
fn what_can_not_be_done_is_said_in_one_line() {
    assert!(refusal(&["/no/such/file"]).contains("cannot open /no/such/file"));
    assert!(refusal(&["/"]).contains("not a file"));
    assert!(refusal(&["--mode", "shout"]).contains("send, write or read"));
    assert!(refusal(&["--slots", "0"]).contains("1 to 1024"));
    assert!(refusal(&["--output", "/no/such/dir/file"]).contains("cannot create"));
    assert!(refusal(&["--connect", "10.0.0.1:1"]).contains("needs a FILE"));
    assert!(refusal(&["--nonsense"]).contains("nonsense"));
    // The receiver's reason, not the sender's consequence.
    assert!(refusal(&["--output", "/dev/full"]).contains("No space left"));
}

#[test]
#[cfg(not(feature = "verbs"))]
fn a_build_without_verbs_says_what_it_lacks() {
    assert!(refusal(&["--listen", "0.0.0.0:1"]).contains("--features verbs"));
}
