//! The rooms of `src/`, read from what its files import: a room imports only rooms before it in [`ROOMS`], and no two files
//! import each other, be it by way of others. (docs/ARCHITECTURE.md says what each room is for.)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms, each with the folders and files of `src/` that belong to it; the longest name that fits counts.
const ROOMS: &[(&str, &[&str])] = &[
    ("errors", &["error/"]),
    ("names", &["names.rs"]),
    ("tensors", &["tensor.rs"]),
    ("token embeddings", &["token_embeddings.rs"]),
    ("threads", &["threads.rs"]),
    ("random numbers", &["random.rs"]),
    ("input files", &["input.rs"]),
    ("safe writing", &["atomic.rs"]),
    ("mapped files", &["mapped.rs"]),
    ("safetensors headers", &["tensor_header.rs"]),
    ("checkpoint", &["checkpoint/"]),
    ("config", &["config/"]),
    ("dataset", &["dataset/"]),
    ("sequence", &["sequence.rs"]),
    ("ops", &["ops/"]),
    ("model", &["model/"]),
    ("import", &["import/"]),
    ("model files", &["model_file.rs"]),
    ("tables", &["tables/"]),
    ("store", &["store/"]),
    ("context", &["context.rs"]),
    ("attributes", &["attributes/"]),
    ("backend", &["backend/"]),
    ("CPU: SIMD", &["backend/cpu/simd/"]),
    ("CPU: array operations", &["backend/cpu/ops/"]),
    ("CPU: inner products", &["backend/cpu/dot/"]),
    ("CPU: top-k", &["backend/cpu/top_k/"]),
    ("CPU: small batches", &["backend/cpu/small_batch/"]),
    ("CPU: late interaction", &["backend/cpu/max_sim/"]),
    ("CPU: Mixture-of-Logits", &["backend/cpu/mol/"]),
    ("CPU: losses", &["backend/cpu/loss/"]),
    ("CPU: scans", &["backend/cpu/scan/"]),
    ("CPU backend", &["backend/cpu/"]),
    ("GPU devices", &["backend/gpu/device/"]),
    ("GPU kernels", &["backend/gpu/kernels/"]),
    ("GPU training", &["backend/gpu/train/"]),
    ("GPU selection", &["backend/gpu/select/"]),
    ("GPU scans", &["backend/gpu/scan/"]),
    ("GPU backend", &["backend/gpu/"]),
    ("devices by name", &["backend/select.rs", "backend/training_device.rs"]),
    ("learn", &["learn/"]),
    ("index", &["index/"]),
    ("search", &["search/"]),
    ("metrics", &["metrics.rs"]),
    ("eval", &["eval/"]),
    ("train", &["train/"]),
    ("capi", &["capi/"]),
    ("library", &["lib.rs"]),
    ("program", &["bin/"]),
];

/// A source file: its name below `src/`, its module path, and its text.
struct File {
    name: String,
    module: Vec<String>,
    text: String,
}

impl File {
    fn new(name: &str, text: &str) -> File {
        let mut module: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_string).collect();
        if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            module.pop();
        }
        File { name: name.to_string(), module, text: text.to_string() }
    }
}

/// Words, `::` and single characters of Rust source, without comments, texts and what is compiled for tests only.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        match chars[i] {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '"' => {
                // A raw text ends where its number of `#` follows the quote.
                let hashes = (1..=i).take_while(|&back| chars[i - back] == '#').count();
                let raw = i > hashes && chars[i - hashes - 1] == 'r';
                i += 1;
                while i < chars.len() {
                    match chars[i] {
                        '\\' if !raw => i += 1,
                        '"' if !raw || (1..=hashes).all(|more| at(i + more) == '#') => break,
                        _ => {}
                    }
                    i += 1;
                }
                i += 1;
            }
            // A character, not a lifetime.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            ':' if at(i + 1) == ':' => {
                tokens.push("::".to_string());
                i += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = (i..chars.len()).find(|&j| !chars[j].is_alphanumeric() && chars[j] != '_');
                let end = end.unwrap_or(chars.len());
                tokens.push(chars[i..end].iter().collect());
                i = end;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    without_tests(tokens)
}

