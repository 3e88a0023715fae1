//! One file of `src` as `syn` reads it: the paths and names that it uses, the types and functions that it declares.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// A module's place in the crate: `["engine", "scheduler"]`; the root is empty.
pub(crate) type Module = Vec<String>;

/// What was read of a file.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The file's path below `src`, with slashes: `engine/mod.rs`.
    pub(crate) path: String,
    pub(crate) lines: usize,
    /// Every path of two names or more, `use` groups spelled out.
    pub(crate) paths: Vec<NamedPath>,
    /// Every name, keywords that matter to a rule included.
    pub(crate) names: Vec<Name>,
    /// Every string literal outside of documentation.
    pub(crate) strings: Vec<Name>,
    /// Structs, enums, unions, traits and type aliases.
    pub(crate) types: Vec<Name>,
    pub(crate) functions: Vec<Function>,
    pub(crate) items: Vec<Declared>,
    pub(crate) imports: Vec<Import>,
    /// The files that this one declares under `#[cfg(test)]`.
    pub(crate) test_modules: Vec<Module>,
}

/// A path such as `super::lane::Lane`, and the module that it stands in.
#[derive(Debug, Clone)]
pub(crate) struct NamedPath {
    pub(crate) names: Vec<String>,
    pub(crate) module: Module,
    pub(crate) line: usize,
    pub(crate) in_tests: bool,
}

impl NamedPath {
    pub(crate) fn starts_with(&self, names: &[&str]) -> bool {
        self.names.len() >= names.len() && self.names.iter().zip(names).all(|(mine, other)| mine == other)
    }
}

/// A name or a text.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) in_tests: bool,
    /// How many type arguments follow, where some do.
    pub(crate) arguments: Option<usize>,
}

/// A function and its length in lines.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// An item that a module declares itself.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) module: Module,
    pub(crate) name: String,
}

/// `use names as alias` in a module; the alias of a glob is `*`.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    pub(crate) module: Module,
    pub(crate) alias: String,
    pub(crate) names: Vec<String>,
}

impl Source {
    /// Reads the file at `path` below `src`.
    pub(crate) fn read(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("src/{path}: {error}"));
        let source = Self { path: path.to_owned(), lines: text.lines().count(), ..Self::default() };
        let mut reader = Reader { source, module: module_of(path), test_depth: 0, function_depth: 0 };
        reader.visit_file(&file);
        reader.source
    }

    /// The top module, or the file's own name at the top: `engine`, `lib`.
    pub(crate) fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    pub(crate) fn breach(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("src/{}:{line}: {what}", self.path)
    }

    /// The names outside of tests.
    pub(crate) fn product_names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|name| !name.in_tests)
    }

    /// The paths outside of tests.
    pub(crate) fn product_paths(&self) -> impl Iterator<Item = &NamedPath> {
        self.paths.iter().filter(|path| !path.in_tests)
    }
}

