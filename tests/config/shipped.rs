//! The files in `config/` are what they say they are.

use super::*;

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
    let reference = include_str!("../../config/config.toml");
    for (table, key) in config::schema::known_keys() {
        let named = ["{ ", "#", "[", "[[", ", ", ".", ""]
            .iter()
            .any(|before| [" ", "]", "."].iter().any(|after| reference.contains(&format!("{before}{key}{after}"))));
        assert!(named, "{key} of {table} is not in config/config.toml");
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
