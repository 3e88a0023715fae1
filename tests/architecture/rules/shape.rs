//! The shape of the tree: imports inside a folder run one way, one name means one type, a folder can be read at a glance.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{Modules, Use, circle};
use crate::source::{Source, module_of};

/// How many entries a folder may show, `mod.rs` apart. The root is the map of the crate and has as many as it needs.
const ENTRIES: usize = 8;

/// A file of more lines, or a function, is listed by the report.
const LONG_FILE: usize = 300;
const LONG_FUNCTION: usize = 40;

/// The circles of each folder that has some, among its children.
///
/// `mod.rs` is no child. What it declares itself, its children may use, and it may use them: it is their parent. What it
/// re-exports counts as a use of the child that declares it.
fn circles(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let modules = Modules::of(sources);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in modules.folders() {
        let name = format!("src/{}", folder.join("/"));
        let mut uses: Vec<Use> = modules.uses(folder, sources);
        while let Some(round) = circle(&uses) {
            let steps: Vec<String> =
                round.iter().map(|step| format!("  {} uses {}: {}", step.from, step.to, step.example)).collect();
            found.entry(name.clone()).or_default().push(format!("{name}: a circle\n{}", steps.join("\n")));
            // The next circle is looked for without the weakest step of this one.
            let weakest = round.iter().min_by_key(|step| step.count).expect("a circle has steps");
            let (from, to) = (weakest.from.clone(), weakest.to.clone());
            uses.retain(|step| (&step.from, &step.to) != (&from, &to));
        }
    }
    found
}

fn shared_names(sources: &[Source]) -> BTreeMap<&str, Vec<String>> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources {
        for name in source.types.iter().filter(|name| !name.in_tests) {
            places.entry(&name.text).or_default().push(format!("src/{}:{}", source.path, name.line));
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

fn entries(sources: &[Source]) -> BTreeMap<String, usize> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let module = module_of(&source.path);
        for depth in 1..module.len() {
            let folder = format!("src/{}", module[..depth].join("/"));
            folders.entry(folder).or_default().insert(module[depth].clone());
        }
    }
    folders.into_iter().map(|(folder, entries)| (folder, entries.len())).collect()
}

#[test]
fn imports_inside_a_folder_run_one_way() {
    let found = circles(crate::sources());
    let lines: Vec<String> =
        found.iter().map(|(name, all)| format!("{name}: {} circles\n{}", all.len(), all.join("\n"))).collect();
    assert!(found.is_empty(), "imports run in circles:\n{}\n", lines.join("\n"));
    let bad = [("sink/mod.rs", "mod a; mod b;"), ("sink/a.rs", "use super::b::B;"), ("sink/b.rs", "use super::a::A;")];
    let bad: Vec<Source> = bad.iter().map(|(path, text)| Source::read(path, text)).collect();
    assert_eq!(circles(&bad).into_keys().collect::<Vec<_>>(), ["src/sink"]);
}

#[test]
fn no_two_types_have_one_name() {
    let found = shared_names(crate::sources());
    let lines: Vec<String> = found.iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert!(lines.is_empty(), "two types of one name:\n{}\n", lines.join("\n"));
    let text = "struct A; enum B {} #[cfg(test)] mod tests { struct A; }";
    let both = [Source::read("sink/a.rs", text), Source::read("sink/b.rs", "type A = u8; trait C { type B; }")];
    assert_eq!(shared_names(&both).keys().copied().collect::<Vec<_>>(), ["A"]);
}

#[test]
fn a_folder_can_be_read_at_a_glance() {
    let found: Vec<_> = entries(crate::sources()).into_iter().filter(|(_, count)| *count > ENTRIES).collect();
    assert!(found.is_empty(), "folders of more than {ENTRIES} entries: {found:?}");
    let files = ["sink/mod.rs", "sink/a.rs", "sink/b/mod.rs", "sink/b/c.rs", "lib.rs"];
    let sources = files.map(|path| Source::read(path, ""));
    assert_eq!(entries(&sources), BTreeMap::from([("src/sink".to_owned(), 2), ("src/sink/b".to_owned(), 1)]));
}

/// No rule: a long file or function is where to look for a second idea. `cargo test --test architecture long -- --nocapture`
#[test]
fn long_files_and_functions_are_reported() {
    for source in crate::sources() {
        if source.lines > LONG_FILE {
            println!("{:4} lines: src/{}", source.lines, source.path);
        }
        for function in source.functions.iter().filter(|function| function.lines > LONG_FUNCTION) {
            println!("{:4} lines: src/{}:{}: {}", function.lines, source.path, function.line, function.name);
        }
    }
}