/// The module that a file holds: `engine/mod.rs` holds `engine`, `lib.rs` the root.
pub(crate) fn module_of(path: &str) -> Module {
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

struct Reader {
    source: Source,
    module: Module,
    /// How many `#[cfg(test)]` items we are inside of.
    test_depth: usize,
    function_depth: usize,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl Reader {
    fn name(&self, text: &str, line: usize, arguments: Option<usize>) -> Name {
        Name { text: text.trim_start_matches("r#").to_owned(), line, in_tests: self.test_depth > 0, arguments }
    }

    fn keyword(&mut self, text: &str, line: usize) {
        let name = self.name(text, line, None);
        self.source.names.push(name);
    }

    fn path(&mut self, names: Vec<String>, line: usize) {
        if names.len() >= 2 {
            let (module, in_tests) = (self.module.clone(), self.test_depth > 0);
            self.source.paths.push(NamedPath { names, module, line, in_tests });
        }
    }

    /// Spells a `use` tree out.
    fn tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        let (last, alias, line) = match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.keyword(&path.ident.to_string(), path.ident.span().start().line);
                self.tree(&path.tree, prefix);
                prefix.pop();
                return;
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(tree, prefix));
                return;
            }
            UseTree::Name(name) => (name.ident.to_string(), None, name.ident.span().start().line),
            UseTree::Rename(name) => {
                (name.ident.to_string(), Some(name.rename.to_string()), name.ident.span().start().line)
            }
            UseTree::Glob(glob) => ("*".to_owned(), None, glob.star_token.spans[0].start().line),
        };
        self.keyword(&last, line);
        let mut names = prefix.clone();
        if last != "self" {
            names.push(last);
        }
        let alias = alias.unwrap_or_else(|| names.last().cloned().unwrap_or_default());
        if self.function_depth == 0 {
            self.source.imports.push(Import { module: self.module.clone(), alias, names: names.clone() });
        }
        self.path(names, line);
    }

    fn declare(&mut self, item: &Item) {
        let (name, is_type) = match item {
            Item::Const(item) => (&item.ident, false),
            Item::Enum(item) => (&item.ident, true),
            Item::Fn(item) => (&item.sig.ident, false),
            Item::Static(item) => (&item.ident, false),
            Item::Struct(item) => (&item.ident, true),
            Item::Trait(item) => (&item.ident, true),
            Item::Type(item) => (&item.ident, true),
            Item::Union(item) => (&item.ident, true),
            Item::Mod(item) if item.content.is_some() => (&item.ident, false),
            _ => return,
        };
        self.source.items.push(Declared { module: self.module.clone(), name: name.to_string() });
        if is_type {
            let name = self.name(&name.to_string(), name.span().start().line, None);
            self.source.types.push(name);
        }
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.fn_token.span.start().line, block.brace_token.span.close().end().line);
        if self.test_depth == 0 {
            let name = signature.ident.to_string();
            self.source.functions.push(Function { name, line: first, lines: last - first + 1 });
        }
    }

    /// The paths, names and texts of tokens that no grammar is known for: a macro's arguments, an attribute's.
    fn tokens(&mut self, tokens: &TokenStream) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(sign)) if sign.as_char() == ':');
        let mut path: Vec<String> = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let line = token.span().start().line;
            match token {
                TokenTree::Ident(name) => {
                    self.keyword(&name.to_string(), line);
                    path.push(name.to_string());
                    let goes_on =
                        is_colon(at + 1) && is_colon(at + 2) && matches!(tokens.get(at + 3), Some(TokenTree::Ident(_)));
                    if !goes_on {
                        self.path(std::mem::take(&mut path), line);
                    }
                }
                TokenTree::Group(group) => self.tokens(&group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        let text = self.name(&text.value(), line, None);
                        self.source.strings.push(text);
                    }
                }
                TokenTree::Punct(_) => {}
            }
        }
    }

    fn within_tests(&mut self, is_test: bool, inside: impl FnOnce(&mut Self)) {
        self.test_depth += usize::from(is_test);
        inside(self);
        self.test_depth -= usize::from(is_test);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        self.within_tests(is_test(attributes(item)), |reader| {
            reader.declare(item);
            visit::visit_item(reader, item);
        });
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[Attribute] = match item {
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        self.within_tests(is_test(attributes), |reader| visit::visit_impl_item(reader, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_none() && self.test_depth > 0 {
            let module = self.module.iter().cloned().chain([item.ident.to_string()]).collect();
            self.source.test_modules.push(module);
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.visit_visibility(&item.vis);
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        self.function_depth += 1;
        visit::visit_item_fn(self, item);
        self.function_depth -= 1;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        self.function_depth += 1;
        visit::visit_impl_item_fn(self, item);
        self.function_depth -= 1;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(last) = path.segments.last() {
            self.path(names, last.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        let arguments = match &segment.arguments {
            syn::PathArguments::AngleBracketed(arguments) => Some(arguments.args.len()),
            _ => None,
        };
        let name = self.name(&segment.ident.to_string(), segment.ident.span().start().line, arguments);
        self.source.names.push(name);
        self.visit_path_arguments(&segment.arguments);
    }

    fn visit_ident(&mut self, name: &'ast proc_macro2::Ident) {
        self.keyword(&name.to_string(), name.span().start().line);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        let text = self.name(&text.value(), text.span().start().line, None);
        self.source.strings.push(text);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.tokens(tokens);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let Some(token) = &signature.asyncness {
            self.keyword("async", token.span.start().line);
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.keyword("async", block.async_token.span.start().line);
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.keyword("await", expression.await_token.span.start().line);
        visit::visit_expr_await(self, expression);
    }

    fn visit_abi(&mut self, abi: &'ast syn::Abi) {
        self.keyword("extern", abi.extern_token.span.start().line);
        visit::visit_abi(self, abi);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Source {
        Source::read("engine/app.rs", text)
    }

    fn spelled(text: &str) -> Vec<String> {
        read(text).paths.iter().map(|path| path.names.join("::")).collect()
    }

    #[test]
    fn groups_are_spelled_out() {
        let text = "use a::{b, c::{self, d as e}, f::*}; use {g::h, i::j};";
        assert_eq!(spelled(text), ["a::b", "a::c", "a::c::d", "a::f::*", "g::h", "i::j"]);
        let aliases: Vec<_> = read(text).imports.into_iter().map(|import| import.alias).collect();
        assert_eq!(aliases, ["b", "c", "e", "*", "h", "j"]);
    }

    #[test]
    fn paths_in_types_expressions_macros_and_attributes_are_found() {
        let text =
            "#[p::q(k::l)] fn f(x: ::std::io::Error) -> Vec<u8> { if y { z::w() } Vec::<a::B>::new(); r!(s::t) }";
        let mut found = spelled(text);
        found.sort();
        assert_eq!(found, ["Vec::new", "a::B", "k::l", "p::q", "s::t", "std::io::Error", "z::w"]);
    }

    #[test]
    fn documentation_and_strings_are_not_names() {
        let source = read("/// a::b\n// c::d\nfn f() { let g = \"h::i\"; r!(\"j\") }");
        assert!(source.paths.is_empty(), "{:?}", source.paths);
        let names: Vec<_> = source.names.iter().map(|name| name.text.as_str()).collect();
        assert_eq!(names, ["f", "g", "r"]);
        assert_eq!(source.strings.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["h::i", "j"]);
    }

    #[test]
    fn what_is_for_tests_is_marked_and_test_files_are_named() {
        let text = "use a::b; #[cfg(test)] mod tests; #[cfg(not(test))] use c::d; \
                    #[cfg(test)] mod inner { use e::f; } impl A { #[cfg(test)] fn g() { h::i() } }";
        let source = read(text);
        let in_tests = |path: &NamedPath| (path.names.join("::"), path.in_tests);
        let expected = [("a::b", false), ("c::d", false), ("e::f", true), ("h::i", true)];
        assert_eq!(source.paths.iter().map(in_tests).collect::<Vec<_>>(), expected.map(|(p, t)| (p.to_owned(), t)));
        assert_eq!(source.test_modules, [["engine", "app", "tests"]]);
        assert_eq!(source.paths[2].module, ["engine", "app", "inner"]);
    }

    #[test]
    fn lines_and_lengths_are_counted() {
        let source = read("struct A;\nfn f() {\n    b::c();\n}\n");
        assert_eq!((source.lines, source.types[0].line, source.paths[0].line), (4, 1, 3));
        assert_eq!((source.functions[0].line, source.functions[0].lines), (2, 3));
    }

    #[test]
    fn files_hold_modules() {
        for (path, module) in [("lib.rs", ""), ("engine/mod.rs", "engine"), ("engine/app.rs", "engine::app")] {
            assert_eq!(module_of(path).join("::"), module);
        }
    }
}
