//! Who else could change what the daemon reads, as diagnostics.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::sources::{Origin, Sources};
use crate::config::diagnostics::collect::Diagnostics;
use crate::config::diagnostics::report::{Diagnostic, Location, Severity};
use crate::system::permissions::{Danger, PathAudit, PathElement, Trusted};

/// Judges the audit to everything that the daemon reads, and tells each danger once.
pub(crate) struct Permissions {
    audit: PathAudit,
}

impl Permissions {
    pub(crate) fn new() -> Self {
        Self { audit: PathAudit::new(Trusted::daemon()) }
    }

    /// What is wrong with the way to `path`, which is `what`: "the config".
    pub(crate) fn of<'a>(&mut self, path: &Path, what: &'a str) -> impl Iterator<Item = Diagnostic> + use<'a> {
        // The drop-ins are asked about by their directory itself.
        let directory = path.canonicalize().ok().and_then(|path| match path.is_dir() {
            true => Some(path),
            false => path.parent().map(Path::to_path_buf),
        });
        self.audit.to(path).into_iter().map(move |danger| diagnostic(&danger, what, directory.as_deref()))
    }

    /// The same for a client secret. The modes of the file itself are judged where it is read, and more strictly.
    pub(crate) fn of_secret(&mut self, path: &Path) -> Vec<Diagnostic> {
        let dangers = self.audit.to(path).into_iter();
        let dangers = dangers.filter(|danger| danger.thing != PathElement::File || danger.risk.by_owner);
        dangers.map(|danger| diagnostic(&danger, "a client secret", None)).collect()
    }
}

/// What is dangerous about files that the config names. The audit to them have directories in common, and each is told of
/// once.
pub(crate) struct Dangers<'s> {
    sources: &'s Sources,
    /// What was told of. What is wrong with the config's own way was told already.
    told: HashSet<Arc<Path>>,
}

impl<'s> Dangers<'s> {
    pub(crate) fn new(sources: &'s Sources) -> Self {
        let told = sources.diagnostics.iter().filter_map(|diagnostic| Some(Arc::clone(&diagnostic.at.as_ref()?.file)));
        Self { sources, told: told.collect() }
    }

    /// Tells of those that were not told of. What a config that ran before names is worth a warning.
    pub(crate) fn add(&mut self, found: Vec<Diagnostic>, diagnostics: &mut Diagnostics<'_>) {
        for mut diagnostic in found {
            let is_new = diagnostic.at.as_ref().is_none_or(|at| self.told.insert(Arc::clone(&at.file)));
            if self.sources.origin == Origin::Memory {
                diagnostic.severity = Severity::Warning;
            }
            if is_new {
                diagnostics.push(diagnostic);
            }
        }
    }
}

fn diagnostic(danger: &Danger, what: &str, directory: Option<&Path>) -> Diagnostic {
    let thing = match danger.thing {
        PathElement::File => what.to_owned(),
        PathElement::Directory if directory == Some(&danger.path) => format!("the directory of {what}"),
        PathElement::Directory => format!("a directory above {what}"),
        PathElement::Link => format!("a link on the way to {what}"),
    };
    let severity = if danger.read_only { Severity::Warning } else { Severity::Error };
    Diagnostic::new(severity, format!("{thing} {}", danger.risk))
        .at(Location::file(danger.path.as_path()))
        .help(&danger.risk.remedy)
}
