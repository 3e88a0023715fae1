//! Key sinks, against the kernel's own keyrings.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::rig::{Desk, EXPIRES, as_nobody, has, key_at, needs, probe};
use corptokend::domain::{KeyringRoot, OnExpiry, SinkFailureKind, SinkSpec, WallMs, Wrote};

/// A keyring below `@u` that no other test uses, gone with the value.
pub(crate) struct Ring {
    pub(crate) name: String,
}

impl Ring {
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let permitted = has("keyctl") && keyctl(&["show", "@u"]).is_ok();
        let name = format!("corptokend-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        needs("keyctl (Debian: keyutils), and a kernel that lets us use it", permitted).then(|| Self { name })
    }

    pub(crate) fn sink(&self, on_expiry: OnExpiry) -> SinkSpec {
        key_at(KeyringRoot::User, &[&self.name, "{app}", "{corp_id}"], on_expiry)
    }

    /// The serial number of a key, as a reader finds it.
    pub(crate) fn find(&self, kind: &str, description: &str) -> Option<String> {
        let ring = keyctl(&["search", "@u", "keyring", &self.name]).ok()?;
        keyctl(&["search", &ring, kind, description]).ok()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Ok(serial) = keyctl(&["search", "@u", "keyring", &self.name]) {
            let _ = keyctl(&["unlink", &serial, "@u"]);
        }
    }
}

/// Runs keyctl as another process of the same user, possessing `@u`, as a reader does.
pub(crate) fn keyctl(arguments: &[&str]) -> Result<String, String> {
    let script = "keyctl link @u @s >/dev/null 2>&1; exec keyctl \"$@\"";
    let ran = Command::new("keyctl")
        .args(["session", "-", "sh", "-c", script, "sh"])
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
}

/// The remaining life that the kernel shows of a key, such as `2h` or `perm`.
pub(crate) fn timeout_of(serial: &str) -> String {
    let hexadecimal = format!("{:08x}", serial.parse::<i32>().unwrap());
    let keys = std::fs::read_to_string("/proc/keys").unwrap();
    let line = keys.lines().find(|line| line.starts_with(&hexadecimal)).expect("the key is listed");
    line.split_whitespace().nth(3).unwrap().to_owned()
}

/// A clock that stands still, this long before the tokens expire.
pub(crate) fn seconds_before_expiry(seconds: u64) -> impl Fn() -> WallMs + Send {
    move || EXPIRES - seconds * 1000
}

#[test]
fn a_token_is_a_key_in_nested_keyrings_that_its_user_can_read() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(7200));
    assert_eq!(desk.publish(&ring.sink(OnExpiry::Delete), "ding1", "t-1"), Ok(Wrote::Replaced));
    let key = ring.find("user", "ding1").expect("a reader finds the key");
    assert_eq!(keyctl(&["print", &key]).unwrap(), "t-1");
    let described = keyctl(&["rdescribe", &key]).unwrap();
    assert!(described.contains(";3f0b0000;ding1"), "{described}");
    assert!(ring.find("keyring", "crm").is_some());
}

#[test]
fn a_new_token_keeps_the_serial_number_and_gets_its_own_timeout() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(7170));
    let spec = ring.sink(OnExpiry::Delete);
    desk.publish_until(&spec, "ding1", "t-1", EXPIRES + 7200 * 1000).unwrap();
    let key = ring.find("user", "ding1").unwrap();
    assert_eq!(timeout_of(&key), "3h", "of 14,370 s, and the kernel shows whole hours");
    assert_eq!(desk.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced));
    assert_eq!(ring.find("user", "ding1").as_ref(), Some(&key));
    assert_eq!(keyctl(&["print", &key]).unwrap(), "t-2");
    assert_eq!(timeout_of(&key), "1h", "rather than none, which adding a key leaves");
}

#[test]
fn the_same_token_is_left_alone_but_for_timeout_and_permissions() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(55));
    let spec = ring.sink(OnExpiry::Delete);
    desk.publish(&spec, "ding1", "t").unwrap();
    let key = ring.find("user", "ding1").unwrap();
    keyctl(&["timeout", &key, "9999"]).unwrap();
    assert_eq!(desk.publish(&spec, "ding1", "t"), Ok(Wrote::Unchanged));
    assert!(timeout_of(&key).ends_with('s'), "{}", timeout_of(&key));
    keyctl(&["setperm", &key, "0x3f3f0000"]).unwrap();
    assert_eq!(desk.publish(&spec, "ding1", "t"), Ok(Wrote::Repaired));
    assert!(keyctl(&["rdescribe", &key]).unwrap().contains(";3f0b0000;"));
}

#[test]
fn a_key_that_is_kept_after_expiry_has_no_timeout() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(60));
    desk.publish(&ring.sink(OnExpiry::Delete), "ding1", "t").unwrap();
    desk.publish(&ring.sink(OnExpiry::Keep), "ding1", "t").unwrap();
    assert_eq!(timeout_of(&ring.find("user", "ding1").unwrap()), "perm");
}

