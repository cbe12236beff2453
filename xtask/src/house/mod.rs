//! Checks what ARCHITECTURE.md and SAFETY.md say of the source: imports point one way, no lock where
//! there must be none, every clause that the code names is written down and the other way round, and
//! has its models.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::fuzz;
use crate::loom::report;
use crate::models;
use crate::workspace;

pub mod clauses;

/// Each room, and what it may import. `error` may be imported by all, and itself names what an
/// error tells of.
const ROOMS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("counts", &["sync"]),
    ("raw", &["sync"]),
    ("trace", &[]),
    ("error", &["gate", "registration", "work"]),
    ("gate", &["counts", "error", "sync", "trace"]),
    (
        "registration",
        &["counts", "error", "gate", "sync", "trace"],
    ),
    ("work", &["error"]),
    (
        "mr",
        &[
            "error",
            "gate",
            "raw",
            "registration",
            "sync",
            "trace",
            "work",
        ],
    ),
    (
        "op",
        &[
            "counts",
            "error",
            "gate",
            "mr",
            "registration",
            "sync",
            "trace",
            "work",
        ],
    ),
    (
        "lease",
        &[
            "counts",
            "error",
            "gate",
            "mr",
            "op",
            "registration",
            "sync",
            "trace",
        ],
    ),
    ("backend", &["error", "raw", "registration", "sync", "work"]),
];

/// The floors of `op`, from the ground up: what is on one knows nothing of those above it. The ground is
/// the files beside them.
const FLOORS: &[&str] = &["queue", "poll", "endpoint"];

/// Rooms on the way of an access or an operation: no lock is theirs.
const LOCK_FREE: &[&str] = &["gate", "registration", "mr", "op", "work"];

pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut problems = Vec::new();
    let mut named = BTreeSet::new();
    for (path, text) in workspace::sources(&root.join("src"))? {
        let name = path
            .strip_prefix(&root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let code = before_tests(&text);
        let room = room_of(&name);
        for (number, line) in code.lines().enumerate() {
            named.extend(models::clauses(line));
            let at = format!("{name}:{}", number + 1);
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            problems.extend(wrong_imports(room, line).map(|to| format!("{at}: {room} -> {to}")));
            problems.extend(wrong_floor(&name, line).map(|to| format!("{at}: up to {to}")));
            if LOCK_FREE.contains(&room) && (line.contains("Mutex") || line.contains("RwLock")) {
                problems.push(format!("{at}: a lock in {room}"));
            }
        }
    }
    let safety = fs::read_to_string(root.join("SAFETY.md")).context("SAFETY.md")?;
    let written: BTreeSet<String> = safety.lines().flat_map(models::clauses).collect();
    let missing = named.difference(&written);
    problems.extend(missing.map(|id| format!("{id} is named in src/ and not in SAFETY.md")));
    // The axioms are of the world, not of an item.
    let unused = written
        .difference(&named)
        .filter(|id| !id.starts_with("AX-"));
    problems.extend(unused.map(|id| format!("{id} is in SAFETY.md and nowhere in src/")));
    let models = models::all(&root)?;
    problems.extend(clauses::problems(&safety, &named, &models)?);
    problems.extend(report::problems(&models)?);
    problems.extend(fuzz::problems()?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

/// Tests stand at the end of a file and may import what they like.
pub fn before_tests(text: &str) -> &str {
    ["#[cfg(test)]\nmod ", "#[cfg(all(test, "]
        .iter()
        .filter_map(|start| text.find(start))
        .min()
        .map_or(text, |at| &text[..at])
}

/// `src/gate/word.rs` is in `gate`, `src/work.rs` in `work`; what is in neither (`lib.rs`) in none.
pub fn room_of(name: &str) -> &str {
    let inside = name.strip_prefix("src/").unwrap_or(name);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The rooms that `line` names as `crate::ROOM` and that `room` may not import.
fn wrong_imports<'a>(room: &'a str, line: &'a str) -> impl Iterator<Item = &'a str> {
    let allowed = ROOMS.iter().find(|(name, _)| *name == room);
    line.match_indices("crate::")
        .filter_map(move |(at, found)| {
            let rest = &line[at + found.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            let to = &rest[..end];
            let is_room = ROOMS.iter().any(|(name, _)| *name == to);
            let (_, allowed) = allowed?;
            (is_room && to != room && !allowed.contains(&to)).then_some(to)
        })
}

/// The floor of `op` that `line` names as `op::FLOOR` or `super::FLOOR`, if the file `name` is below it.
fn wrong_floor(name: &str, line: &str) -> Option<&'static str> {
    let inside = name.strip_prefix("src/op/")?;
    if inside == "mod.rs" {
        return None; // the roof
    }
    let own = FLOORS
        .iter()
        .position(|floor| inside.split('/').next() == Some(floor));
    let above = &FLOORS[own.map_or(0, |own| own + 1)..];
    let names = |floor: &&&str| {
        ["op", "super"]
            .iter()
            .any(|from| line.contains(&format!("{from}::{floor}::")))
    };
    above.iter().find(names).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_as_it_is_written() {
        check().unwrap();
    }

    #[test]
    fn imports_that_point_the_wrong_way_are_found() {
        let wrong = |room, line| wrong_imports(room, line).collect::<Vec<_>>();
        assert_eq!(wrong("gate", "use crate::mr::LocalMr;"), ["mr"]);
        assert_eq!(wrong("backend", "    crate::gate::Gate::new()"), ["gate"]);
        assert!(wrong("op", "use crate::mr::Part;").is_empty());
        assert!(wrong("mr", "use crate::mr::part::Part;").is_empty());
        assert_eq!(room_of("src/gate/word.rs"), "gate");
        assert_eq!(room_of("src/work.rs"), "work");
    }

    #[test]
    fn what_is_below_knows_nothing_of_what_is_above() {
        let up = "use crate::op::poll::table::Table;";
        assert_eq!(wrong_floor("src/op/queue/ring.rs", up), Some("poll"));
        assert_eq!(
            wrong_floor("src/op/hold.rs", "use super::poll::table::Table;"),
            Some("poll")
        );
        for name in [
            "src/op/poll/turn.rs",
            "src/op/endpoint/mod.rs",
            "src/op/mod.rs",
            "src/lib.rs",
        ] {
            assert_eq!(wrong_floor(name, up), None);
        }
    }
}
