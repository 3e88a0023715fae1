//! What only the api may know.

use crate::source::{Name, Source};

/// What only DingTalk's endpoint says.
const CODES: &[&str] = &[
    "invalid.client",
    "unsupported.grant.type",
    "unauthorized.client",
    "server.error",
    "unknownError",
    "Forbidden.AccessDenied",
    "QpsLimit",
    "IpNotInWhiteList",
    "punish",
    "/v1.0/oauth2",
];
/// The one thing of DingTalk's that the config knows.
const DEFAULT_ENDPOINT: &str = "https://api.dingtalk.com";

/// Another issuer would be another `api`: nothing else knows DingTalk, or how a call is made.
pub(crate) fn the_api_alone_knows_dingtalk(source: &Source) -> Vec<String> {
    if matches!(source.top(), "api" | "sandbox") {
        return Vec::new();
    }
    // What `dev` prints tells people whose limits it plays.
    let introduces = source.path.starts_with("cli/dev");
    let is_dingtalk = |text: &str| text.to_ascii_lowercase().contains("dingtalk");
    let in_name = |name: &Name| match name.text.as_str() {
        "reqwest" => Some("reqwest"),
        text if is_dingtalk(text) => Some("DingTalk"),
        _ => None,
    };
    let in_text = |text: &Name| {
        let code = CODES.iter().find(|code| text.text.contains(**code)).copied();
        let default = source.top() == "config" && text.text == DEFAULT_ENDPOINT;
        code.or((is_dingtalk(&text.text) && !introduces && !default).then_some("DingTalk"))
    };
    let breach = |at: &Name, word: &str| source.breach(at.line, format_args!("{word} belongs in src/api"));
    let names = source.product_names().filter_map(|name| Some(breach(name, in_name(name)?)));
    let texts = source.strings.iter().filter(|text| !text.in_tests);
    names.chain(texts.filter_map(|text| Some(breach(text, in_text(text)?)))).collect()
}

#[test]
fn nothing_outside_the_api_knows_dingtalk() {
    let rule = the_api_alone_knows_dingtalk;
    crate::assert_kept(rule);
    let breaches = |path: &str, text: &str| rule(&Source::read(path, text)).len();
    for bad in [
        "use reqwest::Client;",
        "fn f(code: &str) -> bool { code == \"invalid.client\" }",
        "const A: &str = \"Forbidden.AccessDenied.QpsLimitForApi\";",
        "const A: &str = \"https://api.dingtalk.com\";",
        "struct DingTalkError;",
        "fn f() { format!(\"DingTalk\") }",
    ] {
        assert_eq!(breaches("daemon/calls.rs", bad), 1, "{bad}");
        assert_eq!(breaches("api/classify.rs", bad), 0, "{bad}");
    }
    assert_eq!(breaches("config/resolve.rs", "const A: &str = \"https://api.dingtalk.com\";"), 0);
    assert_eq!(breaches("config/resolve.rs", "const A: &str = \"https://api.dingtalk.io\";"), 1);
    assert_eq!(breaches("cli/dev.rs", "const A: &str = \"DingTalk's: 7200\";"), 0);
    assert_eq!(breaches("cli/dev.rs", "const A: &str = \"invalid.client\"; struct DingTalk;"), 2);
    assert_eq!(breaches("domain/rate.rs", "/// DingTalk's limit: invalid.client\nstruct A;"), 0);
}
