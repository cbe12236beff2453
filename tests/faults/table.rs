//! The table of what was found, in docs/faults.md: between two marks for each device.

use std::collections::BTreeSet;
use std::time::Duration;

use rdma_mr::work::WcStatus;

/// What one case came to.
#[derive(Default)]
pub struct Found {
    /// What users were told that is not success.
    pub seen: BTreeSet<String>,
    /// Operations that failed, and those that had no completion.
    pub failed: usize,
    pub untold: usize,
    /// How long it took at most, from the last post of a connection to its end.
    pub turns: u64,
    pub time: Duration,
}

impl Found {
    pub fn tell(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    pub fn tell_status(&mut self, status: WcStatus) {
        if !status.is_success() {
            self.tell(format!("`{status:?}`"));
        }
    }
}

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

    pub fn add(&mut self, found: Found, leaked: (u64, u64)) {
        self.seen.extend(found.seen);
        self.failed += found.failed;
        self.untold += found.untold;
        self.leaked.0 += leaked.0;
        self.leaked.1 += leaked.1;
        self.turns = self.turns.max(found.turns);
        self.time = self.time.max(found.time);
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
        // Those of a device are not counted: they are not the same in every run.
        let turns = match self.turns {
            0 => String::new(),
            turns => format!(" {turns} |"),
        };
        format!("| {} | {bytes} | {holds} | {seen} |{turns}", self.faults)
    }

    fn line(&self) -> String {
        format!("{} {:.1} |", self.discrete(), self.time.as_secs_f64() * 1e3)
    }
}

const PAGE: &str = include_str!("../../docs/faults.md");

/// Where the rows of that device begin and end in the page, behind the two lines of the head.
fn place(device: &str) -> std::ops::Range<usize> {
    let begin = format!("<!-- {device} -->\n");
    let begin = PAGE.find(&begin).expect("its mark") + begin.len();
    let lines = PAGE[begin..].split_inclusive('\n');
    let head: usize = lines.take(2).map(str::len).sum();
    let end = PAGE.find(&format!("<!-- end of {device} -->"));
    begin + head..end.expect("its end")
}

fn lines(rows: &[Row]) -> String {
    rows.iter().map(|row| row.line() + "\n").collect()
}

/// Puts the rows for that device into the page.
#[allow(dead_code, reason = "a virtual machine has no page")]
pub fn write(device: &str, rows: &[Row]) {
    let (place, rows) = (place(device), lines(rows));
    let page = [&PAGE[..place.start], &rows, &PAGE[place.end..]].concat();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    std::fs::write(path, page).expect("docs/faults.md");
}

/// Compares them with what stands there.
pub fn compare(device: &str, rows: &[Row]) {
    println!("{}", lines(rows));
    let stored: Vec<&str> = PAGE[place(device)].lines().collect();
    assert_eq!(stored.len(), rows.len(), "rows of docs/faults.md");
    for (stored, row) in stored.iter().zip(rows) {
        let found = row.discrete();
        let same = stored.starts_with(&found);
        assert!(same, "docs/faults.md says\n{stored}\nand it is\n{found}");
    }
}