/// Takes out every item behind `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if !tokens[i..].iter().take(TEST.len()).eq(TEST.iter()) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        // To the end of its braces, or to the semicolon of an item without.
        let mut depth = 0;
        while i < tokens.len() {
            match tokens[i].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            i += 1;
            if depth == 0 && [";", "}"].contains(&tokens[i - 1].as_str()) {
                break;
            }
        }
    }
    kept
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The paths of a tree such as `a::{b, c::{self, d as e}}`, which begins at `i`: each with the name that it gets.
fn tree(tokens: &[String], i: &mut usize, start: &[String], paths: &mut Vec<(Vec<String>, String)>) {
    let mut path = start.to_vec();
    while *i < tokens.len() {
        match tokens[*i].as_str() {
            "::" => *i += 1,
            "{" => {
                *i += 1;
                while tokens[*i] != "}" {
                    tree(tokens, i, &path, paths);
                    if tokens[*i] == "," {
                        *i += 1;
                    }
                }
                *i += 1;
                return;
            }
            "as" => {
                paths.push((path, tokens[*i + 1].clone()));
                *i += 2;
                return;
            }
            "self" if !path.is_empty() => *i += 1,
            word if is_word(word) || word == "*" => {
                path.push(word.to_string());
                *i += 1;
            }
            _ => break,
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    paths.push((path, name));
}

/// What a file names of its own crate.
#[derive(Default)]
struct Names {
    /// Modules that it declares.
    modules: BTreeSet<String>,
    /// What it passes on: name -> path.
    passed_on: BTreeMap<String, Vec<String>>,
    /// Paths that it uses itself.
    used: Vec<Vec<String>>,
}

fn names(file: &File) -> Names {
    let tokens = tokens(&file.text);
    let word = |i: usize| tokens.get(i).map(String::as_str).unwrap_or_default();
    let mut names = Names::default();
    for i in 0..tokens.len() {
        if word(i) == "mod" && is_word(word(i + 1)) {
            names.modules.insert(tokens[i + 1].clone());
        }
    }
    let (mut i, mut public) = (0, false);
    while i < tokens.len() {
        match word(i) {
            "pub" => {
                public = true;
                i += 1;
                if word(i) == "(" {
                    i = (i..tokens.len()).find(|&j| word(j) == ")").unwrap() + 1;
                }
                continue;
            }
            "use" => {
                i += 1;
                let mut paths = Vec::new();
                tree(&tokens, &mut i, &[], &mut paths);
                for (path, name) in paths {
                    if public && name != "*" {
                        names.passed_on.insert(name, path);
                    } else {
                        names.used.push(path);
                    }
                }
            }
            first if is_word(first) && word(i + 1) == "::" && (i == 0 || word(i - 1) != "::") => {
                let mut path = vec![first.to_string()];
                while word(i + 1) == "::" && is_word(word(i + 2)) {
                    path.push(tokens[i + 2].clone());
                    i += 2;
                }
                names.used.push(path);
                i += 1;
            }
            _ => i += 1,
        }
        public = false;
    }
    names
}

/// A file of the sources, and the files that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// What each file imports: names that a file passes on (`pub use`) lead to the file that has them.
fn imports(files: &[File]) -> Imports {
    let by_module: BTreeMap<&[String], usize> =
        files.iter().enumerate().map(|(i, file)| (file.module.as_slice(), i)).collect();
    let names: Vec<Names> = files.iter().map(names).collect();
    // The root of the program's files is its own `main.rs`.
    let root = |file: &File| match file.module.as_slice() {
        [bin, program, ..] if bin == "bin" => vec![bin.clone(), program.clone()],
        _ => Vec::new(),
    };
    let absolute = |file: usize, path: &[String]| -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => root(&files[file]),
            "rails_wgpu" => Vec::new(),
            "self" => files[file].module.clone(),
            "super" => files[file].module.split_last()?.1.to_vec(),
            child if names[file].modules.contains(child) => {
                [files[file].module.as_slice(), &[child.to_string()]].concat()
            }
            _ => return None,
        };
        for word in rest {
            if word == "super" {
                start.pop();
            } else {
                start.push(word.clone());
            }
        }
        Some(start)
    };
    // The file that a path leads to, through what others pass on.
    let resolve = |file: usize, path: &[String]| -> Option<usize> {
        let mut path = absolute(file, path)?;
        for _ in 0..files.len() {
            let depth = (0..=path.len()).rev().find(|&n| by_module.contains_key(&path[..n]))?;
            let found = by_module[&path[..depth]];
            let Some(next) = path.get(depth).and_then(|name| names[found].passed_on.get(name)) else {
                return Some(found);
            };
            let Some(next) = absolute(found, next) else { return Some(found) };
            path = [&next, &path[depth + 1..]].concat();
        }
        None
    };
    // A folder's `mod.rs` may use its files, and they what it defines.
    let own = |file: usize, found: usize| {
        files[file].name.ends_with("/mod.rs") && files[found].module.starts_with(&files[file].module)
    };
    let of_file = |file: usize| -> BTreeSet<String> {
        let found = names[file].used.iter().filter_map(|path| resolve(file, path));
        found.filter(|&found| found != file && !own(file, found)).map(|found| files[found].name.clone()).collect()
    };
    files.iter().enumerate().map(|(i, file)| (file.name.clone(), of_file(i))).collect()
}

