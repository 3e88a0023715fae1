//! The system calls of a publication.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::can_inject;
use crate::fixture::{Place, Scene, TEMPORARY, TENANT, Target};
use crate::support::figures as row;
use crate::support::system::syscall_faults::Injection;

const ERRORS: [&str; 6] = ["ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES", "EMFILE"];

/// The calls of a publication into a directory that is there.
const CALLS: [(&str, Target); 8] = [
    ("openat", Target::Anything),
    ("newfstatat", Target::Anything),
    ("write", Target::Temporary),
    ("fchown", Target::Anything),
    ("fchmod", Target::Anything),
    ("fsync", Target::Temporary),
    ("renameat", Target::Anything),
    ("fsync", Target::Directory),
];

/// Runs `each` for parts of `faults`, side by side; answers with what each answered.
fn side_by_side<T: Send>(
    faults: Vec<(&'static str, Target, &'static str)>,
    each: impl Fn(Vec<(&'static str, Target, &'static str)>) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let parts: Vec<_> = faults.chunks(14).map(<[_]>::to_vec).collect();
        let each = &each;
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || each(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_failing_call_of_a_publication_is_told_once_and_mended() {
    if !can_inject() {
        return;
    }
    let faults: Vec<_> = ERRORS.iter().flat_map(|error| CALLS.map(|(call, target)| (call, target, *error))).collect();
    let both = ERRORS.map(|error| ("fsync+unlinkat", Target::Anything, error));
    let faults: Vec<_> = faults.into_iter().chain(both).collect();
    let count = faults.len();
    let figures = side_by_side(faults, |part| {
        let mut scene = Scene::start(part, "{corp_id}");
        let readers = scene.readers();
        let injections = scene.inject(None);
        scene.wait_until_each("sink_failing");
        // Long enough for it to be tried again, in vain.
        std::thread::sleep(Duration::from_secs(3));
        scene.machine.wait_until("no failure leaves a temporary file", |_| {
            let can_unlink =
                |place: &&Place| place.fault.as_ref().is_none_or(|fault| !fault.calls.contains(&"unlinkat"));
            scene.places.iter().filter(can_unlink).all(|place| !place.file.with_file_name(TEMPORARY).exists())
        });
        let failed: usize = injections.into_iter().map(Injection::lift).sum();
        scene.wait_until_each("sink_mended");
        scene.wait_until_equal();
        let calls = scene.assert_no_call_repeated();
        assert!(scene.machine.stop().success());
        let seen = readers.finish();
        seen.assert_flawless(&scene.machine.sandbox);
        scene.assert_no_litter();
        for place in scene.faulty() {
            assert_eq!(scene.said("sink_failing", place), 1, "{:?}", place.fault);
            assert_eq!(scene.said("sink_mended", place), 1, "{:?}", place.fault);
        }
        (failed, seen.reads, calls, scene.assert_prompt(&seen))
    });
    let failed: usize = figures.iter().map(|figure| figure.0).sum();
    let reads: u64 = figures.iter().map(|figure| figure.1).sum();
    let calls: usize = figures.iter().map(|figure| figure.2).sum();
    let longest = figures.iter().map(|figure| figure.3).max().unwrap_or_default();
    row::leave(
        "every_failing_call_of_a_publication_is_told_once_and_mended",
        "each system call of a publication fails (ENOSPC, EIO, EDQUOT, EROFS, EACCES, EMFILE)",
        "readers see whole tokens; told once; mended when it passes; no temporary file; no call repeated; other file systems not delayed",
        &format!(
            "{count} combinations, {failed} failed calls, {reads} reads: 0 faults; {calls} API calls, none early; \
             another file system got each token within {} ms",
            longest.as_millis()
        ),
    );
}

#[test]
fn an_interrupted_call_of_a_publication_is_invisible() {
    if !can_inject() {
        return;
    }
    let faults = CALLS.map(|(call, target)| (call, target, "EINTR")).to_vec();
    let mut scene = Scene::start(faults, "{corp_id}");
    let readers = scene.readers();
    // Each is interrupted, and not when it is made again.
    let injections = scene.inject(Some("1+2"));
    let counts = || injections.iter().map(Injection::count).collect::<Vec<_>>();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while counts().iter().any(|count| *count < 2) {
        assert!(std::time::Instant::now() < deadline, "not every call was interrupted: {:?}", counts());
        std::thread::sleep(Duration::from_millis(50));
    }
    let failed: usize = injections.into_iter().map(Injection::lift).sum();
    scene.wait_until_equal();
    assert_eq!(scene.machine.events("sink_failing"), [serde_json::Value::Null; 0]);
    let calls = scene.assert_no_call_repeated();
    assert!(scene.machine.stop().success());
    readers.finish().assert_flawless(&scene.machine.sandbox);
    scene.assert_no_litter();
    row::leave(
        "an_interrupted_call_of_a_publication_is_invisible",
        "each system call of a publication is interrupted (EINTR)",
        "nobody notices",
        &format!("{} calls, interrupted {failed} times: 0 events; {calls} API calls, none early", CALLS.len()),
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_told_once_and_made_later() {
    if !can_inject() {
        return;
    }
    let calls = ["mkdirat", "fchown", "fchmod"];
    let errors = ["ENOSPC", "EIO", "EDQUOT", "EROFS"];
    let faults = calls.iter().flat_map(|call| errors.map(|error| (*call, Target::Anything, error))).collect::<Vec<_>>();
    let count = faults.len();
    let mut scene = Scene::start(faults, "{app}/{corp_id}");
    let injections = scene.inject(None);
    for place in scene.faulty() {
        std::fs::remove_dir_all(place.file.parent().unwrap()).unwrap();
    }
    scene.wait_until_each("sink_failing");
    std::thread::sleep(Duration::from_secs(2));
    for place in scene.faulty() {
        assert!(!place.file.exists(), "{:?} does not fail", place.fault);
    }
    let failed: usize = injections.into_iter().map(Injection::lift).sum();
    scene.wait_until_each("sink_mended");
    scene.wait_until_equal();
    let calls = scene.assert_no_call_repeated();
    assert!(scene.machine.stop().success());
    scene.assert_no_litter();
    for place in scene.faulty() {
        assert_eq!(scene.said("sink_failing", place), 1, "{:?}", place.fault);
        let directory = std::fs::metadata(place.file.parent().unwrap()).unwrap();
        let found = (directory.mode() & 0o7777, directory.gid());
        assert_eq!(found, (0o750, 65534), "{:?}: mode and group of the directory", place.fault);
    }
    row::leave(
        "a_directory_that_cannot_be_made_is_told_once_and_made_later",
        "a token directory was removed, and making it again fails (mkdir, chown, chmod: ENOSPC, EIO, EDQUOT, EROFS)",
        "told once; made when it passes, with the right mode and group; no call repeated",
        &format!("{count} combinations, {failed} failed calls; {calls} API calls, none early"),
    );
}

#[test]
fn a_token_that_cannot_be_removed_is_removed_later() {
    if !can_inject() {
        return;
    }
    let faults: Vec<_> = ERRORS.map(|error| ("unlinkat", Target::Anything, error)).to_vec();
    let count = faults.len();
    let mut scene = Scene::start(faults, "{corp_id}");
    let injections = scene.inject(None);
    scene.machine.edit(&format!("[\"{TENANT}\"]"), "[]");
    // The only tenant: a mass removal, which is carried out when it is asked for by name.
    let reloaded = scene.machine.run(&["reload", "--allow-mass-removal"]);
    assert!(reloaded.status.success(), "{}", crate::support::shown(&reloaded));
    scene.wait_until_each("sink_failing");
    let healthy = scene.places.iter().find(|place| place.fault.is_none()).unwrap();
    scene.machine.wait_until("the healthy place is empty", |_| !healthy.file.exists());
    let failed: usize = injections.into_iter().map(Injection::lift).sum();
    scene.wait_until_each("sink_mended");
    assert!(scene.machine.stop().success());
    for place in &scene.places {
        assert_eq!(std::fs::read_dir(place.disk.path()).unwrap().count(), 0, "{:?}", place.fault);
    }
    for place in scene.faulty() {
        assert_eq!(scene.said("sink_failing", place), 1, "{:?}", place.fault);
    }
    row::leave(
        "a_token_that_cannot_be_removed_is_removed_later",
        "the token of a tenant that left cannot be removed (unlink: ENOSPC, EIO, EDQUOT, EROFS, EACCES, EMFILE)",
        "told once; removed when it passes; other file systems not delayed",
        &format!("{count} combinations, {failed} failed calls; nothing is left"),
    );
}
