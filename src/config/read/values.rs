//! What the text of a single value must look like: durations, modes, paths, templates.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::schema::TableSchema;
use crate::domain::{InvalidTemplate, Placeholder, Rate, Template, is_invisible};

/// What is wrong with a text: the message goes on after "`key` ".
#[derive(Debug)]
pub(crate) struct ValueFault {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// Where in the text, in bytes.
    pub(crate) offset: Option<usize>,
}

impl ValueFault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, offset: None }
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    pub(crate) fn at(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }
}

/// The declared default of `key`, which `parse` understands as it does the config's own values.
pub(crate) fn default<T>(table: &TableSchema, key: &str, parse: impl FnOnce(&str) -> Result<T, ValueFault>) -> T {
    parse(table.default(key)).unwrap_or_else(|fault| unreachable!("the default of {key} {}", fault.message))
}

pub(crate) fn duration(text: &str) -> Result<Duration, ValueFault> {
    humantime::parse_duration(text)
        .map_err(|_| ValueFault::new("is not a duration").help("write it like \"90s\", \"1h 30m\" or \"500ms\""))
}

pub(crate) fn fraction(text: &str) -> Result<f64, ValueFault> {
    text.parse().map_err(|_| ValueFault::new("is not a number"))
}

pub(crate) fn small_integer(text: &str) -> Result<u16, ValueFault> {
    text.parse().map_err(|_| ValueFault::new("is not a number"))
}

/// Permission bits, as an octal string. `needed` are bits without which nothing would work.
pub(crate) fn mode(text: &str, needed: u32, forbidden: u32) -> Result<u32, ValueFault> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let bits = if octal { u32::from_str_radix(text, 8).ok() } else { None };
    let bits = bits.ok_or_else(|| ValueFault::new("must be an octal string").help("write it like \"0640\""))?;
    if bits & !0o777 != 0 {
        return Err(ValueFault::new("may have no bits but the nine permissions").help("write it like \"0640\""));
    }
    if bits & forbidden & 0o111 != 0 {
        return Err(ValueFault::new("would make it executable").help("leave the 1 bits out, as in \"0640\""));
    }
    if bits & forbidden != 0 {
        return Err(ValueFault::new("would let everybody write there").help("leave the 2 out of the last digit"));
    }
    if bits & needed != needed {
        let help = format!("the first digit needs {}", needed >> 6);
        return Err(ValueFault::new("would shut the owner itself out").help(help));
    }
    Ok(bits)
}

pub(crate) fn rate(text: &str) -> Result<Rate, ValueFault> {
    text.parse()
        .map_err(|_| ValueFault::new("is not a rate").help("write it like \"15/s\" or \"30/m\", from 1 to 1000000"))
}

/// Refuses what a reader of the config would not see, with its place.
pub(crate) fn visible(text: &str) -> Result<(), ValueFault> {
    let Some((at, hidden)) = text.char_indices().find(|(_, c)| is_invisible(*c)) else { return Ok(()) };
    let what = if hidden.is_control() { "a control character" } else { "which is invisible or turns text around" };
    let fault =
        ValueFault::new(format!("holds U+{:04X}, {what}", u32::from(hidden))).help("remove it, or type the text anew");
    Err(fault.at(at))
}

/// A path, made absolute from the directory of the file it stands in.
pub(crate) fn path(text: &str, base: &Path) -> Result<PathBuf, ValueFault> {
    if text.is_empty() {
        return Err(ValueFault::new("is empty").help("give a path"));
    }
    visible(text)?;
    Ok(base.join(text))
}

/// A template whose faults know their place.
pub(crate) fn template(text: &str, allowed: &'static [Placeholder]) -> Result<Template, ValueFault> {
    Template::parse(text, allowed).map_err(|error| {
        let (InvalidTemplate::LoneBrace { at } | InvalidTemplate::UnknownPlaceholder { at, .. }) = error;
        ValueFault::new(format!(": {error}")).at(at)
    })
}

/// A sink's path: parts that are neither empty nor `.` nor `..`, absolute from `base`.
pub(crate) fn path_template(text: &str, base: &Path) -> Result<Template, ValueFault> {
    let own = template(text, Placeholder::IN_PATHS)?;
    if text.ends_with('/') || text.is_empty() {
        return Err(
            ValueFault::new("names a directory").help("the last part is the file's name, for example {corp_id}")
        );
    }
    visible(text)?;
    let mut offset = 0;
    for part in text.strip_prefix('/').unwrap_or(text).split('/') {
        if ["", ".", ".."].contains(&part) {
            let message = if part.is_empty() { "has an empty part" } else { "has a part `.` or `..`" };
            let fault = ValueFault::new(message).help("write the path without it");
            return Err(fault.at(offset + usize::from(text.starts_with('/'))));
        }
        offset += part.len() + 1;
    }
    if text.starts_with('/') {
        return Ok(own);
    }
    let base = std::str::from_utf8(base.as_os_str().as_bytes()).map_err(|_| {
        ValueFault::new("is relative to a directory whose name is not UTF-8").help("write an absolute path")
    })?;
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
