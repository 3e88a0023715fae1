//! The config as an operator meets it: files in, a config or a report out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use corptokend::config::{self, Checked, Config, Source, Sources, Surroundings};
use corptokend::domain::{CorpId, SinkKind};

/// A directory with a config, its drop-ins and a secret.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.secret("crm.secret");
        dir
    }

    fn with(config: &str) -> Self {
        let dir = Self::new();
        dir.write("config.toml", config);
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.chmod(name, 0o640)
    }

    fn secret(&self, name: &str) -> &Self {
        self.write(name, "s3cr3t\n").chmod(name, 0o600)
    }

    fn chmod(&self, name: &str, mode: u32) -> &Self {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        config::read(&self.path("config.toml")).unwrap()
    }

    fn check(&self) -> Checked {
        config::check(&self.sources(), &surroundings())
    }

    fn config(&self) -> Config {
        let checked = self.check();
        let report = checked.report.render(&self.sources(), false);
        checked.config.unwrap_or_else(|| panic!("{report}"))
    }

    /// The problems in one line each, without the directory's name.
    fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.0.path().display());
        self.check().report.problems.iter().map(|problem| problem.one_line().replace(&root, "")).collect()
    }

    fn helps(&self) -> String {
        self.check().report.problems.iter().filter_map(|p| p.help.clone()).collect::<Vec<_>>().join("\n")
    }
}

fn surroundings() -> Surroundings {
    Surroundings { user: 0, groups: vec![0], may_chown: true, ..Surroundings::default() }
}

/// What is wrong with a text that stands in `config.toml`.
fn problems(text: &str) -> Vec<String> {
    Dir::with(text).problems()
}

const CRM: &str = "[app.crm]\nclient_id = \"ding123\"\nclient_secret = { file = \"crm.secret\" }\n";

fn crm(more: &str) -> String {
    format!("{CRM}{more}\n")
}

#[track_caller]
fn assert_only(text: &str, expected: &str) {
    let found = problems(text);
    assert!(found.len() == 1 && found[0].contains(expected), "wanted {expected:?}, got {found:#?}");
}

#[test]
fn every_shipped_file_is_valid() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in fs::read_dir(&shipped).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let dir = Dir::new();
        dir.secret("bot.secret");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/etc/corptokend/", &format!("{}/", dir.0.path().display()));
        dir.write("config.toml", &text);
        assert_eq!(dir.problems(), Vec::<String>::new(), "{}", path.display());
        dir.write("config.toml", &format!("{text}\n[metricks]\nlisten = 1\n"));
        assert!(dir.check().config.is_none(), "an unknown key in {} goes unnoticed", path.display());
        seen += 1;
    }
    assert!(seen >= 3, "the shipped files are gone from {}", shipped.display());
}

/// With every comment sign of a key removed, the reference must still be valid, but for what is there to choose from.
#[test]
fn the_reference_names_every_key_and_shows_valid_values() {
    let reference = include_str!("../config/config.toml");
    for table in config::known_keys() {
        for key in table.keys {
            let named = ["{ ", "#", "[", "[[", ", ", ".", ""]
                .iter()
                .any(|before| [" ", "]", "."].iter().any(|after| reference.contains(&format!("{before}{key}{after}"))));
            assert!(named, "{key} of {} is not in config/config.toml", table.table);
        }
    }
    let skip = ["#ca_file", "#owner", "##"];
    let text: String = reference
        .lines()
        .filter(|line| !skip.iter().any(|skip| line.starts_with(skip)))
        .map(|line| {
            let bare = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty());
            format!("{}\n", bare.unwrap_or(line))
        })
        .collect();
    let dir = Dir::new();
    dir.write(
        "config.toml",
        &text.replace("/etc/corptokend/", "").replace("corptokend-admin", "root").replace("corptokend-readers", "root"),
    );
    let config = dir.config();
    assert_eq!(config.tenant_count(), 2);
    // What the reference shows as defaults are the defaults.
    let defaults = Dir::with("").config();
    let with_app = Dir::with(&crm("corp_ids = [\"ding1\"]")).config();
    assert_eq!((config.limits, &config.state, config.log), (defaults.limits, &defaults.state, defaults.log));
    assert_eq!(config.control.socket, defaults.control.socket);
    assert_eq!(config.control.mode, defaults.control.mode);
    assert_eq!((config.api.timeout, config.api.connect_timeout), (defaults.api.timeout, defaults.api.connect_timeout));
    let (shown, built_in) = (config.apps.values().next().unwrap(), with_app.apps.values().next().unwrap());
    assert_eq!(shown.policy, built_in.policy);
    assert_eq!(shown.endpoint, built_in.endpoint);
    assert_eq!(shown.on_remove, built_in.on_remove);
}

