//! Name resolution by the system's resolver, which may hang.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::system::blocking::Blocking;

/// The most lookups in flight, one for each host; also those that hang.
const MAX_LOOKUPS: usize = 1024;

type LookupResult = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// One for the process, as the system's resolver is. A host that cannot be resolved costs one thread, however many apps call it.
static LOOKUPS: LazyLock<Blocking<LookupResult>> = LazyLock::new(|| Blocking::new("resolve", MAX_LOOKUPS));

/// Resolves names, with one lookup at a time for each host.
pub(in crate::api) struct Resolver {
    lookups: Blocking<LookupResult>,
    look_up: fn(&str) -> io::Result<Vec<SocketAddr>>,
    timeout: Duration,
}

impl Resolver {
    /// Uses the system's resolver (getaddrinfo(3)). A lookup gets three quarters of `connect_timeout`, so that a lookup that hangs
    /// is reported as such before the connection times out.
    pub(in crate::api) fn of_the_system(connect_timeout: Duration) -> Self {
        let timeout = connect_timeout * 3 / 4;
        Self { lookups: LOOKUPS.clone(), look_up: by_the_system, timeout }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { lookups, look_up, timeout } = self;
        let (lookups, look_up, timeout) = (lookups.clone(), *look_up, *timeout);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let work = move || look_up(&host).map_err(Arc::new);
            let found = lookups.run(name.as_str(), timeout, work).await;
            let found = found.map_err(|why| io::Error::other(format!("the system's resolver: {why}")))?;
            let addresses = found.map_err(|error| io::Error::new(error.kind(), error))?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn by_the_system(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;

    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    static COMES_BACK: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    /// A resolver that does not come back for `*.dead`.
    fn look_up(host: &str) -> io::Result<Vec<SocketAddr>> {
        BEGUN.fetch_add(1, Ordering::Relaxed);
        if host.ends_with(".dead") {
            let comes_back = COMES_BACK.0.lock().unwrap();
            drop(COMES_BACK.1.wait_while(comes_back, |comes_back| !*comes_back).unwrap());
        }
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
    }

    #[tokio::test]
    async fn a_host_whose_lookup_hangs_costs_one_thread_and_others_are_resolved() {
        let lookups = Blocking::new("test", MAX_LOOKUPS);
        let resolver = |ms| Resolver { lookups: lookups.clone(), look_up, timeout: Duration::from_millis(ms) };
        let outcome = |ms, host: &str| resolver(ms).resolve(host.parse().unwrap());
        let dead: Vec<_> = (0..600).map(|number| tokio::spawn(outcome(50, &format!("{number}.dead")))).collect();
        for lookup in dead {
            assert!(lookup.await.unwrap().is_err());
        }
        // On a busy machine a lookup's thread may start after its caller has given up.
        let all_begun = async {
            while BEGUN.load(Ordering::Relaxed) < 600 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_begun).await.expect("each host is looked up");
        for _ in 0..100 {
            let error = outcome(60_000, "0.dead").await.err().expect("it still hangs");
            assert!(error.to_string().contains("does not come to an end"), "{error}");
        }
        assert_eq!(BEGUN.load(Ordering::Relaxed), 600, "what hangs is not begun again");
        assert_eq!(outcome(60_000, "alive.example").await.unwrap().count(), 1);
        *COMES_BACK.0.lock().unwrap() = true;
        COMES_BACK.1.notify_all();
        while lookups.outstanding() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(outcome(60_000, "0.dead").await.unwrap().count(), 1, "it comes back by itself");
    }

    #[tokio::test]
    async fn the_system_resolves_a_name_and_says_why_it_cannot() {
        let resolver = Resolver::of_the_system(Duration::from_secs(60));
        assert!(resolver.resolve("localhost".parse().unwrap()).await.unwrap().count() > 0);
        assert!(resolver.resolve("no such host".parse().unwrap()).await.is_err());
    }
}
