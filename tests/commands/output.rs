//! Usage, help, and outputs that nobody reads.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::Stdio;

use crate::support::{Machine, shown};

#[test]
fn help_and_version_go_to_stdout() {
    let machine = Machine::new();
    for args in [&["--help"][..], &["help"], &["status", "--help"], &["--version"]] {
        let output = machine.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{args:?}: {}", shown(&output));
    }
    let help = shown(&machine.run(&["--help"]));
    for command in ["run", "once", "check", "status", "reload", "dev"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in:\n{help}");
    }
    assert!(shown(&machine.run(&["--version"])).starts_with("corptokend 0."));
}

#[test]
fn a_wrong_command_line_exits_64_and_says_why_on_stderr() {
    let machine = Machine::new();
    for args in [
        &[][..],
        &["nonsense"],
        &["run", "--nonsense"],
        &["status", "not-a-tenant"],
        &["status", "--json", "--watch"],
        &["check", "--online", "crm/../x"],
        &["dev", "--lifetime", "1"],
        &["reload", "now"],
    ] {
        let output = machine.run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", shown(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_terminal_gets_colour_unless_it_is_dumb() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let invalid = machine.path("c.toml");
    machine.write("c.toml", "nonsense = 1");
    let check = ["check", "--config", invalid.to_str().unwrap()];
    for (term, has_colour) in [("xterm", true), ("dumb", false)] {
        for args in [&["status"][..], &check] {
            let Some((screen, _)) = machine.run_on_terminal_type(term, args) else { return };
            assert_eq!(screen.contains('\x1b'), has_colour, "{term} {args:?}: {screen:?}");
        }
    }
}

#[test]
fn help_says_where_the_drop_ins_of_any_config_lie() {
    let help = shown(&Machine::new().run(&["--help"]));
    assert!(help.contains("c.d/*.toml"), "{help}");
}

/// Every command that prints, on a machine where a daemon runs.
const PRINTING: [&[&str]; 8] = [
    &["--help"],
    &["--version"],
    &["status"],
    &["status", "--json"],
    &["check"],
    &["check", "--json"],
    &["once"],
    &["reload"],
];

#[test]
fn a_full_stdout_is_told_and_exits_1() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    for args in PRINTING.into_iter().chain([&["dev"][..]]) {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = machine.command(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let told = shown(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.starts_with("error: ") && told.contains("No space left"), "{args:?}: {told}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_panic() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = machine.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", shown(&output));
        assert_eq!(shown(&output), "", "{args:?}: whoever closed the pipe has read enough");
    }
}

#[test]
fn a_closed_stderr_is_no_panic() {
    let mut machine = Machine::new().app("crm", &["ding1"], "nonsense = 1");
    for (args, code) in [(&["check"][..], 78), (&["run"], 78), (&["once"], 78), (&["status"], 3), (&["nonsense"], 64)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = machine.command(args).stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
    // A daemon whose log goes nowhere serves on.
    machine = Machine::new().app("crm", &["ding1"], "");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = machine.command(&["run"]);
    command.stdout(Stdio::null()).stderr(writer);
    let mut daemon = crate::support::Killed(command.spawn().unwrap());
    machine.wait_until("the token is there", |machine| machine.token("crm", "ding1").is_some());
    assert_eq!(daemon.0.try_wait().unwrap(), None);
}

#[test]
fn the_first_line_of_a_long_status_is_enough_for_head() {
    let corp_ids: Vec<String> = (0..2000).map(|n| format!("ding{n}")).collect();
    let corp_ids: Vec<&str> = corp_ids.iter().map(String::as_str).collect();
    let mut machine = Machine::new().app("crm", &corp_ids, "");
    machine.start();
    let mut child =
        machine.command(&["status", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(shown(&output), "");
    assert_eq!(output.status.code(), Some(1));
}
