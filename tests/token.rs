//! Tokens are plain data (R20): made of any numbers, from any text, they are harmless; using one
//! checks bounds, rights and deadline.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use rdma_mr::op::Begin;
use rdma_mr::work::{RemoteAddr, WcStatus};
use rdma_mr::{Access, Error, LocalMrReadAccess, MrAccess, MrToken};
use serde_json::{Value, json};
use util::*;

const HOUR: Duration = Duration::from_secs(3600);

fn token(value: Value) -> MrToken {
    serde_json::from_value(value).unwrap()
}

/// A token with these numbers, good for a long time.
fn numbers(addr: u64, length: u64) -> MrToken {
    token(json!({
        "addr": addr, "length": length, "rkey": 7, "access": "REMOTE_READ | REMOTE_WRITE",
        "deadline": { "secs_since_epoch": 4_102_444_800_u64, "nanos_since_epoch": 0 },
    }))
}

#[test]
fn r20_a_token_says_what_the_region_is() {
    let pair = Pair::stepped();
    let mr = pair.readable(&[0; 64]);
    let before = SystemTime::now();
    let whole = mr.token_with_timeout(HOUR).unwrap();
    assert_eq!((whole.addr(), whole.length()), (mr.addr() as u64, 64));
    assert_eq!((whole.rkey(), whole.access()), (mr.rkey(), mr.access()));
    assert!(whole.deadline() >= before + HOUR && !whole.is_expired());
    let part = mr.get(16..24).unwrap().token_with_timeout(HOUR).unwrap();
    assert_eq!((part.addr(), part.length()), (whole.addr() + 16, 8));
    let target = part.target(4.., Access::REMOTE_READ).unwrap();
    assert_eq!(
        target,
        RemoteAddr {
            addr: whole.addr() + 20,
            rkey: mr.rkey()
        }
    );
}

#[test]
fn r20_a_token_survives_the_way_to_the_peer_and_works_there() {
    let mut pair = Pair::stepped();
    let mr = pair.readable(&pattern(1, 64));
    let token = mr.token_with_timeout(HOUR).unwrap();
    let text = serde_json::to_string(&token).unwrap();
    let there: MrToken = serde_json::from_str(&text).unwrap();
    assert_eq!(there, token);
    let here = pair.alloc(8);
    let target = there.target(8..16, Access::REMOTE_READ).unwrap();
    pair.a.read(here.begin_write().unwrap(), target).unwrap();
    pair.finish(1);
    assert_eq!(*here.as_slice(), pattern(1, 64)[8..16]);
}

#[test]
fn r20_using_a_token_checks_range_rights_and_deadline() {
    let mr = Pair::stepped().readable(&[0; 64]);
    let token = mr.token_with_timeout(HOUR).unwrap();
    let read = |range| token.target(range, Access::REMOTE_READ);
    assert!(read(0..64).is_ok() && read(63..64).is_ok());
    assert!(matches!(
        read(0..65),
        Err(Error::RangeOutside {
            end: 65,
            length: 64,
            ..
        })
    ));
    assert!(matches!(read(65..66), Err(Error::RangeOutside { .. })));
    assert!(matches!(
        read(0..usize::MAX),
        Err(Error::RangeOutside { .. })
    ));
    assert!(matches!(read(64..64), Err(Error::EmptyRange { start: 64 })));
    for needed in [
        Access::REMOTE_WRITE,
        Access::REMOTE_ATOMIC,
        Access::REMOTE_READ | Access::REMOTE_WRITE,
        Access::all(),
    ] {
        assert!(
            matches!(token.target(.., needed), Err(Error::MissingRight { access, .. })
            if access == mr.access())
        );
    }
    assert!(token.target(.., Access::empty()).is_ok());
    let mut value = serde_json::to_value(token).unwrap();
    value["deadline"]["secs_since_epoch"] = json!(1_000_000_000);
    let late: MrToken = serde_json::from_value(value).unwrap();
    assert!(late.is_expired());
    assert!(matches!(
        late.target(.., Access::REMOTE_READ),
        Err(Error::TokenExpired)
    ));
    assert!(matches!(
        late.target(..99, Access::all()),
        Err(Error::TokenExpired)
    ));
}

#[test]
fn r20_a_token_expires_by_itself() {
    let mr = Pair::stepped().readable(&[0; 8]);
    let token = mr.token_with_timeout(Duration::ZERO).unwrap();
    eventually("it expires", || token.is_expired());
    assert!(matches!(
        token.target(.., Access::REMOTE_READ),
        Err(Error::TokenExpired)
    ));
}

