//! How configs differ, from the texts that an operator edits.

use crate::config::{Config, Difference, Fate, Source, Sources, check_text, diff, keep_removed};
use crate::domain::{AppName, CorpId};

/// An app's table with a secret that is always there.
fn app(name: &str, more: &str) -> String {
    format!("[app.{name}]\nclient_id = \"{name}\"\nclient_secret = {{ env = \"PATH\" }}\n{more}\n")
}

fn config(text: &str) -> Config {
    let sources = Sources::remembered(vec![Source::new("/nowhere/config.toml", text)]);
    let checked = check_text(&sources);
    let report = checked.report.render(&sources, false);
    checked.config.unwrap_or_else(|| panic!("{report}"))
}

fn crm(corp_ids: &str, more: &str) -> String {
    let ids: Vec<String> = corp_ids.split_whitespace().map(|id| format!("{id:?}")).collect();
    app("crm", &format!("corp_ids = [{}]\n{more}", ids.join(", ")))
}

fn between(old: &str, new: &str) -> Difference {
    diff(Some(&config(old)), &config(new))
}

/// `+crm/a -crm/b (/place) ~crm/c (/place)`
fn summary(difference: &Difference) -> String {
    let mut words = Vec::new();
    for app in &difference.apps {
        let places = |places: &[crate::domain::Place]| {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            if places.is_empty() { String::new() } else { format!(" ({})", places.join(" ")) }
        };
        words.extend(app.added.iter().map(|id| format!("+{}", app.id(id))));
        words.extend(app.removed.iter().map(|gone| format!("-{}{}", app.id(&gone.corp_id), places(&gone.places))));
        words.extend(
            app.sinks_changed.iter().map(|moved| format!("~{}{}", app.id(&moved.corp_id), places(&moved.places))),
        );
    }
    words.join(" ")
}

#[test]
fn nothing_changed_is_no_difference() {
    let text = crm("a b", "[app.crm.tenant.a]\nname = \"x\"");
    assert!(between(&text, &text).is_empty());
    assert!(between(&text, &crm("b a", "[app.crm.tenant.a]\nname = \"x\"")).is_empty(), "the order does not matter");
    assert!(between("", "").is_empty());
}

#[test]
fn without_an_old_config_everything_is_new() {
    let difference = diff(None, &config(&crm("a b", "")));
    assert_eq!(summary(&difference), "+crm/a +crm/b");
    assert_eq!(difference.apps[0].fate, Fate::Added);
    assert!(difference.apps[0].policy.is_some());
    assert!(!difference.removes_too_much());
}

#[test]
fn tenants_come_and_go_with_the_places_that_they_leave() {
    let difference = between(&crm("a b d", ""), &crm("a c d e", ""));
    assert_eq!(summary(&difference), "+crm/c +crm/e -crm/b (/run/corptokend/tokens/crm/b)");
    assert_eq!((difference.counts.old, difference.counts.new), (3, 4));
}

#[test]
fn on_remove_of_the_old_config_decides_what_is_emptied() {
    let keep = "on_remove = \"keep\"";
    assert_eq!(summary(&between(&crm("a b", keep), &crm("a", ""))), "-crm/b");
    assert_eq!(summary(&between(&crm("a b", ""), &crm("a", keep))), "-crm/b (/run/corptokend/tokens/crm/b)");
}

#[test]
fn a_tenant_with_other_sinks_is_published_again_and_leaves_only_the_old_places() {
    let sinks = |names: &[&str]| {
        names.iter().map(|name| format!("[[app.crm.sink]]\nfile = \"/srv/{name}/{{corp_id}}\"\n")).collect::<String>()
    };
    let difference = between(&crm("a", &sinks(&["x", "y"])), &crm("a", &sinks(&["y", "z"])));
    assert_eq!(summary(&difference), "~crm/a (/srv/x/a)");
    let own = "[[app.crm.tenant.a.sink]]\nfile = \"/srv/own\"";
    assert_eq!(
        summary(&between(&crm("a b", &sinks(&["x"])), &crm("a b", &format!("{}{own}", sinks(&["x"]))))),
        "~crm/a (/srv/x/a)"
    );
    let mode = "[[app.crm.sink]]\nfile = \"/srv/x/{corp_id}\"\nmode = \"0600\"";
    assert_eq!(summary(&between(&crm("a", &sinks(&["x"])), &crm("a", mode))), "~crm/a");
}

#[test]
fn a_name_or_client_id_matters_only_where_a_sink_uses_it() {
    let name = |name: &str| format!("[app.crm.tenant.a]\nname = \"{name}\"\n");
    let sink = "[[app.crm.tenant.a.sink]]\nfile = \"/srv/{name}\"";
    assert!(between(&crm("a", &name("x")), &crm("a", &name("y"))).is_empty());
    let (x, y) = (format!("{}{sink}", name("x")), format!("{}{sink}", name("y")));
    assert_eq!(summary(&between(&crm("a", &x), &crm("a", &y))), "~crm/a (/srv/x)");
    let by_client = crm("a", "[[app.crm.sink]]\nfile = \"/srv/{client_id}/{corp_id}\"");
    let other = by_client.replace("client_id = \"crm\"", "client_id = \"other\"");
    let difference = between(&by_client, &other);
    assert_eq!(summary(&difference), "~crm/a (/srv/crm/a)");
    assert!(difference.apps[0].credentials_changed);
}

