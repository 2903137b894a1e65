//! Links between the documents lead somewhere, and pages that must be short are.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What README and architecture may have at most: who wants more finds it in other pages.
const LINES: [(&str, usize); 2] = [("README.md", 120), ("docs/ARCHITECTURE.md", 150)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let of = |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let all = of("").chain(of("docs")).chain(of("assets")).chain(of("benches/record"));
    all.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()));
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchor that a heading gets: lower case, `-` for blanks, and only letters, digits, `-` and `_` besides.
fn anchor(heading: &str) -> String {
    let dashed = heading.trim_matches(['#', ' ']).to_lowercase().replace(' ', "-");
    dashed.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect()
}

fn anchors(text: &str) -> Vec<String> {
    text.split("```").step_by(2).flat_map(str::lines).filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// Why a link of the document at `path` leads nowhere, if it does.
fn broken(path: &Path, target: &str) -> Option<String> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let aim = if file.is_empty() { path.to_path_buf() } else { path.parent().unwrap().join(file) };
    if !aim.exists() {
        return Some(format!("{}: {target}: no such file", path.display()));
    }
    let known =
        heading.is_empty() || anchors(&fs::read_to_string(&aim).unwrap()).iter().any(|anchor| anchor == heading);
    (!known).then(|| format!("{}: {target}: no such heading", path.display()))
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        wrong.extend(links(&text).into_iter().filter_map(|target| broken(&path, target)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_noticed() {
    let readme = root().join("README.md");
    assert_eq!(links("[a](b.md#c) `x` ```[no](code)``` [d](https://e) ![f](g.png)"), ["b.md#c", "g.png"]);
    assert_eq!(anchors("# C and C++\n```\n# code\n```\n## 1. A whole model\n"), ["c-and-c", "1-a-whole-model"]);
    assert!(broken(&readme, "docs/GUIDE.md#4-search").is_none());
    assert!(broken(&readme, "docs/NOTHING.md").unwrap().contains("no such file"));
    assert!(broken(&readme, "docs/GUIDE.md#nothing").unwrap().contains("no such heading"));
}

#[test]
fn pages_that_must_be_short_are() {
    for (name, most) in LINES {
        let lines = fs::read_to_string(root().join(name)).unwrap().lines().count();
        assert!(lines <= most, "{name} has {lines} lines, at most {most} are wanted");
    }
}

/// `major.minor` of a version.
fn minor(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap_or(0))
}

#[test]
fn the_oldest_rust_is_the_one_that_dependencies_ask_for_and_documents_name() {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo).current_dir(root()).args(["metadata", "--format-version", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let packages: HashMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (package["id"].to_string(), package)).collect();
    let nodes: HashMap<String, Vec<Value>> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (node["id"].to_string(), list(&node["deps"]))).collect();
    let ours = |package: &&Value| ["rails-wgpu", "rails-bench"].contains(&package["name"].as_str().unwrap());
    let roots: Vec<&Value> = packages.values().filter(ours).collect();
    let stated = minor(roots[0]["rust_version"].as_str().unwrap());
    // What is compiled for users: no dependencies of tests.
    let compiled = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
    let mut needed = HashSet::new();
    let mut open: Vec<String> = roots.iter().map(|package| package["id"].to_string()).collect();
    while let Some(id) = open.pop() {
        if needed.insert(id.clone()) {
            open.extend(nodes[&id].iter().filter(compiled).map(|dependency| dependency["pkg"].to_string()));
        }
    }
    let others = needed.iter().map(|id| &packages[id]).filter(|package| !ours(package));
    let asked = others.filter_map(|package| Some((minor(package["rust_version"].as_str()?), package["name"].clone())));
    let (highest, by) = asked.max_by_key(|(version, _)| *version).unwrap();
    assert_eq!(stated, highest, "Cargo.toml says {stated:?}, `{by}` asks for {highest:?}");
    for (page, words) in [("README.md", "[Rust](https://rustup.rs) "), ("docs/CHANGELOG.md", "Minimum Rust version: ")]
    {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let named = text.split(words).nth(1).unwrap().split([' ', '\n']).next().unwrap().trim_end_matches('.');
        assert_eq!(minor(named), stated, "{page}");
    }
}
