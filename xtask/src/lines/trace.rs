//! What lackey tells of a run of `benches/lines.rs`: each access, one after the other.

use std::io::BufRead;

use anyhow::{Context, Result, bail};

const LINE: u64 = 64;

/// One access, by the number of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub line: u64,
    /// Also what reads and writes at a time.
    pub writes: bool,
}

/// The accesses between the marks, whose addresses are told by a line of the program's own; one list from
/// each write of the mark at the begin to the next one of that at the end.
pub fn read(output: impl BufRead) -> Result<Vec<Vec<Access>>> {
    let mut marks = None;
    let mut traces = Vec::new();
    let mut trace: Option<Vec<Access>> = None;
    // What the instruction has read, and does not count yet: it may go on to write that.
    let mut pending = None;
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let Some(found) = parse_marks(&line) {
            marks = Some(found);
        }
        let seen = parse(&line);
        let before = pending.take();
        if let (Some(trace), Some((place, _))) = (&mut trace, before)
            && seen != Some((place, true))
        {
            trace.extend(lines(place, false));
        }
        let (Some((begin, end)), Some((place, writes))) = (marks, seen) else {
            continue;
        };
        match (&mut trace, place.0) {
            _ if !writes => pending = seen,
            (_, address) if address == begin => trace = Some(Vec::new()),
            (_, address) if address == end => {
                traces.push(trace.take().context("a mark at the end without a begin")?);
            }
            (Some(trace), _) => trace.extend(lines(place, true)),
            (None, _) => {}
        }
    }
    if trace.is_some() || traces.is_empty() {
        bail!("the marks are not where they should be");
    }
    Ok(traces)
}

/// Address and size.
type Place = (u64, u64);

/// It may lie across two lines.
fn lines((address, size): Place, writes: bool) -> impl Iterator<Item = Access> {
    let last = (address + size - 1) / LINE;
    (address / LINE..=last).map(move |line| Access { line, writes })
}

/// `0x10c0 0x10c8`: where a turn begins and ends.
fn parse_marks(line: &str) -> Option<(u64, u64)> {
    let (begin, end) = line.split_once(' ')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some((number(begin)?, number(end)?))
}

/// ` L 1fff0005f0,8`, ` S …` or ` M …`: a load, a store, or both in one instruction, which for some comes after
/// a load of its own: place, and whether it writes. `I …` is an instruction.
fn parse(line: &str) -> Option<(Place, bool)> {
    let (kind, place) = line.strip_prefix(' ')?.split_once(' ')?;
    let writes = match kind {
        "L" => false,
        "S" | "M" => true,
        _ => return None,
    };
    let (address, size) = place.split_once(',')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    Some(((address, size.parse().ok()?), writes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn access(line: u64, writes: bool) -> Access {
        Access { line, writes }
    }

    #[test]
    fn what_lies_between_the_marks_is_taken() {
        let output = "\
==1== Lackey
 L 0000a0,8
0x1000 0x1008
I  04884510,2
 L 001000,8
 M 001000,8
I  04884512,4
 L 000040,8
 L 000080,8
 M 000080,8
 L 0000fc,8
I  04884516,4
 S 001008,8
 S 000040,8
 S 001000,8
 S 0000c0,1
 S 001008,8
";
        let [first, second] = &read(output.as_bytes()).unwrap()[..] else {
            panic!("two turns");
        };
        let across = [access(3, false), access(4, false)];
        assert_eq!(first[..2], [access(1, false), access(2, true)]);
        assert_eq!(first[2..], across);
        assert_eq!(second[..], [access(3, true)]);
    }

    #[test]
    fn a_turn_without_an_end_is_an_error() {
        assert!(read("0x10 0x18\n S 10,8\n L 20,8\n".as_bytes()).is_err());
        assert!(read("0x10 0x18\n S 18,8\n".as_bytes()).is_err());
        assert!(read(" L 20,8\n".as_bytes()).is_err());
    }
}
