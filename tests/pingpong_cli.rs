//! The ping-pong as a user runs it, over the NIC in software, and what it says when it can't.
#![cfg(all(feature = "soft", not(loom)))]

mod cli_util;

fn refusal(args: &[&str]) -> String {
    cli_util::refusal("pingpong", args)
}

const CONTESTANTS: [&str; 6] = [
    "plain",
    "plain again",
    "bare queues",
    "hold as wr_id",
    "endpoint",
    "async",
];

/// The figures of a contestant's line: percentiles from the least to the most, and a ratio.
fn figures<'a>(said: &'a str, contestant: &str) -> Vec<f64> {
    let figures = |line: &'a str| {
        let rest = line.strip_prefix(contestant)?;
        let figures: Result<Vec<f64>, _> = rest.split_whitespace().map(str::parse).collect();
        figures.ok()
    };
    let line = said.lines().find_map(figures);
    line.unwrap_or_else(|| panic!("{contestant}: {said}"))
}

#[test]
fn every_contestant_plays_and_gets_its_percentiles() {
    // The last block is a short one.
    let few = ["--iterations", "45", "--block", "10", "--size"];
    let contests = ["512", "--contests", "3"];
    for more in [
        &["8"][..],
        &["512", "--inline"],
        &["70000", "--yield"],
        &contests,
    ] {
        let args = [&few, more].concat();
        let output = cli_util::run("pingpong", &args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{more:?}: {text}");
        let said = String::from_utf8(output.stdout).unwrap();
        for contestant in CONTESTANTS {
            let figures = figures(&said, contestant);
            assert_eq!(figures.len(), 7, "{said}");
            assert!(figures[0] > 0.0 && figures[..6].is_sorted(), "{said}");
        }
        assert_eq!(figures(&said, "plain")[6], 1.0, "{said}");
        for layer in ["hold as wr_id: layer adds", "endpoint: layer adds"] {
            assert!(said.contains(layer), "{said}");
        }
    }
}

#[test]
fn the_check_fails_when_the_layer_adds_more() {
    let few = ["--iterations", "20", "--block", "5", "--check"];
    let run = |limit| cli_util::run("pingpong", &[&few[..], &[limit]].concat());
    assert!(run("1000000").status.success());
    let output = run("-100");
    assert_eq!(output.status.code(), Some(1));
    let line = cli_util::one_line(&output);
    assert!(line.contains("the layer adds"), "{line}");
}

#[test]
fn what_can_not_be_done_is_said_in_one_line() {
    assert!(refusal(&["--size", "7"]).contains("8 to 1048576"));
    assert!(refusal(&["--size", "big"]).contains("big"));
    assert!(refusal(&["--iterations", "0"]).contains("--iterations takes"));
    assert!(refusal(&["--block", "0"]).contains("--block"));
    assert!(refusal(&["--contests", "0"]).contains("--contests"));
    assert!(refusal(&["--check", "nan"]).contains("--check"));
    assert!(refusal(&["--inline", "--size", "100000"]).contains("inline"));
    assert!(refusal(&["--nonsense"]).contains("nonsense"));
    assert!(refusal(&["file"]).contains("file"));
}

#[test]
#[cfg(not(feature = "verbs"))]
fn a_build_without_verbs_says_what_it_lacks() {
    assert!(refusal(&["--device"]).contains("--features verbs"));
}
