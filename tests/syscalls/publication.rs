//! The system calls of a publication.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::fixture::{Fixture, SinkCase, TEMPORARY, TENANT, Target};
use crate::support::reliability;
use crate::support::system::syscall_faults::{Injection, can_inject};
use crate::support::wait_until;

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
fn every_failing_call_of_a_publication_is_reported_once_and_mended() {
    if !can_inject() {
        return;
    }
    let faults: Vec<_> = ERRORS.iter().flat_map(|error| CALLS.map(|(call, target)| (call, target, *error))).collect();
    let both = ERRORS.map(|error| ("fsync+unlinkat", Target::Anything, error));
    let faults: Vec<_> = faults.into_iter().chain(both).collect();
    let count = faults.len();
    let figures = side_by_side(faults, |part| {
        let mut fixture = Fixture::start(part, "{corp_id}");
        let readers = fixture.readers();
        let injections = fixture.inject(None);
        fixture.wait_until_each("sink_failing");
        // Long enough for it to be tried again, in vain.
        std::thread::sleep(Duration::from_secs(3));
        fixture.machine.wait_until("no failure leaves a temporary file", |_| {
            let can_unlink =
                |sink: &&SinkCase| sink.fault.as_ref().is_none_or(|fault| !fault.calls.contains(&"unlinkat"));
            fixture.sinks.iter().filter(can_unlink).all(|sink| !sink.file.with_file_name(TEMPORARY).exists())
        });
        let failed: usize = injections.into_iter().map(Injection::lift).sum();
        fixture.wait_until_each("sink_mended");
        fixture.wait_until_equal();
        let calls = fixture.assert_no_call_repeated();
        assert!(fixture.machine.stop().success());
        let seen = readers.finish();
        seen.assert_flawless(&fixture.machine.sandbox);
        fixture.assert_no_temporary_files();
        for sink in fixture.faulty() {
            assert_eq!(fixture.said("sink_failing", sink), 1, "{:?}", sink.fault);
            assert_eq!(fixture.said("sink_mended", sink), 1, "{:?}", sink.fault);
        }
        (failed, seen.reads, calls, fixture.assert_prompt(&seen))
    });
    let failed: usize = figures.iter().map(|figure| figure.0).sum();
    let reads: u64 = figures.iter().map(|figure| figure.1).sum();
    let calls: usize = figures.iter().map(|figure| figure.2).sum();
    let longest = figures.iter().map(|figure| figure.3).max().unwrap_or_default();
    reliability::leave(
        "every_failing_call_of_a_publication_is_reported_once_and_mended",
        "each system call of a publication fails (ENOSPC, EIO, EDQUOT, EROFS, EACCES, EMFILE)",
        "readers see whole tokens; reported once; mended when it passes; no temporary file; no call repeated; other file systems not delayed",
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
    let mut fixture = Fixture::start(faults, "{corp_id}");
    let readers = fixture.readers();
    // Each is interrupted, and not when it is made again.
    let injections = fixture.inject(Some("1+2"));
    let counts = || injections.iter().map(Injection::count).collect::<Vec<_>>();
    let all_twice = || counts().iter().all(|count| *count >= 2);
    wait_until("every call was interrupted", all_twice, || format!("{:?}", counts()));
    let failed: usize = injections.into_iter().map(Injection::lift).sum();
    fixture.wait_until_equal();
    assert_eq!(fixture.machine.events("sink_failing"), [serde_json::Value::Null; 0]);
    let calls = fixture.assert_no_call_repeated();
    assert!(fixture.machine.stop().success());
    readers.finish().assert_flawless(&fixture.machine.sandbox);
    fixture.assert_no_temporary_files();
    reliability::leave(
        "an_interrupted_call_of_a_publication_is_invisible",
        "each system call of a publication is interrupted (EINTR)",
        "nobody notices",
        &format!("{} calls, interrupted {failed} times: 0 events; {calls} API calls, none early", CALLS.len()),
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_reported_once_and_made_later() {
    if !can_inject() {
        return;
    }
    let calls = ["mkdirat", "fchown", "fchmod"];
    let errors = ["ENOSPC", "EIO", "EDQUOT", "EROFS"];
    let faults = calls.iter().flat_map(|call| errors.map(|error| (*call, Target::Anything, error))).collect::<Vec<_>>();
    let count = faults.len();
    let mut fixture = Fixture::start(faults, "{app}/{corp_id}");
    let injections = fixture.inject(None);
    for sink in fixture.faulty() {
        std::fs::remove_dir_all(sink.file.parent().unwrap()).unwrap();
    }
    fixture.wait_until_each("sink_failing");
    std::thread::sleep(Duration::from_secs(2));
    for sink in fixture.faulty() {
        assert!(!sink.file.exists(), "{:?} does not fail", sink.fault);
    }
    let failed: usize = injections.into_iter().map(Injection::lift).sum();
    fixture.wait_until_each("sink_mended");
    fixture.wait_until_equal();
    let calls = fixture.assert_no_call_repeated();
    assert!(fixture.machine.stop().success());
    fixture.assert_no_temporary_files();
    for sink in fixture.faulty() {
        assert_eq!(fixture.said("sink_failing", sink), 1, "{:?}", sink.fault);
        let directory = std::fs::metadata(sink.file.parent().unwrap()).unwrap();
        let found = (directory.mode() & 0o7777, directory.gid());
        assert_eq!(found, (0o750, 65534), "{:?}: mode and group of the directory", sink.fault);
    }
    reliability::leave(
        "a_directory_that_cannot_be_made_is_reported_once_and_made_later",
        "a token directory was removed, and making it again fails (mkdir, chown, chmod: ENOSPC, EIO, EDQUOT, EROFS)",
        "reported once; made when it passes, with the right mode and group; no call repeated",
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
    let mut fixture = Fixture::start(faults, "{corp_id}");
    let injections = fixture.inject(None);
    fixture.machine.edit(&format!("[\"{TENANT}\"]"), "[]");
    // The only tenant: a mass removal, which is carried out when it is asked for by name.
    let reloaded = fixture.machine.run(&["reload", "--allow-mass-removal"]);
    assert!(reloaded.status.success(), "{}", crate::support::shown(&reloaded));
    fixture.wait_until_each("sink_failing");
    let healthy = fixture.sinks.iter().find(|sink| sink.fault.is_none()).unwrap();
    fixture.machine.wait_until("the healthy sink is empty", |_| !healthy.file.exists());
    let failed: usize = injections.into_iter().map(Injection::lift).sum();
    fixture.wait_until_each("sink_mended");
    assert!(fixture.machine.stop().success());
    for sink in &fixture.sinks {
        assert_eq!(std::fs::read_dir(sink.disk.path()).unwrap().count(), 0, "{:?}", sink.fault);
    }
    for sink in fixture.faulty() {
        assert_eq!(fixture.said("sink_failing", sink), 1, "{:?}", sink.fault);
    }
    reliability::leave(
        "a_token_that_cannot_be_removed_is_removed_later",
        "the token of a tenant that left cannot be removed (unlink: ENOSPC, EIO, EDQUOT, EROFS, EACCES, EMFILE)",
        "reported once; removed when it passes; other file systems not delayed",
        &format!("{count} combinations, {failed} failed calls; nothing is left"),
    );
}
