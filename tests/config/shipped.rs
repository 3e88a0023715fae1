//! The files in `config/` are what they say they are, and what documents the keys is made of their one declaration.

use std::process::{Command, Stdio};

use super::*;
use config::schema;

fn shipped_files() -> Vec<PathBuf> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let paths = fs::read_dir(&shipped).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(files.len() >= 3, "the shipped files are gone from {}", shipped.display());
    files
}

#[test]
fn every_shipped_file_is_valid() {
    for path in shipped_files() {
        let dir = Dir::new();
        dir.secret("bot.secret");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/etc/corptokend/", &format!("{}/", dir.0.path().display()));
        dir.write("config.toml", &text);
        assert_eq!(dir.problems(), Vec::<String>::new(), "{}", path.display());
        dir.write("config.toml", &format!("{text}\n[metricks]\nlisten = 1\n"));
        assert!(dir.check().config.is_none(), "an unknown key in {} goes unnoticed", path.display());
    }
}

/// `CORPTOKEND_WRITE=1 cargo test --test config reference` writes the file anew.
#[test]
fn the_shipped_reference_is_made_of_the_declaration_of_the_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/config.toml");
    if std::env::var_os("CORPTOKEND_WRITE").is_some() {
        fs::write(&path, schema::reference()).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap();
    assert!(shipped == schema::reference(), "config/config.toml differs: CORPTOKEND_WRITE=1 writes it anew");
}

/// The reference with every comment sign of a key removed, but for what is there to choose from.
fn reference_in_force() -> String {
    let skip = ["#ca_file", "#owner", "##"];
    let reference = schema::reference();
    let lines = reference.lines().filter(|line| !skip.iter().any(|skip| line.starts_with(skip)));
    let bare = |line: &str| {
        let bare = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty());
        format!("{}\n", bare.unwrap_or(line))
    };
    lines.map(bare).collect()
}

#[test]
fn the_reference_shows_valid_values_and_the_true_defaults() {
    let dir = Dir::new();
    let text = reference_in_force().replace("/etc/corptokend/", "");
    dir.write("config.toml", &text.replace("corptokend-admin", "root").replace("corptokend-readers", "root"));
    let config = dir.config();
    assert_eq!(config.tenant_count(), 2);
    let defaults = Dir::with("").config();
    let with_app = Dir::with(&crm("corp_ids = [\"ding1\"]")).config();
    assert_eq!((config.limits, &config.state, config.log), (defaults.limits, &defaults.state, defaults.log));
    assert_eq!(config.control.socket, defaults.control.socket);
    assert_eq!(config.control.mode, defaults.control.mode);
    assert_eq!((config.api.timeout, config.api.connect_timeout), (defaults.api.timeout, defaults.api.connect_timeout));
    assert_eq!(config.api.max_in_flight, defaults.api.max_in_flight);
    let (shown, built_in) = (config.apps.values().next().unwrap(), with_app.apps.values().next().unwrap());
    assert_eq!(shown.policy, built_in.policy);
    assert_eq!(shown.endpoint, built_in.endpoint);
    assert_eq!(shown.on_remove, built_in.on_remove);
}

#[test]
fn the_reference_and_the_manual_page_name_every_key() {
    let json: serde_json::Value = serde_json::from_str(&schema::json_schema()).unwrap();
    let mut keys = Vec::new();
    names_of_properties(&json, &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    let (reference, page) = (schema::reference(), schema::man_page());
    for key in keys {
        let is_named =
            |before: &str| [" ", "]", "."].iter().any(|after| reference.contains(&format!("{before}{key}{after}")));
        assert!(
            ["{ ", "#", "[", "[[", ", ", "."].iter().any(|before| is_named(before)),
            "{key} is not in the reference"
        );
        let in_page = page.contains(&format!(".B {key}\n")) || page.contains(&format!("[{}", key.to_uppercase()));
        assert!(in_page, "{key} is not in the manual page");
    }
}

fn names_of_properties(schema: &serde_json::Value, found: &mut Vec<String>) {
    for (name, value) in schema.as_object().into_iter().flatten() {
        if name == "properties" {
            found.extend(value.as_object().into_iter().flatten().map(|(key, _)| key.clone()));
        }
        names_of_properties(value, found);
    }
}

/// Python validates, since a validator in Rust is forty crates.
const VALIDATE: &str = "
import json, sys, tomllib, jsonschema
schema, config = json.loads(sys.argv[1]), tomllib.loads(sys.argv[2])
jsonschema.Draft202012Validator.check_schema(schema)
for error in jsonschema.Draft202012Validator(schema).iter_errors(config):
    print(error.json_path, error.message)
";

/// What is wrong with a config in the eyes of the JSON Schema; `None` without a validator.
fn faults(config: &str) -> Option<String> {
    // Debian's own, which has Debian's modules: another may be the first on PATH.
    let debian = "/usr/bin/python3";
    let mut python = Command::new(if Path::new(debian).exists() { debian } else { "python3" });
    let out = python.args(["-c", VALIDATE, &schema::json_schema(), config]).stdin(Stdio::null()).output().ok()?;
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    if stderr.contains("ModuleNotFoundError") {
        return None;
    }
    assert!(out.status.success(), "{stderr}");
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn the_json_schema_accepts_the_shipped_files_and_refuses_faults() {
    let texts = shipped_files().into_iter().map(|path| fs::read_to_string(path).unwrap());
    for text in texts.chain([reference_in_force()]) {
        let Some(found) = faults(&text) else {
            assert!(std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_none(), "this test needs python3-jsonschema");
            eprintln!("SKIPPED: this test needs python3-jsonschema");
            return;
        };
        assert_eq!(found, "", "{text}");
    }
    for (keys, sink) in [
        ("rate = \"15/s\"", "@u/a"),
        ("rate = \"+15\\t/ s \"", "+5/{corp_id}"),
        ("retry = { max = \" 1.5h 1 0 s\" }", "5/{corp_id}"),
        ("retry = { max = \"1h30m\" }", "@u/{app}/{corp_id}"),
    ] {
        let text = crm(&format!("corp_ids = [\"ding1\"]\n{keys}\n[[app.crm.sink]]\nkeyring = \"{sink}\""));
        let problems = Dir::with(&text).check().report;
        assert!(!problems.has_errors(), "{text}: {problems:#?}");
        assert_eq!(faults(&text).unwrap(), "", "{text}");
    }
    for (bad, place) in [
        ("[metricks]\nlisten = 1", "$ "),
        ("[api]\ntimeout = 10", "$.api.timeout"),
        ("[api]\nmax_in_flight = 0", "$.api.max_in_flight"),
        ("[log]\nlevel = \"loud\"", "$.log.level"),
        ("[control]\nmode = \"0888\"", "$.control.mode"),
        ("[app.Crm]\nclient_id = \"a\"", "$.app"),
        ("[app.crm]\nclient_secret = { file = \"a\", env = \"B\" }", "$.app.crm.client_secret"),
        ("[app.crm]\ncorp_ids = [\"no good\"]", "$.app.crm.corp_ids[0]"),
        ("[[defaults.sink]]\nmode = \"0640\"", "$.defaults.sink[0]"),
    ] {
        let found = faults(bad).unwrap();
        assert!(found.starts_with(place), "{bad}: {found:?}");
    }
}
