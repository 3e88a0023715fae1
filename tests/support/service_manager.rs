//! A service manager that listens to the daemon, as systemd does, and notes when it heard what.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Machine;

type Heard = Vec<(Instant, String)>;

/// It listens for as long as it lives.
pub struct ServiceManager(Arc<Mutex<Heard>>);

impl ServiceManager {
    /// Listens for this machine's daemons.
    pub fn of(machine: &mut Machine) -> Self {
        let path = machine.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        machine.env("NOTIFY_SOCKET", path.to_str().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::downgrade(&heard);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // The thread ends within its timeout after the manager is gone.
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

    /// The same; a heartbeat is due within this time, as the unit's `WatchdogSec=` says.
    pub fn with_watchdog(machine: &mut Machine, watchdog: Duration) -> Self {
        machine.env("WATCHDOG_USEC", &watchdog.as_micros().to_string());
        Self::of(machine)
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap()
    }

    /// Every datagram, in order.
    pub fn heard(&self) -> Vec<String> {
        self.lock().iter().map(|(_, text)| text.clone()).collect()
    }

    /// Every datagram since the last time; they are forgotten.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock()).into_iter().map(|(_, text)| text).collect()
    }

    pub fn forget(&self) {
        self.lock().clear();
    }

    /// All but status lines and heartbeats: what changes the service's state.
    pub fn states(&self) -> Vec<String> {
        let texts = self.heard().into_iter();
        texts.filter(|text| !text.starts_with("STATUS=") && !text.starts_with("WATCHDOG=")).collect()
    }

    /// The last `STATUS=`.
    pub fn status(&self) -> String {
        let heard = self.lock();
        let lines = heard.iter().rev().flat_map(|(_, text)| text.lines());
        lines.filter_map(|line| line.strip_prefix("STATUS=")).next().unwrap_or_default().to_owned()
    }

    /// When a line was heard, since this moment.
    pub fn moments_of(&self, line: &str, since: Instant) -> Vec<Instant> {
        let heard = self.lock();
        let of_it = heard.iter().filter(|(at, text)| *at >= since && text.lines().any(|found| found == line));
        of_it.map(|(at, _)| *at).collect()
    }

    /// The longest time between two heartbeats since this moment.
    pub fn longest_silence(&self, since: Instant) -> Duration {
        let mut moments = vec![since];
        moments.extend(self.moments_of("WATCHDOG=1", since));
        moments.push(Instant::now());
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}
