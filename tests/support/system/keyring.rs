//! A keyring of a test's own below `@u`, seen as another process of the same user sees it.

use std::process::{Command, Stdio};

use super::system_allows;

/// A keyring below `@u`, gone with the value.
pub struct Ring(pub String);

impl Ring {
    /// A keyring of this name, which the daemon will make. `None`, loudly, where the machine has no keyrings.
    pub fn named(what: &str) -> Option<Self> {
        let has_keys = keyctl(&["show", "@u"]).is_some();
        let name = format!("corptokend-{what}-{}", std::process::id());
        system_allows("keyrings (keyctl, Debian: keyutils)", has_keys).then_some(Self(name))
    }

    /// What a reader finds under this description, in the ring or in a keyring below it.
    pub fn print(&self, description: &str) -> Option<String> {
        keyctl(&["print", &self.find("user", description)?])
    }

    /// The serial number of a key or a keyring in the ring.
    pub fn find(&self, kind: &str, description: &str) -> Option<String> {
        let ring = keyctl(&["search", "@u", "keyring", &self.0])?;
        keyctl(&["search", &ring, kind, description])
    }

    /// The remaining life that the kernel shows of a key, such as `2h` or `perm`.
    pub fn timeout_of(&self, description: &str) -> Option<String> {
        let serial = self.find("user", description)?.parse::<i32>().ok()?;
        let keys = std::fs::read_to_string("/proc/keys").ok()?;
        let line = keys.lines().find(|line| line.starts_with(&format!("{serial:08x}")))?;
        line.split_whitespace().nth(3).map(str::to_owned)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(serial) = keyctl(&["search", "@u", "keyring", &self.0]) {
            keyctl(&["unlink", &serial, "@u"]);
        }
    }
}

/// Runs keyctl as a process that possesses `@u`, and returns what it prints.
pub fn keyctl(arguments: &[&str]) -> Option<String> {
    let script = "keyctl link @u @s >/dev/null 2>&1; exec keyctl \"$@\"";
    let ran = Command::new("keyctl")
        .args(["session", "-", "sh", "-c", script, "sh"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}
