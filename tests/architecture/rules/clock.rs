//! Who may read a clock.

use crate::source::{NamedPath, Source};

/// Time comes in as an argument; `system/clock` reads the clock. The sandbox plays another machine, with a clock of its own.
pub(crate) fn one_module_reads_the_clock(source: &Source) -> Vec<String> {
    if source.path.starts_with("system/clock") || source.top() == "sandbox" {
        return Vec::new();
    }
    let tokio_time = source.product_paths().any(|path| path.starts_with(&["tokio", "time", "Instant"]));
    let breach = |path: &NamedPath| {
        let read = path.names.windows(2).find(|pair| match (pair[0].as_str(), pair[1].as_str()) {
            ("SystemTime", "now") | (_, "clock_gettime") => true,
            ("Instant", "now") => !tokio_time,
            _ => false,
        })?;
        Some(source.breach(path.line, format_args!("{} outside of system/clock", read.join("::"))))
    };
    let unlinted = source.product_names().filter(|name| name.text == "disallowed_methods");
    let unlinted = unlinted.map(|name| source.breach(name.line, "the lint that keeps clocks out is switched off"));
    source.product_paths().filter_map(breach).chain(unlinted).collect()
}

#[test]
fn one_module_alone_reads_the_clock() {
    let rule = one_module_reads_the_clock;
    crate::assert_kept(rule);
    let breaches = |path: &str, text: &str| rule(&Source::read(path, text)).len();
    for bad in [
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { Instant::now(); }",
        "fn f() { g!(Instant::now()); }",
        "fn f() { rustix::time::clock_gettime(x); }",
        "#[expect(clippy::disallowed_methods, reason = \"none\")] fn f() {}",
    ] {
        assert_eq!(breaches("daemon/driver.rs", bad), 1, "{bad}");
        assert_eq!(breaches("system/clock/mod.rs", bad), 0, "{bad}");
    }
    assert_eq!(breaches("api/client.rs", "use tokio::time::Instant; fn f() { Instant::now() }"), 0);
    assert_eq!(breaches("daemon/driver.rs", "// Instant::now\nconst A: &str = \"SystemTime::now\";"), 0);
}
