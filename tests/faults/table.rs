//! The table of what was found, in docs/faults.md: between two marks for each device.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::world::World;

/// What all seeds of one fault, or pair, came to.
pub struct Row {
    faults: String,
    seen: BTreeSet<String>,
    failed: usize,
    untold: usize,
    leaked: (u64, u64),
    turns: u64,
    pub time: Duration,
}

impl Row {
    pub fn new<'a>(faults: impl Iterator<Item = &'a str>) -> Self {
        let faults: Vec<&str> = faults.collect();
        Row {
            faults: match &faults[..] {
                [] => "none".to_owned(),
                faults => faults.join(", "),
            },
            seen: BTreeSet::new(),
            failed: 0,
            untold: 0,
            leaked: (0, 0),
            turns: 0,
            time: Duration::ZERO,
        }
    }

    pub fn add(&mut self, world: World, leaked: (u64, u64)) {
        let World {
            seen,
            failed,
            untold,
            turns,
            time,
            ..
        } = world;
        self.seen.extend(seen);
        self.failed += failed;
        self.untold += untold;
        self.leaked.0 += leaked.0;
        self.leaked.1 += leaked.1;
        self.turns = self.turns.max(turns);
        self.time = self.time.max(time);
    }

    /// All of it but the time, which differs from run to run.
    fn discrete(&self) -> String {
        let bytes = match (self.failed, self.untold) {
            (0, 0) => "intact".to_owned(),
            (failed, 0) => format!("intact; {failed} failed"),
            (0, untold) => format!("intact; {untold} untold"),
            (failed, untold) => format!("intact; {failed} failed, {untold} untold"),
        };
        let holds = match self.leaked {
            (0, 0) => "given back".to_owned(),
            (_, holds) => format!("given back, {holds} leaked and counted"),
        };
        let seen: Vec<&str> = self.seen.iter().map(String::as_str).collect();
        let seen = match seen[..] {
            [] => "nothing".to_owned(),
            _ => seen.join(", "),
        };
        let turns = self.turns;
        format!("| {} | {bytes} | {holds} | {seen} | {turns} |", self.faults)
    }

    fn line(&self) -> String {
        format!("{} {:.1} |", self.discrete(), self.time.as_secs_f64() * 1e3)
    }
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");

pub fn is_to_be_written() -> bool {
    std::env::var("RDMA_MR_FAULTS").is_ok_and(|value| value == "write")
}

/// Writes the rows for that device into the page, or compares them with what stands there.
pub fn compare(device: &str, rows: &[Row], write: bool) {
    let page = std::fs::read_to_string(PAGE).expect("docs/faults.md");
    let (begin, end) = (
        format!("<!-- {device} -->\n"),
        format!("<!-- end of {device} -->"),
    );
    let from = page.find(&begin).expect("its mark") + begin.len();
    let to = from + page[from..].find(&end).expect("its end");
    // The two lines of the head stay.
    let head: String = page[from..to].split_inclusive('\n').take(2).collect();
    if write {
        let lines: Vec<String> = rows.iter().map(Row::line).collect();
        let table = format!("{head}{}\n", lines.join("\n"));
        std::fs::write(PAGE, [&page[..from], &table, &page[to..]].concat())
            .expect("docs/faults.md");
        return;
    }
    let stored: Vec<&str> = page[from + head.len()..to].lines().collect();
    assert_eq!(stored.len(), rows.len(), "rows of docs/faults.md");
    for (stored, row) in stored.iter().zip(rows) {
        let found = row.discrete();
        let same = stored.starts_with(&found);
        assert!(same, "docs/faults.md says\n{stored}\nand it is\n{found}");
    }
}
