//! Whose a place is: two sinks are never on one, none is on the daemon's own files, and nobody who has no business with a
//! token can lead it elsewhere.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::fixture::{TestLane, as_nobody, file_at, probe, without_capability};
use crate::support::{has, is_root, system_allows};
use corptokend::domain::{FileSink, SinkFailureKind, SinkSpec, Wrote};
use corptokend::sink::Claims;
use corptokend::system::permissions::{Identity, Reserved};
use tempfile::tempdir;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn directory(path: PathBuf, group: u32, mode: u32) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    chown(&path, None, Some(group)).unwrap();
    chmod(&path, mode);
    path
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A directory that is mounted at another place as well; gone with the value.
struct Bind(PathBuf);

impl Bind {
    fn mount(from: &Path, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        assert!(Command::new("mount").arg("--bind").args([from, &at]).status().unwrap().success());
        Self(at)
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Publishes by two paths that lead to one place.
fn assert_first_keeps_its_place(first: &SinkSpec, second: &SinkSpec, file: &Path) {
    let claims = Arc::new(Claims::default());
    // Two lanes, as when one path was looked at before something was mounted there.
    let (mut one, mut two) = (TestLane::sharing(&claims), TestLane::sharing(&claims));
    assert_eq!(one.publish(first, "ding1", "t-1"), Ok(Wrote::Replaced));
    let failure = two.publish(second, "ding1", "t-2").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Taken, "{failure}");
    assert!(failure.detail.contains("give each sink a directory of its own"), "{failure}");
    assert_eq!(read(file).as_deref(), Some("t-1"));
    assert_eq!(two.publish(second, "ding2", "t-2"), Ok(Wrote::Replaced), "another name is another place");
    assert_eq!(two.withdraw(second, "ding1"), Ok(()), "whoever had no place has none to empty");
    assert_eq!(read(file).as_deref(), Some("t-1"));
    assert_eq!(one.publish(first, "ding1", "t-3"), Ok(Wrote::Replaced), "the first goes on");
    assert_eq!(one.withdraw(first, "ding1"), Ok(()));
    assert_eq!(two.publish(second, "ding1", "t-4"), Ok(Wrote::Replaced), "the place is free");
    assert_eq!(read(file).as_deref(), Some("t-4"));
}

#[test]
fn a_link_to_a_directory_gives_its_places_to_nobody_else() {
    let scratch = tempdir().unwrap();
    let real = scratch.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink("real", scratch.path().join("link")).unwrap();
    let [first, second] = ["real", "link"].map(|name| file_at(scratch.path().join(name).join("{corp_id}"), |_| {}));
    assert_first_keeps_its_place(&first, &second, &real.join("ding1"));
}

#[test]
fn the_root_directory_of_a_process_gives_no_second_name_to_a_place() {
    let scratch = tempdir().unwrap();
    let real = scratch.path().canonicalize().unwrap();
    let again = Path::new("/proc/self/root").join(real.strip_prefix("/").unwrap());
    let [first, second] = [&real, &again].map(|path| file_at(path.join("{corp_id}"), |_| {}));
    assert_first_keeps_its_place(&first, &second, &real.join("ding1"));
}

#[test]
fn a_bind_mount_gives_no_second_name_to_a_place() {
    if !system_allows("root, to mount", is_root()) {
        return;
    }
    let scratch = tempdir().unwrap();
    let real = scratch.path().join("real");
    fs::create_dir(&real).unwrap();
    let bind = Bind::mount(&real, scratch.path().join("other"));
    let [first, second] = [&real, &bind.0].map(|path| file_at(path.join("{corp_id}"), |_| {}));
    assert_first_keeps_its_place(&first, &second, &real.join("ding1"));
    // Below the fixed part, where no link is followed, a mount is.
    let app = directory(scratch.path().join("tree/crm"), 0, 0o755);
    drop(bind);
    let _bind = Bind::mount(&real, app);
    let second = file_at(scratch.path().join("tree/{app}/{corp_id}"), |_| {});
    for name in ["ding1", "ding2"] {
        fs::remove_file(real.join(name)).unwrap();
    }
    assert_first_keeps_its_place(&first, &second, &real.join("ding1"));
}

#[test]
fn what_is_the_daemons_own_is_not_replaced_by_any_path() {
    let scratch = tempdir().unwrap();
    let real = scratch.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("state"), "precious").unwrap();
    symlink("real", scratch.path().join("link")).unwrap();
    let identity = Identity::at(&real).unwrap();
    let mut reserved = Reserved::default();
    reserved.entries.insert((identity, OsString::from("state")), "the state");
    reserved.entries.insert((identity, OsString::from("socket")), "the control socket");
    let claims = Arc::new(Claims::default());
    claims.reserve(reserved.clone());
    let mut lane = TestLane::sharing(&claims);
    for (path, what) in [("link/state", "is the state"), ("link/socket", "is the control socket")] {
        let spec = file_at(scratch.path().join(path), |_| {});
        let failure = lane.publish(&spec, "ding1", "t").unwrap_err();
        assert_eq!(failure.kind, SinkFailureKind::Taken);
        assert!(failure.detail.contains(what), "{failure}");
        assert_eq!(lane.withdraw(&spec, "ding1"), Ok(()));
    }
    // What is not there yet must not become a directory either, nor a part of a sink's fixed path.
    for path in ["link/{app}/{corp_id}", "link/crm/x/{corp_id}"] {
        reserved.entries.insert((identity, OsString::from("crm")), "the control socket");
        claims.reserve(reserved.clone());
        let failure = lane.publish(&file_at(scratch.path().join(path), |_| {}), "ding1", "t").unwrap_err();
        assert!(failure.detail.contains("is the control socket"), "{failure}");
    }
    let mut names: Vec<_> = fs::read_dir(&real).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!((names, read(&real.join("state")).as_deref()), (vec![OsString::from("state")], Some("precious")));
    reserved.directories.insert(identity, "watched for changes of the config");
    claims.reserve(reserved);
    let failure = lane.publish(&file_at(scratch.path().join("link/{corp_id}"), |_| {}), "ding1", "t").unwrap_err();
    assert!(failure.detail.contains("watched for changes of the config"), "{failure}");
}

