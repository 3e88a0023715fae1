//! Reads the config's files, with the time limits of files that may hang, and judges who else could change them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::permissions::Permissions;
use super::symlinks::{absolute, links_of};
use super::time_limit::{self, PathTask};
use crate::config::{Diagnostic, Location, Report, Severity, Source, Sources, TextOrigin, drop_ins_of};
use crate::system::blocking::{Blocking, Unfinished};

/// The largest file that is read. A million corp_ids need a third of it.
const MAX_BYTES: u64 = 64 << 20;
/// In messages.
const CONFIG: &str = "the config";
/// So many files of one kind may hang at once.
const MOST_OUTSTANDING: usize = 1024;

/// What came of reading one file.
#[derive(Clone)]
struct Loaded {
    file: Result<Source, Diagnostic>,
    /// Who else could change it.
    dangers: Vec<Diagnostic>,
    /// The names of which a change can give it another content.
    names: Vec<PathBuf>,
}

/// What came of listing the drop-ins.
#[derive(Clone)]
struct Listed {
    files: Result<Vec<PathBuf>, Diagnostic>,
    dangers: Vec<Diagnostic>,
    names: Vec<PathBuf>,
}

static FILES: LazyLock<Blocking<Loaded>> = LazyLock::new(|| Blocking::new("config", MOST_OUTSTANDING));
static LISTS: LazyLock<Blocking<Listed>> = LazyLock::new(|| Blocking::new("config.d", MOST_OUTSTANDING));
static TIMES: LazyLock<Blocking<Option<SystemTime>>> = LazyLock::new(|| Blocking::new("times", MOST_OUTSTANDING));

/// Reads the main file at `path` and its drop-ins (`config.d/*.toml` beside `config.toml`; dot-files are ignored). Takes
/// half a minute at most, however many of them hang.
///
/// # Errors
/// A report, when the main file cannot be read: there is nothing to go by then. Whatever else is wrong stands in
/// [`Sources::diagnostics`], so that it is reported together with what the text holds.
pub fn read(path: &Path) -> Result<Sources, Report> {
    let own = path.to_path_buf();
    let main = time_limit::run_one(&FILES, path, move || load(&own)).map_err(|why| unfinished(path, why))?;
    let mut files = vec![main.file.map_err(Report::from)?];
    let (mut names, mut dangers, mut diagnostics) = (main.names, main.dangers, Vec::new());
    let drop_ins = drop_ins_of(path);
    for found in load_drop_ins(&drop_ins, &mut names, &mut dangers) {
        found.map_or_else(|diagnostic| diagnostics.push(diagnostic), |source| files.push(source));
    }
    // Permissions come first: who can change these files decides everything else. Each file or directory is reported once,
    // since all paths share the directories above.
    let mut reported = HashSet::new();
    dangers.retain(|danger| reported.insert(danger.at.as_ref().map(|at| Arc::clone(&at.file))));
    dangers.extend(diagnostics);
    names.sort_unstable();
    names.dedup();
    let (main, drop_ins) = (path.to_path_buf(), absolute(&drop_ins));
    let mut watch: Vec<PathBuf> = names.iter().filter_map(|name| name.parent()).map(Path::to_path_buf).collect();
    watch.push(drop_ins.clone());
    watch.sort_unstable();
    watch.dedup();
    Ok(Sources { files, main, drop_ins, watch, names, diagnostics: dangers, origin: TextOrigin::Disk })
}

/// Texts that were applied before, the main file first, as the state has them.
pub fn remembered<'a>(texts: impl IntoIterator<Item = &'a (PathBuf, String)>) -> Sources {
    Sources::remembered(texts.into_iter().map(|(path, text)| source(path, text.clone())).collect())
}

/// Reads the drop-ins, and adds what was found out of the ways to them.
fn load_drop_ins(
    directory: &Path,
    names: &mut Vec<PathBuf>,
    dangers: &mut Vec<Diagnostic>,
) -> Vec<Result<Source, Diagnostic>> {
    let own = directory.to_path_buf();
    let listed = match time_limit::run_one(&LISTS, directory, move || list(&own)) {
        Ok(listed) => listed,
        Err(why) => return vec![Err(unfinished(directory, why))],
    };
    names.extend(listed.names);
    dangers.extend(listed.dangers);
    let paths = match listed.files {
        Ok(paths) => paths,
        Err(diagnostic) => return vec![Err(diagnostic)],
    };
    let file = |(path, loaded): (&PathBuf, Result<Loaded, Unfinished>)| {
        let loaded = loaded.map_err(|why| unfinished(path, why))?;
        names.extend(loaded.names);
        dangers.extend(loaded.dangers);
        loaded.file
    };
    paths.iter().zip(load_all(&paths)).map(file).collect()
}

