//! Reading the config's files. This is the one file of the module that reads the file system, besides `secret.rs`, which
//! reads the one secret that it is asked for, and `surroundings.rs`, which asks the system who we are. All else works on text.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::permissions::Permissions;
use super::problems::{line_of, line_starts};
use super::report::{Problem, Report, Severity, Spot};

/// The largest file that is read. A million corp_ids need a third of it.
const MAX_BYTES: u64 = 64 << 20;
/// In problems.
const CONFIG: &str = "the config";

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
    /// What is wrong with the files as files: permissions, drop-ins that cannot be read.
    pub problems: Vec<Problem>,
    /// Where they come from.
    pub origin: Origin,
}

impl Sources {
    /// A config that is not on disk, but remembered: the main file first.
    pub fn remembered(files: Vec<Source>) -> Self {
        let main = files.first().map(|file| file.path.clone()).unwrap_or_default();
        Self {
            drop_ins: drop_ins_of(&main),
            main,
            files,
            watch: Vec::new(),
            problems: Vec::new(),
            origin: Origin::Memory,
        }
    }
}

/// Reads the main file at `path` and its drop-ins (`config.d/*.toml` beside `config.toml`; dot-files are ignored).
///
/// # Errors
/// A report, when the main file cannot be read: there is nothing to go by then. Whatever else is wrong stands in
/// [`Sources::problems`], so that it is told together with what the text holds.
pub fn read(path: &Path) -> Result<Sources, Report> {
    let drop_ins = drop_ins_of(path);
    // Whoever can change what is read here decides all the rest, so that comes first.
    let mut permissions = Permissions::new();
    let mut problems: Vec<Problem> = permissions.of(path, CONFIG).collect();
    let mut files = vec![read_one(path).map_err(Report::from)?];
    let mut watch = where_to_watch(path);
    let names = drop_in_names(&drop_ins).unwrap_or_else(|error| {
        problems.push(unreadable(&drop_ins, &error));
        None
    });
    if let Some(names) = names {
        problems.extend(permissions.of(&drop_ins, "the drop-ins"));
        watch.extend(where_to_watch(&drop_ins));
        watch.push(absolute(&drop_ins));
        for path in names {
            watch.extend(where_to_watch(&path));
            problems.extend(permissions.of(&path, CONFIG));
            match read_one(&path) {
                Ok(source) => files.push(source),
                Err(problem) => problems.push(problem),
            }
        }
    }
    watch.sort_unstable();
    watch.dedup();
    Ok(Sources { files, main: path.to_path_buf(), drop_ins, watch, problems, origin: Origin::Disk })
}

/// When the main file at `path`, or one of its drop-ins, was last written to; `None` when there is nothing to look at.
pub fn last_written(path: &Path) -> Option<SystemTime> {
    let drop_ins = drop_in_names(&drop_ins_of(path)).ok().flatten().unwrap_or_default();
    let files = std::iter::once(path.to_path_buf()).chain(drop_ins);
    files.filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max()
}

/// The directories in which a change can give `path` another content: its own, and, link by link, those of what it leads
/// to (a ConfigMap's file leads over `..data`, which is what is swapped).
pub fn where_to_watch(path: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
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
                return directories;
            }
            directories.push(parent.clone());
            ahead.push(parent.join(target).join(parts.as_path()));
            break;
        }
        directories.extend(here.parent().filter(|_| here == path).map(Path::to_path_buf));
    }
    directories.sort_unstable();
    directories.dedup();
    directories
}

/// Whether `path` can be read as a file; what stands in it is somebody else's business.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("it is not a file")) }
}

/// Opens for reading without being held up by a pipe without a writer.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

/// `/etc/corptokend/config.d` for `/etc/corptokend/config.toml`.
fn drop_ins_of(main: &Path) -> PathBuf {
    let mut name = main.file_stem().unwrap_or(OsStr::new("config")).to_owned();
    name.push(".d");
    main.with_file_name(name)
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
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            names.push(directory.join(name));
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// Reads one file.
fn read_one(path: &Path) -> Result<Source, Problem> {
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

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "write it, or name another with --config or CORPTOKEND_CONFIG",
        io::ErrorKind::PermissionDenied => {
            "give the daemon's user the right to read it (group corptokend, mode 0640) and to enter its directory"
        }
        _ => "look at the file and at its file system",
    };
    wrong(path, format!("the config cannot be read: {error}"), help)
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Problem {
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let text = std::str::from_utf8(&bytes[..at]).unwrap_or_default();
    let lines = line_starts(text);
    let line = line_of(&lines, u32::try_from(at).unwrap_or(u32::MAX));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let column = text[lines[line] as usize..].chars().count() + 1;
    let spot = Spot { file: path.into(), line: count(line + 1), column: count(column), span: at..at };
    Problem::new(Severity::Error, "the config is not UTF-8 text").at(spot).help("save it as UTF-8")
}

fn wrong(path: &Path, message: String, help: &str) -> Problem {
    Problem::new(Severity::Error, message).at(Spot::file(path)).help(help)
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