#[test]
fn r5_a_deadline_revokes_nothing() {
    let mut pair = Pair::stepped();
    let (mr, here) = (pair.readable(&[4; 8]), pair.alloc(8));
    let token = mr.token_with_timeout(Duration::ZERO).unwrap();
    eventually("it expires", || token.is_expired());
    let target = RemoteAddr {
        addr: token.addr(),
        rkey: token.rkey(),
    };
    pair.a.read(here.begin_write().unwrap(), target).unwrap();
    pair.finish(1);
    assert_eq!(*here.as_slice(), [4; 8], "the registration does");
    mr.close().unwrap();
    pair.a.read(here.begin_write().unwrap(), target).unwrap();
    assert_eq!(pair.settle()[0].status, WcStatus::RemAccessErr);
}

#[test]
fn r20_a_deadline_that_the_clock_can_not_express_is_none() {
    let mr = Pair::stepped().alloc(8);
    assert!(mr.token_with_timeout(Duration::MAX).is_none());
    assert!(
        mr.token_with_timeout(Duration::from_secs(i64::MAX as u64))
            .is_none()
    );
    assert!(
        mr.get(1..)
            .unwrap()
            .token_with_timeout(Duration::MAX)
            .is_none()
    );
    // SAFETY: TOKEN-1: nothing rotates the keys.
    assert!(unsafe { mr.token_with_timeout_unchecked(Duration::MAX) }.is_none());
    assert!(mr.token_with_timeout(HOUR * 24 * 365 * 100).is_some());
}

#[test]
fn r20_an_address_that_wraps_is_refused() {
    for (addr, length) in [
        (u64::MAX, 1),
        (u64::MAX - 9, 11),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
    ] {
        let refused = numbers(addr, length).target(..1, Access::REMOTE_READ);
        assert!(matches!(refused, Err(Error::AddressOverflow { addr: a, .. }) if a == addr));
    }
    let last = numbers(u64::MAX - 9, 9)
        .target(8..9, Access::REMOTE_READ)
        .unwrap();
    assert_eq!(last.addr, u64::MAX - 1);
    let nothing = numbers(4096, 0).target(.., Access::REMOTE_READ);
    assert!(matches!(nothing, Err(Error::EmptyRange { .. })));
}

#[test]
fn r20_a_token_that_names_nothing_is_the_owners_nic_to_refuse() {
    let mut pair = Pair::stepped();
    let here = pair.alloc(8);
    let target = numbers(4096, 64)
        .target(8..16, Access::REMOTE_READ)
        .unwrap();
    pair.a.read(here.begin_write().unwrap(), target).unwrap();
    assert_eq!(pair.settle()[0].status, WcStatus::RemAccessErr);
}

/// JSON of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".*", inner, 0..4)
                .prop_map(|map| { Value::Object(map.into_iter().collect()) }),
        ]
    })
}

/// A number, often one at an edge.
fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        0..100u64,
        u64::MAX - 100..u64::MAX
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r20_any_text_is_a_token_or_an_error(text in ".*") {
        let _ = serde_json::from_str::<MrToken>(&text);
    }

    #[test]
    fn r20_any_json_is_a_token_or_an_error(
        fields in prop::collection::vec(any_json(), 5), kept in 0..32u32, other in any_json(),
    ) {
        let _ = serde_json::from_value::<MrToken>(other);
        let names = ["addr", "length", "rkey", "access", "deadline"];
        let good = serde_json::to_value(numbers(4096, 64)).unwrap();
        let mut mixed = good.clone();
        for (i, field) in fields.into_iter().enumerate().filter(|(i, _)| kept >> i & 1 == 1) {
            mixed[names[i]] = field;
        }
        if let Ok(token) = serde_json::from_value::<MrToken>(mixed) {
            let _ = token.target(.., Access::REMOTE_READ);
        }
    }

    #[test]
    fn r20_any_numbers_are_used_or_refused(
        addr in edgy(), length in edgy(), start in edgy(), end in edgy(),
        rkey in any::<u32>(), rights in any::<u32>(), needed in any::<u32>(), secs in edgy(),
    ) {
        let access = Access::from_bits_retain(rights);
        let deadline = UNIX_EPOCH.checked_add(Duration::from_secs(secs));
        let value = json!({
            "addr": addr, "length": length, "rkey": rkey, "access": access,
            "deadline": { "secs_since_epoch": secs, "nanos_since_epoch": 0 },
        });
        let token = serde_json::from_value::<MrToken>(value);
        prop_assert_eq!(token.is_ok(), deadline.is_some());
        let Ok(token) = token else { return Ok(()) };
        prop_assert_eq!(token.access(), access);
        let text = serde_json::to_string(&token).unwrap();
        prop_assert_eq!(&serde_json::from_str::<MrToken>(&text).unwrap(), &token);
        let needed = Access::from_bits_retain(needed);
        if let Ok(target) = token.target(start as usize..end as usize, needed) {
            prop_assert!(access.contains(needed) && !token.is_expired());
            prop_assert!(start < end && end <= length);
            prop_assert_eq!(target, RemoteAddr { addr: addr + start, rkey });
        }
    }
}
