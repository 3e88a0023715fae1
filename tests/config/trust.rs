//! Who else could change what the daemon reads.

use std::os::unix::fs::{chown, symlink};
use std::process::Command;

use super::*;

/// Users and groups that are not ours.
const STRANGER: u32 = 12_345;

fn is_root_with(program: &str) -> bool {
    let there = rustix::process::geteuid().is_root()
        && Command::new("which").arg(program).output().is_ok_and(|o| o.status.success());
    if !there {
        assert!(std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_none(), "this test needs root and {program}");
        eprintln!("SKIPPED: this test needs root and {program}");
    }
    there
}

/// A config below a directory of its own, with certificates that are somewhere else.
fn scene() -> Dir {
    let dir = Dir::new();
    dir.write("a/b/config.toml", "[api]\nca_file = \"../../x/ca.pem\"\n").write("x/ca.pem", "");
    dir.write(
        "a/b/config.d/crm.toml",
        "[app.crm]\nclient_id = \"c\"\nclient_secret = { file = \"../../../y/crm.secret\" }\n",
    );
    dir.secret("y/crm.secret");
    for name in ["a", "a/b", "a/b/config.d", "x", "y"] {
        dir.chmod(name, 0o755);
    }
    dir
}

impl Dir {
    /// The problems of `a/b/config.toml`, and what helps.
    fn dangers(&self) -> Vec<(String, String)> {
        let sources = environment::read(&self.path("a/b/config.toml")).unwrap();
        let report = environment::check(&sources, &process()).report;
        let root = format!("{}/", self.0.path().canonicalize().unwrap().display());
        let told =
            report.diagnostics.iter().map(|problem| (problem.one_line(), problem.help.clone().unwrap_or_default()));
        told.map(|(line, help)| (line.replace(&root, ""), help.replace(&root, ""))).collect()
    }

    #[track_caller]
    fn assert_danger(&self, line: &str, help: &str) {
        let found = self.dangers();
        assert!(found.len() == 1 && found[0].0.starts_with(line) && found[0].1 == help, "{line}: {found:#?}");
    }
}

#[test]
fn everything_above_what_is_read_is_judged() {
    let dir = scene();
    assert_eq!(dir.dangers(), []);
    for (name, what) in [
        ("a", "a: error: a directory above the config"),
        ("a/b", "a/b: error: the directory of the config"),
        ("a/b/config.d", "a/b/config.d: error: the directory of the drop-ins"),
        ("x", "x: error: the directory of `ca_file`"),
        ("x/ca.pem", "x/ca.pem: error: `ca_file`"),
        ("y", "y: error: a directory above a client secret"),
    ] {
        let before = fs::metadata(dir.path(name)).unwrap().permissions();
        dir.chmod(name, 0o757);
        dir.assert_danger(&format!("{what} can be written by everybody (mode 0757)"), &format!("chmod o-w {name}"));
        fs::set_permissions(dir.path(name), before).unwrap();
    }
    assert_eq!(dir.dangers(), []);
}

#[test]
fn all_dangers_are_told_at_once_and_each_once() {
    let dir = scene();
    dir.chmod("a", 0o777).chmod("x", 0o777).chmod("y", 0o777).write("a/b/config.d/d.toml", "");
    dir.chmod("a/b/config.d/d.toml", 0o666);
    let lines: Vec<String> = dir.dangers().into_iter().map(|(line, _)| line).collect();
    let mut found: Vec<_> = lines.iter().filter_map(|line| line.split(':').next()).collect();
    found.sort_unstable();
    assert_eq!(found, ["a", "a/b/config.d/d.toml", "x", "y"], "{lines:#?}");
}

