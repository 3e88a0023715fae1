//! Those who listen to the daemon: whoever reads its log, systemd, the clients of its control socket. They do not.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::case::{Case, LATE, Start, run_all};
use crate::fixture::{Fixture, Setup};
use crate::support::{Killed, Machine, NOBODY, has, is_root, system_allows};

/// A thread that takes whatever comes, or nothing at all. It ends with the value.
struct Listener {
    is_deaf: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Listener {
    /// `take` waits for something, for a short time.
    fn start(mut take: impl FnMut() + Send + 'static) -> Arc<Self> {
        let listener = Arc::new(Self { is_deaf: Arc::default(), is_over: Arc::default() });
        let (is_deaf, is_over) = (Arc::clone(&listener.is_deaf), Arc::clone(&listener.is_over));
        std::thread::spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                if is_deaf.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                } else {
                    take();
                }
            }
        });
        listener
    }

    fn is_deaf(&self, it_is: bool) {
        self.is_deaf.store(it_is, Ordering::SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

fn fixture(draft: Setup, listener: Arc<Listener>) -> Fixture {
    let (shut, open) = (Arc::clone(&listener), Arc::clone(&listener));
    draft.with("", listener, Box::new(move |_| shut.is_deaf(true)), Box::new(move |_| open.is_deaf(false)))
}

/// Nobody reads the pipe that is the daemon's stderr; it holds a page.
fn stderr() -> Option<Fixture> {
    let (mut reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let listener = Listener::start(move || {
        let ready = rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN);
        let short = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if rustix::event::poll(&mut [ready], Some(&short)).is_ok_and(|ready| ready > 0) {
            let _ = reader.read(&mut [0; 4096]);
        }
    });
    Some(fixture(Setup::new(), listener).logging_to(writer))
}

/// A datagram socket that nobody reads.
fn socket(path: &Path) -> Arc<Listener> {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    Listener::start(move || drop(socket.recv(&mut [0; 4096])))
}

/// Nobody reads the journal's socket, which is ours in a mount namespace.
fn journal() -> Option<Fixture> {
    if !system_allows("a journal of our own (root, unshare)", is_root() && has("unshare")) {
        return None;
    }
    let draft = Setup::new();
    let path = draft.path("journal.sock");
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s {} /run/systemd/journal/socket && exec \"$@\"",
        path.display()
    );
    let fixture = fixture(draft, socket(&path)).launched_under(&["unshare", "-m", "sh", "-c", &script, "sh"]);
    fixture.machine.edit("format = \"json\"", "format = \"journald\"");
    Some(fixture)
}

/// Nobody reads systemd's socket.
fn systemd() -> Option<Fixture> {
    let draft = Setup::new();
    let path = draft.path("systemd.sock");
    let mut fixture = fixture(draft, socket(&path));
    fixture.machine.env("NOTIFY_SOCKET", path.to_str().unwrap());
    fixture.manager = None;
    Some(fixture)
}

/// Debian's: another one on PATH may be in a home that is not open to others.
const PYTHON: &str = "/usr/bin/python3";

/// Opens connections until it is turned away: half of them begin a request, the others ask and do not read.
const CLIENTS: &str = r#"
import socket, sys
held = []
for request in [b"GET /v1/sta", b"GET /v1/tenants HTTP/1.1\r\nhost: x\r\n\r\n"] * 64:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(sys.argv[1])
        client.send(request)
    except OSError:
        break
    held.append(client)
print(len(held), flush=True)
sys.stdin.read()
"#;

/// The clients of another user who may use the socket, as many as he gets.
fn clients() -> Option<Fixture> {
    if !system_allows(
        "clients of another user (root, setpriv, python3)",
        is_root() && has("setpriv") && Path::new(PYTHON).exists(),
    ) {
        return None;
    }
    let clients: Arc<Mutex<Vec<Killed>>> = Arc::default();
    let (more, none) = (Arc::clone(&clients), Arc::clone(&clients));
    let hang = move |machine: &Machine| {
        let id = NOBODY.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", PYTHON, "-c", CLIENTS]);
        command.arg(machine.path("run/control.sock")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut clients = Killed(command.spawn().unwrap());
        let mut held = String::new();
        BufReader::new(clients.0.stdout.take().unwrap()).read_line(&mut held).unwrap();
        assert!(held.trim().parse::<usize>().unwrap() >= 4, "they got in: {held}");
        more.lock().unwrap().push(clients);
    };
    let fixture = Setup::new().with("", (), Box::new(hang), Box::new(move |_| none.lock().unwrap().clear()));
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(fixture.machine.path(""), open).unwrap();
    fixture.machine.edit("[control]\n", &format!("[control]\ngroup = {NOBODY}\n"));
    Some(fixture)
}

const fn case(
    hangs: &'static str,
    words: [&'static str; 4],
    seen: &'static [&'static str],
    start: Start,
    fixture: fn() -> Option<Fixture>,
) -> Case {
    let [who_waits, how_long, status_says, comes_back] = words;
    let (back, file) = (Duration::from_secs(20), "tokens/crm/{}");
    Case {
        hangs,
        who_waits,
        how_long,
        status_says,
        comes_back,
        seen,
        seen_at_start: seen,
        in_vain: 0,
        found_out: LATE,
        back,
        start,
        fixture,
        file,
    }
}

const LOG: [&str; 4] = [
    "a thread that writes the log",
    "until somebody reads; at the end, a second or two",
    "`log_lines_lost`, once the queue is full",
    "lines are written again, after one that says how many were lost",
];

pub(super) const CELLS: &[Case] = &[
    case("stderr", LOG, &[], Start::Serves, stderr),
    case("journal", LOG, &[], Start::Serves, journal),
    case(
        "notify socket",
        [
            "nobody",
            "what systemd does not take is sent again, every 250 ms",
            "nothing: systemd sees it",
            "the last state and status are sent",
        ],
        &[],
        Start::Serves,
        systemd,
    ),
    case(
        "control clients of another user",
        [
            "they, in their user's share of the connections",
            "until their time is over, seconds",
            "nothing",
            "nothing has to",
        ],
        &[],
        Start::Untested,
        clients,
    ),
];

#[test]
fn whoever_does_not_listen_holds_nobody_up() {
    run_all(CELLS);
}
