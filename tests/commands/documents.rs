//! What is generated from the declaration of arguments and keys: the schema, the manual pages, completions.

use std::fs;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corptokend"));
    command.args(arguments).env_remove("CORPTOKEND_CONFIG").output().unwrap()
}

#[test]
fn the_schema_is_json_that_describes_the_config() {
    let out = run(&["schema"]);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let schema: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["api"]["properties"]["timeout"]["default"], "10s");
}

#[test]
fn a_manual_page_is_written_for_each_command_and_for_the_config() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let out = run(&["man", path]);
    assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "{out:?}");
    for (page, text) in
        [("corptokend.1", "keyrings"), ("corptokend-run.1", "strict"), ("corptokend.toml.5", "connect_timeout")]
    {
        let content = fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(content.contains(".TH") && content.contains(text), "{page}: {content}");
    }
    let lint = Command::new("man")
        .args(["--warnings", "-l", &format!("{path}/corptokend.toml.5")])
        .env("MANWIDTH", "100")
        .output();
    if let Ok(out) = lint.as_ref().map(|out| String::from_utf8_lossy(&out.stderr)) {
        assert!(!out.contains("warning"), "{out}");
    }
    let out = run(&["man", &format!("{path}/nowhere")]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("error: cannot write manual pages to"), "{out:?}");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let out = run(&["completions", shell]);
        assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("reload"), "{shell}: {out:?}");
    }
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(64));
}
