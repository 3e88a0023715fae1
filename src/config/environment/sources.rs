//! Context the config's files. This is the one file of the module that reads the file system, besides `secret.rs`, which
//! reads the one secret that it is asked for, and `process.rs`, which asks the system who we are. All else works on text.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::bounded::{self, PathTask};
use super::permissions::Permissions;
use crate::config::diagnostics::collect::{line_of, line_starts};
use crate::config::diagnostics::report::{Diagnostic, Location, Report, Severity};
use crate::system::blocking::{Blocking, Unfinished};

/// The largest file that is read. A million corp_ids need a third of it.
const MAX_BYTES: u64 = 64 << 20;
/// In diagnostics.
const CONFIG: &str = "the config";
/// So many files of one kind may hang at once.
const MOST_OUTSTANDING: usize = 1024;

/// One file of the config.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The file, as the operator named it.
    pub path: PathBuf,
    /// The directory that relative paths in the file start from; absolute.
    pub base: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// The text may hold a secret where none belongs.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.path.display(), self.text.len())
    }
}

impl Source {
    /// A source that was not read from `path`, but remembered.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let path = path.into();
        Self { base: base_of(&path), path, text: text.into() }
    }
}

/// Where a config's texts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// They were read from disk just now.
    Disk,
    /// They ran before, and are remembered. What they name may be gone by now (an app's secret goes with the app), which is
    /// worth a warning and no error: it is found out again where it is used.
    Memory,
}

/// All files of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The main file, then its drop-ins in lexical order.
    pub files: Vec<Source>,
    /// The main file.
    pub main: PathBuf,
    /// The directory of the drop-ins, whether it exists or not.
    pub drop_ins: PathBuf,
    /// The directories in which a change can mean another config: those of the files, and of what links lead to.
    pub watch: Vec<PathBuf>,
    /// The names, in those directories, of which a change can mean another config.
    pub names: Vec<PathBuf>,
    /// What is wrong with the files as files: permissions, drop-ins that cannot be read.
    pub diagnostics: Vec<Diagnostic>,
    /// Where they come from.
    pub origin: Origin,
}

impl Sources {
    /// The directory in which each new drop-in means another config; `None` for what was not read from disk.
    pub fn drop_ins_to_watch(&self) -> Option<PathBuf> {
        (self.origin == Origin::Disk).then(|| absolute(&self.drop_ins))
    }

    /// A config that is not on disk, but remembered: the main file first.
    pub fn remembered(files: Vec<Source>) -> Self {
        let main = files.first().map(|file| file.path.clone()).unwrap_or_default();
        Self {
            drop_ins: drop_ins_of(&main),
            main,
            files,
            watch: Vec::new(),
            names: Vec::new(),
            diagnostics: Vec::new(),
            origin: Origin::Memory,
        }
    }
}

/// What came of reading one file.
#[derive(Clone)]
struct Loaded {
    file: Result<Source, Diagnostic>,
    /// Who else could change it.
    dangers: Vec<Diagnostic>,
    /// See [`where_to_watch`].
    names: Vec<PathBuf>,
}

/// What came of listing the drop-ins.
#[derive(Clone)]
struct Listed {
    files: Result<Vec<PathBuf>, Diagnostic>,
    dangers: Vec<Diagnostic>,
    names: Vec<PathBuf>,
}

/// What came of looking at a file that is read elsewhere.
#[derive(Clone)]
pub(crate) struct Probed {
    /// Whether it can be read as a file.
    pub(crate) readable: Result<(), String>,
    /// Who else could change it.
    pub(crate) dangers: Vec<Diagnostic>,
}

