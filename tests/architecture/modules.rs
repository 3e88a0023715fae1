//! The modules of the crate: what each declares and imports, and where a path leads.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Module, NamedPath, Source, module_of};

/// All modules, inline ones included.
pub(crate) struct Modules {
    modules: BTreeMap<Module, Contents>,
}

#[derive(Default)]
struct Contents {
    /// Modules that are files or folders.
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
}

/// A child of a folder uses another child of it.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) from: String,
    pub(crate) to: String,
    /// One place where it does, for a reader.
    pub(crate) example: String,
    /// In how many places it does.
    pub(crate) count: usize,
}

/// How many re-exports are followed from one to the next.
const RE_EXPORTS: usize = 8;

impl Modules {
    pub(crate) fn of(sources: &[Source]) -> Self {
        let mut modules: BTreeMap<Module, Contents> = BTreeMap::new();
        for source in sources {
            let module = module_of(&source.path);
            modules.entry(module.clone()).or_default();
            if let Some((name, parent)) = module.split_last() {
                modules.entry(parent.to_vec()).or_default().children.insert(name.clone());
            }
            for item in &source.items {
                modules.entry(item.module.clone()).or_default().items.insert(item.name.clone());
            }
            for import in &source.imports {
                let contents = modules.entry(import.module.clone()).or_default();
                if import.alias == "*" {
                    contents.globs.push(import.names[..import.names.len() - 1].to_vec());
                } else {
                    contents.imports.insert(import.alias.clone(), import.names.clone());
                }
            }
        }
        Self { modules }
    }

    /// The module that declares what `path` names; `None` if that is outside of the crate, or local.
    pub(crate) fn target(&self, path: &NamedPath) -> Option<Module> {
        self.resolve(&path.module, &path.names, RE_EXPORTS)
    }

    fn resolve(&self, module: &[String], names: &[String], depth: usize) -> Option<Module> {
        let depth = depth.checked_sub(1)?;
        let supers = names.iter().take_while(|name| *name == "super").count();
        let (mut here, mut rest) = match names.first()?.as_str() {
            "crate" => (Module::new(), &names[1..]),
            "self" => (module.to_vec(), &names[1..]),
            "super" => (module[..module.len().checked_sub(supers)?].to_vec(), &names[supers..]),
            first if self.modules.get(module)?.knows(first) => (module.to_vec(), names),
            _ => return None,
        };
        while let Some((name, behind)) = rest.split_first() {
            let Some(contents) = self.modules.get(&here) else { break };
            if contents.children.contains(name) {
                here.push(name.clone());
                rest = behind;
            } else if contents.items.contains(name) {
                break;
            } else if let Some(import) = contents.imports.get(name) {
                // An import of a name from itself (`use a;`) leads out of the crate.
                let further: Vec<String> = import.iter().chain(behind).cloned().collect();
                return if import.first() == Some(name) && !contents.children.contains(name) {
                    None
                } else {
                    self.resolve(&here, &further, depth)
                };
            } else {
                let all = || [name.clone()].into_iter().chain(behind.iter().cloned());
                let mut found = contents.globs.iter().filter_map(|glob| {
                    let source = self.resolve(&here, glob, depth)?;
                    let declares = self.modules.get(&source).is_some_and(|contents| contents.knows(name));
                    let path: Vec<String> = ["self".to_owned()].into_iter().chain(all()).collect();
                    declares.then(|| self.resolve(&source, &path, depth))?
                });
                return Some(found.next().unwrap_or(here));
            }
        }
        Some(here)
    }

    /// The folders: every module that has files or folders below it. The root is one.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(|(_, contents)| !contents.children.is_empty()).map(|(module, _)| module)
    }

    /// Which of a folder's children use which others, outside of tests.
    pub(crate) fn uses(&self, folder: &Module, sources: &[Source]) -> Vec<Use> {
        let mut found: BTreeMap<(String, String), (String, usize)> = BTreeMap::new();
        let depth = folder.len();
        for source in sources {
            let own = module_of(&source.path);
            let Some(from) = own.get(depth).filter(|_| own.starts_with(folder)) else { continue };
            for path in source.product_paths() {
                let Some(target) = self.target(path).filter(|target| target.starts_with(folder)) else { continue };
                let Some(to) = target.get(depth).filter(|to| *to != from) else { continue };
                let example = || format!("src/{}:{}: {}", source.path, path.line, path.names.join("::"));
                found.entry((from.clone(), to.clone())).or_insert_with(|| (example(), 0)).1 += 1;
            }
        }
        found.into_iter().map(|((from, to), (example, count))| Use { from, to, example, count }).collect()
    }
}