#[test]
fn four_lines_are_a_whole_config() {
    let dir = Dir::with(&crm("corp_ids = [\"ding2\", \"ding1\"]"));
    let config = dir.config();
    let (name, app) = config.apps.iter().next().unwrap();
    assert_eq!(app.tenants.iter().map(CorpId::as_str).collect::<Vec<_>>(), ["ding1", "ding2"]);
    let place = app.sinks[0].place(&app.names_of(name, &app.tenants[0])).to_string();
    assert_eq!(place, "/run/corptokend/tokens/crm/ding1");
    assert_eq!(config.state.path, Path::new("/var/lib/corptokend/state.redb"));
}

#[test]
fn an_empty_file_and_an_app_without_tenants_are_valid() {
    assert_eq!(Dir::with("").config().tenant_count(), 0);
    assert_eq!(Dir::with(CRM).config().apps.len(), 1);
}

#[test]
fn default_paths_follow_the_directories_that_systemd_gives() {
    let dir = Dir::with(&crm("corp_ids = [\"ding1\"]"));
    let given = Surroundings {
        state_directory: Some("/var/lib/x".into()),
        runtime_directory: Some("/run/{x}".into()),
        ..surroundings()
    };
    let config = config::check(&dir.sources(), &given).config.unwrap();
    assert_eq!(config.state.path, Path::new("/var/lib/x/state.redb"));
    assert_eq!(config.control.socket, Path::new("/run/{x}/control.sock"));
    let (name, app) = config.apps.iter().next().unwrap();
    let place = app.sinks[0].place(&app.names_of(name, &app.tenants[0])).to_string();
    assert_eq!(place, "/run/{x}/tokens/crm/ding1");
}

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
        "config.toml:7:26: error: the file nothing-there cannot be read",
        "config.toml:8:8: error: `rate` is not a rate",
        "config.toml:9:22: error: a corp_id must be",
        "config.toml:9:33: error: `corp_ids` holds strings, and this is an integer",
        "config.toml:10:18: error: `at` must be between 0.05 and 0.95",
        "config.toml:12:14: error: `file`: `{corpid}` is not known here",
        "config.toml:13:8: error: `mode` would let everybody write there",
        "config.toml:14:2: error: unknown key `zzz` in the config",
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
    assert!(
        shown.contains("2 | client_secret = { value = \"…\", zzz = … }\n  |                                ^^^"),
        "{shown}"
    );
    let ids: String = (0..1000).map(|n| format!("\"ding{n:04}\", ")).collect();
    let dir = Dir::with(&crm(&format!("corp_ids = [{ids}\"no good\"]")));
    let shown = dir.check().report.render(&dir.sources(), false);
    assert!(shown.contains("config.toml:4:12013\n") && shown.contains("\"no good\"]"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
}

#[test]
fn drop_ins_merge_and_their_lists_are_joined() {
    let dir = Dir::with(&crm("corp_ids = [\"ding1\"]\nrefresh = { at = 0.5 }"));
    dir.write("config.d/20-more.toml", "[app.crm]\ncorp_ids = [\"ding3\"]\nrefresh = { jitter = 0.1 }\n");
    dir.write("config.d/10-other.toml", "[[app.crm.sink]]\nfile = \"../a/{corp_id}\"\n");
    assert!(dir.problems()[0].contains("config.d/10-other.toml:2:9: error: `file` has a part `.` or `..`"));
    dir.write("config.d/10-other.toml", "[[app.crm.sink]]\nfile = \"a/{corp_id}\"\n");
    dir.write("config.d/.hidden.toml", "what is this");
    dir.write("config.d/readme.txt", "nor this");
    let config = dir.config();
    let (name, app) = config.apps.iter().next().unwrap();
    assert_eq!(app.tenants.len(), 2);
    assert_eq!((app.policy.refresh.at, app.policy.refresh.jitter), (0.5, 0.1));
    let place = app.sinks[0].place(&app.names_of(name, &app.tenants[1])).to_string();
    assert_eq!(place, dir.path("config.d/a/ding3").display().to_string(), "relative to the file it stands in");
}

#[test]
fn a_scalar_set_in_two_files_shows_both_places() {
    let dir = Dir::with("[api]\ntimeout = \"9s\"\n");
    dir.write("config.d/a.toml", "[api]\n\ntimeout = \"8s\"\n");
    let found = dir.check().report;
    assert_eq!(found.problems.len(), 1);
    let shown = found.render(&dir.sources(), false);
    assert!(shown.contains("`timeout` is set in two files"), "{shown}");
    assert!(shown.contains("config.d/a.toml:3:1") && shown.contains("config.toml:2:1"), "{shown}");
}

#[test]
fn a_tenant_listed_twice_shows_both_places_and_one_with_a_table_does_not_count_twice() {
    let dir = Dir::with(&crm("corp_ids = [\"ding1\", \"ding1\"]\n[app.crm.tenant.ding1]\nname = \"acme\""));
    let report = dir.check().report;
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].message, "the tenant ding1 is listed twice");
    assert_eq!(report.problems[0].also[0].0.column, 13);
    let dir =
        Dir::with(&crm("corp_ids = [\"ding1\"]\n[app.crm.tenant.ding1]\nname = \"acme\"\n[app.crm.tenant.ding0]"));
    assert_eq!(dir.config().tenant_count(), 2);
}

