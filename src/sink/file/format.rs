//! The content of a published file: the formats, byte for byte.

use zeroize::Zeroizing;

use crate::domain::{Expansion, Format, Names, Placeholder, Template, Token, WallMs};

/// The content of a file with this token, which expires at `expires`. The buffer is large enough from the start, since a
/// buffer that grows leaves a copy behind that is not zeroized.
pub fn render(format: &Format, names: &Names, token: &Token, expires: WallMs) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(String::with_capacity(capacity(format, names, token)));
    match format {
        Format::Raw => out.push_str(token.expose()),
        Format::Line => {
            out.push_str(token.expose());
            out.push('\n');
        }
        Format::Json => json(&mut out, names, token, expires),
        Format::Env => env(&mut out, token, expires),
        Format::Template(template) => {
            let content = |placeholder, out: &mut String| match placeholder {
                Placeholder::Token => out.push_str(token.expose()),
                Placeholder::ExpiresAt => out.push_str(&expires.rfc3339()),
                Placeholder::ExpiresAtUnix => out.push_str(&expires.seconds().to_string()),
                // The names are filled in by the template itself.
                Placeholder::App | Placeholder::CorpId | Placeholder::Name | Placeholder::ClientId => {}
            };
            template.expand(Expansion { names, content: &content }, &mut out);
        }
    }
    Zeroizing::new(std::mem::take(&mut *out).into_bytes())
}

/// An upper bound of the rendered length.
fn capacity(format: &Format, names: &Names, token: &Token) -> usize {
    // The longest that a token can become (each byte escaped), and that any other value can be.
    let (token, other) = (2 * token.expose().len(), 128);
    match format {
        Format::Raw | Format::Line => token + 1,
        Format::Json => token + names.id.app.as_str().len() + names.id.corp_id.as_str().len() + 2 * other,
        Format::Env => token + other,
        Format::Template(template) => template_capacity(template, token.max(other)),
    }
}

fn template_capacity(template: &Template, each: usize) -> usize {
    let text = template.to_string();
    text.len() + text.matches('{').count() * each
}

/// One object and a newline. App names and corp_ids hold nothing that JSON escapes.
fn json(out: &mut String, names: &Names, token: &Token, expires: WallMs) {
    out.push_str("{\"access_token\":\"");
    escape(out, token.expose(), &['"', '\\']);
    out.push_str("\",\"expires_at\":\"");
    out.push_str(&expires.rfc3339());
    out.push_str("\",\"expires_at_unix\":");
    out.push_str(&expires.seconds().to_string());
    out.push_str(",\"app\":\"");
    out.push_str(names.id.app.as_str());
    out.push_str("\",\"corp_id\":\"");
    out.push_str(names.id.corp_id.as_str());
    out.push_str("\"}\n");
}

/// Lines that a POSIX shell can source and systemd can take as an `EnvironmentFile=` (systemd.exec(5); its quoting is the
/// shell's). An ordinary token is not quoted, so that readers that know no quotes, such as `docker --env-file`, get it too.
fn env(out: &mut String, token: &Token, expires: WallMs) {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(&byte);
    let text = token.expose();
    out.push_str("ACCESS_TOKEN=");
    if text.bytes().all(bare) {
        out.push_str(text);
    } else if text.contains('\'') {
        out.push('"');
        escape(out, text, &['"', '\\', '$', '`']);
        out.push('"');
    } else {
        out.push('\'');
        out.push_str(text);
        out.push('\'');
    }
    out.push_str("\nEXPIRES_AT=");
    out.push_str(&expires.seconds().to_string());
    out.push('\n');
}

fn escape(out: &mut String, text: &str, special: &[char]) {
    for character in text.chars() {
        if special.contains(&character) {
            out.push('\\');
        }
        out.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(format: &Format, token: &str) -> String {
        let names = Names {
            id: "crm/ding1".parse().unwrap(),
            name: Some("acme".parse().unwrap()),
            client_id: "c1".parse().unwrap(),
        };
        let token = Token::new(Zeroizing::new(token.to_owned())).unwrap();
        let expected = capacity(format, &names, &token);
        let bytes = render(format, &names, &token, WallMs(1_769_860_800_999));
        assert!(bytes.len() <= expected, "{} bytes in a buffer of {expected}", bytes.len());
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn every_format_is_what_the_contract_says() {
        assert_eq!(rendered(&Format::Raw, "tok"), "tok");
        assert_eq!(rendered(&Format::Line, "tok"), "tok\n");
        assert_eq!(
            rendered(&Format::Json, "tok"),
            "{\"access_token\":\"tok\",\"expires_at\":\"2026-01-31T12:00:00Z\",\"expires_at_unix\":1769860800,\
             \"app\":\"crm\",\"corp_id\":\"ding1\"}\n"
        );
        assert_eq!(rendered(&Format::Env, "tok"), "ACCESS_TOKEN=tok\nEXPIRES_AT=1769860800\n");
        let text = "{{{name}}} {app} {corp_id} {client_id} {token} {expires_at} {expires_at_unix}\n";
        let template = Template::parse(text, Placeholder::IN_CONTENT).unwrap();
        assert_eq!(
            rendered(&Format::Template(template), "tok"),
            "{acme} crm ding1 c1 tok 2026-01-31T12:00:00Z 1769860800\n"
        );
    }

    #[test]
    fn any_token_survives_a_json_parser() {
        for token in ["a\"b\\c", "\\\"", "'$`!", &"\"".repeat(4096)] {
            let value: serde_json::Value = serde_json::from_str(&rendered(&Format::Json, token)).unwrap();
            assert_eq!(value["access_token"], *token);
        }
    }

    #[test]
    fn any_token_survives_a_shell_that_sources_it() {
        for token in ["plain-_./:@%+=,", "a\"b\\c", "$(id)`id`", "it's", "'\"\\$`!", "#x;y&z|(~*?[]{}<>^"] {
            let script = format!("{}printf %s \"$ACCESS_TOKEN\"", rendered(&Format::Env, token));
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), token);
        }
    }
}
