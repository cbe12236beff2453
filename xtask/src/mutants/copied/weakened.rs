//! Stands in the copy that `cargo xtask mutants` makes, and nowhere else: every ordering goes through here,
//! and every function that is broken by hand asks here whether it is, so that one build serves all mutants.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What is changed, by site: `3=Relaxed,4=Out`.
static CHANGED: LazyLock<Vec<(usize, Option<Ordering>)>> = LazyLock::new(|| {
    let changes = std::env::var("RDMA_MR_WEAKENED").unwrap_or_default();
    let changes = changes.split(',').filter(|change| !change.is_empty());
    changes.map(|change| {
        let (site, to) = change.split_once('=').unwrap();
        let to = match to {
            "Relaxed" => Some(Ordering::Relaxed),
            "Acquire" => Some(Ordering::Acquire),
            "Release" => Some(Ordering::Release),
            "AcqRel" => Some(Ordering::AcqRel),
            "Out" => None,
            other => panic!("no ordering {other}"),
        };
        (site.parse().unwrap(), to)
    }).collect()
});

/// Where the sites that are reached are written to, and those that have been.
static REACHED: LazyLock<Option<Mutex<(File, HashSet<usize>)>>> = LazyLock::new(|| {
    let path = std::env::var_os("RDMA_MR_REACHED")?;
    Some(Mutex::new((File::create(path).unwrap(), HashSet::new())))
});

/// Which of the changes by hand is made.
static BROKEN: LazyLock<usize> = LazyLock::new(|| match std::env::var("RDMA_MR_BROKEN") {
    Ok(number) => number.parse().unwrap(),
    Err(_) => usize::MAX,
});

pub(crate) fn broken() -> usize {
    *BROKEN
}

fn change(site: usize) -> Option<Option<Ordering>> {
    if let Some(reached) = &*REACHED {
        let (file, sites) = &mut *reached.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.insert(site) {
            writeln!(file, "{site}").unwrap();
        }
    }
    CHANGED.iter().find(|(changed, _)| *changed == site).map(|(_, to)| *to)
}

#[track_caller]
pub(crate) fn order(site: usize, written: Ordering) -> Ordering {
    match change(site) {
        None => written,
        Some(to) => to.expect("only fences are taken out"),
    }
}

#[track_caller]
pub(crate) fn fence(site: usize, fence: fn(Ordering), written: Ordering) {
    match change(site) {
        None => fence(written),
        Some(Some(to)) => fence(to),
        Some(None) => {}
    }
}