#[test]
fn the_kernel_withdraws_an_expired_token_and_the_next_one_takes_its_place() {
    let Some(ring) = Ring::new() else { return };
    // Already expired: the shortest timeout there is.
    let mut desk = Desk::keys(seconds_before_expiry(0));
    let spec = ring.sink(OnExpiry::Delete);
    for corp_id in ["ding1", "ding2"] {
        desk.publish(&spec, corp_id, "t-1").unwrap();
    }
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(ring.find("user", "ding1"), None);
    desk.withdraw(&spec, "ding2").unwrap();
    assert!(ring.find("keyring", "crm").is_none(), "dead keys do not keep a keyring");
    let mut desk = Desk::keys(seconds_before_expiry(600));
    assert_eq!(desk.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced));
    let key = ring.find("user", "ding1").expect("a live key");
    assert_eq!(keyctl(&["print", &key]).unwrap(), "t-2");
}

#[test]
fn a_revoked_or_unlinked_key_or_keyring_is_made_anew() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(600));
    let spec = ring.sink(OnExpiry::Delete);
    for (verb, kind, description) in [
        ("revoke", "user", "ding1"),
        ("invalidate", "user", "ding1"),
        ("revoke", "keyring", "crm"),
        ("clear", "keyring", "crm"),
    ] {
        desk.publish(&spec, "ding1", "t").unwrap();
        keyctl(&[verb, &ring.find(kind, description).unwrap()]).unwrap();
        assert_eq!(desk.publish(&spec, "ding1", "t"), Ok(Wrote::Replaced), "after {verb} of {description}");
        let key = ring.find("user", "ding1").unwrap();
        assert_eq!(keyctl(&["print", &key]).unwrap(), "t");
    }
}

#[test]
fn a_key_of_the_same_name_further_down_is_another_key() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(600));
    let deep = key_at(KeyringRoot::User, &[&ring.name, "crm", "crm", "{corp_id}"], OnExpiry::Delete);
    let shallow = key_at(KeyringRoot::User, &[&ring.name, "{corp_id}"], OnExpiry::Delete);
    desk.publish(&deep, "ding1", "t").unwrap();
    assert_eq!(desk.publish(&shallow, "ding1", "t"), Ok(Wrote::Replaced));
    assert_eq!(desk.publish(&deep, "ding1", "t"), Ok(Wrote::Unchanged));
    desk.withdraw(&shallow, "ding1").unwrap();
    assert!(ring.find("user", "ding1").is_some(), "the other one stays");
    assert_eq!(desk.publish(&shallow, "ding1", "t"), Ok(Wrote::Replaced));
}

#[test]
fn a_withdrawal_removes_the_key_and_the_keyrings_that_it_leaves_empty() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(600));
    let spec = ring.sink(OnExpiry::Delete);
    for corp_id in ["ding1", "ding2"] {
        desk.publish(&spec, corp_id, "t").unwrap();
    }
    desk.withdraw(&spec, "ding1").unwrap();
    assert!(ring.find("user", "ding1").is_none() && ring.find("user", "ding2").is_some());
    desk.withdraw(&spec, "ding2").unwrap();
    assert!(keyctl(&["search", "@u", "keyring", &ring.name]).is_err(), "the nested keyrings are gone");
    assert_eq!(desk.withdraw(&spec, "ding2"), Ok(()), "what is gone is gone");
}

#[test]
fn a_keyring_can_be_named_by_its_number() {
    let Some(ring) = Ring::new() else { return };
    let mut desk = Desk::keys(seconds_before_expiry(600));
    desk.publish(&ring.sink(OnExpiry::Delete), "ding1", "t").unwrap();
    let serial = ring.find("keyring", "crm").unwrap().parse().unwrap();
    let spec = key_at(KeyringRoot::Serial(serial), &["by-number", "{corp_id}"], OnExpiry::Delete);
    assert_eq!(desk.publish(&spec, "ding2", "t"), Ok(Wrote::Replaced));
    desk.withdraw(&spec, "ding2").unwrap();
    assert!(ring.find("keyring", "by-number").is_none() && ring.find("keyring", "crm").is_some(), "the root stays");
    let missing = key_at(KeyringRoot::Serial(1), &["{corp_id}"], OnExpiry::Delete);
    let failure = desk.publish(&missing, "ding1", "t").unwrap_err();
    assert_eq!(probe(&spec), Ok(()));
    assert_eq!(probe(&missing).unwrap_err().kind, failure.kind);
    assert!(failure.detail.contains("1/ding1") && failure.detail.contains("keyctl show"), "{failure}");
}

#[test]
fn an_exhausted_quota_names_the_limits_and_the_sysctls() {
    as_nobody("keyring::an_exhausted_quota_names_the_limits_and_the_sysctls", || {
        let Some(ring) = Ring::new() else { return };
        let mut desk = Desk::keys(seconds_before_expiry(600));
        let spec = ring.sink(OnExpiry::Delete);
        let large = "x".repeat(4000);
        let failure = (0..100).find_map(|n| desk.publish(&spec, &format!("ding{n}"), &large).err()).expect("a quota");
        assert_eq!(failure.kind, SinkFailureKind::Full, "{failure}");
        for part in ["kernel.keys.maxkeys=", "kernel.keys.maxbytes=", "user 65534", "bytes are used"] {
            assert!(failure.detail.contains(part), "{part} in {failure}");
        }
        assert!(!failure.detail.contains("xxx"));
        assert_eq!(desk.publish(&spec, "ding0", &large), Ok(Wrote::Unchanged), "what was published stays");
    });
}

#[test]
fn a_session_that_does_not_lead_to_the_user_keyring_is_no_obstacle() {
    if !needs("keyctl (Debian: keyutils)", has("keyctl")) {
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