impl Contents {
    fn knows(&self, name: &str) -> bool {
        self.children.contains(name) || self.items.contains(name) || self.imports.contains_key(name)
    }
}

/// A circle among `uses`, each step with its place; `None` if there is none.
pub(crate) fn circle(uses: &[Use]) -> Option<Vec<&Use>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let starts: BTreeSet<&str> = uses.iter().map(|step| step.from.as_str()).collect();
    starts.into_iter().find_map(|start| walk(start, uses, &mut Vec::new(), &mut done))
}

fn walk<'a>(
    at: &'a str,
    uses: &'a [Use],
    way: &mut Vec<&'a Use>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a Use>> {
    if let Some(begin) = way.iter().position(|step| step.from == at) {
        return Some(way[begin..].to_vec());
    }
    if done.contains(at) {
        return None;
    }
    for step in uses.iter().filter(|step| step.from == at) {
        way.push(step);
        if let Some(circle) = walk(&step.to, uses, way, done) {
            return Some(circle);
        }
        way.pop();
    }
    done.insert(at);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::read(path, text)).collect()
    }

    fn steps(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let sources = crate_of(files);
        let modules = Modules::of(&sources);
        modules.uses(&vec!["sink".to_owned()], &sources).into_iter().map(|step| (step.from, step.to)).collect()
    }

    const PARENT: (&str, &str) =
        ("sink/mod.rs", "mod file; mod lane; mod error; pub use lane::Job; pub use error::*; pub struct Own;");

    #[test]
    fn uses_are_found_whatever_the_path() {
        for text in [
            "use super::lane::Lane;",
            "use crate::sink::lane;",
            "fn f() { super::lane::start() }",
            "fn f() { assert!(super::lane::start()) }",
            "use super::Job;",
            "use crate::sink::Job as Work;",
            "pub(in super::lane) struct A;",
            "use super::lane as l; fn f() { l::start() }",
            "mod inner { use super::super::lane::Lane; }",
        ] {
            let found =
                steps(&[PARENT, ("sink/lane.rs", "pub struct Job; pub struct Lane;"), ("sink/file/mod.rs", text)]);
            assert_eq!(found, [("file".to_owned(), "lane".to_owned())], "{text}");
        }
    }

    #[test]
    fn a_glob_leads_to_who_declares_the_name() {
        let files = [PARENT, ("sink/error.rs", "pub struct Error;"), ("sink/file.rs", "use super::Error;")];
        assert_eq!(steps(&files), [("file".to_owned(), "error".to_owned())]);
    }

    #[test]
    fn what_the_parent_declares_tests_use_and_others_have_is_no_use_of_a_sibling() {
        for text in [
            "use super::Own;",
            "use crate::domain::Token;",
            "use std::fs;",
            "#[cfg(test)] mod tests { use super::super::lane::Lane; }",
            "// super::lane::Lane",
            "mod inner; use inner::lane;",
        ] {
            assert_eq!(steps(&[PARENT, ("sink/lane.rs", "pub struct Lane;"), ("sink/file.rs", text)]), [], "{text}");
        }
    }

    #[test]
    fn a_circle_is_found_and_a_diamond_is_none() {
        let step = |(from, to): &(&str, &str)| Use {
            from: (*from).into(),
            to: (*to).into(),
            example: String::new(),
            count: 1,
        };
        let uses = |steps: &[(&str, &str)]| steps.iter().map(step).collect::<Vec<_>>();
        assert!(circle(&uses(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])).is_none());
        let with_circle = uses(&[("a", "b"), ("b", "c"), ("c", "b")]);
        let names: Vec<_> = circle(&with_circle).unwrap().iter().map(|step| step.from.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
    }
}
