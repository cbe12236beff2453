//! Writes that another thread could see: all but those to the thread's own stack, from lackey's trace.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// No thread's stack is larger, unless it asks for it.
const STACK: u64 = 8 << 20;

/// How many there are when that path is taken so and so often.
pub fn count(program: &Path, shape: &str, times: u64) -> Result<u64> {
    let output = tempfile::NamedTempFile::new()?;
    let tool = ["--tool=lackey", "--trace-mem=yes"];
    super::valgrind(&tool, ("--log-file=", output.path()), program, shape, times)?;
    let trace = fs::read_to_string(output.path())?;
    outside_of_the_stack(&trace)
        .with_context(|| format!("lackey's trace of `{shape}` is unreadable"))
}

/// The first write of a program is to its stack: the return address of the first call.
fn outside_of_the_stack(trace: &str) -> Option<u64> {
    let mut writes = trace.lines().filter_map(address_written);
    let top = writes.next()?;
    let stack = top.saturating_sub(STACK)..top + STACK;
    Some(writes.filter(|address| !stack.contains(address)).count() as u64)
}

/// Of a line ` S ADDRESS,LENGTH`; or ` M`, if it was read first.
fn address_written(line: &str) -> Option<u64> {
    let written = line.strip_prefix(" S ").or(line.strip_prefix(" M "))?;
    u64::from_str_radix(written.split(',').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_to_the_stack_are_not_seen() {
        let trace = "\
==7== Lackey
I  0401ab73,5
 S 1fff0006f8,8
 S 1fff0006f0,8
 L 04000010,8
 M 04000010,8
 S 04000020,4
";
        assert_eq!(outside_of_the_stack(trace), Some(2));
        assert_eq!(outside_of_the_stack("==7== Lackey\n"), None);
    }
}