/// What publishing to `path` comes to, in a lane of its own, and that a probe says the same.
fn refusal(path: PathBuf, change: impl Fn(&mut FileSink)) -> Option<String> {
    let spec = file_at(path, change);
    let refused = TestLane::files().publish(&spec, "ding1", "t").err();
    assert_eq!(probe(&spec).err(), refused);
    assert!(refused.as_ref().is_none_or(|failure| failure.kind == SinkFailureKind::Unsafe), "{refused:?}");
    refused.map(|failure| failure.detail.into())
}

#[test]
fn every_directory_above_a_sink_is_judged_up_to_the_root() {
    if !system_allows("root, to give directories away", is_root()) {
        return;
    }
    let scratch = tempdir().unwrap();
    let above = directory(scratch.path().join("above"), 34, 0o775);
    let inner = directory(above.join("middle/inner"), 56, 0o2770);
    let place = || inner.join("{corp_id}");
    let own = |file: &mut FileSink| file.group = Some(56);
    let told = refusal(place(), own).unwrap();
    assert!(told.contains("above can be written by group 34") && told.contains("chmod g-w"), "{told}");
    assert_eq!(refusal(place(), |file| (file.group, file.trust_dir) = (Some(56), true)), None);
    chown(&above, None, Some(56)).unwrap();
    assert_eq!(refusal(place(), own), None, "the sink's own group may write above, too");
    chmod(&above, 0o757);
    assert!(refusal(place(), own).unwrap().contains("above can be written by everybody (mode 0757)"));
    chmod(&above, 0o1777);
    assert_eq!(refusal(place(), own), None, "nobody can rename what is in a sticky directory, as /tmp is");
    chown(&above, Some(12), None).unwrap();
    let told = refusal(place(), own).unwrap();
    assert!(told.contains("above belongs to user 12") && told.contains("`owner = 12`"), "{told}");
    chown(&above, Some(0), None).unwrap();
    chown(above.join("middle"), Some(12), None).unwrap();
    assert!(refusal(place(), own).unwrap().contains("middle belongs to user 12"), "whose may be renamed by its owner");
    // A setgid directory speaks for the files in it, not for those elsewhere.
    chown(above.join("middle"), Some(0), Some(34)).unwrap();
    chmod(&above.join("middle"), 0o2775);
    assert!(refusal(place(), |_| {}).unwrap().contains("middle can be written by group 34"));
    // Nothing is made below what is not safe.
    assert!(refusal(above.join("middle/made/{corp_id}"), own).unwrap().contains("middle can be written by group 34"));
    assert!(!above.join("middle/made").exists());
}

