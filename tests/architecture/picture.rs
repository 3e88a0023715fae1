//! The picture of a token's way in `docs/architecture.md` says what the code does: its files declare the messages that it names.

use std::collections::BTreeSet;

use syn::Item;

use crate::{read, root};

/// In how many files a token changes hands, from the end of its call to its file.
const HANDS: usize = 12;
/// The kinds of message on the way.
const KINDS: [&str; 4] = ["report", "event", "action", "job"];

/// The lines of the picture, without its arrows.
fn picture() -> Vec<String> {
    let text = read(&root().join("docs/architecture.md"));
    let (_, after) = text.split_once("## The way of a token").expect("the document has the picture");
    let block = after.split("```").nth(1).expect("the picture is a block of text");
    block.lines().map(|line| line.trim_start_matches([' ', '│', '▼']).to_owned()).collect()
}

/// The files that a line names.
fn files(line: &str) -> Vec<&str> {
    line.split([' ', ',']).filter(|word| word.starts_with("src/")).collect()
}

/// The message that a line begins with: a type and, of an enum, the variant.
fn message(line: &str) -> Option<(&str, Option<&str>)> {
    let word = line.split(' ').next().filter(|word| word.starts_with(|first: char| first.is_ascii_uppercase()))?;
    Some(word.split_once("::").map_or((word, None), |(name, variant)| (name, Some(variant))))
}

fn declares(text: &str, name: &str, variant: Option<&str>) -> bool {
    let file = syn::parse_file(text).expect("it compiles");
    file.items.iter().any(|item| match (item, variant) {
        (Item::Enum(found), Some(variant)) => {
            found.ident == name && found.variants.iter().any(|known| known.ident == variant)
        }
        (Item::Struct(found), None) => found.ident == name,
        _ => false,
    })
}

#[test]
fn the_picture_of_a_tokens_way_names_files_that_declare_its_messages() {
    let picture = picture();
    let messages: Vec<_> = picture.iter().filter_map(|line| Some((line, message(line)?))).collect();
    assert!(messages.len() >= 9, "only {} messages were found", messages.len());
    for (line, (name, variant)) in messages {
        let [file] = files(line)[..] else { panic!("a message has one file: {line}") };
        assert!(declares(&read(&root().join(file)), name, variant), "{file} does not declare it: {line}");
        let kind = line.split_once(file).map(|(_, after)| after.trim_start()).unwrap_or_default();
        assert!(KINDS.iter().any(|known| kind.starts_with(known)), "it is none of {KINDS:?}: {line}");
    }
    assert!(!declares("enum Action { Publish }", "Action", Some("Commit")) && !declares("", "CallEnded", None));
}

#[test]
fn a_token_changes_hands_in_few_files() {
    let picture = picture();
    let called = picture.iter().position(|line| line.starts_with("CallEnded")).expect("the way begins with a call");
    let declaring = ["src/engine/messages/", "src/store/message.rs", "src/sink/job.rs"];
    let hands: BTreeSet<&str> = picture[called..]
        .iter()
        .flat_map(|line| files(line))
        .filter(|file| !declaring.iter().any(|declares| file.starts_with(declares)))
        .collect();
    assert_eq!(hands.len(), HANDS, "{hands:?}");
}
