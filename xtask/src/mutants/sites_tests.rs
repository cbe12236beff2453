//! The finder against each shape that an ordering can have.

use super::super::orders::{Order, Role};
use super::{Found, find};

fn found(text: &str) -> Found {
    find(text).unwrap()
}

/// Function, call, role and order of each site, of a text without problems.
fn sites(text: &str) -> Vec<(String, String, Role, Order)> {
    let found = found(text);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let sites = found.sites.into_iter();
    sites
        .map(|site| (site.function, site.call, site.role, site.order))
        .collect()
}

fn site(function: &str, call: &str, role: Role, order: Order) -> (String, String, Role, Order) {
    (function.into(), call.into(), role, order)
}

#[test]
fn each_operation_and_its_role() {
    let text = "
        impl A {
            fn a(&self) -> u64 { self.x.load(Ordering::Acquire) }
            fn b(&self) where Self: Sized {
                self.x.store(f(1, 2), std::sync::atomic::Ordering::Release);
                AtomicU64::fetch_or(&self.x, 1, Ordering::AcqRel);
            }
        }";
    let expected = [
        site("a", "load", Role::Load, Order::Acquire),
        site("b", "store", Role::Store, Order::Release),
        site("b", "fetch_or", Role::Rmw, Order::AcqRel),
    ];
    assert_eq!(sites(text), expected);
}

#[test]
fn the_two_orderings_of_a_call_belong_together() {
    for call in ["compare_exchange", "compare_exchange_weak"] {
        let text =
            format!("fn f() {{ x.{call}(a, b(c), Ordering::AcqRel, Ordering::Acquire).is_ok(); }}");
        let found = found(&text);
        let [success, failure] = &found.sites[..] else {
            panic!("{found:?}")
        };
        assert_eq!((success.role, failure.role), (Role::Rmw, Role::Failure));
        assert_eq!(success.arguments, failure.arguments);
        assert_eq!(&text[success.bytes.clone()], "Ordering::AcqRel");
    }
    let update = "fn f() { x.fetch_update(Ordering::Release, Ordering::Relaxed, |n| Some(n)); }";
    let expected = [
        site("f", "fetch_update", Role::Rmw, Order::Release),
        site("f", "fetch_update", Role::Failure, Order::Relaxed),
    ];
    assert_eq!(sites(update), expected);
}

#[test]
fn a_fence_with_its_path() {
    let text = "fn f() { crate::sync::fence(Ordering::SeqCst); }";
    let found = found(text);
    let fence = found.sites[0].fence.clone().unwrap();
    assert_eq!(&text[fence], "crate::sync::fence");
    assert_eq!(found.sites[0].role, Role::Fence);
}

#[test]
fn in_macros_closures_and_beside_other_orderings() {
    let text = "
        macro_rules! m { ($t:ty) => { fn get() -> $t { place.load(Ordering::Acquire) } }; }
        fn f() -> std::cmp::Ordering {
            a.cmp(&b).then_with(|| { assert!(x.load(Ordering::Relaxed) == 0); Ordering::Less })
        }
        fn g(order: Ordering) -> Option<std::cmp::Ordering> { x.load(order); None }
        use std::sync::atomic::{AtomicU64, Ordering};";
    let expected = [
        site("get", "load", Role::Load, Order::Acquire),
        site("f", "load", Role::Load, Order::Relaxed),
    ];
    assert_eq!(sites(text), expected);
}

#[test]
fn tests_are_left_out() {
    let text = "
        #[cfg(test)] mod tests { fn t() { x.load(Ordering::SeqCst); } }
        #[cfg(all(test, not(loom)))]
        mod more;
        #[cfg(not(test))] mod code { fn c() { x.load(Ordering::SeqCst); } }
        #[cfg(test)] fn t() { x.load(Ordering::SeqCst); }
        struct S { #[cfg(test)] a: u8, }";
    assert_eq!(
        sites(text),
        [site("c", "load", Role::Load, Order::SeqCst)],
        "one is code"
    );
    assert_eq!(found(text).test_modules, ["more"]);
}

#[test]
fn no_ordering_hides() {
    for hiding in [
        "use std::sync::atomic::Ordering::*;",
        "use std::sync::atomic::Ordering::Acquire;",
        "use std::sync::atomic::Ordering::{Acquire, Release};",
        "use std::sync::atomic::Ordering as O;",
        "use std::sync::atomic::{AtomicU64, Ordering as O};",
        "type O = Ordering;",
        "type O = std::sync::atomic::Ordering;",
        "fn f() { x.load(<Ordering>::Acquire); }",
        "const O: Ordering = Ordering::Acquire;",
        "static S: S = S { order: Ordering::Acquire };",
        "fn f() { let order = Ordering::Acquire; x.load(order); }",
        "fn f() { x.load(if a { Ordering::Acquire } else { Ordering::Relaxed }); }",
        "fn f() { x.load(match a { _ => Ordering::Acquire }); }",
        "fn f() { x.load((Ordering::Acquire)); }",
        "fn f() { publish(Ordering::Release); }",
        "fn f() -> Ordering { Ordering::Release }",
        "fn f() { x.load(Ordering::Acquire, Ordering::Acquire); }",
        "macro_rules! m { ($o:ident) => { x.load(Ordering::$o) }; }",
    ] {
        assert!(!found(hiding).problems.is_empty(), "{hiding}");
    }
}
