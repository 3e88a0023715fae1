//! Texts of single values: modes, owners, paths, templates.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::reader::{Fault, Reader, Spanned};
use crate::config::diagnostics::collect::Diagnostics;
use crate::config::environment::process::{group_id, user_id};
use crate::config::parse::merge::Value;
use crate::domain::{InvalidTemplate, Placeholder, Rate, Template, is_invisible};

/// Permission bits, as an octal string. `needed` are bits without which nothing would work.
pub(crate) fn mode(text: &str, needed: u32, forbidden: u32) -> Result<u32, Fault> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let bits = if octal { u32::from_str_radix(text, 8).ok() } else { None };
    let bits = bits.ok_or_else(|| Fault::new("must be an octal string").help("write it like \"0640\""))?;
    if bits & !0o777 != 0 {
        return Err(Fault::new("may have no bits but the nine permissions").help("write it like \"0640\""));
    }
    if bits & forbidden & 0o111 != 0 {
        return Err(Fault::new("would make it executable").help("leave the 1 bits out, as in \"0640\""));
    }
    if bits & forbidden != 0 {
        return Err(Fault::new("would let everybody write there").help("leave the 2 out of the last digit"));
    }
    if bits & needed != needed {
        let help = format!("the first digit needs {}", needed >> 6);
        return Err(Fault::new("would shut the owner itself out").help(help));
    }
    Ok(bits)
}

pub(crate) fn rate(text: &str) -> Result<Rate, Fault> {
    text.parse().map_err(|_| Fault::new("is not a rate").help("write it like \"15/s\" or \"30/m\", from 1 to 1000000"))
}

/// A user or group: a name, or an id as a string or an integer.
pub(crate) fn account(
    reader: &Reader<'_, '_>,
    key: &'static str,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Spanned<u32>> {
    if let Value::Scalar(DeValue::Integer(_)) = reader.entry(key)?.value {
        let id = reader.integer(key, diagnostics, 0..=i64::from(u32::MAX) - 1)?;
        return u32::try_from(id.value).ok().map(|value| Spanned { value, at: id.at });
    }
    let (find, what): (fn(&str) -> Option<u32>, _) =
        if key == "owner" { (user_id, "user") } else { (group_id, "group") };
    reader.text(key, diagnostics, |text| {
        let number = text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        number.or_else(|| find(text)).ok_or_else(|| {
            Fault::new(format!("names a {what} that does not exist"))
                .help(format!("make the {what}, or give its number"))
        })
    })
}

/// Refuses what a reader of the config would not see, with its place.
pub(crate) fn visible(text: &str) -> Result<(), Fault> {
    let Some((at, hidden)) = text.char_indices().find(|(_, c)| is_invisible(*c)) else { return Ok(()) };
    let what = if hidden.is_control() { "a control character" } else { "which is invisible or turns text around" };
    let fault =
        Fault::new(format!("holds U+{:04X}, {what}", u32::from(hidden))).help("remove it, or type the text anew");
    Err(Fault { offset: Some(at), ..fault })
}

/// A path, made absolute from the directory of the file it stands in.
pub(crate) fn path(text: &str, base: &Path) -> Result<PathBuf, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty").help("give a path"));
    }
    visible(text)?;
    Ok(base.join(text))
}

/// A template whose faults know their place.
pub(crate) fn template(text: &str, allowed: &'static [Placeholder]) -> Result<Template, Fault> {
    Template::parse(text, allowed).map_err(|error| {
        let (InvalidTemplate::LoneBrace { at } | InvalidTemplate::UnknownPlaceholder { at, .. }) = error;
        Fault { offset: Some(at), ..Fault::new(format!(": {error}")) }
    })
}

/// Whether a text is a path's template that names something, so that it is no secret.
pub(crate) fn names_a_placeholder(text: &str) -> bool {
    Template::parse(text, Placeholder::IN_PATHS).is_ok_and(|template| !template.is_fixed())
}

/// A sink's path: parts that are neither empty nor `.` nor `..`, absolute from `base`.
pub(crate) fn path_template(text: &str, base: &Path) -> Result<Template, Fault> {
    let own = template(text, Placeholder::IN_PATHS)?;
    if text.ends_with('/') || text.is_empty() {
        return Err(Fault::new("names a directory").help("the last part is the file's name, for example {corp_id}"));
    }
    visible(text)?;
    let mut offset = 0;
    for part in text.strip_prefix('/').unwrap_or(text).split('/') {
        if ["", ".", ".."].contains(&part) {
            let message = if part.is_empty() { "has an empty part" } else { "has a part `.` or `..`" };
            let fault = Fault::new(message).help("write the path without it");
            return Err(Fault { offset: Some(offset + usize::from(text.starts_with('/'))), ..fault });
        }
        offset += part.len() + 1;
    }
    if text.starts_with('/') {
        return Ok(own);
    }
    let base = std::str::from_utf8(base.as_os_str().as_bytes())
        .map_err(|_| Fault::new("is relative to a directory whose name is not UTF-8").help("write an absolute path"))?;
    let base = base.trim_end_matches('/').replace('{', "{{").replace('}', "}}");
    template(&format!("{base}/{text}"), Placeholder::IN_PATHS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_leave_the_world_out() {
        let file = |text| mode(text, 0o400, 0o113).ok();
        assert_eq!(file("0640"), Some(0o640));
        assert_eq!(file("640"), Some(0o640));
        assert_eq!(file("0444"), Some(0o444));
        for bad in ["0642", "0040", "0750", "4640", "640x", "", "0o640", "64", "+640"] {
            assert_eq!(file(bad), None, "{bad}");
        }
    }

    #[test]
    fn sink_paths_are_absolute_and_without_detours() {
        let base = Path::new("/etc/a{b");
        let path = |text| path_template(text, base).map(|template| template.to_string()).map_err(|f| f.offset);
        assert_eq!(path("/srv/{app}/x").unwrap(), "/srv/{app}/x");
        assert_eq!(path("t/{corp_id}").unwrap(), "/etc/a{{b/t/{corp_id}");
        assert_eq!(path("/srv/../x"), Err(Some(5)));
        assert_eq!(path("./x"), Err(Some(0)));
        assert_eq!(path("/a//b"), Err(Some(3)));
        assert_eq!(path("/a/{nix}"), Err(Some(3)));
        assert_eq!(path("/a\n"), Err(Some(2)));
        for bad in ["", "/", "/a/"] {
            assert_eq!(path(bad), Err(None), "{bad:?}");
        }
    }
}
