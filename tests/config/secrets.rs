//! Secrets stay out of the config, and out of everything that is said about it.

use super::*;

#[test]
fn secrets_written_into_the_config_are_refused_with_the_way_out() {
    let dir = Dir::with("[app.crm]\nclient_id = \"a\"\nclient_secret = \"hunter2\"\n");
    assert_eq!(dir.problems().len(), 1, "{:?}", dir.problems());
    let help = dir.helps();
    assert!(help.contains("/dev/stdin") && help.contains("client_secret = { file ="), "{help}");
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
        told.extend(report.diagnostics.iter().map(config::Diagnostic::one_line));
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
        let report = environment::check(&sources, &process()).report;
        let told = format!("{}{}{report:?}", report.render(&sources, false), report.to_json());
        // A byte within the secret splits it, and what comes first may then be a word of its own.
        assert!(!told.contains(C) && !told.contains("nArY7") && !told.contains("cAnAr"), "{text}\n---\n{told}");
        let mut places: Vec<_> = report.diagnostics.iter().map(config::Diagnostic::one_line).collect();
        places.sort();
        let all = places.len();
        places.dedup();
        assert_eq!(places.len(), all, "told twice\n{text}\n---\n{told}");
    }
}
