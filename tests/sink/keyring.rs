//! Key sinks, against the kernel's own keyrings.

use std::process::Command;
use std::time::Duration;

use crate::fixture::{EXPIRES, TestLane, as_nobody, key_at, probe};
use crate::support::system::keyring::{TestKeyring, keyctl, timeout_of};
use crate::support::{has, system_allows};
use corptokend::domain::{KeyringRoot, OnExpiry, SinkFailureKind, SinkSpec, WallMs, Wrote};

/// A sink of the tenant's in it.
pub(crate) fn key_sink(ring: &TestKeyring, on_expiry: OnExpiry) -> SinkSpec {
    key_at(KeyringRoot::User, &[&ring.0, "{app}", "{corp_id}"], on_expiry)
}

/// A clock that stands still, this long before the tokens expire.
pub(crate) fn seconds_before_expiry(seconds: u64) -> impl Fn() -> WallMs + Send {
    move || EXPIRES - seconds * 1000
}

#[test]
fn a_token_is_a_key_in_nested_keyrings_that_its_user_can_read() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(7200));
    assert_eq!(lane.publish(&key_sink(&ring, OnExpiry::Delete), "ding1", "t-1"), Ok(Wrote::Replaced));
    let key = ring.find("user", "ding1").expect("a reader finds the key");
    assert_eq!(keyctl(&["print", &key]).unwrap(), "t-1");
    let described = keyctl(&["rdescribe", &key]).unwrap();
    assert!(described.contains(";3f0b0000;ding1"), "{described}");
    assert!(ring.find("keyring", "crm").is_some());
}

#[test]
fn a_new_token_keeps_the_serial_number_and_gets_its_own_timeout() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(7170));
    let spec = key_sink(&ring, OnExpiry::Delete);
    lane.publish_until(&spec, "ding1", "t-1", EXPIRES + 7200 * 1000).unwrap();
    let key = ring.find("user", "ding1").unwrap();
    assert_eq!(timeout_of(&key).unwrap(), "3h", "of 14,370 s, and the kernel shows whole hours");
    assert_eq!(lane.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced));
    assert_eq!(ring.find("user", "ding1").as_ref(), Some(&key));
    assert_eq!(keyctl(&["print", &key]).unwrap(), "t-2");
    assert_eq!(timeout_of(&key).unwrap(), "1h", "rather than none, which adding a key leaves");
}

#[test]
fn the_same_token_is_left_alone_but_for_timeout_and_permissions() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(55));
    let spec = key_sink(&ring, OnExpiry::Delete);
    lane.publish(&spec, "ding1", "t").unwrap();
    let key = ring.find("user", "ding1").unwrap();
    keyctl(&["timeout", &key, "9999"]).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Unchanged));
    assert!(timeout_of(&key).unwrap().ends_with('s'), "{}", timeout_of(&key).unwrap());
    keyctl(&["setperm", &key, "0x3f3f0000"]).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Repaired));
    assert!(keyctl(&["rdescribe", &key]).unwrap().contains(";3f0b0000;"));
}

#[test]
fn a_key_that_is_kept_after_expiry_has_no_timeout() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(60));
    lane.publish(&key_sink(&ring, OnExpiry::Delete), "ding1", "t").unwrap();
    lane.publish(&key_sink(&ring, OnExpiry::Keep), "ding1", "t").unwrap();
    assert_eq!(timeout_of(&ring.find("user", "ding1").unwrap()).unwrap(), "perm");
}

#[test]
fn the_kernel_withdraws_an_expired_token_and_the_next_one_takes_its_place() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    // Already expired: the shortest timeout there is.
    let mut lane = TestLane::keys(seconds_before_expiry(0));
    let spec = key_sink(&ring, OnExpiry::Delete);
    for corp_id in ["ding1", "ding2"] {
        lane.publish(&spec, corp_id, "t-1").unwrap();
    }
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(ring.find("user", "ding1"), None);
    lane.withdraw(&spec, "ding2").unwrap();
    assert!(ring.find("keyring", "crm").is_none(), "dead keys do not keep a keyring");
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    assert_eq!(lane.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced));
    let key = ring.find("user", "ding1").expect("a live key");
    assert_eq!(keyctl(&["print", &key]).unwrap(), "t-2");
}

