//! The files as files: permissions, mounts, links.

use super::*;

#[test]
fn a_config_that_others_can_write_is_refused_with_the_command_that_mends_it() {
    let dir = Dir::with("");
    dir.write("config.d/a.toml", "");
    for (name, mode, back) in
        [("config.toml", 0o646, 0o640), ("config.d/a.toml", 0o642, 0o640), ("config.d", 0o757, 0o755)]
    {
        dir.chmod(name, mode);
        let found = dir.problems();
        assert!(found.len() == 1 && found[0].contains("can be written by everybody"), "{found:?}");
        assert_eq!(dir.helps(), format!("chmod o-w {}", dir.path(name).display()));
        dir.chmod(name, back);
    }
    assert_eq!(dir.problems(), Vec::<String>::new());
}

/// In a container, config and secrets are often mounted read-only, with permissions that nobody there can change.
#[test]
fn on_a_read_only_mount_loose_permissions_are_a_warning() {
    const INNER: &str = "CORPTOKEND_TEST_READ_ONLY";
    const NAME: &str = "files::on_a_read_only_mount_loose_permissions_are_a_warning";
    if let Some(directory) = std::env::var_os(INNER) {
        let sources = environment::read(&Path::new(&directory).join("config.toml")).unwrap();
        let checked = environment::check(&sources, &process());
        let told: Vec<String> = checked.report.diagnostics.iter().map(config::Diagnostic::one_line).collect();
        assert!(checked.config.is_some(), "{told:#?}");
        assert!(told.iter().any(|line| line.contains("warning: the config can be written by everybody")), "{told:#?}");
        assert!(
            told.iter().any(|line| line.contains("crm.secret can be read") && line.contains("warning")),
            "{told:#?}"
        );
        return;
    }
    let dir = Dir::with(&crm(""));
    dir.chmod("config.toml", 0o666).chmod("crm.secret", 0o644);
    assert_eq!(dir.problems().len(), 2);
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; exec \"$2\" --exact \"$3\"";
    let exe = std::env::current_exe().unwrap();
    let mut inner = std::process::Command::new("unshare");
    inner.args(["-m", "sh", "-c", script, "sh"]).arg(dir.0.path()).arg(exe).arg(NAME).env(INNER, dir.0.path());
    let outcome = inner.output();
    let mounted = outcome.as_ref().is_ok_and(|out| ![Some(1), Some(99)].contains(&out.status.code()));
    if !mounted {
        assert!(std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_none(), "cannot mount: {outcome:?}");
        eprintln!("SKIPPED {NAME}: it needs the right to mount ({outcome:?})");
        return;
    }
    let out = outcome.unwrap();
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn what_cannot_be_read_is_told_with_its_name() {
    let dir = Dir::new();
    let missing = environment::read(&dir.path("config.toml")).unwrap_err();
    assert!(missing.headline().unwrap().contains("config.toml: error: the config cannot be read: No such file"));
    fs::write(dir.path("config.toml"), b"[api]\ntimeout = \"\xff\"\n").unwrap();
    let latin = environment::read(&dir.path("config.toml")).unwrap_err();
    assert!(latin.headline().unwrap().contains("config.toml:2:12: error: the config is not UTF-8"));
    dir.write("config.toml", "\u{feff}[api]\nx = 1\n");
    assert!(dir.problems()[0].starts_with("config.toml:2:1:"));
    dir.write("config.toml", "");
    fs::create_dir(dir.path("config.d")).unwrap();
    fs::create_dir(dir.path("config.d/x.toml")).unwrap();
    assert!(dir.problems()[0].contains("config.d/x.toml: error: the config is not a file"));
}

#[test]
fn links_are_watched_to_their_end() {
    let dir = Dir::new();
    dir.write("..v1/config.toml", "");
    std::os::unix::fs::symlink("..v1", dir.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/config.toml", dir.path("config.toml")).unwrap();
    let watch = dir.sources().watch;
    assert!(watch.contains(&dir.0.path().to_path_buf()) && watch.contains(&dir.path("..v1")), "{watch:?}");
    dir.write("config.d/a.toml", "");
    assert!(dir.sources().watch.contains(&dir.path("config.d")));
}