#[test]
fn other_credentials_are_told_apart_from_another_way_of_calling() {
    let crm = |more: &str| crm("a b", more);
    let change = |old: &str, new: &str| {
        let difference = between(old, new);
        let app = &difference.apps[0];
        (app.credentials_changed, app.connection_changed, app.policy.is_some(), difference.counts.refetched)
    };
    let plain = crm("");
    assert_eq!(change(&plain, &plain.replace("PATH", "HOME")), (true, false, false, 2));
    assert_eq!(change(&plain, &crm("endpoint = \"https://other\"")), (true, true, false, 2));
    assert_eq!(change(&plain, &crm("proxy = \"http://p\"")), (false, true, false, 0));
    assert_eq!(change(&plain, &format!("[api]\ntimeout = \"9s\"\n{plain}")), (false, true, false, 0));
    assert_eq!(change(&plain, &crm("rate = \"1/s\"")), (false, false, true, 0));
    assert_eq!(change(&plain, &crm("enabled = false")), (false, false, true, 0));
}

#[test]
fn a_place_that_another_tenant_takes_over_is_not_emptied() {
    let sink = "[[defaults.sink]]\nfile = \"/srv/{corp_id}\"\n";
    let two = |crm: &str, bot: &str| format!("{sink}{}{}", app("crm", crm), app("bot", bot));
    let old = two("corp_ids = [\"a\", \"b\"]", "corp_ids = [\"c\"]");
    let new = two("corp_ids = [\"b\"]", "corp_ids = [\"a\", \"c\"]");
    assert_eq!(summary(&between(&old, &new)), "+bot/a -crm/a");
    let named = |a: &str, b: &str| {
        crm(
            "",
            &format!(
                "[app.crm.tenant.a]\nname = \"{a}\"\n[app.crm.tenant.b]\nname = \"{b}\"\n[[app.crm.sink]]\nfile = \"/srv/{{name}}\""
            ),
        )
    };
    assert_eq!(summary(&between(&named("x", "y"), &named("y", "z"))), "~crm/a (/srv/x) ~crm/b");
}

#[test]
fn an_app_that_is_gone_takes_its_tenants_with_it() {
    let difference = between(&format!("{}{}", crm("a", ""), app("bot", "corp_ids = [\"b\"]")), &crm("a", ""));
    assert_eq!(summary(&difference), "-bot/b (/run/corptokend/tokens/bot/b)");
    assert_eq!(difference.apps[0].fate, Fate::Gone);
}

#[test]
fn all_or_more_than_half_of_four_is_too_much() {
    let too_much = |old: &str, new: &str| between(&crm(old, ""), &crm(new, "")).removes_too_much();
    assert!(too_much("a", ""));
    assert!(too_much("a b c", ""));
    assert!(!too_much("a b c", "a"), "two of three");
    assert!(too_much("a b c d", "a"));
    assert!(!too_much("a b c d", "a b"), "half");
    assert!(too_much("a b c d", "a x y z"), "what comes does not make up for what goes");
    assert!(!too_much("", ""));
    assert!(between(&crm("a b", ""), "").removes_too_much());
}

#[test]
fn kept_tenants_are_served_as_before() {
    let old = config(&format!(
        "{}{}",
        crm("a b c", "[[app.crm.sink]]\nfile = \"/srv/{corp_id}\"\n[app.crm.tenant.b]\nname = \"x\""),
        app("bot", "corp_ids = [\"z\"]")
    ));
    let mut new = config(&crm("a", ""));
    assert_eq!(keep_removed(&mut new, &old), 3);
    let difference = diff(Some(&old), &new);
    assert_eq!((difference.counts.added, difference.counts.removed), (0, 0));
    assert_eq!(summary(&difference), "~crm/a (/srv/a)", "only the change of the one that stayed is left");
    let mut emptied = config("");
    keep_removed(&mut emptied, &old);
    assert_eq!(emptied.apps, old.apps);
}

#[test]
fn a_kept_tenant_does_not_fight_over_a_place() {
    let sink = "[[defaults.sink]]\nfile = \"/srv/{corp_id}\"\n";
    let old = config(&format!("{sink}{}", crm("a b", "")));
    let mut new = config(&format!("{sink}{}", app("bot", "corp_ids = [\"a\"]")));
    assert_eq!(keep_removed(&mut new, &old), 1);
    assert_eq!(new.apps[&AppName::new("crm").unwrap()].tenants, [CorpId::new("b").unwrap()]);
}

#[test]
fn equal_tenants_share_their_text() {
    // A short one is held in place, and has nothing to share.
    let [long, longer] = ["ding4a0c7f21e88b6d0a35c2f4657eb6378f", "ding9f50b15bccd1674135c2f4657eb6378f"];
    let old = config(&crm(&format!("a {long}"), ""));
    let mut new = config(&crm(&format!("{long} {longer}"), ""));
    new.share_with(&old);
    let text = |config: &Config, at: usize| config.apps.values().next().unwrap().tenants[at].as_str().as_ptr();
    assert_eq!(text(&new, 0), text(&old, 1));
    assert_eq!(
        summary(&diff(Some(&old), &new)),
        "+crm/ding9f50b15bccd1674135c2f4657eb6378f -crm/a (/run/corptokend/tokens/crm/a)"
    );
}