#[test]
fn sinks_of_a_tenant_replace_those_of_its_app_which_replace_the_default_ones() {
    let text = crm("corp_ids = [\"ding1\", \"ding2\"]\n[[app.crm.sink]]\nkeyring = \"@u/x/{corp_id}\"\n\
         [app.crm.tenant.ding2]\nname = \"acme\"\n[[app.crm.tenant.ding2.sink]]\nfile = \"/srv/{name}\"\n\
         [[defaults.sink]]\nfile = \"/srv/d/{corp_id}\"\n[app.bot]\nclient_id = \"b\"\ncorp_ids = [\"ding1\"]\n\
         client_secret = { file = \"crm.secret\" }");
    let config = Dir::with(&text).config();
    let mut places = Vec::new();
    for (name, app) in &config.apps {
        for id in &app.tenants {
            places.extend(app.sinks_of(id).iter().map(|sink| sink.place(&app.names_of(name, id)).to_string()));
        }
    }
    assert_eq!(places, ["/srv/d/ding1", "@u/x/ding1", "/srv/acme"]);
}

#[test]
fn secrets_written_into_the_config_are_refused_with_the_way_out() {
    let dir = Dir::with("[app.crm]\nclient_id = \"a\"\nclient_secret = \"hunter2\"\n");
    assert_eq!(dir.problems().len(), 1, "{:?}", dir.problems());
    let help = dir.helps();
    assert!(help.contains("/dev/stdin") && help.contains("client_secret = { file ="), "{help}");
}

#[test]
fn a_config_that_others_can_write_is_refused_with_the_command_that_mends_it() {
    let dir = Dir::with("");
    dir.write("config.d/a.toml", "");
    for (name, mode, back) in
        [("config.toml", 0o646, 0o640), ("config.d/a.toml", 0o642, 0o640), ("config.d", 0o757, 0o755)]
    {
        dir.chmod(name, mode);
        let found = dir.problems();
        assert!(found.len() == 1 && found[0].contains("can be written by everybody"), "{found:?}");
        assert_eq!(dir.helps(), format!("chmod o-w {}", dir.path(name).display()));
        dir.chmod(name, back);
    }
    assert_eq!(dir.problems(), Vec::<String>::new());
}

