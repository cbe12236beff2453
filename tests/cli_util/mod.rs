//! Examples as a user runs them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs that example; cargo builds the examples beside the tests.
pub fn run(example: &str, args: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program: PathBuf = profile.join("examples").join(example);
    let output = Command::new(program).args(args).output();
    output.expect("run by `cargo test`, which builds the examples")
}

/// The one line that it says, when it fails.
#[track_caller]
pub fn refusal(example: &str, args: &[&str]) -> String {
    let output = run(example, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    one_line(&output)
}

/// All that it says of its failure.
#[track_caller]
pub fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}
