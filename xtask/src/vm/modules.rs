//! Which kernel modules the guest loads, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// What soft-RoCE, the connection manager and the network under them need, and what loses packets on it;
/// the network card is for machines that are joined.
///
/// The checksum comes first: no module depends on it, but without it rxe refuses to add a device.
pub const WANTED: &[&str] = &[
    "crc32_generic",
    "rdma_rxe",
    "rdma_ucm",
    "veth",
    "virtio_pci",
    "virtio_net",
    "sch_netem",
];

/// Newer kernels have the checksum in a library, so there is no module of it.
const OPTIONAL: &[&str] = &["crc32_generic"];

/// The files to load, by path in the directory of the modules, each after all that it needs.
///
/// `dep` and `builtin` are the contents of `modules.dep` and `modules.builtin`.
pub fn load_order<'a>(wanted: &[&str], dep: &'a str, builtin: &str) -> Result<Vec<&'a str>> {
    let needs: BTreeMap<&str, Vec<&str>> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let by_name: BTreeMap<String, &str> = needs.keys().map(|path| (name(path), *path)).collect();
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();

    let mut order = Vec::new();
    for &module in wanted {
        match by_name.get(module) {
            Some(path) => visit(path, &needs, &mut order),
            None if builtin.contains(module) || OPTIONAL.contains(&module) => {}
            None => bail!("the kernel has no module `{module}`"),
        }
    }
    Ok(order)
}

/// Appends what `path` needs, then `path`. `depmod` has made sure that there is no cycle.
fn visit<'a>(path: &'a str, needs: &BTreeMap<&'a str, Vec<&'a str>>, order: &mut Vec<&'a str>) {
    if order.contains(&path) {
        return;
    }
    for needed in needs.get(path).into_iter().flatten() {
        visit(needed, needs, order);
    }
    order.push(path);
}

/// The name of a module by its path: `-` and `_` are the same in it, the kernel writes `_`.
pub fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/a/rdma_rxe.ko.xz: kernel/a/ib-core.ko.xz kernel/n/udp_tunnel.ko.xz
kernel/a/ib-core.ko.xz: kernel/f/configfs.ko.xz
kernel/n/udp_tunnel.ko.xz:
kernel/f/configfs.ko.xz:
kernel/n/veth.ko.xz:
";

    #[test]
    fn a_module_is_loaded_after_what_it_needs_and_once() {
        let order = load_order(&["rdma_rxe", "ib_core", "veth"], DEP, "").unwrap();
        let names: Vec<String> = order.into_iter().map(name).collect();
        assert_eq!(
            names,
            ["configfs", "ib_core", "udp_tunnel", "rdma_rxe", "veth"]
        );
    }

    #[test]
    fn a_built_in_module_needs_no_loading() {
        let builtin = "kernel/d/ib-uverbs.ko\n";
        let order = load_order(&["ib_uverbs", "crc32_generic"], DEP, builtin).unwrap();
        assert!(order.is_empty());
    }

    #[test]
    fn a_missing_module_is_an_error() {
        assert!(load_order(&["rdma_ucm"], DEP, "").is_err());
    }
}
