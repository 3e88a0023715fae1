//! A secret in any place of a config, by a slip of the hand, is never told: each string, each key and each line in turn
//! holds a canary.

use std::ops::Range;

use super::*;

/// A secret as DingTalk gives them out, which could be an id, and one in base64, which could be nothing else.
const CANARIES: [&str; 2] = ["cAnArY7_s3cr3t", "cAnArY7+/s3cr3t="];
/// No message holds this much of either.
const TRACE: &str = "AnArY";

/// Every key whose value is a string.
const FULL: &str = r#"
[api]
timeout = "10s"
connect_timeout = "5s"
ca_file = "ca.pem"
local_address = "192.0.2.10"
[limits]
total = "400/s"
[state]
path = "/var/lib/corptokend/state.redb"
[control]
socket = "/run/corptokend/control.sock"
mode = "0660"
group = "0"
[log]
format = "auto"
level = "info"
[defaults]
endpoint = "https://api.dingtalk.com"
proxy = "http://user:password@proxy:3128"
rate = "15/s"
refresh = { at = 0.7, jitter = 0.05 }
retry = { min = "1s", max = "5m" }
on_remove = "delete"
on_expiry = "keep"
[[defaults.sink]]
file = "/run/corptokend/tokens/{app}/{corp_id}"
format = "json"
mode = "0640"
dir_mode = "0750"
owner = "0"
group = "0"
[[defaults.sink]]
keyring = "@u/corptokend/{app}/{corp_id}"
[app.crm]
client_id = "ding123"
client_secret = { file = "crm.secret" }
corp_ids = ["ding1", "ding2"]
[app.bot]
client_id = "ding124"
client_secret = { credential = "crm.secret" }
corp_ids = [
  "ding1",
]
[app.web]
client_id = "ding125"
client_secret.env = "CARGO_PKG_NAME"
[app.old]
client_id = "ding126"
[app.old.client_secret]
file = "crm.secret"
[app.crm.tenant.ding3]
name = "acme"
[[app.crm.tenant.ding3.sink]]
file = "tokens/{name}"
template = "TOKEN={token}\n"
"#;

/// What a canary turns into by itself when it stands in the right place: everything that is told beside this is a fault.
fn is_the_name_of_something(text: &str, canary: &str) -> bool {
    let line = text.lines().find(|line| line.contains(canary)).unwrap_or_default();
    let is_an_id = canary == CANARIES[0];
    // An organisation's id: tenants are known by it, in status and everywhere, and files are called by it.
    let corp_id = line.contains(&format!("\"{canary}\"")) && (line.starts_with("corp_ids") || line.starts_with("  \""));
    let tenant = line.starts_with("[app.crm.tenant.") || line.starts_with("[[app.crm.tenant.");
    // A sink's path: its token is published there, for everybody to find.
    let sink = line.starts_with("file = ") && line.contains(&format!("{canary}/x"));
    (is_an_id && (corp_id || tenant)) || sink
}

/// All that is ever told of a config.
fn told(text: &str, directory: &Path) -> String {
    let sources = Sources::remembered(vec![Source::new(directory.join("config.toml"), text)]);
    // As it is read from disk: a secret that cannot be read is an error then.
    let sources = Sources { origin: config::TextOrigin::Disk, ..sources };
    let given = Process { credentials_directory: Some(directory.to_owned()), ..process() };
    let checked = environment::check(&sources, &given);
    // The forms for programs, for the log and for systemd are made of the same texts.
    format!("{}{:?}{sources:?}", checked.report.render(&sources, false), checked.report)
}

fn assert_untold(text: &str, canary: &str, directory: &Path) {
    let told = told(text, directory);
    if told.contains(TRACE) && !is_the_name_of_something(text, canary) {
        let lines: Vec<&str> = told.lines().filter(|line| line.contains(TRACE)).collect();
        let line = text.lines().find(|line| line.contains(canary));
        panic!("{line:?} is told as\n{}", lines.join("\n"));
    }
}

fn replaced(span: &Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &FULL[..span.start], &FULL[span.end..])
}

fn full() -> Dir {
    let dir = Dir::with(FULL);
    dir.write("ca.pem", "not looked into here");
    let told = told(FULL, dir.0.path());
    assert!(!told.contains("error"), "{told}");
    dir
}

#[test]
fn a_canary_in_place_of_any_value_is_never_told() {
    let dir = full();
    let quotes: Vec<usize> = FULL.match_indices('"').map(|(at, _)| at).collect();
    let values: Vec<Range<usize>> = quotes.chunks(2).map(|pair| pair[0]..pair[1] + 1).collect();
    assert!(values.len() > 35, "{}", values.len());
    for canary in CANARIES {
        let forms = [
            format!("\"{canary}\""),
            format!("'{canary}'"),
            canary.to_owned(),
            format!("\"\"\"{canary}\"\"\""),
            format!("'''\n{canary}\n'''"),
            format!("\"{canary}"),
            format!("[\"{canary}\"]"),
            format!("{{ value = \"{canary}\" }}"),
            format!("{{ env = \"{canary}\" }}"),
            format!("\"\\n{canary}\""),
            format!("\"{{{canary}}}\""),
            format!("\"http://{canary}@proxy\""),
            format!("\"https://user:{canary}@host\""),
            format!("\"@{canary}\""),
            format!("\"{canary}/s\""),
            format!("\"{canary}/x/{{corp_id}}\""),
            format!("\"10s {canary}\""),
            format!("\"\u{202e}{canary}\""),
            format!("\"x\" \"{canary}\""),
            format!("\"x\" # {canary}"),
        ];
        for value in &values {
            forms.iter().for_each(|form| assert_untold(&replaced(value, form), canary, dir.0.path()));
        }
    }
}

#[test]
fn a_canary_in_place_of_any_key_or_table_is_never_told() {
    let dir = full();
    let (mut names, mut start) = (Vec::new(), 0);
    for line in FULL.split_inclusive('\n') {
        let head = if line.starts_with('[') { line.len() } else { line.find('"').unwrap_or(line.len()) };
        let mut at = start;
        for word in line[..head].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if word.starts_with(|c: char| c.is_ascii_lowercase()) {
                names.push(at..at + word.len());
            }
            at += word.len() + 1;
        }
        start += line.len();
    }
    assert!(names.len() > 70);
    for canary in CANARIES {
        for name in &names {
            for form in [canary.to_owned(), format!("\"{canary}\""), format!("'{canary}'"), format!("{canary}.x")] {
                assert_untold(&replaced(name, &form), canary, dir.0.path());
            }
        }
    }
}

#[test]
fn a_canary_in_a_line_of_its_own_is_never_told() {
    let dir = full();
    let ends: Vec<usize> = FULL.match_indices('\n').map(|(at, _)| at + 1).collect();
    for canary in CANARIES {
        for line in [
            canary.to_owned(),
            format!("{canary} = 1"),
            format!("\"{canary}\" = 1"),
            format!("\"{canary}\""),
            format!("client_secret = \"{canary}\""),
            format!("client_secret = {{ env = \"{canary}\" }}"),
            format!("file = \"{canary}\""),
            format!("[{canary}]"),
            format!("[\"{canary}\"]"),
            format!("[app.{canary}]"),
            format!("[app.crm.{canary}]"),
            format!("timeout.{canary} = \"{canary}\""),
        ] {
            for at in &ends {
                assert_untold(&replaced(&(*at..*at), &format!("{line}\n")), canary, dir.0.path());
            }
        }
    }
}
