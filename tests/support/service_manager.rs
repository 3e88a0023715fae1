//! A service manager that listens to the daemon, and notes when it heard what.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::Machine;

/// A heartbeat is due within so long, or systemd kills the service: the unit's `WatchdogSec=`, shorter.
pub const WATCHDOG: Duration = Duration::from_secs(4);

/// What was heard, and when.
pub struct Manager(Arc<Mutex<Vec<(Instant, String)>>>);

impl Manager {
    /// Listens for this machine's daemons.
    pub fn of(machine: &mut Machine) -> Self {
        let path = machine.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        machine.env("NOTIFY_SOCKET", path.to_str().unwrap());
        machine.env("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::downgrade(&heard);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // It ends within its timeout after the manager is gone.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(heard) = ours.upgrade() {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    heard.lock().unwrap().push((Instant::now(), text));
                }
            }
        });
        Self(heard)
    }

    /// When a line was heard, since this moment.
    pub fn moments_of(&self, line: &str, since: Instant) -> Vec<Instant> {
        let heard = self.0.lock().unwrap();
        let of_it = heard.iter().filter(|(at, text)| *at >= since && text.lines().any(|found| found == line));
        of_it.map(|(at, _)| *at).collect()
    }

    /// The last `STATUS=`.
    pub fn status(&self) -> String {
        let heard = self.0.lock().unwrap();
        let lines = heard.iter().rev().flat_map(|(_, text)| text.lines());
        lines.filter_map(|line| line.strip_prefix("STATUS=")).next().unwrap_or_default().to_owned()
    }

    /// The longest time between two heartbeats since this moment.
    pub fn longest_silence(&self, since: Instant) -> Duration {
        let mut moments = vec![since];
        moments.extend(self.moments_of("WATCHDOG=1", since));
        moments.push(Instant::now());
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}