static FILES: LazyLock<Blocking<Loaded>> = LazyLock::new(|| Blocking::new("config", MOST_OUTSTANDING));
static LISTS: LazyLock<Blocking<Listed>> = LazyLock::new(|| Blocking::new("config.d", MOST_OUTSTANDING));
static PROBES: LazyLock<Blocking<Probed>> = LazyLock::new(|| Blocking::new("ca-file", MOST_OUTSTANDING));
static NAMES: LazyLock<Blocking<Vec<PathBuf>>> = LazyLock::new(|| Blocking::new("links", MOST_OUTSTANDING));
static TIMES: LazyLock<Blocking<Option<SystemTime>>> = LazyLock::new(|| Blocking::new("times", MOST_OUTSTANDING));

/// Reads the main file at `path` and its drop-ins (`config.d/*.toml` beside `config.toml`; dot-files are ignored). Takes
/// half a minute at most, however many of them hang.
///
/// # Errors
/// A report, when the main file cannot be read: there is nothing to go by then. Whatever else is wrong stands in
/// [`Sources::diagnostics`], so that it is told together with what the text holds.
pub fn read(path: &Path) -> Result<Sources, Report> {
    let own = path.to_path_buf();
    let main = bounded::run_one(&FILES, path, move || load(&own)).map_err(|why| unfinished(path, why))?;
    let (mut files, mut names) = (vec![main.file.map_err(Report::from)?], main.names);
    let (mut dangers, mut diagnostics) = (main.dangers, Vec::new());
    let drop_ins = drop_ins_of(path);
    let own = drop_ins.clone();
    match bounded::run_one(&LISTS, &drop_ins, move || list(&own)) {
        Ok(listed) => {
            dangers.extend(listed.dangers);
            names.extend(listed.names);
            let paths = listed.files.unwrap_or_else(|diagnostic| {
                diagnostics.push(diagnostic);
                Vec::new()
            });
            for (path, loaded) in paths.iter().zip(load_all(&paths)) {
                match loaded {
                    Ok(loaded) => {
                        dangers.extend(loaded.dangers);
                        names.extend(loaded.names);
                        loaded.file.map_or_else(|diagnostic| diagnostics.push(diagnostic), |source| files.push(source));
                    }
                    Err(why) => diagnostics.push(unfinished(path, why)),
                }
            }
        }
        Err(why) => diagnostics.push(unfinished(&drop_ins, why)),
    }
    // Whoever can change what is read here decides all the rest, so that comes first. Each thing is told of once: all ways
    // have the directories above in common.
    let mut told = HashSet::new();
    dangers.retain(|danger| told.insert(danger.at.as_ref().map(|at| Arc::clone(&at.file))));
    dangers.extend(diagnostics);
    names.sort_unstable();
    names.dedup();
    let mut watch: Vec<PathBuf> = names.iter().filter_map(|name| name.parent()).map(Path::to_path_buf).collect();
    watch.push(absolute(&drop_ins));
    watch.sort_unstable();
    watch.dedup();
    let (main, diagnostics) = (path.to_path_buf(), dangers);
    Ok(Sources { files, main, drop_ins, watch, names, diagnostics, origin: Origin::Disk })
}

fn load_all(paths: &[PathBuf]) -> Vec<Result<Loaded, Unfinished>> {
    let looks = paths.iter().map(|path| {
        let own = path.clone();
        PathTask::new(path, move || load(&own))
    });
    bounded::run_all(&FILES, looks.collect())
}

/// Reads one file. May hang.
fn load(path: &Path) -> Loaded {
    Loaded { file: read_one(path), dangers: Permissions::new().of(path, CONFIG).collect(), names: links_of(path) }
}

/// Lists the drop-ins. May hang.
fn list(directory: &Path) -> Listed {
    match drop_in_names(directory) {
        Ok(None) => Listed { files: Ok(Vec::new()), dangers: Vec::new(), names: links_of(directory) },
        Ok(Some(files)) => {
            let dangers = Permissions::new().of(directory, "the drop-ins").collect();
            Listed { files: Ok(files), dangers, names: links_of(directory) }
        }
        Err(error) => {
            let files = Err(unreadable(directory, &error));
            Listed { files, dangers: Vec::new(), names: links_of(directory) }
        }
    }
}

