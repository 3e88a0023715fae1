//! Faults in the text, and how they are told.

use super::*;

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let text = "\
[api]
timeout = \"soon\"
conect_timeout = \"5s\"
max_in_flight = 0
[app.crm]
client_id = 5
client_secret = { file = \"nothing-there\" }
rate = \"15/h\"
corp_ids = [\"ding1\", \"no good\", 7]
refresh = { at = 2 }
[[app.crm.sink]]
file = \"/srv/{corpid}\"
mode = \"0666\"
[zzz]
";
    let found = problems(text);
    for expected in [
        "config.toml:2:11: error: `timeout` is not a duration",
        "config.toml:3:1: error: unknown key `conect_timeout` in [api]",
        "config.toml:4:17: error: `max_in_flight` must be between 1 and 10000",
        "config.toml:6:13: error: `client_id` must be a string, and is an integer",
        "config.toml:7:26: error: the file that `client_secret` names cannot be read: No such file",
        "config.toml:8:8: error: `rate` is not a rate",
        "config.toml:9:22: error: a corp_id must be",
        "config.toml:9:33: error: `corp_ids` holds strings, and this is an integer",
        "config.toml:10:18: error: `at` must be between 0.05 and 0.95",
        "config.toml:12:14: error: `file`: the word between the braces is not known here; there are {app}",
        "config.toml:13:8: error: `mode` would let everybody write there",
        "config.toml:14:2: error: unknown key in the config",
    ] {
        assert!(found.iter().any(|line| line.contains(expected)), "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 12, "{found:#?}");
    let line = |told: &String| told.split(':').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(found.is_sorted_by_key(line), "{found:#?}");
}

#[test]
fn a_problem_looks_like_a_compilers() {
    let dir = Dir::with("[api]\nconect_timeout = \"5s\"   # five\n");
    let shown = dir.check().report.render(&dir.sources(), false);
    let path = dir.path("config.toml");
    let expected = format!(
        "\
error: unknown key `conect_timeout` in [api]
 --> {}:2:1
  |
2 | conect_timeout = \"…\"   #…
  | ^^^^^^^^^^^^^^
  |
  = help: did you mean `connect_timeout`?
",
        path.display()
    );
    assert_eq!(shown.trim(), expected.trim(), "\n{shown}");
}

#[test]
fn the_column_is_the_files_own_even_after_something_masked_or_cut_off() {
    let dir = Dir::with("[app.crm]\nclient_secret = { value = \"abcdefghijkl\", zzz = 1 }\n");
    let shown = dir.check().report.render(&dir.sources(), false);
    assert!(shown.contains("config.toml:2:43\n"), "{shown}");
    assert!(shown.contains("2 | client_secret = { … = \"…\", … = … }\n  |                            ^"), "{shown}");
    let ids: String = (0..1000).map(|n| format!("\"ding{n:04}\", ")).collect();
    let dir = Dir::with(&crm(&format!("corp_ids = [{ids}\"…\"]")));
    let shown = dir.check().report.render(&dir.sources(), false);
    assert!(shown.contains("config.toml:4:12013\n") && shown.contains("\"…\"]"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    for (text, expected) in [
        ("[api]\ntimeout = \"1s\"\nconnect_timeout = \"2s\"", "`connect_timeout` is longer than `timeout`"),
        ("[api]\ntimeout = \"0s\"", "must be between 100ms and 10m"),
        ("[api]\ntimeout = 10", "`timeout` needs a unit"),
        ("[api]\nlocal_address = \"localhost\"", "is not an IP address"),
        ("[api]\nca_file = \"none.pem\"", "cannot be read"),
        ("[defaults]\nrefresh = { at = 0.9, jitter = 0.2 }", "due from 0.70 to 1.10 of a token's life"),
        ("[defaults]\nretry = { min = \"1m\", max = \"1s\" }", "the first wait, 1m, is longer than the longest, 1s"),
        ("[defaults]\nendpoint = \"http://api.dingtalk.com\"", "plain `http://` is accepted only to a loopback"),
        ("[defaults]\nproxy = \"proxy:3128\"", "is not a proxy's URL"),
        ("[control]\nmode = \"0666\"", "would let everybody write there"),
        ("[log]\nlevel = \"loud\"", "must be one of `error`, `warn`"),
        ("[app.Crm]\nclient_id = \"a\"\nclient_secret = { env = \"PATH\" }", "an app's name must be lower-case"),
        ("[app]\ncrm = 1", "an app is a table, and this is an integer"),
        ("app = 1", "`app` must be a table, and is an integer"),
        ("[app.crm]\nclient_secret = { env = \"CARGO_PKG_NAME\" }", "the app crm has no `client_id`"),
        ("[app.crm]\nclient_id = \"a\"", "the app crm has no `client_secret`"),
        ("[app.crm]\nclient_id = \"a\"\nclient_secret = { file = \"a\", env = \"B\" }", "lies in one place"),
        ("[app.crm]\nclient_id = \"a\"\nclient_secret = {}", "says nothing"),
        ("[app.crm]\nclient_id = \"a\"\nclient_secret = { credential = \"../x\" }", "must be a credential's name"),
        ("[metrics]\nlisten = \"127.0.0.1:9469\"", "unknown key in the config"),
    ] {
        assert_only(text, expected);
    }
    let long = format!("[control]\nsocket = \"/{}\"", "x".repeat(107));
    assert_only(&long, "a socket's path can have 107 bytes, and this has 108");
}

#[test]
fn a_syntax_error_hides_neither_the_others_nor_invents_some() {
    let found = problems("[api]\ntimeout = 10s\nconect_timeout = \"5s\"\n[log]\nlevel = \"loud\"\n");
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("config.toml:2:11: error: this is not TOML"), "{found:#?}");
    let found = problems("[app.crm\nclient_id = \"a\"\nnonsense = 1\n[log]\nlevel = \"loud\"\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    let found = problems(&crm("corp_ids = [\"ding1\",\n\"ding2\"\nrate = \"15/s\"\n[log]\nlevel = \"loud\""));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("config.toml:6:1: error: this is not TOML: missing comma"), "{found:#?}");
    assert!(found[1].contains("config.toml:8:9: error: `level`"), "{found:#?}");
    let found = problems("[app.crm]\nclient_id = \"\"\"x\n[log]\nlevel = \"loud\"\nx = 1 = 2\n");
    assert_eq!(found.len(), 3, "{found:#?}");
    let found = problems("[api]\ntimeout = \"9s\"\ntimeout = \"8s\"\n");
    assert!(found.len() == 1 && found[0].contains("duplicate key"), "{found:#?}");
}

#[test]
fn a_name_with_characters_that_are_not_seen_is_refused_with_their_numbers() {
    for (hidden, said) in [
        ("\\u0007", "U+0007, a control character"),
        ("\u{202e}", "U+202E, which is invisible or turns text around"),
        ("\u{2066}", "U+2066"),
        ("\u{200d}", "U+200D"),
        ("\u{feff}", "U+FEFF"),
        ("\u{2028}", "U+2028"),
        ("\u{2029}", "U+2029"),
        ("\u{e0041}", "U+E0041"),
    ] {
        let text = crm(&format!("[app.crm.tenant.ding1]\nname = \"acme{hidden}\""));
        assert_only(&text, &format!("error: `name` holds {said}"));
    }
    assert_only(&crm("[app.crm.tenant.ding1]\nname = \"ac\u{202e}me\""), "config.toml:5:11: error: `name`");
    assert_eq!(problems(&crm("[app.crm.tenant.ding1]\nname = \"阿里 巴巴 עברית\"")), Vec::<String>::new());
}