/// The number of the room that a file belongs to.
fn room(rooms: &[(&str, &[&str])], file: &str) -> Option<usize> {
    let fits = |place: &str| file == place || (place.ends_with('/') && file.starts_with(place));
    let longest = |places: &[&str]| places.iter().filter(|place| fits(place)).map(|place| place.len()).max();
    let best = rooms.iter().enumerate().filter_map(|(i, (_, places))| Some((longest(places)?, i))).max();
    best.map(|(_, room)| room)
}

/// Every import that goes to a later room, and every file without a room.
fn wrong_ways(imports: &Imports, rooms: &[(&str, &[&str])]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, imported) in imports {
        let Some(from) = room(rooms, file) else {
            wrong.push(format!("{file} belongs to no room"));
            continue;
        };
        for other in imported {
            if let Some(to) = room(rooms, other).filter(|&to| to > from) {
                wrong.push(format!("{file} ({}) imports {other} ({})", rooms[from].0, rooms[to].0));
            }
        }
    }
    wrong
}

/// Files that import each other, be it by way of others: one list for each such group.
fn circles(imports: &Imports) -> Vec<Vec<&str>> {
    let reached = |start: &str| -> BTreeSet<&str> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_string()]);
        while let Some(file) = next.pop() {
            for other in &imports[&file] {
                if seen.insert(other.as_str()) {
                    next.push(other.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports.keys().map(|file| (file.as_str(), reached(file))).collect();
    let mut groups: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (file, others) in reached.iter().filter(|(file, others)| others.contains(*file)) {
        groups.insert(others.iter().filter(|other| reached[*other].contains(file)).copied().collect());
    }
    groups.into_iter().collect()
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                files.push(File::new(&name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

#[test]
fn rooms_import_only_rooms_before_them() {
    let wrong = wrong_ways(&imports(&sources()), ROOMS);
    assert!(wrong.is_empty(), "{} imports go the wrong way:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn index_and_search_name_no_device() {
    let imports = imports(&sources());
    let of = |folder: &str, file: &str| file.starts_with(folder);
    for (file, others) in imports.iter().filter(|(file, _)| of("index/", file) || of("search/", file)) {
        let device = others.iter().find(|other| of("backend/cpu/", other) || of("backend/gpu/", other));
        assert_eq!(device, None, "{file} imports it");
    }
    assert!(imports["learn/sample.rs"].iter().any(|other| of("backend/cpu/", other)), "one that does is found");
}

#[test]
fn no_files_import_each_other() {
    let imports = imports(&sources());
    let circles = circles(&imports);
    let lines: Vec<String> = circles.iter().map(|files| files.join(" ")).collect();
    assert!(lines.is_empty(), "{} circles:\n{}", lines.len(), lines.join("\n"));
}

/// The imports of made-up files.
fn imports_of(files: &[(&str, &str)]) -> Imports {
    imports(&files.iter().map(|(name, text)| File::new(name, text)).collect::<Vec<_>>())
}

fn imported<'a>(imports: &'a Imports, file: &str) -> Vec<&'a str> {
    imports[file].iter().map(String::as_str).collect()
}

#[test]
fn a_circle_is_found_whatever_way_it_goes() {
    let root = ("lib.rs", "pub mod a; pub mod b;");
    for (a, b, c) in [
        ("use crate::b::c::C;", "pub mod c;", "use crate::a::A;"),
        ("use super::b::C;", "mod c; pub use c::C;", "use super::super::a::A;"),
        ("fn f() { crate::b::c::g() }", "pub mod c;", "impl crate::a::A {}"),
        ("use crate::{b::{self, c::{C as D, *}}};", "pub(crate) mod c;", "use crate::{a::{A}};"),
    ] {
        let imports = imports_of(&[root, ("a.rs", a), ("b/mod.rs", b), ("b/c.rs", c)]);
        assert_eq!(circles(&imports), [vec!["a.rs", "b/c.rs"]], "{a}");
    }
    // Three files, one way only.
    let imports =
        imports_of(&[root, ("a.rs", "use crate::b::c::C;"), ("b/mod.rs", "pub mod c;"), ("b/c.rs", "use super::B;")]);
    assert!(circles(&imports).is_empty());
    assert_eq!((imported(&imports, "a.rs"), imported(&imports, "b/c.rs")), (vec!["b/c.rs"], vec!["b/mod.rs"]));
}

#[test]
fn an_import_of_a_later_room_and_a_file_without_a_room_are_found() {
    let rooms: &[(&str, &[&str])] =
        &[("below", &["a.rs"]), ("above", &["b/"]), ("beside", &["b/c.rs"]), ("root", &["lib.rs"])];
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::c::C;"),
        ("b/mod.rs", "mod c; use super::a::A;"),
        ("b/c.rs", ""),
    ];
    assert_eq!(wrong_ways(&imports_of(&files), rooms), ["a.rs (below) imports b/c.rs (beside)"]);
    let more = [&files[..], &[("d.rs", "")]].concat();
    assert_eq!(wrong_ways(&imports_of(&more), rooms)[1], "d.rs belongs to no room");
}

#[test]
fn only_code_counts() {
    let text = r##"
        // use crate::b::B;
        /// [`crate::b::B`]
        const A: (&str, char, &str) = ("use crate::b::B;", '"', r#" crate::b::B " "#);
        #[cfg(test)]
        mod tests { use crate::b::B; fn f<'a>(x: &'a str) { crate::b::g() } }
        #[cfg(test)]
        use crate::b::B;
        fn f() { crate::c::g() }
    "##;
    let imports = imports_of(&[("lib.rs", "mod a; mod b; mod c;"), ("a.rs", text), ("b.rs", ""), ("c.rs", "")]);
    assert_eq!(imported(&imports, "a.rs"), ["c.rs"]);
}

#[test]
fn the_program_has_a_root_of_its_own() {
    let files = [
        ("lib.rs", "pub mod a;"),
        ("a.rs", ""),
        ("bin/rails-bench/main.rs", "mod b; mod c;"),
        ("bin/rails-bench/b.rs", "use crate::c::C; use rails_wgpu::a::A;"),
        ("bin/rails-bench/c.rs", ""),
    ];
    assert_eq!(imported(&imports_of(&files), "bin/rails-bench/b.rs"), ["a.rs", "bin/rails-bench/c.rs"]);
}
