//! A keyring of a test's own below `@u`, seen as another process of the same user sees it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{has, system_allows};

/// A keyring below `@u`, gone with the value.
pub struct TestKeyring(pub String);

impl TestKeyring {
    /// A keyring that no other test uses, and that the daemon will make. `None`, loudly, where the machine has no keyrings.
    pub fn named(what: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let has_keys = has("keyctl") && keyctl(&["show", "@u"]).is_ok();
        let name = format!("corptokend-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        system_allows("keyrings (keyctl, Debian: keyutils)", has_keys).then_some(Self(name))
    }

    /// What a reader finds under this description, in the keyring or in one below it.
    pub fn print(&self, description: &str) -> Option<String> {
        keyctl(&["print", &self.find("user", description)?]).ok()
    }

    /// The serial number of a key or a keyring in it, as a reader finds it.
    pub fn find(&self, kind: &str, description: &str) -> Option<String> {
        let own = keyctl(&["search", "@u", "keyring", &self.0]).ok()?;
        keyctl(&["search", &own, kind, description]).ok()
    }
}

impl Drop for TestKeyring {
    fn drop(&mut self) {
        if let Ok(serial) = keyctl(&["search", "@u", "keyring", &self.0]) {
            let _ = keyctl(&["unlink", &serial, "@u"]);
        }
    }
}

/// The remaining life that the kernel shows of a key, such as `2h` or `perm`.
pub fn timeout_of(serial: &str) -> Option<String> {
    let hexadecimal = format!("{:08x}", serial.parse::<i32>().ok()?);
    let keys = std::fs::read_to_string("/proc/keys").ok()?;
    let line = keys.lines().find(|line| line.starts_with(&hexadecimal))?;
    line.split_whitespace().nth(3).map(str::to_owned)
}

/// Runs keyctl as a process that possesses `@u`, and returns what it prints, or its error.
pub fn keyctl(arguments: &[&str]) -> Result<String, String> {
    let script = "keyctl link @u @s >/dev/null 2>&1; exec keyctl \"$@\"";
    let ran = Command::new("keyctl")
        .args(["session", "-", "sh", "-c", script, "sh"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
}