/// In a container, config and secrets are often mounted read-only, with permissions that nobody there can change.
#[test]
fn on_a_read_only_mount_loose_permissions_are_a_warning() {
    const INNER: &str = "CORPTOKEND_TEST_READ_ONLY";
    const NAME: &str = "on_a_read_only_mount_loose_permissions_are_a_warning";
    if let Some(directory) = std::env::var_os(INNER) {
        let sources = config::read(&Path::new(&directory).join("config.toml")).unwrap();
        let checked = config::check(&sources, &surroundings());
        let told: Vec<String> = checked.report.problems.iter().map(config::Problem::one_line).collect();
        assert!(checked.config.is_some(), "{told:#?}");
        assert!(told.iter().any(|line| line.contains("warning: the config can be written by everybody")), "{told:#?}");
        assert!(
            told.iter().any(|line| line.contains("crm.secret can be read") && line.contains("warning")),
            "{told:#?}"
        );
        return;
    }
    let dir = Dir::with(&crm(""));
    dir.chmod("config.toml", 0o666).chmod("crm.secret", 0o644);
    assert_eq!(dir.problems().len(), 2);
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; exec \"$2\" --exact \"$3\"";
    let exe = std::env::current_exe().unwrap();
    let mut inner = std::process::Command::new("unshare");
    inner.args(["-m", "sh", "-c", script, "sh"]).arg(dir.0.path()).arg(exe).arg(NAME).env(INNER, dir.0.path());
    let outcome = inner.output();
    let mounted = outcome.as_ref().is_ok_and(|out| ![Some(1), Some(99)].contains(&out.status.code()));
    if !mounted {
        assert!(std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_none(), "cannot mount: {outcome:?}");
        eprintln!("SKIPPED {NAME}: it needs the right to mount ({outcome:?})");
        return;
    }
    let out = outcome.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn what_cannot_be_read_is_told_with_its_name() {
    let dir = Dir::new();
    let missing = config::read(&dir.path("config.toml")).unwrap_err();
    assert!(missing.headline().unwrap().contains("config.toml: error: the config cannot be read: No such file"));
    fs::write(dir.path("config.toml"), b"[api]\ntimeout = \"\xff\"\n").unwrap();
    let latin = config::read(&dir.path("config.toml")).unwrap_err();
    assert!(latin.headline().unwrap().contains("config.toml:2:12: error: the config is not UTF-8"));
    dir.write("config.toml", "\u{feff}[api]\nx = 1\n");
    assert!(dir.problems()[0].starts_with("config.toml:2:1:"));
    dir.write("config.toml", "");
    fs::create_dir(dir.path("config.d")).unwrap();
    fs::create_dir(dir.path("config.d/x.toml")).unwrap();
    assert!(dir.problems()[0].contains("config.d/x.toml: error: the config is not a file"));
}

#[test]
fn sinks_that_would_write_the_same_place_are_refused() {
    let fixed = "[[app.crm.sink]]\nfile = \"/srv/token\"";
    assert_only(
        &crm(&format!("corp_ids = [\"ding1\", \"ding2\", \"ding3\"]\n{fixed}")),
        "config.toml:6:8: error: two sinks would write the same place, /srv/token: of crm/ding1 and of crm/ding2 (and 1 more)",
    );
    assert_eq!(problems(&crm(&format!("corp_ids = [\"ding1\"]\n{fixed}"))), Vec::<String>::new());
    let two_apps = "[app.bot]\nclient_id = \"b\"\nclient_secret = { file = \"crm.secret\" }\ncorp_ids = [\"ding1\"]";
    assert_only(
        &format!("[[defaults.sink]]\nfile = \"/srv/{{corp_id}}\"\n{}{two_apps}", crm("corp_ids = [\"ding1\"]")),
        "the same place, /srv/ding1: of bot/ding1 and of crm/ding1",
    );
    let nested =
        "corp_ids = [\"ding1\"]\n[[app.crm.sink]]\nfile = \"/srv/a\"\n[[app.crm.sink]]\nfile = \"/srv/a/{corp_id}\"";
    assert_only(&crm(nested), "lies below /srv/a, which another sink makes a file");
    let keys = "corp_ids = [\"a\", \"b\"]\n[[app.crm.sink]]\nkeyring = \"@u/x/y\"";
    assert_only(&crm(keys), "the same place, @u/x/y: of crm/a and of crm/b");
}

#[test]
fn sinks_cannot_overwrite_what_the_daemon_lives_by() {
    let sink = |file: &str| crm(&format!("corp_ids = [\"ding1\"]\n[[app.crm.sink]]\nfile = \"{file}\""));
    assert_only(&sink("crm.secret"), "would overwrite a client secret");
    assert_only(&sink("config.toml"), "would overwrite the config");
    assert_only(&sink("/run/corptokend/control.sock"), "would overwrite the control socket");
    assert_only(&sink("/var/lib/corptokend/state.redb/x"), "would overwrite the state");
    assert_only(&sink("{corp_id}"), "which is watched for changes of the config");
    assert_only(&sink("config.d/{corp_id}"), "which is watched for changes of the config");
    assert_eq!(problems(&sink("tokens/{corp_id}")), Vec::<String>::new());
}

#[test]
fn every_rule_of_sinks_has_its_message() {
    let sink = |keys: &str| crm(&format!("corp_ids = [\"ding1\"]\n[[app.crm.sink]]\n{keys}"));
    for (keys, expected) in [
        ("mode = \"0640\"", "a sink needs a `file` or a `keyring`"),
        ("file = \"/srv/{corp_id}\"\nkeyring = \"@u/x\"", "this is both"),
        ("keyring = \"@u/x\"\nformat = \"json\"", "`format` is for files"),
        ("file = \"/srv/{corp_id}\"\nformat = \"json\"\ntemplate = \"{token}\"", "this has both"),
        ("file = \"/srv/{corp_id}\"\ntemplate = \"{expires_at}\"", "does not name the token"),
        ("file = \"/srv/{corp_id}\"\nformat = \"yaml\"", "must be one of `raw`, `line`, `json`, `env`"),
        ("file = \"/srv/{corp_id}/\"", "names a directory"),
        ("file = \"/srv/{name}\"", "the tenant crm/ding1 has no name"),
        ("file = \"/srv/{corp_id}\"\nowner = \"no-such-user\"", "names a user that does not exist"),
        ("file = \"/srv/{corp_id}\"\ngroup = \"no-such-group\"", "names a group that does not exist"),
        ("file = \"/srv/{corp_id}\"\nmode = \"0040\"", "would shut the owner itself out"),
        ("keyring = \"x\"", "needs a key below"),
        ("keyring = \"@s/x\"", "must start with @u or a keyring's number"),
        ("keyring = \"@u/\"", "config.toml:6:15: error: `keyring` has an empty part"),
        ("keyring = \"@u/.a/b\"", "begins with a dot"),
    ] {
        assert_only(&sink(keys), expected);
    }
    let many = "[[app.crm.sink]]\nfile = \"/srv/{corp_id}\"\n".repeat(17);
    assert_only(&crm(&many), "a tenant can have 16 sinks, and these are 17");
    assert_only(&crm("[app.crm.sink]\nfile = \"/srv/{corp_id}\""), "`sink` is a list of tables");
}

#[test]
fn without_the_right_to_give_files_away_owner_and_foreign_groups_are_refused() {
    let dir = Dir::with(&crm("[[app.crm.sink]]\nfile = \"/srv/{corp_id}\"\nowner = 12345\ngroup = \"12345\""));
    let powerless = Surroundings { may_chown: false, ..surroundings() };
    let report = config::check(&dir.sources(), &powerless).report;
    let found: Vec<String> = report.problems.iter().map(|p| p.message.clone()).collect();
    assert!(found[0].contains("CAP_CHOWN") && found[1].contains("not in"), "{found:?}");
    let member = Surroundings { may_chown: false, user: 12345, groups: vec![12345], ..surroundings() };
    let config = config::check(&dir.sources(), &member).config.unwrap();
    let SinkKind::File(file) = &config.apps.values().next().unwrap().sinks[0].kind else { panic!() };
    assert_eq!((file.owner, file.group), (Some(12345), Some(12345)));
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
        ("[metrics]\nlisten = \"127.0.0.1:9469\"", "unknown key `metrics`"),
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
fn beyond_the_capacity_there_is_a_warning_with_figures() {
    let ids: Vec<String> = (0..1000).map(|n| format!("\"ding{n}\"")).collect();
    let dir = Dir::with(&crm(&format!("rate = \"10/m\"\ncorp_ids = [{}]", ids.join(","))));
    let checked = dir.check();
    assert_eq!(checked.report.problems.len(), 1);
    assert_eq!(
        checked.report.problems[0].message,
        "the app crm has 1000 tenants, 160 more than the 840 that 10/m can renew in time: renewals come up to 960 s late, \
         still before expiry"
    );
    let figures = config::capacity(&checked.config.unwrap());
    assert_eq!((figures.apps[0].figures.capacity, figures.apps[0].figures.slip_s), (840, 960));
    assert_eq!(figures.total.slip_s, 0);
    let json = serde_json::to_value(&figures).unwrap();
    assert_eq!(json["apps"][0]["tenants"], 1000);
    let config = Dir::with(&crm("corp_ids = [\"ding1\"]")).config();
    assert_eq!(config::capacity(&config).apps[0].figures.capacity, 75_600);
}

#[test]
fn keyrings_beyond_the_kernels_quota_are_warned_of() {
    let ids: Vec<String> = (0..300).map(|n| format!("\"ding{n}\"")).collect();
    let dir =
        Dir::with(&crm(&format!("corp_ids = [{}]\n[[app.crm.sink]]\nkeyring = \"@u/{{corp_id}}\"", ids.join(","))));
    let quota = Some(config::KeyQuota { keys: 200, bytes: 20_000 });
    let report = config::check(&dir.sources(), &Surroundings { user: 1, key_quota: quota, ..surroundings() }).report;
    assert_eq!(report.problems[0].message, "the keyring sinks need about 300 keys, and the kernel allows 200");
    assert_eq!(report.problems[0].help.as_deref(), Some("sysctl kernel.keys.maxkeys=600"));
}

#[test]
fn a_secret_is_never_shown_whatever_is_wrong_with_the_line_it_stands_in() {
    const C: &str = "cAnArY7";
    let faulty = [
        format!("[app.crm]\nclient_secret = \"{C}\""),
        format!("[app.crm]\nclient_secret = '{C}'"),
        format!("[app.crm]\nclient_secret = \"{C}"),
        format!("[app.crm]\nclient_secret = {C}"),
        format!("[app.crm]\nclient_secret = 1{C}"),
        format!("[app.crm]\nclient_secret \"{C}\""),
        format!("[app.crm]\nclient_secret: \"{C}\""),
        format!("[app.crm]\nclient_secret: {C}"),
        format!("[app.crm]\nclient_secret = \"\"\"\n{C}\n\"\"\""),
        format!("[app.crm]\nclient_secret = \"\"\"\n{C}\n"),
        format!("[app.crm]\nclient_secret = '''{C}"),
        format!("[app.crm]\nclient_secret = [\"{C}\"]"),
        format!("[app.crm]\nclient_secret = {{ secret = \"{C}\" }}"),
        format!("[app.crm]\nclient_secret = {{ file = \"a\", value = \"{C}\" }}"),
        format!("[app.crm]\nclient_secret = {{ \"{C}\" }}"),
        format!("[app.crm]\nclient_secret = {{ file = \"x\" \"{C}\""),
        format!("[app.crm]\nclient_secert = \"{C}\""),
        format!("[app.crm]\nclientsecret = \"{C}\""),
        format!("[app.crm]\npassword = \"{C}\""),
        format!("[app.crm]\nclient_id = \"a\" client_secret = \"{C}\""),
        format!("[app.crm]\nclient_id = \"a\", client_secret \"{C}\""),
        format!("[app.crm] client_secret = \"{C}\""),
        format!("[app.crm.client_secret = \"{C}\""),
        format!("[app]\ncrm = {{ client_secret = \"{C}\", rate = 3 }}"),
        format!("app.crm.client_secret = \"{C}\""),
        format!("client_secret = \"{C}\""),
        format!("[api]\nclient_secret = \"{C}\""),
        format!("[app.crm]\nrate = \"15/h\" # client_secret was {C}"),
        format!("[app.crm]\nclient_secret = \"a\\q{C}\""),
        format!("[app.crm]\nclient_secret = \"abc\n{C}\""),
        format!("[app.crm]\nclient_secret =\n\"{C}\""),
        format!("[app.crm]\nclient_secret == \"{C}\""),
        format!("[app.crm]\nclient_secret = client_secret = \"{C}\""),
        format!("[app.crm]\nclient_secret = \"{C}\"\nclient_secret = \"{C}\""),
        format!("[app.crm]\n\"{C}\" = 1"),
        format!("[app.crm]\n\"{C}\""),
        format!("[app.crm]\n{C}"),
        format!("[app.crm]\nclient_id = \"\"\"\nx = 1\nclient_secret = \"{C}\"\n"),
        format!("[app.crm]\nclient_id = \"abc\\\nclient_secret = \"{C}\""),
        format!("[app.crm]\ncorp_ids = [\"a\"\nclient_secret = \"{C}\""),
        format!("[defaults]\nproxy = \"ftp://user:{C}@proxy\""),
        format!("[defaults]\nproxy = \"user:{C}@proxy:3128"),
        format!("[defaults]\nproxy = http://user:{C}@proxy:3128"),
        format!("[defaults]\nproxy = \"http://u:pa\"{C}@proxy:3128\""),
        format!("[defaults]\nendpoint = \"https://user:{C}@host\""),
        format!("[defaults]\nproxy = [\"http://user:{C}@proxy\"]"),
        format!("[app.crm]\nclient_secret = {{ env = \"{C}{C}{C}{C}{C}{C}{C}!\" }}"),
    ];
    for text in faulty {
        let dir = Dir::with(&text);
        dir.write("config.d/z.toml", "[app.crm]\nclient_secret = 1\nclient_id = 2\n");
        let (sources, checked) = (dir.sources(), dir.check());
        let report = &checked.report;
        assert!(report.has_errors(), "{text}");
        let mut told =
            vec![report.render(&sources, false), report.render(&sources, true), report.to_json().to_string()];
        told.push(format!("{report:?} {sources:?} {checked:?} {:?}", report.headline()));
        told.extend(report.problems.iter().map(config::Problem::one_line));
        for told in told {
            assert!(!told.contains("AnArY"), "{text}\n--- is told as\n{told}");
        }
    }
}

/// Every way in which a file can be half written or have lost a byte, with a secret in it.
#[test]
fn a_mutilated_config_never_shows_its_secret() {
    const C: &str = "cAnArY7";
    let whole = format!(
        "[api]\ntimeout = \"9s\"\n[app.crm]\nclient_id = \"a\"\nclient_secret = \"{C}\"\ncorp_ids = [\n  \"ding1\", \"ding2\"\n]\n\
         [app.bot]\nclient_secret = {{ file = \"\"\"x\"\"\", value = '{C}' }}\nrefresh = {{ at = 0.7 }}\n"
    );
    let path = PathBuf::from("/nowhere/config.toml");
    let mut texts: Vec<String> = (0..whole.len()).map(|end| whole[..end].to_owned()).collect();
    for at in 0..whole.len() {
        texts.push(format!("{}{}", &whole[..at], &whole[at + 1..]));
        for put in ["\"", "'", "[", "}", "=", "\n", "#", "\\", "\"\"\"", "ä"] {
            texts.push(format!("{}{put}{}", &whole[..at], &whole[at..]));
        }
    }
    for text in texts {
        let sources = Sources::remembered(vec![Source::new(&path, text.as_str())]);
        let report = config::check(&sources, &surroundings()).report;
        let told = format!("{}{}{report:?}", report.render(&sources, false), report.to_json());
        // A byte within the secret splits it, and what comes first may then be a word of its own.
        assert!(!told.contains(C) && !told.contains("nArY7") && !told.contains("cAnAr"), "{text}\n---\n{told}");
        let mut places: Vec<_> = report.problems.iter().map(config::Problem::one_line).collect();
        places.sort();
        let all = places.len();
        places.dedup();
        assert_eq!(places.len(), all, "told twice\n{text}\n---\n{told}");
    }
}

#[test]
fn a_remembered_config_is_checked_like_one_on_disk() {
    let dir = Dir::new();
    let path = dir.path("config.toml");
    let sources = Sources::remembered(vec![Source::new(path, crm("corp_ids = [\"ding1\"]"))]);
    assert_eq!(config::check(&sources, &surroundings()).config.unwrap().tenant_count(), 1);
}

#[test]
fn links_are_watched_to_their_end() {
    let dir = Dir::new();
    dir.write("..v1/config.toml", "");
    std::os::unix::fs::symlink("..v1", dir.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/config.toml", dir.path("config.toml")).unwrap();
    let watch = dir.sources().watch;
    assert!(watch.contains(&dir.0.path().to_path_buf()) && watch.contains(&dir.path("..v1")), "{watch:?}");
    dir.write("config.d/a.toml", "");
    assert!(dir.sources().watch.contains(&dir.path("config.d")));
}

#[test]
fn a_hundred_thousand_tenants_are_checked_in_a_moment() {
    let ids: Vec<String> = (0..100_000).map(|n| format!("\"ding{n:016x}\"")).collect();
    let dir = Dir::with(&crm(&format!("rate = \"1000/s\"\ncorp_ids = [\n{}\n]", ids.join(",\n"))));
    assert_eq!(dir.config().tenant_count(), 100_000);
}
