//! Which calls fail, hang or are banned together. Both ids are hashes of what they stand for, so they are the same in every run and
//! need no table.

use super::connection::Connection;
use crate::domain::token::Fingerprint;

/// A route to an endpoint: all calls with the same endpoint, proxy, certificates and local address. If the endpoint, or anything on
/// the way to it, does not answer, none of them is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u64);

/// The caller as the endpoint sees it: the address that calls come from, and the host that they go to. A ban applies to an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(pub u64);

/// The route and the origin of an app's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallPath {
    /// Calls that hang or fail together.
    pub route: RouteId,
    /// Calls that are banned together.
    pub origin: OriginId,
}

impl Connection {
    /// The route and the origin of calls over this connection. Timeouts do not matter, nor do a proxy's user and password: the ids are
    /// persisted, and nothing derived from a password shall be.
    pub fn path(&self) -> CallPath {
        let proxy = self.proxy.as_ref().map(ToString::to_string).unwrap_or_default();
        let address = self.local_address.map(|address| address.to_string()).unwrap_or_default();
        let ca_file = self.ca_file.as_deref().map(|path| path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let endpoint = self.endpoint.as_str().as_bytes();
        let (proxy, address) = (proxy.as_bytes(), address.as_bytes());
        CallPath {
            route: RouteId(hash(&[endpoint, proxy, address, ca_file])),
            origin: OriginId(hash(&[self.endpoint.authority().as_bytes(), proxy, address])),
        }
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    Fingerprint::of(&parts.join(&0)).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Endpoint, Proxy};
    use std::time::Duration;
    use zeroize::Zeroizing;

    fn to(endpoint: &str) -> Connection {
        Connection {
            endpoint: Endpoint::new(endpoint).unwrap(),
            proxy: None,
            ca_file: None,
            local_address: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_route_is_all_that_decides_the_connection_and_an_origin_is_address_and_host() {
        let plain = to("https://api.dingtalk.com").path();
        let slower = Connection { timeout: Duration::from_secs(60), ..to("https://api.dingtalk.com") };
        assert_eq!(slower.path(), plain, "a timeout makes no other route");
        let elsewhere = to("https://api.dingtalk.io").path();
        assert!(elsewhere.route != plain.route && elsewhere.origin != plain.origin);
        let deeper = to("https://api.dingtalk.com/gateway").path();
        assert!(deeper.route != plain.route && deeper.origin == plain.origin, "another path, the same host");
        let trusting = Connection { ca_file: Some("/etc/ca.pem".into()), ..to("https://api.dingtalk.com") }.path();
        assert!(trusting.route != plain.route && trusting.origin == plain.origin);
        let from = Connection { local_address: Some([192, 0, 2, 1].into()), ..to("https://api.dingtalk.com") }.path();
        assert!(from.route != plain.route && from.origin != plain.origin);
    }

    #[test]
    fn a_proxys_password_is_in_neither() {
        let through = |proxy: &str| {
            let proxy = Proxy::new(Zeroizing::new(proxy.to_owned()));
            Connection { proxy, ..to("https://api.dingtalk.com") }.path()
        };
        assert_eq!(through("http://a:b@proxy:3128"), through("http://c:d@proxy:3128"));
        assert_ne!(through("http://proxy:3128"), through("http://proxy:3129"));
        assert_ne!(through("http://proxy:3128"), to("https://api.dingtalk.com").path());
    }
}