#[test]
fn what_belongs_to_a_stranger_is_refused() {
    if !is_root_with("true") {
        return;
    }
    let dir = scene();
    for (name, what) in [
        ("a/b/config.toml", "the config"),
        ("a/b/config.d/crm.toml", "the config"),
        ("a", "a directory above the config"),
        ("x/ca.pem", "`ca_file`"),
        ("y/crm.secret", "a client secret"),
    ] {
        chown(dir.path(name), Some(STRANGER), None).unwrap();
        let line = format!("{name}: error: {what} belongs to user {STRANGER}, who is a stranger here");
        dir.assert_danger(&line, &format!("chown root {name}"));
        chown(dir.path(name), Some(0), None).unwrap();
    }
    chown(dir.path("a"), None, Some(STRANGER)).unwrap();
    dir.chmod("a", 0o775);
    dir.assert_danger(
        &format!("a: error: a directory above the config can be written by group {STRANGER} (mode 0775)"),
        "chmod g-w a",
    );
}

#[test]
fn a_drop_in_that_links_into_a_strangers_directory_is_refused() {
    if !is_root_with("true") {
        return;
    }
    let dir = scene();
    dir.write("strange/z.toml", "");
    chown(dir.path("strange"), Some(STRANGER), None).unwrap();
    symlink("../../../strange/z.toml", dir.path("a/b/config.d/z.toml")).unwrap();
    let (line, help) = (format!("user {STRANGER}"), "chown root strange");
    let found = dir.dangers();
    assert!(found.len() == 1 && found[0].0.starts_with("strange: ") && found[0].0.contains(&line), "{found:#?}");
    assert_eq!(found[0].1, help);
    chown(dir.path("strange"), Some(0), None).unwrap();
    assert_eq!(dir.dangers(), []);
    // In a sticky directory, a link can be replaced by its owner.
    std::os::unix::fs::lchown(dir.path("a/b/config.d/z.toml"), Some(STRANGER), None).unwrap();
    let found = dir.dangers();
    assert!(found.len() == 1 && found[0].0.contains("a link on the way to the config belongs to user"), "{found:#?}");
}

#[test]
fn access_control_lists_are_seen() {
    if !is_root_with("setfacl") {
        return;
    }
    let dir = scene();
    let acl = |arguments: &[&str], name: &str| {
        assert!(Command::new("setfacl").args(arguments).arg(dir.path(name)).status().unwrap().success());
    };
    for (name, what) in [
        ("a", "a directory above the config"),
        ("a/b/config.toml", "the config"),
        ("x/ca.pem", "`ca_file`"),
        ("y", "a directory above a client secret"),
    ] {
        for who in ["u", "g"] {
            acl(&["-m", &format!("{who}:{STRANGER}:rwx")], name);
            let whom = if who == "u" { "user" } else { "group" };
            let line = format!("{name}: error: {what} can be written by {whom} {STRANGER} (access control list)");
            dir.assert_danger(&line, &format!("setfacl -x {who}:{STRANGER} {name}"));
            acl(&["-b"], name);
        }
    }
    // Who may read matters of a secret alone.
    for name in ["a", "a/b/config.toml", "x/ca.pem", "y"] {
        acl(&["-m", &format!("u:{STRANGER}:r")], name);
    }
    assert_eq!(dir.dangers(), []);
    acl(&["-m", "u:0:rw"], "y/crm.secret");
    assert_eq!(dir.dangers(), [], "what the list gives to us is no danger, though the mode shows it as the group's");
    acl(&["-m", &format!("u:{STRANGER}:r")], "y/crm.secret");
    let found = dir.dangers();
    assert!(
        found.len() == 1
            && found[0].0.contains(&format!("crm.secret can be read by user {STRANGER} (access control list)")),
        "{found:#?}"
    );
    assert!(found[0].1.starts_with(&format!("setfacl -x u:{STRANGER} ")), "{found:#?}");
}

#[test]
fn a_secret_is_judged_at_each_use_with_the_way_to_it() {
    let dir = scene();
    let read = || environment::secrets::read(&corptokend::domain::SecretSource::File(dir.path("y/crm.secret")), None);
    assert!(read().is_ok());
    dir.chmod("y", 0o777);
    let error = read().unwrap_err();
    assert!(error.to_string().ends_with("y can be written by everybody (mode 0777)"), "{error}");
    assert!(error.remedy().starts_with("chmod o-w "), "{}", error.remedy());
}