#[test]
fn a_revoked_or_unlinked_key_or_keyring_is_made_anew() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    let spec = key_sink(&ring, OnExpiry::Delete);
    for (verb, kind, description) in [
        ("revoke", "user", "ding1"),
        ("invalidate", "user", "ding1"),
        ("revoke", "keyring", "crm"),
        ("clear", "keyring", "crm"),
    ] {
        lane.publish(&spec, "ding1", "t").unwrap();
        keyctl(&[verb, &ring.find(kind, description).unwrap()]).unwrap();
        assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Replaced), "after {verb} of {description}");
        let key = ring.find("user", "ding1").unwrap();
        assert_eq!(keyctl(&["print", &key]).unwrap(), "t");
    }
}

#[test]
fn a_key_of_the_same_name_further_down_is_another_key() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    let deep = key_at(KeyringRoot::User, &[&ring.0, "crm", "crm", "{corp_id}"], OnExpiry::Delete);
    let shallow = key_at(KeyringRoot::User, &[&ring.0, "{corp_id}"], OnExpiry::Delete);
    lane.publish(&deep, "ding1", "t").unwrap();
    assert_eq!(lane.publish(&shallow, "ding1", "t"), Ok(Wrote::Replaced));
    assert_eq!(lane.publish(&deep, "ding1", "t"), Ok(Wrote::Unchanged));
    lane.withdraw(&shallow, "ding1").unwrap();
    assert!(ring.find("user", "ding1").is_some(), "the other one stays");
    assert_eq!(lane.publish(&shallow, "ding1", "t"), Ok(Wrote::Replaced));
}

#[test]
fn a_withdrawal_removes_the_key_and_the_keyrings_that_it_leaves_empty() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    let spec = key_sink(&ring, OnExpiry::Delete);
    for corp_id in ["ding1", "ding2"] {
        lane.publish(&spec, corp_id, "t").unwrap();
    }
    lane.withdraw(&spec, "ding1").unwrap();
    assert!(ring.find("user", "ding1").is_none() && ring.find("user", "ding2").is_some());
    lane.withdraw(&spec, "ding2").unwrap();
    assert!(keyctl(&["search", "@u", "keyring", &ring.0]).is_err(), "the nested keyrings are gone");
    assert_eq!(lane.withdraw(&spec, "ding2"), Ok(()), "what is gone is gone");
}

#[test]
fn a_keyring_can_be_named_by_its_number() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    lane.publish(&key_sink(&ring, OnExpiry::Delete), "ding1", "t").unwrap();
    let serial = ring.find("keyring", "crm").unwrap().parse().unwrap();
    let spec = key_at(KeyringRoot::Serial(serial), &["by-number", "{corp_id}"], OnExpiry::Delete);
    assert_eq!(lane.publish(&spec, "ding2", "t"), Ok(Wrote::Replaced));
    lane.withdraw(&spec, "ding2").unwrap();
    assert!(ring.find("keyring", "by-number").is_none() && ring.find("keyring", "crm").is_some(), "the root stays");
    let missing = key_at(KeyringRoot::Serial(1), &["{corp_id}"], OnExpiry::Delete);
    let failure = lane.publish(&missing, "ding1", "t").unwrap_err();
    assert_eq!(probe(&spec), Ok(()));
    assert_eq!(probe(&missing).unwrap_err().kind, failure.kind);
    assert!(failure.detail.contains("1/ding1") && failure.detail.contains("keyctl show"), "{failure}");
}

#[test]
fn an_exhausted_quota_names_the_limits_and_the_sysctls() {
    as_nobody("keyring::an_exhausted_quota_names_the_limits_and_the_sysctls", || {
        let Some(ring) = TestKeyring::named("sink") else { return };
        let mut lane = TestLane::keys(seconds_before_expiry(600));
        let spec = key_sink(&ring, OnExpiry::Delete);
        let large = "x".repeat(4000);
        let failure = (0..100).find_map(|n| lane.publish(&spec, &format!("ding{n}"), &large).err()).expect("a quota");
        assert_eq!(failure.kind, SinkFailureKind::Full, "{failure}");
        for part in ["kernel.keys.maxkeys=", "kernel.keys.maxbytes=", "user 65534", "bytes are used"] {
            assert!(failure.detail.contains(part), "{part} in {failure}");
        }
        assert!(!failure.detail.contains("xxx"));
        assert_eq!(lane.publish(&spec, "ding0", &large), Ok(Wrote::Unchanged), "what was published stays");
    });
}

#[test]
fn a_session_that_does_not_lead_to_the_user_keyring_is_no_obstacle() {
    if !system_allows("keyctl (Debian: keyutils)", has("keyctl")) {
        return;
    }
    // As under systemd's KeyringMode=private.
    let test = "keyring::a_new_token_keeps_the_serial_number_and_gets_its_own_timeout";
    let ran = Command::new("keyctl")
        .args(["session", "-"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}
