//! `reload`.

use corptokend::control::protocol::{HeldBack, ReloadVerdict};

use crate::fake_daemon::Fake;

#[test]
fn reload_tells_what_was_applied() {
    let daemon = Fake::verdict(ReloadVerdict { applied: true, added: 3, changed: 1, ..Default::default() }).start();
    assert_eq!(daemon.reload(false), (0, "applied: 3 added, 0 removed, 1 changed\n".into(), String::new()));
}

#[test]
fn a_rejected_reload_prints_the_report_and_exits_78() {
    let report = "error: unknown key `corpids`\n --> config.toml:4:1\n".to_owned();
    let (code, out, err) = Fake::verdict(ReloadVerdict { report, ..Default::default() }).start().reload(false);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.starts_with("error: unknown key `corpids`") && err.contains("error: the config was rejected"), "{err}");
}

#[test]
fn a_removal_that_is_held_back_is_said_until_it_is_allowed() {
    let held_back = Some(HeldBack { removed: 9 });
    let daemon = Fake::verdict(ReloadVerdict { applied: true, held_back, ..Default::default() }).start();
    let (code, _, err) = daemon.reload(false);
    assert_eq!(code, 0);
    assert!(err.contains("9 tenants is held back") && err.contains("--allow-mass-removal"), "{err}");
    let (_, _, err) = daemon.reload(true);
    assert_eq!(err, "");
}
