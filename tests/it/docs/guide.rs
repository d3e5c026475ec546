//! The READMEs stay short, every page of the guide is in the API docs, and no link leads nowhere, neither in the
//! repository nor in the docs.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The targets of the pages' links in the API docs.
const LINKS: &str = include_str!("../../../src/guide/links.md");
const GUIDE: &str = include_str!("../../../src/guide.rs");

/// What a link that works everywhere begins with, before a path in the repository.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

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

/// The READMEs of the published crates under `crates/`.
fn readmes() -> impl Iterator<Item = PathBuf> {
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let published = crates.filter(|path| path.is_dir() && !path.ends_with("testkit"));
    published.map(|path| path.join("README.md"))
}

/// A page without its code, which has brackets of its own.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("```").step_by(2).collect()
}

/// Returns whether a page has a heading with this anchor.
pub(super) fn has_heading(page: &Path, anchor: &str) -> bool {
    let is_kept = |letter: &char| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter);
    let anchor_of = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words.chars().filter(is_kept).collect::<String>().replace(' ', "-")
    };
    prose(page).lines().filter(|line| line.starts_with('#')).any(|heading| anchor_of(heading) == anchor)
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

/// Fails if the code of a README has a line that is wider than what docs.rs shows without scrolling.
fn assert_narrow(readme: &str, most: usize) {
    let code = readme.split("```").skip(1).step_by(2).flat_map(str::lines);
    let wide: Vec<_> = code.filter(|line| line.chars().count() > most).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn the_readme_has_at_most_1_000_words_and_no_code_that_docs_rs_cuts() {
    let readme = include_str!("../../../README.md");
    // The definitions of its links are not shown.
    let shown = readme.lines().filter(|line| !(line.starts_with('[') && line.contains("]: ")));
    let words: usize = shown.map(|line| line.split_whitespace().count()).sum();
    assert!(words <= 1_000, "{words}");
    // A drawing is wider than it looks in some fonts.
    assert_narrow(readme, 90);
}

/// Tests and pages name promises by their numbers.
#[test]
fn the_readme_has_the_promises_of_their_page_in_its_order() {
    let promises = |text: &str| -> Vec<String> {
        let numbered = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
        numbered.filter_map(|line| Some(line.split_once("**")?.1.split_once("**")?.0.to_owned())).collect()
    };
    let (readme, page) =
        (promises(include_str!("../../../README.md")), promises(include_str!("../../../docs/promises.md")));
    assert_eq!(readme.len(), 8);
    assert_eq!(readme, page[..8]);
}

#[test]
fn each_published_crate_has_a_readme_of_20_to_40_lines_as_the_head_of_its_docs() {
    for readme in readmes() {
        let text = fs::read_to_string(&readme).unwrap();
        let lines = text.lines().count();
        assert!((20..=40).contains(&lines), "{}: {lines}", readme.display());
        assert_narrow(&text, 94);
        let sources = readme.parent().unwrap().join("src");
        let heads = ["lib.rs", "main.rs"].map(|name| fs::read_to_string(sources.join(name)).unwrap_or_default());
        assert!(heads.concat().starts_with("#![doc = include_str!(\"../README.md\")]\n"), "{}", sources.display());
    }
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
fn every_link_into_the_repository_leads_to_a_file_and_a_heading() {
    let heads = ["crates", "examples", "laboratories"].map(|name| root().join(name).join("README.md"));
    for page in pages().into_iter().chain(readmes()).chain(heads) {
        let text = prose(&page);
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in inline.chain(definitions(&text).into_values()) {
            let (target, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match target.strip_prefix(REPOSITORY) {
                Some(path) => root().join(path),
                None if target.is_empty() => page.clone(),
                None if is_relative(target) => page.parent().unwrap().join(target),
                None => continue,
            };
            assert!(file.exists(), "{}: {target}", page.display());
            assert!(anchor.is_empty() || has_heading(&file, anchor), "{}: {target}#{anchor}", page.display());
        }
    }
}

#[test]
fn no_page_leads_to_a_page_that_a_release_makes() {
    for page in pages().into_iter().chain(readmes()) {
        let text = prose(&page);
        for place in ["docs.rs/tower-idempotency", "crates.io/crates/tower-idempotency"] {
            assert!(!text.contains(place), "{}: {place}", page.display());
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
        let anchor = |target: &str| target.split_once('#').map(|(_, anchor)| anchor.to_owned());
        for (label, target) in defined.iter().filter(|(_, target)| is_relative(target)) {
            let there = in_the_docs.get(label);
            let there = there.unwrap_or_else(|| panic!("{shown}: src/guide/links.md says nothing of [{label}]"));
            assert_eq!(anchor(there), anchor(target), "{shown}: [{label}] has another anchor in src/guide/links.md");
        }
    }
}
