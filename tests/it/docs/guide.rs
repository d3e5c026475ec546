//! The README stays short, every page of the guide is in the API docs, and no link leads nowhere, neither in the
//! repository nor in the docs.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The targets of the pages' links in the API docs.
const LINKS: &str = include_str!("../../../src/guide/links.md");
const GUIDE: &str = include_str!("../../../src/guide.rs");

/// The pages for people who change the crate: they are not part of the guide.
const NOT_OF_THE_GUIDE: [&str; 6] =
    ["design.md", "glossary.md", "journey.md", "maintaining.md", "traps/known.md", "traps/found.md"];

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages under `docs/`, and the README.
pub(super) fn pages() -> Vec<PathBuf> {
    let (mut pages, mut directories) = (vec![root().join("README.md")], vec![root().join("docs")]);
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let (inside, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
        directories.extend(inside);
        pages.extend(files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

/// A page without its code, which has brackets of its own.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("```").step_by(2).collect()
}

/// The definitions of links: `[label]: target`.
fn definitions(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
}

/// The labels that a text uses: `[text][label]`, and `` [`Type`] ``.
fn labels(text: &str) -> BTreeSet<String> {
    let named = text.split("][").skip(1).filter_map(|rest| rest.split(']').next()).map(str::to_owned);
    let types = text.split("[`").skip(1).filter_map(|rest| rest.split_once("`]"));
    let short = types.filter(|(_, rest)| !rest.starts_with(['(', '[', ':'])).map(|(label, _)| format!("`{label}`"));
    named.chain(short).collect()
}

fn is_relative(target: &str) -> bool {
    !target.starts_with("https://") && !target.starts_with('#')
}

#[test]
fn the_readme_has_at_most_150_lines() {
    assert!(include_str!("../../../README.md").lines().count() <= 150);
}

#[test]
fn every_page_of_the_guide_is_in_the_api_docs() {
    for page in pages() {
        let Ok(page) = page.strip_prefix(root().join("docs")) else { continue };
        let page = page.to_str().unwrap();
        let included = GUIDE.contains(&format!(": \"{page}\",\n"));
        assert_ne!(included, NOT_OF_THE_GUIDE.contains(&page), "{page}");
    }
}

#[test]
fn every_relative_link_leads_to_a_file() {
    for page in pages() {
        let text = prose(&page);
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in inline.chain(definitions(&text).into_values()).filter(|target| is_relative(target)) {
            let file = page.parent().unwrap().join(target.split('#').next().unwrap());
            assert!(file.exists(), "{}: {target}", page.display());
        }
    }
}

#[test]
fn the_api_docs_define_no_label_that_no_page_uses() {
    let text: String = pages().iter().map(|page| prose(page)).collect();
    let uses =
        |line: &str, label: &str| line.contains(&format!("[{label}]")) && !line.starts_with(&format!("[{label}]: "));
    let is_used = |label: &str| text.lines().any(|line| uses(line, label));
    let unused: Vec<_> = definitions(LINKS).into_keys().filter(|label| !is_used(label)).collect();
    assert!(unused.is_empty(), "src/guide/links.md defines what nothing uses: {unused:?}");
}

#[test]
fn every_label_is_defined_in_its_page_and_leads_to_no_file_in_the_api_docs() {
    let in_the_docs = definitions(LINKS);
    for page in pages() {
        let (text, shown) = (prose(&page), page.display());
        let defined = definitions(&text);
        for label in labels(&text) {
            assert!(defined.contains_key(&*label), "{shown}: [{label}] is not defined");
        }
        if NOT_OF_THE_GUIDE.iter().any(|name| page.ends_with(name)) {
            continue;
        }
        for (label, _) in defined.iter().filter(|(_, target)| is_relative(target)) {
            assert!(in_the_docs.contains_key(label), "{shown}: src/guide/links.md says nothing of [{label}]");
        }
    }
}
