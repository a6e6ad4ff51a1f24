// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of control blocks and their fields, read from the files that declare them.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Fields, Item, Visibility};

use super::Vendor;
use super::source::Source;

/// Structures of the VMCB whose fields are its own; those of the save area are named after the
/// registers that they hold, which are everybody's.
const OWN_FIELDS: &[&str] = &["ControlArea"];

/// Fields whose names say what others mean, too.
const SHARED_WORDS: &[&str] = &[
    "ExitReason",
    "Interruptibility",
    "SysenterCs",
    "SysenterEip",
    "SysenterEsp",
    "TscOffset",
    "clean",
    "exceptions",
    "exit_code",
    "next_rip",
    "tsc_offset",
];

/// Types of these files whose names are too common to tell anything.
const SHARED_TYPES: &[&str] = &["Class", "ExitCode", "Field", "FieldSet"];

/// The macro that declares VMCS fields, as variants of a type.
const FIELDS_MACRO: &str = "fields";
const FIELD_TYPE: &str = "Field";

/// Words that only a vendor's code may use.
#[derive(Debug, Default)]
pub struct Layout {
    words: BTreeSet<String>,
    vmcs_fields: BTreeSet<String>,
}

impl Layout {
    /// Adds what a file declares.
    pub fn add(&mut self, source: &Source) {
        for item in &source.file.items {
            match item {
                Item::Struct(item) => {
                    self.add_type(&item.ident.to_string());
                    if OWN_FIELDS.iter().any(|name| item.ident == name) {
                        self.add_fields(&item.fields);
                    }
                }
                Item::Enum(item) => self.add_type(&item.ident.to_string()),
                Item::Macro(item) if item.mac.path.is_ident(FIELDS_MACRO) => {
                    self.add_declared(item.mac.tokens.clone());
                }
                _ => {}
            }
        }
    }

    fn add_type(&mut self, name: &str) {
        if !SHARED_TYPES.contains(&name) {
            self.words.insert(name.to_owned());
        }
    }

    fn add_fields(&mut self, fields: &Fields) {
        let names = fields.iter().filter_map(|field| field.ident.as_ref());
        let names = names.map(ToString::to_string).filter(|name| !name.starts_with('_'));
        self.words.extend(names.filter(|name| !SHARED_WORDS.contains(&name.as_str())));
    }

    /// Each `Name = encoding` in the macro's groups declares a field.
    fn add_declared(&mut self, tokens: TokenStream) {
        let mut name = None;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => name = Some(word.to_string()),
                TokenTree::Punct(mark) if mark.as_char() == '=' => {
                    self.vmcs_fields.extend(name.take());
                }
                TokenTree::Group(group) => self.add_declared(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => name = None,
            }
        }
    }

    /// True if `word` is one of them by itself.
    pub fn has(&self, word: &str) -> bool {
        let is_field = self.vmcs_fields.contains(word) && !SHARED_WORDS.contains(&word);
        is_field || self.words.contains(word)
    }

    /// True if a path ends in a VMCS field, whatever it is called.
    pub fn has_path(&self, parts: &[String]) -> bool {
        matches!(parts, [.., owner, field] if owner == FIELD_TYPE && self.vmcs_fields.contains(field))
    }
}

/// Adds declarations that make a layout known outside its folder.
pub fn check_privacy(source: &Source, vendor: &Vendor, breaches: &mut Vec<String>) {
    if source.name != format!("{}mod.rs", vendor.folder) {
        return;
    }
    for item in &source.file.items {
        let (visibility, shown) = match item {
            Item::Mod(item) => (&item.vis, item.ident.to_string()),
            Item::Use(item) => match &item.tree {
                syn::UseTree::Path(path) => (&item.vis, path.ident.to_string()),
                _ => continue,
            },
            _ => continue,
        };
        let is_layout = vendor.layouts.contains(&shown.as_str());
        if is_layout && !matches!(visibility, Visibility::Inherited) {
            breaches.push(format!("{}: the module {shown} must stay private", source.name));
        }
    }
}
