//! Running child processes, and the exit status that the whole program ends with.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// An error that sets the exit status of the whole program.
///
/// With an empty message nothing is printed: the child has said what there is to say.
#[derive(Debug)]
pub struct Exit {
    pub code: u8,
    pub message: String,
}

impl Exit {
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { code, message }
    }

    /// The command line, or the machine, is not what the command needs.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(2, message)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// The status as a shell would report it: 128 + n for a child killed by signal n.
pub fn shell_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Runs `command` with the terminal as its output; its failure becomes ours, status included.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status)
}

/// Whether `command` can be run and succeeds, without a word.
pub fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Runs `command` and returns what it wrote to stdout; stderr goes to the terminal.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    check(command, output.status)?;
    Ok(output.stdout)
}

/// Like [`output`], as text in the language that this program can parse.
pub fn text(command: &mut Command) -> Result<String> {
    let bytes = output(command.env("LC_ALL", "C"))?;
    String::from_utf8(bytes).with_context(|| format!("{} did not print text", name(command)))
}

/// The path of a program, looked up on `PATH` and in the directories of the system's own tools,
/// which are not on an ordinary user's `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// [`find_program`] for a program without which there is no going on.
pub fn need_program(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("program `{name}` not found"))
}

/// `word` quoted so that a POSIX shell reads it as one word and changes nothing in it.
pub fn shell_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let message = format!("`{}` failed: {status}", line(command));
    bail!(Exit::new(shell_code(status), message))
}

fn cannot_start(command: &Command) -> String {
    format!("cannot run `{}`", name(command))
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    name.to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    let words: Vec<_> = std::iter::once(name(command).into()).chain(args).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_survives_the_shell() {
        let word = "a b'c\"$HOME\\\n`";
        let script = format!("printf %s {}", shell_quote(word));
        assert_eq!(
            text(Command::new("sh").args(["-c", &script])).unwrap(),
            word
        );
    }

    #[test]
    fn the_childs_status_becomes_ours() {
        for (script, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
            let error = run(Command::new("sh").args(["-c", script])).unwrap_err();
            assert_eq!(error.downcast_ref::<Exit>().unwrap().code, code);
        }
    }
}
