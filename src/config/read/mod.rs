//! The merged tree to a [`Draft`]: everything that the text alone decides, typed, all faults reported at once. In: the texts
//! and the process. Out: a draft, whose needs say what must be looked up on the machine before `check` makes a
//! [`Config`](super::Config) of it. One file a table; `reader` has the typed reading that all share.

pub(crate) mod app;
pub(crate) mod inherited;
pub(crate) mod reader;
pub(crate) mod sink;
mod tenants;
mod top_level;
mod values;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::diagnostics::collect::{Diagnostics, Span};
use super::diagnostics::sources::Sources;
use super::environment::Process;
use super::model::{ApiConfig, ControlConfig, LimitsConfig, LogConfig, OwnFiles, StateConfig};
use super::parse;
use super::schema::TOP;
use crate::domain::SecretSource;
use app::AppDraft;
use reader::{AccountName, AccountUse, Context, Reader};
use sink::SinkDraft;

/// The user that the packages make for the daemon, and its group.
pub(crate) const DAEMON: &str = "corptokend";

/// A config that was read from its text, before anything was looked up on the machine.
pub struct Draft<'s> {
    pub(crate) sources: &'s Sources,
    pub(crate) process: Process,
    pub(crate) diagnostics: Diagnostics<'s>,
    pub(crate) api: ApiConfig,
    /// Where `ca_file` stands.
    pub(crate) ca_file_at: Option<Span>,
    pub(crate) limits: LimitsConfig,
    pub(crate) state: StateConfig,
    pub(crate) control: ControlConfig,
    pub(crate) control_group: Option<AccountName>,
    pub(crate) log: LogConfig,
    pub(crate) apps: Vec<AppDraft>,
    pub(crate) accounts: Vec<AccountUse>,
    pub(crate) inline_secrets: Vec<(Span, PathBuf)>,
}

/// The part of a config that is known even if the config is in error: enough to find the running daemon, the state that has the
/// last good config, and the files whose change may end the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The database.
    pub state: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The files that hold client secrets, be they there or not.
    pub secret_files: Vec<PathBuf>,
}

impl Outline {
    /// That of a config that sets nothing.
    pub fn default_of(process: &Process) -> Self {
        Draft::read(&Sources::remembered(Vec::new()), process).outline()
    }
}

impl<'s> Draft<'s> {
    /// Parses, merges and reads the texts.
    pub fn read(sources: &'s Sources, process: &Process) -> Self {
        let diagnostics = Diagnostics::new(&sources.files);
        for diagnostic in &sources.diagnostics {
            diagnostics.push(diagnostic.clone());
        }
        let bases = sources.files.iter().map(|source| source.base.as_path()).collect();
        let (accounts, inline_secrets) = (RefCell::default(), RefCell::default());
        let context = Context { diagnostics: &diagnostics, process, bases, accounts, inline_secrets };
        let (api, limits, state, control, log, apps) = parse::parse(&sources.files, &diagnostics, |tree| {
            let top = Reader::open(Some(tree), &TOP, &context);
            let (api, limits, state, control) =
                (top_level::api(&top), top_level::limits(&top), top_level::state(&top), top_level::control(&top));
            let log = top_level::log(&top);
            let standard_sink = SinkDraft::standard(&top_level::runtime_directory(process).to_string_lossy());
            let defaults = inherited::defaults(&top.table("defaults"), standard_sink);
            (api, limits, state, control, log, app::apps(&top, &defaults))
        });
        let (accounts, inline_secrets) = (context.accounts.into_inner(), context.inline_secrets.into_inner());
        Self {
            sources,
            process: process.clone(),
            diagnostics,
            api: api.0,
            ca_file_at: api.1,
            limits,
            state,
            control: control.0,
            control_group: control.1,
            log,
            apps,
            accounts,
            inline_secrets,
        }
    }

    /// The part that is known even if the text is in error.
    pub fn outline(&self) -> Outline {
        Outline {
            state: self.state.path.clone(),
            socket: self.control.socket.clone(),
            secret_files: self.secret_files().map(Path::to_path_buf).collect(),
        }
    }

    fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.apps.iter().filter_map(|app| match &app.secret.as_ref()?.value {
            SecretSource::File(path) => Some(path.as_path()),
            SecretSource::Credential(_) | SecretSource::Env(_) => None,
        })
    }

    /// The files that the daemon itself uses.
    pub(crate) fn own_files(&self) -> OwnFiles {
        let mut files =
            vec![(self.state.path.clone(), "the state"), (self.control.socket.clone(), "the control socket")];
        for source in &self.sources.files {
            files.extend(source.path.file_name().map(|name| (source.base.join(name), "the config")));
        }
        files.extend(self.api.ca_file.iter().map(|path| (path.clone(), "the certificates to trust")));
        files.extend(self.process.program.iter().map(|path| (path.clone(), "the program itself")));
        files.extend(self.secret_files().map(|path| (path.to_path_buf(), "a client secret")));
        let bases = self.sources.files.iter().map(|source| source.base.clone());
        let drop_ins =
            bases.clone().next().map(|base| base.join(self.sources.drop_ins.file_name().unwrap_or_default()));
        let watched = self.sources.watch.iter().cloned().chain(bases).chain(drop_ins);
        let mut directories: Vec<_> = watched.map(|path| (path, "watched for changes of the config")).collect();
        let credentials = self.process.credentials_directory.iter();
        directories.extend(credentials.map(|path| (path.clone(), "for credentials")));
        directories.sort_unstable();
        directories.dedup();
        OwnFiles { files, directories }
    }
}
