//! The texts of a config: what is parsed, and what diagnostics point into.

use std::fmt;
use std::path::{Path, PathBuf};

use super::report::Diagnostic;

/// One file of the config.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The file, as the operator named it.
    pub path: PathBuf,
    /// The directory that relative paths in the file start from; absolute.
    pub base: PathBuf,
    /// The content.
    pub text: String,
}

/// The text may hold a secret where none belongs.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.path.display(), self.text.len())
    }
}

impl Source {
    /// The text of the file at the absolute `path`.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let path = path.into();
        Self { base: path.parent().map(Path::to_path_buf).unwrap_or_default(), path, text: text.into() }
    }
}

/// Where a config's texts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrigin {
    /// They were read from disk just now.
    Disk,
    /// They were applied before, and come from the state. What they name may be gone by now (an app's secret goes with the
    /// app), which is a warning and no error: it is found out again where it is used.
    State,
}

/// All files of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The main file, then its drop-ins in lexical order.
    pub files: Vec<Source>,
    /// The main file.
    pub main: PathBuf,
    /// The directory of the drop-ins, whether it exists or not; absolute where the texts come from disk.
    pub drop_ins: PathBuf,
    /// The directories in which a change can mean another config: those of the files, and of what links lead to.
    pub watch: Vec<PathBuf>,
    /// The names, in those directories, of which a change can mean another config.
    pub names: Vec<PathBuf>,
    /// What is wrong with the files as files: permissions, drop-ins that cannot be read.
    pub diagnostics: Vec<Diagnostic>,
    /// Where they come from.
    pub origin: TextOrigin,
}

impl Sources {
    /// A config that was applied before: the main file first.
    pub fn remembered(files: Vec<Source>) -> Self {
        let main = files.first().map(|file| file.path.clone()).unwrap_or_default();
        Self {
            drop_ins: drop_ins_of(&main),
            main,
            files,
            watch: Vec::new(),
            names: Vec::new(),
            diagnostics: Vec::new(),
            origin: TextOrigin::State,
        }
    }

    /// The directory in which each new drop-in means another config; `None` for texts that do not come from disk.
    pub fn drop_ins_to_watch(&self) -> Option<PathBuf> {
        (self.origin == TextOrigin::Disk).then(|| self.drop_ins.clone())
    }
}

/// The directory of the drop-ins: `/etc/corptokend/config.d` for `/etc/corptokend/config.toml`.
pub(crate) fn drop_ins_of(main: &Path) -> PathBuf {
    let mut name = main.file_stem().unwrap_or("config".as_ref()).to_owned();
    name.push(".d");
    main.with_file_name(name)
}
