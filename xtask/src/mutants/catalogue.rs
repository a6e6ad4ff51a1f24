// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mutations that are kept in the repository.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Where the lists are, from the root of the repository.
const FOLDER: &str = "tests/mutants";

/// All mutations, in the order of their files.
#[derive(Debug)]
pub struct Catalogue {
    /// Those of one class follow each other.
    pub mutations: Vec<Mutation>,
}

/// One deliberate fault.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// Class of bugs: the name of its list.
    pub class: String,
    /// What is wrong with the code then.
    pub what: String,
    /// The file to change, from the root of the repository.
    pub file: String,
    /// A text that occurs once in the file.
    find: String,
    /// What stands there instead.
    replace: String,
    /// The crate that the file belongs to.
    pub package: String,
    /// The unit test of that crate that has to notice it, by its path.
    pub test: String,
}

/// A list as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    what: String,
    file: String,
    find: String,
    replace: String,
    test: String,
}

impl Catalogue {
    /// Reads the lists below `root`.
    ///
    /// # Errors
    /// When one cannot be read or makes no sense; names it.
    pub fn read(root: &Path) -> Result<Self> {
        let folder = root.join(FOLDER);
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("cannot read {}", folder.display()))?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let mut mutations = Vec::new();
        for file in files {
            let name = file.display();
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
            let list: List = toml::from_str(&text).with_context(|| format!("{name}"))?;
            let class = file.file_stem().unwrap_or_default().to_string_lossy();
            for entry in list.mutant {
                let what = entry.what.clone();
                let mutation = Mutation::new(&class, entry);
                mutations.push(mutation.with_context(|| format!("{name}: '{what}'"))?);
            }
        }
        Ok(Self { mutations })
    }
}

impl Mutation {
    fn new(class: &str, entry: Entry) -> Result<Self> {
        let Entry { what, file, find, replace, test } = entry;
        let (package, _) = file.split_once('/').context("'file' is in no crate")?;
        let package = package.to_owned();
        ensure!(find != replace, "'find' and 'replace' are the same");
        ensure!(!find.trim().is_empty(), "'find' is empty");
        Ok(Self { class: class.to_owned(), what, file, find, replace, package, test })
    }

    /// The file's content with the mutation made.
    ///
    /// # Errors
    /// When the text to replace does not occur exactly once: the list is out of date.
    pub fn apply(&self, root: &Path) -> Result<String> {
        let Self { file, find, class, what, .. } = self;
        let content = fs::read_to_string(root.join(file))
            .with_context(|| format!("{FOLDER}/{class}.toml, '{what}': cannot read {file}"))?;
        let count = content.matches(find.as_str()).count();
        ensure!(
            count == 1,
            "{FOLDER}/{class}.toml, '{what}': its text occurs {count} times in {file}, not once; \
             bring the list up to date"
        );
        Ok(content.replacen(find.as_str(), &self.replace, 1))
    }

    /// Whether class, file or description contains `text`.
    pub fn mentions(&self, text: &str) -> bool {
        [&self.class, &self.file, &self.what].iter().any(|field| field.contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn every_mutation_fits_the_code_and_names_a_test_that_exists() {
        for mutation in Catalogue::read(root()).unwrap().mutations {
            mutation.apply(root()).unwrap();
            let name = mutation.test.rsplit("::").next().unwrap();
            let declared = format!("fn {name}(");
            let sources = root().join(&mutation.package).join("src");
            assert!(contains(&sources, &declared), "{}: no test {name}", mutation.what);
        }
    }

    fn contains(folder: &Path, text: &str) -> bool {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
            match path.is_dir() {
                true => contains(&path, text),
                false => fs::read_to_string(path).is_ok_and(|content| content.contains(text)),
            }
        })
    }

    fn entry(find: &str, replace: &str) -> Entry {
        Entry {
            what: "it is wrong".into(),
            file: "crate/src/file.rs".into(),
            find: find.into(),
            replace: replace.into(),
            test: "tests::it".into(),
        }
    }

    #[test]
    fn a_text_that_does_not_occur_once_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("crate/src")).unwrap();
        fs::write(folder.path().join("crate/src/file.rs"), "one two two").unwrap();
        let apply = |find| Mutation::new("class", entry(find, "x")).unwrap().apply(folder.path());
        assert_eq!(apply("one").unwrap(), "x two two");
        for (find, count) in [("two", "2 times"), ("three", "0 times")] {
            let error = apply(find).unwrap_err().to_string();
            assert!(error.contains("tests/mutants/class.toml, 'it is wrong'"), "{error}");
            assert!(error.contains(count), "{error}");
        }
    }

    #[test]
    fn a_mutation_that_says_too_little_is_refused() {
        assert!(Mutation::new("class", entry("a", "b")).is_ok());
        assert!(Mutation::new("class", entry("a", "a")).is_err());
        assert!(Mutation::new("class", entry(" ", "a")).is_err());
        let nowhere = Entry { file: "file.rs".into(), ..entry("a", "b") };
        assert!(Mutation::new("class", nowhere).is_err());
    }
}
