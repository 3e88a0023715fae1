//! Where tokens may be published.

use super::*;

#[test]
fn sinks_that_would_write_the_same_place_are_refused() {
    let fixed = "[[app.crm.sink]]\nfile = \"/srv/token\"";
    assert_only(
        &crm(&format!("corp_ids = [\"ding1\", \"ding2\", \"ding3\"]\n{fixed}")),
        "config.toml:6:8: error: two sinks would write the same place: of crm/ding1 and of crm/ding2 (and 1 more)",
    );
    assert_eq!(problems(&crm(&format!("corp_ids = [\"ding1\"]\n{fixed}"))), Vec::<String>::new());
    let two_apps = "[app.bot]\nclient_id = \"b\"\nclient_secret = { file = \"crm.secret\" }\ncorp_ids = [\"ding1\"]";
    assert_only(
        &format!("[[defaults.sink]]\nfile = \"/srv/{{corp_id}}\"\n{}{two_apps}", crm("corp_ids = [\"ding1\"]")),
        "the same place: of bot/ding1 and of crm/ding1",
    );
    let nested =
        "corp_ids = [\"ding1\"]\n[[app.crm.sink]]\nfile = \"/srv/a\"\n[[app.crm.sink]]\nfile = \"/srv/a/{corp_id}\"";
    assert_only(&crm(nested), "the sink of crm/ding1 lies below a file, which a sink of crm/ding1 makes");
    let keys = "corp_ids = [\"a\", \"b\"]\n[[app.crm.sink]]\nkeyring = \"@u/x/y\"";
    assert_only(&crm(keys), "the same place: of crm/a and of crm/b");
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
fn a_sink_that_is_named_like_a_temporary_file_of_the_daemons_is_refused() {
    let sink = |file: &str| crm(&format!("corp_ids = [\"ding1\"]\n[[app.crm.sink]]\nfile = \"{file}\""));
    for file in [
        "/srv/.{corp_id}.corptokend-tmp",
        "/srv/.x.corptokend-tmp",
        "/srv/.x.corptokend-tmp3",
        "/srv/.{app}.corptokend-tmph/{corp_id}",
        "/srv/.x.corptokend-tmp{corp_id}",
    ] {
        assert_only(&sink(file), "is a name for temporary files of the daemon, which it removes");
    }
    for file in ["/srv/x.corptokend-tmp", "/srv/.x.corptokend-tmp.{corp_id}", "/srv/.corptokend/{corp_id}"] {
        assert_eq!(problems(&sink(file)), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn two_paths_to_one_place_are_one_place() {
    let dir = Dir::with(&crm("corp_ids = [\"ding1\", \"ding2\"]\n[[app.crm.sink]]\nfile = \"real/{corp_id}\"\n\
         [app.hr]\nclient_id = \"h\"\nclient_secret = { file = \"crm.secret\" }\ncorp_ids = [\"ding1\"]\n\
         [[app.hr.sink]]\nfile = \"link/{corp_id}\""));
    assert_eq!(dir.problems(), Vec::<String>::new(), "a directory that is not there is nobody's");
    fs::create_dir(dir.path("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.path("link")).unwrap();
    let found = dir.problems();
    let expected = "two sinks would write the same place, which a link or a mount makes one: \
                    of crm/ding1 and of hr/ding1";
    assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}");
    assert!(dir.check().report.render(&dir.sources(), false).contains("the other one"));
    // What ran before runs again: the daemon refuses the second one when it publishes.
    let remembered = Sources::remembered(dir.sources().files);
    assert!(environment::check(&remembered, &process()).config.is_some());
    // Other names in one directory are other places: /var/run is /run.
    dir.write("config.toml", &dir.sources().files[0].text.replace("link/{corp_id}", "link/hr-{corp_id}"));
    assert_eq!(dir.problems(), Vec::<String>::new());
}

#[test]
fn what_the_daemon_lives_by_is_known_by_every_path() {
    let dir = Dir::new();
    let there = dir.0.path().display();
    dir.write("own/ca.pem", "").secret("own/hr.secret");
    std::os::unix::fs::symlink("own", dir.path("link")).unwrap();
    std::os::unix::fs::symlink(".", dir.path("here")).unwrap();
    let head = format!(
        "[api]\nca_file = \"own/ca.pem\"\n[state]\npath = \"{there}/own/state.redb\"\n\
         [control]\nsocket = \"{there}/own/control.sock\"\n[app.hr]\nclient_id = \"h\"\n\
         client_secret = {{ file = \"own/hr.secret\" }}\n"
    );
    let program = std::env::current_exe().unwrap();
    symlink_to_directory_of(&program, &dir.path("bin"));
    let program = format!("bin/{}", program.file_name().unwrap().to_str().unwrap());
    for (file, what) in [
        ("link/state.redb", "the state"),
        ("link/control.sock", "the control socket"),
        ("link/ca.pem", "the certificates to trust"),
        ("link/hr.secret", "a client secret"),
        ("here/config.toml", "the config"),
        ("here/config.d/x", "watched for changes of the config"),
        (&program, "the program itself"),
    ] {
        dir.write("config.d/y.toml", "");
        dir.write(
            "config.toml",
            &format!("{head}{}", crm(&format!("corp_ids = [\"ding1\"]\n[[app.crm.sink]]\nfile = \"{file}\""))),
        );
        let found = dir.problems();
        assert!(found.len() == 1 && found[0].contains(what), "{file}: {found:#?}");
    }
}

fn symlink_to_directory_of(file: &Path, link: &Path) {
    std::os::unix::fs::symlink(file.parent().unwrap(), link).unwrap();
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
        ("file = \"/srv/a\u{200b}/{corp_id}\"", "config.toml:6:15: error: `file` holds U+200B, which is invisible"),
        ("keyring = \"@u/a/\u{202e}\"", "config.toml:6:17: error: `keyring` holds U+202E, which is invisible"),
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
    let powerless = Process { may_chown: false, ..process() };
    let report = environment::check(&dir.sources(), &powerless).report;
    let found: Vec<String> = report.diagnostics.iter().map(|p| p.message.clone()).collect();
    assert!(found[0].contains("CAP_CHOWN") && found[1].contains("not in"), "{found:?}");
    let member = Process { may_chown: false, user: 12345, groups: vec![12345], ..process() };
    let config = environment::check(&dir.sources(), &member).config.unwrap();
    let SinkKind::File(file) = &config.apps.values().next().unwrap().sinks[0].kind else { panic!() };
    assert_eq!((file.owner, file.group), (Some(12345), Some(12345)));
}

/// Names are looked up before the check, with a time limit: the database may be a server that is gone.
#[test]
fn an_account_database_that_does_not_answer_is_an_error_that_may_end_by_itself() {
    use corptokend::config::{Account, Draft, Environment, SecretInput, SecretOutcome};

    let dir = Dir::with(&crm("[[app.crm.sink]]\nfile = \"/srv/{corp_id}\"\ngroup = \"legacy\""));
    let sources = dir.sources();
    let draft = Draft::read(&sources, &process());
    let needs = draft.needs();
    assert!(needs.groups.contains("legacy") && needs.users.contains("corptokend"), "{needs:?}");
    let unanswered = || Account::Unanswered("it does not come to an end".into());
    let groups = ["legacy", "corptokend-readers"].map(|name| (name.to_owned(), unanswered())).into();
    let outcome = SecretOutcome::Good(corptokend::domain::Fingerprint::of(b"s3cr3t"));
    let secrets = vec![SecretInput { outcome, dangers: Vec::new() }];
    let report = draft.check(&Environment { groups, secrets, ..Environment::default() }).report;
    let found: Vec<String> = report.diagnostics.iter().map(config::Diagnostic::one_line).collect();
    assert!(report.hangs() && report.may_end_by_itself() && found.len() == 1, "{found:#?}");
    assert!(
        found[0].contains("config.toml:6:9: error: the group that `group` names cannot be looked up"),
        "{found:#?}"
    );
}

/// Published with the daemon's own group, the tokens would be out of the readers' reach.
#[test]
fn a_default_group_that_is_not_answered_is_an_error_where_it_is_used() {
    use corptokend::config::{Account, Draft, Environment, SecretInput, SecretOutcome};

    let unanswered = || Account::Unanswered("it does not come to an end".into());
    let check = |body: &str, groups: &[(&str, Account)], user: Account| {
        let dir = Dir::with(&crm(body));
        let sources = dir.sources();
        let outcome = SecretOutcome::Good(corptokend::domain::Fingerprint::of(b"s3cr3t"));
        let environment = Environment {
            groups: groups.iter().map(|(name, account)| ((*name).to_owned(), account.clone())).collect(),
            users: [("corptokend".to_owned(), user)].into(),
            secrets: vec![SecretInput { outcome, dangers: Vec::new() }],
            ..Environment::default()
        };
        let powerless = Process { may_chown: false, groups: Vec::new(), ..process() };
        let report = Draft::read(&sources, &powerless).check(&environment).report;
        assert_eq!(report.has_errors(), report.may_end_by_itself());
        report.diagnostics.iter().map(config::Diagnostic::one_line).collect::<Vec<_>>()
    };
    let (standard, own) = ("corp_ids = [\"ding1\"]", "[[app.crm.sink]]\nfile = \"/srv/{corp_id}\"");
    let readers = |account| [("corptokend-readers", account)];
    let found = check(standard, &readers(unanswered()), Account::Missing);
    assert!(
        found.len() == 1 && found[0].starts_with("error: the group corptokend-readers cannot be looked up"),
        "{found:#?}"
    );
    let found = check(standard, &readers(Account::Id(4711)), unanswered());
    assert!(found.len() == 1 && found[0].starts_with("error: the user corptokend cannot be looked up"), "{found:#?}");
    assert_eq!(check(own, &readers(unanswered()), unanswered()), Vec::<String>::new());
    let found = check(own, &[("corptokend-admin", unanswered())], Account::Missing);
    assert!(found.len() == 1 && found[0].starts_with("warning: the group corptokend-admin"), "{found:#?}");
}
