//! Who else could change what the daemon reads, as problems.

use std::path::Path;

use super::files::{Origin, Sources};
use super::problems::Problems;
use super::report::{Problem, Severity, Spot};
use crate::trust::{Danger, Thing, Trusted, Ways};

/// Judges the ways to everything that the daemon reads, and tells each danger once.
pub(super) struct Permissions {
    ways: Ways,
}

impl Permissions {
    pub(super) fn new() -> Self {
        Self { ways: Ways::new(Trusted::daemon()) }
    }

    /// What is wrong with the way to `path`, which is `what`: "the config".
    pub(super) fn of<'a>(&mut self, path: &Path, what: &'a str) -> impl Iterator<Item = Problem> + use<'a> {
        // The drop-ins are asked about by their directory itself.
        let directory = path.canonicalize().ok().and_then(|path| match path.is_dir() {
            true => Some(path),
            false => path.parent().map(Path::to_path_buf),
        });
        self.ways.to(path).into_iter().map(move |danger| problem(&danger, what, directory.as_deref()))
    }

    /// The same for the certificates to trust.
    pub(super) fn of_certificates(&mut self, path: &Path, sources: &Sources, problems: &mut Problems<'_>) {
        self.of(path, "`ca_file`").for_each(|problem| add(problem, sources, problems));
    }

    /// The same for a client secret. The modes of the file itself are judged where it is read, and more strictly.
    pub(super) fn of_secret(&mut self, path: &Path, sources: &Sources, problems: &mut Problems<'_>) {
        let dangers = self.ways.to(path).into_iter();
        let dangers = dangers.filter(|danger| danger.thing != Thing::File || danger.risk.by_owner);
        dangers
            .map(|danger| problem(&danger, "a client secret", None))
            .for_each(|problem| add(problem, sources, problems));
    }
}

/// Adds a problem of a file that the config names. What is wrong with the config's own way was told already; and what a config
/// that ran before names is worth a warning.
fn add(mut problem: Problem, sources: &Sources, problems: &mut Problems<'_>) {
    let place = |problem: &Problem| problem.at.as_ref().map(|at| at.file.clone());
    if sources.problems.iter().any(|told| place(told) == place(&problem)) {
        return;
    }
    if sources.origin == Origin::Memory {
        problem.severity = Severity::Warning;
    }
    problems.push(problem);
}

fn problem(danger: &Danger, what: &str, directory: Option<&Path>) -> Problem {
    let thing = match danger.thing {
        Thing::File => what.to_owned(),
        Thing::Directory if directory == Some(&danger.path) => format!("the directory of {what}"),
        Thing::Directory => format!("a directory above {what}"),
        Thing::Link => format!("a link on the way to {what}"),
    };
    let severity = if danger.read_only { Severity::Warning } else { Severity::Error };
    Problem::new(severity, format!("{thing} {}", danger.risk))
        .at(Spot::file(danger.path.as_path()))
        .help(&danger.risk.remedy)
}