fn load_all(paths: &[PathBuf]) -> Vec<Result<Loaded, Unfinished>> {
    let tasks = paths.iter().map(|path| {
        let own = path.clone();
        PathTask::new(path, move || load(&own))
    });
    time_limit::run_all(&FILES, tasks.collect())
}

/// Reads one file. May hang.
fn load(path: &Path) -> Loaded {
    Loaded { file: read_one(path), dangers: Permissions::new().of(path, CONFIG).collect(), names: links_of(path) }
}

/// Lists the drop-ins. May hang.
fn list(directory: &Path) -> Listed {
    let names = links_of(directory);
    match drop_in_names(directory) {
        Ok(None) => Listed { files: Ok(Vec::new()), dangers: Vec::new(), names },
        Ok(Some(files)) => {
            let dangers = Permissions::new().of(directory, "the drop-ins").collect();
            Listed { files: Ok(files), dangers, names }
        }
        Err(error) => Listed { files: Err(unreadable(directory, &error)), dangers: Vec::new(), names },
    }
}

/// When the main file at `path`, or one of its drop-ins, was last written to; `None` when there is nothing to look at, or it
/// hangs.
pub fn last_written(path: &Path) -> Option<SystemTime> {
    let own = path.to_path_buf();
    let look = time_limit::run_one(&TIMES, path, move || {
        let drop_ins = drop_in_names(&drop_ins_of(&own)).ok().flatten().unwrap_or_default();
        let files = std::iter::once(own).chain(drop_ins);
        files.filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max()
    });
    look.ok().flatten()
}

/// Opens for reading without being held up by a pipe without a writer.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

/// Whether a file could be read, by reading a byte: a mount may answer all but that.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    let mut file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    file.read(&mut [0]).map(drop)
}

/// Whether a file of this name, in the directory of the drop-ins, is one.
pub fn is_drop_in(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.ends_with(b".toml") && !bytes.starts_with(b".")
}

/// The drop-ins in lexical order; `None` when there is no such directory.
fn drop_in_names(directory: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if is_drop_in(&name) {
            names.push(directory.join(name));
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// Reads one file.
fn read_one(path: &Path) -> Result<Source, Diagnostic> {
    let file = open(path).map_err(|error| unreadable(path, &error))?;
    let status = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !status.is_file() {
        return Err(wrong(path, "the config is not a file".into(), "put a TOML file there"));
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(path, "the config is larger than 64 MiB".into(), "split it into drop-ins"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    if text.starts_with('\u{feff}') {
        // Some editors begin a file so; columns are counted without it.
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(source(path, text))
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "write it, or name another with --config or CORPTOKEND_CONFIG",
        io::ErrorKind::PermissionDenied => {
            "give the daemon's user the right to read it (group corptokend, mode 0640) and to enter its directory"
        }
        _ => "look at the file and at its file system",
    };
    wrong(path, format!("the config cannot be read: {error}"), help)
}

fn unfinished(path: &Path, why: Unfinished) -> Diagnostic {
    let message = format!("the config cannot be read: {why}");
    let help = "look at the file system that it lies on; it is tried again by itself";
    Diagnostic { hangs: why == Unfinished::Hangs, ..wrong(path, message, help) }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Diagnostic {
    let bytes = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let at = Location::after(path, std::str::from_utf8(bytes).unwrap_or_default());
    Diagnostic::new(Severity::Error, "the config is not UTF-8 text").at(at).help("save it as UTF-8")
}

fn wrong(path: &Path, message: String, help: &str) -> Diagnostic {
    Diagnostic::new(Severity::Error, message).at(Location::file(path)).help(help)
}

/// A file's text. Relative paths in it start from its directory, without `.` and `..`.
fn source(path: &Path, text: String) -> Source {
    let directory = absolute(path).parent().map(Path::to_path_buf).unwrap_or_default();
    let winds = directory.components().any(|part| part == Component::ParentDir);
    let base = if winds { directory.canonicalize().unwrap_or(directory) } else { directory };
    Source { path: path.to_path_buf(), base, text }
}
