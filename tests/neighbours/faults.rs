//! What an app can have for all of its tenants.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use corptokend::sandbox::{Authority, Fault, Options, RawAnswer, Sandbox, SandboxHandle, Scope, Times, Transport};

/// A fault by its name, and the kind of failure that `status` shows of it: `None` where calls succeed in the end.
#[derive(Clone)]
pub(crate) struct AppFault {
    pub(crate) name: &'static str,
    pub(crate) kind: Option<&'static str>,
    cause: Cause,
}

#[derive(Clone)]
enum Cause {
    /// The endpoint answers so, or does not answer.
    Answer(Fault),
    /// Nobody listens.
    Nobody,
    /// The connection is accepted, and nothing is said.
    Silence,
    /// The certificate is for another host.
    WrongCertificate,
    /// The client secret's file cannot be read.
    Secret,
    /// Tokens live for a second.
    Brief,
    /// The `Date` of all answers.
    Date(i64),
}

/// An app's endpoint with the fault; it ends with the value.
pub(crate) struct FaultyEndpoint {
    pub(crate) url: String,
    _sandbox: Option<SandboxHandle>,
    /// Accepts by the kernel's hand alone.
    _listener: Option<TcpListener>,
}

/// Faults that are played together, one app each.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) faults: Vec<AppFault>,
    /// Who waits, for how long, what `status` says, what comes back by itself.
    pub(crate) words: [&'static str; 4],
    /// The group and its faults, as the document names them.
    pub(crate) row: String,
}

impl Group {
    fn new(name: &'static str, words: [&'static str; 4], faults: Vec<AppFault>) -> Self {
        let names: Vec<String> = faults.iter().map(|fault| format!("`{}`", fault.name)).collect();
        Self { name, faults, words, row: format!("{name}: {}", names.join(", ")) }
    }
}

/// A fault of the sandbox.
fn answer(name: &'static str, kind: &'static str) -> AppFault {
    let cause = Cause::Answer(Fault::named(name).expect("the sandbox has it"));
    AppFault { name, kind: Some(kind), cause }
}

fn other(name: &'static str, kind: Option<&'static str>, cause: Cause) -> AppFault {
    AppFault { name, kind, cause }
}

/// Every fault.
pub(crate) fn groups() -> Vec<Group> {
    vec![refused(), throttled(), broken(), wrong(), hanging()]
}

fn refused() -> Group {
    let words = [
        "the tenant that is refused; the app, where it is the app's fault",
        "15 minutes a tenant; one probe for an app",
        "refused, or failing, with the kind; once for the app",
        "with the next probe; at once when the secret changes",
    ];
    let faults = vec![
        answer("invalid_client", "wrong_credentials"),
        answer("unsupported_grant", "unsupported_grant"),
        answer("unauthorized_client", "unauthorized"),
        answer("unknown_error", "suspect_corp_id"),
        answer("address_not_allowed", "address_not_allowed"),
        other("no secret", Some("secret_unreadable"), Cause::Secret),
    ];
    Group::new("refused", words, faults)
}

fn throttled() -> Group {
    let words = [
        "the app; after a ban, whoever shares address and endpoint host",
        "an app's rate halves; a ban is over after 5 minutes at least; no answer holds an app for more",
        "failing, and the hold with its end",
        "step by step; after a ban, with one probe",
    ];
    let forbidden = RawAnswer::html(403, "<html><body>forbidden</body></html>");
    let hour = RawAnswer::json(429, "{}").with_header("retry-after", "3600");
    let faults = vec![
        answer("app_throttled", "app_throttled"),
        answer("api_throttled", "api_throttled"),
        answer("too_many_requests", "app_throttled"),
        other("retry after an hour", Some("app_throttled"), Cause::Answer(Fault::Raw(hour))),
        answer("ban_page", "html_page"),
        other("a page that forbids", Some("blocked"), Cause::Answer(Fault::Raw(forbidden))),
        answer("punish", "banned"),
    ];
    Group::new("throttled or banned", words, faults)
}

