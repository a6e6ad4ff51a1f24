// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source file, and the paths and words in it.

use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Macro, Meta, UseTree};

/// A parsed file.
pub struct Source {
    /// Name, from the root of the repository.
    pub name: String,
    /// What is in it.
    pub file: syn::File,
    tokens: TokenStream,
}

/// A path that is named somewhere: `crate::a::b` in parts.
pub struct NamedPath {
    /// Its parts; the last is `*` for a glob import.
    pub parts: Vec<String>,
    /// Where.
    pub line: usize,
}

impl NamedPath {
    /// As it is written.
    pub fn text(&self) -> String {
        self.parts.join("::")
    }

    /// True if it begins with `parts`, or is a part of them.
    pub fn is_within(&self, parts: &[&str]) -> bool {
        self.parts.len() >= parts.len() && self.parts.iter().zip(parts).all(|(a, b)| a == b)
    }
}

impl Source {
    /// Parses a file.
    ///
    /// # Errors
    /// When it is not Rust.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let file = syn::parse_file(text).with_context(|| format!("cannot understand {name}"))?;
        let tokens = text.parse().ok().with_context(|| format!("cannot understand {name}"))?;
        Ok(Self { name: name.to_owned(), file, tokens })
    }

    /// Modules that it declares for tests alone, each as the path of its file without `.rs`, which
    /// is the folder of what is below it, too.
    pub fn test_modules(&self) -> Vec<String> {
        let path = Path::new(&self.name);
        let is_root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|root| path.ends_with(root));
        let folder = if is_root { path.parent().unwrap_or(path) } else { &path.with_extension("") };
        let modules = self.file.items.iter().filter_map(|item| match item {
            Item::Mod(item) if item.content.is_none() && item.attrs.iter().any(is_for_tests) => {
                Some(folder.join(item.ident.to_string()).display().to_string())
            }
            _ => None,
        });
        modules.collect()
    }

    /// True if it is the file of one of these `modules`, or below one.
    pub fn is_in(&self, modules: &[String]) -> bool {
        modules.iter().any(|module| {
            let rest = self.name.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    }

    /// All paths in it but for those of tests.
    pub fn paths(&self) -> Vec<NamedPath> {
        let mut collector = Collector::default();
        collector.visit_file(&self.file);
        collector.paths
    }

    /// All words in it, in macros and tests, too, but not in comments and strings.
    pub fn words(&self) -> Vec<Ident> {
        let mut words = Vec::new();
        collect_words(self.tokens.clone(), &mut words);
        words
    }
}

fn collect_words(tokens: TokenStream, words: &mut Vec<Ident>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => words.push(word),
            TokenTree::Group(group) => collect_words(group.stream(), words),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[derive(Default)]
struct Collector {
    paths: Vec<NamedPath>,
}

impl Collector {
    fn add(&mut self, parts: &[Ident], end: Option<&str>) {
        let Some(first) = parts.first() else { return };
        let line = first.span().start().line;
        let parts = parts.iter().map(ToString::to_string).chain(end.map(str::to_owned));
        self.paths.push(NamedPath { parts: parts.collect(), line });
    }

    fn add_tree(&mut self, before: &mut Vec<Ident>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.clone());
                self.add_tree(before, &path.tree);
                before.pop();
            }
            UseTree::Name(name) => self.add_leaf(before, &name.ident),
            UseTree::Rename(rename) => self.add_leaf(before, &rename.ident),
            UseTree::Glob(_) => self.add(before, Some("*")),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(before, tree);
                }
            }
        }
    }

    fn add_leaf(&mut self, before: &mut Vec<Ident>, leaf: &Ident) {
        // `a::{self}` is `a`.
        if leaf == "self" && !before.is_empty() {
            return self.add(before, None);
        }
        before.push(leaf.clone());
        self.add(before, None);
        before.pop();
    }

    /// Paths among the tokens of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.add_if_path(&path);
                        path.clear();
                    }
                    path.push(word);
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_tokens(group.stream());
                    self.add_if_path(&std::mem::take(&mut path));
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.add_if_path(&std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.add_if_path(&path);
    }

    fn add_if_path(&mut self, path: &[Ident]) {
        if path.len() > 1 {
            self.add(path, None);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let ImplItem::Fn(function) = item else { return visit::visit_impl_item(self, item) };
        if !function.attrs.iter().any(is_for_tests) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<Ident> = path.segments.iter().map(|part| part.ident.clone()).collect();
        self.add(&parts, None);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        self.add_tokens(invocation.tokens.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, and nothing more subtle.
fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}