#[test]
fn an_access_control_list_counts_as_the_mode_does() {
    if !system_allows("root and setfacl", is_root() && has("setfacl")) {
        return;
    }
    let scratch = tempdir().unwrap();
    let inner = directory(scratch.path().join("above/inner"), 0, 0o755);
    let above = inner.parent().unwrap();
    let place = || inner.join("{corp_id}");
    let acl = |arguments: &[&str], path: &Path| {
        assert!(Command::new("setfacl").args(arguments).arg(path).status().unwrap().success());
    };
    for (path, who) in [(above, "u:12"), (above, "g:34"), (&inner, "u:12"), (&inner, "g:34")] {
        acl(&["-m", &format!("{who}:rwx")], path);
        let told = refusal(place(), |_| {}).unwrap();
        assert!(told.contains("(access control list)") && told.contains(&format!("setfacl -x {who} ")), "{told}");
        assert_eq!(refusal(place(), |file| (file.owner, file.group) = (Some(12), Some(34))), None, "{who}");
        fs::remove_file(inner.join("ding1")).unwrap();
        acl(&["-m", "m::rx"], path);
        assert_eq!(refusal(place(), |_| {}), None, "the mask takes the right to write away");
        acl(&["-b"], path);
    }
    acl(&["-d", "-m", "u:12:rwx"], &inner);
    assert_eq!(refusal(place(), |_| {}), None, "who inherits reading was named by the directory's owner");
    let told = refusal(place(), |file| file.mode = 0o660).unwrap();
    assert!(told.contains("default access control list") && told.contains("user 12"), "{told}");
}

#[test]
fn directories_exchanged_by_renaming_get_no_others_token() {
    if !system_allows("root, to give directories away", is_root()) {
        return;
    }
    let scratch = tempdir().unwrap();
    let parent = directory(scratch.path().join("parent"), 34, 0o755);
    let [hr, crm] = [(56, "hr"), (78, "crm")].map(|(group, name)| directory(parent.join(name), group, 0o2750));
    let sink = |path: &Path, group| file_at(path.join("{corp_id}"), move |file| file.group = Some(group));
    let (hr_sink, crm_sink) = (sink(&hr, 56), sink(&crm, 78));
    let mut lane = TestLane::files();
    for spec in [&hr_sink, &crm_sink] {
        assert_eq!(lane.publish(spec, "ding1", "t-1"), Ok(Wrote::Replaced));
    }
    // The third group gets the right to write, and uses it while both directories are open in the lane.
    chmod(&parent, 0o775);
    fs::rename(&hr, parent.join("x")).unwrap();
    fs::rename(&crm, &hr).unwrap();
    fs::rename(parent.join("x"), &crm).unwrap();
    for spec in [&hr_sink, &crm_sink] {
        let failure = lane.publish(spec, "ding1", "t-2").unwrap_err();
        assert!(failure.detail.contains("parent can be written by group 34"), "{failure}");
    }
    for path in [&hr, &crm] {
        assert_eq!(read(&path.join("ding1")).as_deref(), Some("t-1"), "{}", path.display());
    }
}

#[test]
fn a_sticky_directory_in_which_given_away_files_cannot_be_replaced_is_told_before_anything_is_written() {
    let test =
        "places::a_sticky_directory_in_which_given_away_files_cannot_be_replaced_is_told_before_anything_is_written";
    without_capability(test, "fowner", || {
        let scratch = tempdir().unwrap();
        let sticky = directory(scratch.path().join("sticky"), 34, 0o1775);
        // Only of what is its own does this root change the mode.
        let set = |owner, mode| {
            chown(&sticky, Some(0), None).unwrap();
            chmod(&sticky, mode);
            chown(&sticky, Some(owner), None).unwrap();
        };
        set(12, 0o1775);
        let given = |file: &mut FileSink| (file.owner, file.group) = (Some(12), Some(34));
        let told = refusal(sticky.join("{corp_id}"), given).unwrap();
        assert!(told.contains("is sticky and belongs to user 12") && told.contains("chmod -t"), "{told}");
        assert_eq!(fs::read_dir(&sticky).unwrap().count(), 0);
        set(12, 0o775);
        assert_eq!(refusal(sticky.join("{corp_id}"), given), None);
        set(0, 0o1775);
        assert_eq!(refusal(sticky.join("{corp_id}"), given), None, "the directory's owner may replace what is in it");
    });
}

#[test]
fn an_unprivileged_daemon_publishes_below_a_sticky_directory_of_roots() {
    as_nobody("places::an_unprivileged_daemon_publishes_below_a_sticky_directory_of_roots", || {
        let scratch = tempdir().unwrap();
        assert_eq!(refusal(scratch.path().join("{app}/{corp_id}"), |_| {}), None);
    });
}