/// When the main file at `path`, or one of its drop-ins, was last written to; `None` when there is nothing to look at, or it
/// hangs.
pub fn last_written(path: &Path) -> Option<SystemTime> {
    let own = path.to_path_buf();
    let look = bounded::run_one(&TIMES, path, move || {
        let drop_ins = drop_in_names(&drop_ins_of(&own)).ok().flatten().unwrap_or_default();
        let files = std::iter::once(own).chain(drop_ins);
        files.filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max()
    });
    look.ok().flatten()
}

/// The names of which a change can give one of `paths` another content: its own, and, link by link, those of what it leads
/// to (a ConfigMap's file leads over `..data`, which is what is swapped). Of a path that hangs, its own.
pub fn where_to_watch(paths: &[&Path]) -> Vec<PathBuf> {
    let looks = paths.iter().map(|path| {
        let own = path.to_path_buf();
        PathTask::new(*path, move || links_of(&own))
    });
    let found = bounded::run_all(&NAMES, looks.collect());
    let names = paths.iter().zip(found).map(|(path, found)| found.unwrap_or_else(|_| vec![absolute(path)]));
    let mut names: Vec<PathBuf> = names.flatten().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// See [`where_to_watch`]. May hang.
fn links_of(path: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut ahead = vec![absolute(path)];
    let mut links = 0;
    while let Some(path) = ahead.pop() {
        let mut here = PathBuf::new();
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            let parent = here.clone();
            here.push(part);
            let Ok(target) = std::fs::read_link(&here) else { continue };
            links += 1;
            if links > 40 {
                return names;
            }
            names.push(here.clone());
            ahead.push(parent.join(target).join(parts.as_path()));
            break;
        }
        names.extend(Some(here).filter(|here| *here == path));
    }
    names
}

/// Looks at a file that is read elsewhere; what stands in it is somebody else's business.
pub(crate) fn probe(path: &Path) -> Result<Probed, Unfinished> {
    let own = path.to_path_buf();
    bounded::run_one(&PROBES, path, move || Probed {
        readable: is_file(&own).map_err(|error| error.to_string()),
        dangers: Permissions::new().of(&own, "`ca_file`").collect(),
    })
}

fn is_file(path: &Path) -> io::Result<()> {
    let mut file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    // A mount may answer all but this.
    file.read(&mut [0]).map(drop)
}

/// Opens for reading without being held up by a pipe without a writer.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

/// `/etc/corptokend/config.d` for `/etc/corptokend/config.toml`.
fn drop_ins_of(main: &Path) -> PathBuf {
    let mut name = main.file_stem().unwrap_or(OsStr::new("config")).to_owned();
    name.push(".d");
    main.with_file_name(name)
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
    Ok(Source::new(path, text))
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
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let text = std::str::from_utf8(&bytes[..at]).unwrap_or_default();
    let lines = line_starts(text);
    let line = line_of(&lines, u32::try_from(at).unwrap_or(u32::MAX));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let column = text[lines[line] as usize..].chars().count() + 1;
    let location = Location { file: path.into(), line: count(line + 1), column: count(column), span: at..at };
    Diagnostic::new(Severity::Error, "the config is not UTF-8 text").at(location).help("save it as UTF-8")
}

fn wrong(path: &Path, message: String, help: &str) -> Diagnostic {
    Diagnostic::new(Severity::Error, message).at(Location::file(path)).help(help)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The directory that a file stands in, without `.` and `..`.
fn base_of(file: &Path) -> PathBuf {
    let directory = absolute(file).parent().map(Path::to_path_buf).unwrap_or_default();
    let winds = directory.components().any(|part| part == std::path::Component::ParentDir);
    if winds { directory.canonicalize().unwrap_or(directory) } else { directory }
}
