//! `corptokend dev`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{BINARY, Killed, PATIENCE, has, shown};

/// `corptokend dev`, with a $TMPDIR of its own.
struct Dev {
    child: Child,
    tmp: tempfile::TempDir,
    introduction: String,
    log: Arc<Mutex<String>>,
}

impl Dev {
    fn start(args: &[&str]) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let mut command = Command::new(BINARY);
        command.arg("dev").args(args).env("TMPDIR", tmp.path()).env("NO_COLOR", "1").env_remove("JOURNAL_STREAM");
        // A company's proxy is nothing to a simulated endpoint on loopback.
        command.env("HTTPS_PROXY", "http://127.0.0.1:1");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut introduction = String::new();
        while !introduction.contains("Ctrl-C") && stdout.read_line(&mut introduction).unwrap() > 0 {}
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, tmp, introduction, log }
    }

    /// The directory that it made.
    fn directory(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.tmp.path()).unwrap();
        entries.next().expect("a scratch directory").unwrap().path()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}\n{}{}", self.introduction, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_told(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// The commands that it suggests.
    fn examples(&self) -> Vec<String> {
        let after = self.introduction.split("another terminal:").nth(1).expect("examples").lines();
        after.filter_map(|line| line.strip_prefix("  ")).filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
    }

    fn interrupt(mut self) -> (Option<i32>, tempfile::TempDir) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let code = self.child.wait().unwrap().code();
        (code, std::mem::replace(&mut self.tmp, tempfile::tempdir().unwrap()))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_where_things_are_rotates_and_leaves_nothing_behind() {
    let dev = Dev::start(&["--lifetime", "5"]);
    let directory = dev.directory();
    for place in ["etc/config.toml", "tokens/"] {
        let place = format!("{}/{place}", directory.display());
        assert!(dev.introduction.contains(&place), "{place} is missing in:\n{}", dev.introduction);
    }
    let token = directory.join("tokens/crm/ding-acme");
    dev.wait_for("a token", || token.exists());
    let first = fs::read_to_string(&token).unwrap();
    dev.wait_for("the next token", || fs::read_to_string(&token).is_ok_and(|next| next != first));
    let line = dev.log().lines().find(|line| line.contains("crm/ding-acme")).unwrap().to_owned();
    let (stamp, rest) = line.split_once(' ').unwrap();
    assert!(stamp.ends_with('Z') && rest.starts_with("INFO crm/ding-acme: new token "), "{line}");
    assert!(rest.ends_with(", good for 5s"), "no field repeats the message: {line}");
    assert_eq!(
        fs::metadata(&directory).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777).unwrap(),
        0o700
    );

    let (code, tmp) = dev.interrupt();
    assert_eq!(code, Some(0));
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0, "no litter");
}

#[test]
fn every_command_that_it_suggests_does_what_it_says() {
    if !crate::support::system_allows("curl", has("curl")) {
        return;
    }
    let dev = Dev::start(&[]);
    let directory = dev.directory();
    dev.wait_for("the tokens", || dev.is_told("ready: 3 tenants"));
    let [cat, add, spoil, mend, status, outage, end, remove] = &dev.examples()[..] else {
        panic!("other examples than this test knows:\n{}", dev.introduction)
    };
    let paste = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}\n{}", shown(&output));
        shown(&output)
    };
    let token = directory.join("tokens/crm/ding-acme");
    assert_eq!(paste(cat), fs::read_to_string(&token).unwrap());
    paste(add);
    dev.wait_for("one more tenant", || directory.join("tokens/crm/ding-initech").exists());
    paste(spoil);
    dev.wait_for("the rejection", || dev.is_told("rejected, and nothing changes") && dev.is_told("config.toml:"));
    paste(mend);
    dev.wait_for("the end of it", || dev.log().matches("config applied").count() == 2);
    assert!(paste(status).contains("crm/ding-initech"));
    assert!(paste(outage).contains("server_error"));
    assert!(paste(end).contains("no faults"));
    let before = fs::read_to_string(&token).unwrap();
    paste(remove);
    dev.wait_for("the file that was deleted", || fs::read_to_string(&token).is_ok_and(|now| now == before));
    assert_eq!(dev.interrupt().0, Some(0));
}

#[test]
fn a_directory_of_ones_own_stays_and_is_never_overwritten() {
    let own = tempfile::tempdir().unwrap();
    let play = own.path().join("play");
    let dev = Dev::start(&["--dir", play.to_str().unwrap()]);
    dev.wait_for("a token", || play.join("tokens/crm/ding-acme").exists());
    assert_eq!(dev.interrupt().0, Some(0));
    assert!(play.join("tokens/crm/ding-acme").exists() && !play.join("control.sock").exists());

    let config = fs::read(play.join("etc/config.toml")).unwrap();
    let (code, text) = to_its_end(&play);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.contains("is not empty"), "{text}");
    assert_eq!(fs::read(play.join("etc/config.toml")).unwrap(), config);
}

fn to_its_end(directory: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    let mut child = command.args(["dev", "--dir"]).arg(directory).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn it_ends_with_its_terminal() {
    if !crate::support::system_allows("a terminal", has("script")) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("exec {BINARY} dev"), "/dev/null"]).env("TMPDIR", tmp.path());
    let mut terminal = Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let there = || fs::read_dir(tmp.path()).unwrap().flatten().any(|entry| entry.path().join("tokens/crm").exists());
    let deadline = Instant::now() + PATIENCE;
    let wait = |what: &str, condition: &dyn Fn() -> bool| {
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("it runs", &there);
    terminal.0.kill().unwrap();
    wait("it has cleaned up", &|| fs::read_dir(tmp.path()).unwrap().count() == 0);
}
