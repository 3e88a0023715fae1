//! What a valid config means.

use super::*;

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
    let given =
        Process { state_directory: Some("/var/lib/x".into()), runtime_directory: Some("/run/{x}".into()), ..process() };
    let config = environment::check(&dir.sources(), &given).config.unwrap();
    assert_eq!(config.state.path, Path::new("/var/lib/x/state.redb"));
    assert_eq!(config.control.socket, Path::new("/run/{x}/control.sock"));
    let (name, app) = config.apps.iter().next().unwrap();
    let place = app.sinks[0].place(&app.names_of(name, &app.tenants[0])).to_string();
    assert_eq!(place, "/run/{x}/tokens/crm/ding1");
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
    assert_eq!(found.diagnostics.len(), 1);
    let shown = found.render(&dir.sources(), false);
    assert!(shown.contains("`timeout` is set in two files"), "{shown}");
    assert!(shown.contains("config.d/a.toml:3:1") && shown.contains("config.toml:2:1"), "{shown}");
}

#[test]
fn a_tenant_listed_twice_shows_both_places_and_one_with_a_table_does_not_count_twice() {
    let dir = Dir::with(&crm("corp_ids = [\"ding1\", \"ding1\"]\n[app.crm.tenant.ding1]\nname = \"acme\""));
    let report = dir.check().report;
    assert_eq!(report.diagnostics.len(), 1);
    assert_eq!(report.diagnostics[0].message, "the tenant ding1 is listed twice");
    assert_eq!(report.diagnostics[0].also[0].0.column, 13);
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
fn beyond_the_capacity_there_is_a_warning_with_figures() {
    let ids: Vec<String> = (0..1000).map(|n| format!("\"ding{n}\"")).collect();
    let dir = Dir::with(&crm(&format!("rate = \"10/m\"\ncorp_ids = [{}]", ids.join(","))));
    let checked = dir.check();
    assert_eq!(checked.report.diagnostics.len(), 1);
    assert_eq!(
        checked.report.diagnostics[0].message,
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
    let report = environment::check(&dir.sources(), &Process { user: 1, key_quota: quota, ..process() }).report;
    assert_eq!(report.diagnostics[0].message, "the keyring sinks need about 300 keys, and the kernel allows 200");
    assert_eq!(report.diagnostics[0].help.as_deref(), Some("sysctl kernel.keys.maxkeys=600"));
}

#[test]
fn a_remembered_config_is_checked_like_one_on_disk() {
    let dir = Dir::new();
    let path = dir.path("config.toml");
    let sources = Sources::remembered(vec![Source::new(path, crm("corp_ids = [\"ding1\"]"))]);
    assert_eq!(environment::check(&sources, &process()).config.unwrap().tenant_count(), 1);
}

#[test]
fn a_hundred_thousand_tenants_are_checked_in_a_moment() {
    let ids: Vec<String> = (0..100_000).map(|n| format!("\"ding{n:016x}\"")).collect();
    let dir = Dir::with(&crm(&format!("rate = \"1000/s\"\ncorp_ids = [\n{}\n]", ids.join(",\n"))));
    assert_eq!(dir.config().tenant_count(), 100_000);
}
