//! Where the endpoint cannot be reached, or is not who it should be.

use std::net::TcpListener;
use std::process::Command;

use corptokend::sandbox::{Fault, Options, Sandbox, Scope, Times, Transport};

use crate::ends_when_told_to;
use crate::support::{Machine, has, is_root, system_allows};

/// Short waits, so that a test need not be long.
const QUICK: &str = "retry = { min = \"1s\", max = \"1s\" }";

/// Runs a daemon that cannot get a token, and returns what `status` says of why.
fn told_why(machine: &mut Machine) -> String {
    machine.start();
    why(machine)
}

fn why(machine: &Machine) -> String {
    let row = machine.tenant_json("crm/ding1");
    assert_eq!(row["last_error"]["kind"], "unreachable", "{row}");
    assert_eq!(machine.run(&["status"]).status.code(), Some(1));
    assert!(machine.token_files().is_empty());
    row["last_error"]["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_endpoint_that_is_down_at_the_start_is_called_until_it_is_up() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let authority = Sandbox::spawn_thread(Options::default()).unwrap().authority();
    let machine = Machine::with(Options { authority: Some(authority.clone()), ..Options::default() });
    let (dir, endpoint) = (machine.dir.path().display().to_string(), format!("https://{address}"));
    let defaults = format!(
        "[defaults]\nendpoint = \"{endpoint}\"\n{QUICK}\n[[defaults.sink]]\nfile = \"{dir}/tokens/{{app}}/{{corp_id}}\""
    );
    let mut machine = machine.head(&defaults).app("crm", &["ding1"], "");
    let why = told_why(&mut machine);
    assert!(why.contains(&endpoint) && why.contains("refused"), "{why}");

    let options = Options { address, authority: Some(authority), ..Options::default() };
    let _up = Sandbox::spawn_thread(options).expect("the port is still free");
    machine.wait_until("it has a token", |machine| machine.token("crm", "ding1").is_some());
    assert_eq!(machine.events("failing").len(), 1, "said once");
    assert_eq!(machine.events("mended").len(), 1);
    ends_when_told_to(&mut machine);
}

#[test]
fn a_name_that_does_not_resolve_is_reported() {
    let machine = Machine::new();
    let dir = machine.dir.path().display().to_string();
    let endpoint = "https://dingtalk.invalid";
    let defaults = format!(
        "[defaults]\nendpoint = \"{endpoint}\"\n{QUICK}\n[[defaults.sink]]\nfile = \"{dir}/tokens/{{app}}/{{corp_id}}\""
    );
    let mut machine = machine.head(&defaults).app("crm", &["ding1"], "");
    // Without a network, nobody elsewhere is asked for the name.
    let alone = is_root() && has("unshare") && Command::new("unshare").args(["-n", "true"]).status().unwrap().success();
    if !system_allows("a network namespace", alone) {
        return;
    }
    machine.launch_under(&["unshare", "-n"]);
    machine.wait_until_ready();
    let why = why(&machine);
    assert!(why.contains(endpoint) && why.contains("the name cannot be resolved"), "{why}");
    ends_when_told_to(&mut machine);
}

#[test]
fn a_certificate_that_is_not_good_is_reported_for_what_it_is() {
    for (transport, text) in [(Transport::TlsWrongHost, "another host"), (Transport::TlsExpired, "expired")] {
        let options = Options { transport, ..Options::default() };
        let mut machine = Machine::with(options).app("crm", &["ding1"], QUICK);
        let why = told_why(&mut machine);
        assert!(why.contains(text), "{transport:?}: {why}");
        assert!(machine.sandbox.issued("ding1").is_empty(), "no secret went there");
        ends_when_told_to(&mut machine);
    }
}

#[test]
fn an_authority_that_is_not_known_is_reported_and_the_right_file_helps_at_once() {
    let stranger = Sandbox::spawn_thread(Options::default()).unwrap();
    let mut machine = Machine::new().app("crm", &["ding1"], QUICK);
    let right = machine.read("etc/ca.pem").unwrap();
    machine.write("etc/ca.pem", &stranger.ca_pem());
    let why = told_why(&mut machine);
    assert!(why.contains("issuer") || why.contains("authority") || why.contains("signed"), "{why}");

    machine.write("etc/right.pem", &right);
    machine.edit("ca.pem", "right.pem");
    machine.wait_until("it has a token", |machine| machine.token("crm", "ding1").is_some());
    ends_when_told_to(&mut machine);
}

#[test]
fn an_endpoint_that_hangs_holds_up_neither_the_end_nor_a_reload() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.inject(Scope::everyone(), Fault::Hang, Times::UntilCleared);
    machine.launch();
    machine.wait_until("calls hang", |machine| machine.sandbox.calls().len() == 2);
    machine.edit("\"ding2\"", "\"ding2\",\"ding3\"");
    let reload = machine.run(&["reload"]);
    assert_eq!(reload.status.code(), Some(0));
    ends_when_told_to(&mut machine);
}
