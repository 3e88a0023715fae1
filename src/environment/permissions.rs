//! Who else could change what the daemon reads, as diagnostics.

use std::path::Path;

use crate::config::{Diagnostic, Location, Severity};
use crate::system::permissions::{Danger, PathAudit, PathElement, Trusted};

/// Judges the ways to everything that the daemon reads, and reports each danger once.
pub(super) struct Permissions {
    audit: PathAudit,
}

impl Permissions {
    pub(super) fn new() -> Self {
        Self { audit: PathAudit::new(Trusted::daemon()) }
    }

    /// What is wrong with the way to `path`, which is `what`: "the config".
    pub(super) fn of<'a>(&mut self, path: &Path, what: &'a str) -> impl Iterator<Item = Diagnostic> + use<'a> {
        // The drop-ins are asked about by their directory itself.
        let directory = path.canonicalize().ok().and_then(|path| match path.is_dir() {
            true => Some(path),
            false => path.parent().map(Path::to_path_buf),
        });
        self.audit.to(path).into_iter().map(move |danger| diagnostic(&danger, what, directory.as_deref()))
    }

    /// The same for a client secret. The modes of the file itself are judged where it is read, and more strictly.
    pub(super) fn of_secret(&mut self, path: &Path) -> Vec<Diagnostic> {
        let dangers = self.audit.to(path).into_iter();
        let dangers = dangers.filter(|danger| danger.thing != PathElement::File || danger.risk.by_owner);
        dangers.map(|danger| diagnostic(&danger, "a client secret", None)).collect()
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