fn broken() -> Group {
    let words = [
        "the apps with that endpoint",
        "until a probe succeeds: one after 1 s, later ones at most 15 s apart",
        "failing, and that the endpoint is probed",
        "all at once, with the first probe that is answered",
    ];
    let faults = vec![
        answer("server_error", "server_error"),
        answer("unavailable", "server_error"),
        answer("gateway_timeout", "server_error"),
        answer("reset", "unreachable"),
        answer("close_mid_body", "unreachable"),
        other("nobody listens", Some("unreachable"), Cause::Nobody),
        other("wrong certificate", Some("unreachable"), Cause::WrongCertificate),
    ];
    Group::new("broken", words, faults)
}

fn wrong() -> Group {
    let words = [
        "the apps with that endpoint; a life that is too short, the tenant",
        "as for a broken one; a short life, an exponential backoff",
        "failing, with what is wrong with the answer",
        "with the first probe that is answered as documented",
    ];
    let same = RawAnswer::json(200, r#"{"access_token":"0123456789abcdef0123456789abcdef","expires_in":7200}"#);
    let faults = vec![
        answer("redirect", "malformed"),
        answer("truncated", "malformed"),
        answer("oversized", "malformed"),
        answer("gzip", "malformed"),
        answer("empty", "malformed"),
        answer("wrong_types", "malformed"),
        other("one token for all", Some("shared_token"), Cause::Answer(Fault::Raw(same))),
        other("tokens of one second", Some("short_lived"), Cause::Brief),
        other("the year 2100", None, Cause::Date(74 * 365 * 86_400)),
    ];
    Group::new("malformed or wrong", words, faults)
}

fn hanging() -> Group {
    let words = [
        "the apps with that endpoint, in a share of `max_in_flight`",
        "`api.timeout` a call; then one probe at a time, at most 15 s apart",
        "failing, timeout",
        "all at once, with the first probe that is answered",
    ];
    let faults = vec![
        answer("hang", "timeout"),
        other("silence", Some("timeout"), Cause::Silence),
        other("trickle", None, Cause::Answer(Fault::Trickle)),
        other("late", None, Cause::Answer(Fault::Delay(Duration::from_secs(9)))),
    ];
    Group::new("hanging", words, faults)
}

impl AppFault {
    /// What is wrong of the config itself, as a file that has to go.
    pub(crate) fn loses_its_secret(&self) -> bool {
        matches!(self.cause, Cause::Secret)
    }

    /// The endpoint that has it, at an address of its own: hosts are distinguished by it.
    pub(crate) fn start(&self, number: u8, authority: Arc<Authority>) -> FaultyEndpoint {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 1, number), 0));
        let options = Options { address, transport: Transport::Plain, issue_log: 1, ..Options::default() };
        let started = |options: Options| Sandbox::spawn_thread(options).expect("the sandbox starts");
        let (sandbox, listener) = match &self.cause {
            Cause::Answer(fault) => {
                let sandbox = started(options);
                sandbox.inject(Scope::everyone(), fault.clone(), Times::UntilCleared);
                (Some(sandbox), None)
            }
            Cause::Nobody | Cause::Silence => (None, Some(TcpListener::bind(address).unwrap())),
            Cause::WrongCertificate => {
                let options = Options { transport: Transport::TlsWrongHost, authority: Some(authority), ..options };
                (Some(started(options)), None)
            }
            Cause::Secret => (Some(started(options)), None),
            Cause::Brief => (Some(started(Options { lifetime_s: 1, ..options })), None),
            Cause::Date(skew_s) => (Some(started(Options { date_skew_s: *skew_s, ..options })), None),
        };
        let url = match (&sandbox, &listener) {
            (Some(sandbox), _) => sandbox.endpoint(),
            (None, Some(listener)) => format!("http://{}", listener.local_addr().unwrap()),
            (None, None) => unreachable!("one of them is there"),
        };
        // A port that was just given back is nobody's.
        let listener = listener.filter(|_| !matches!(self.cause, Cause::Nobody));
        FaultyEndpoint { url, _sandbox: sandbox, _listener: listener }
    }
}
