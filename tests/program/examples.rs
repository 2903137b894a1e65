//! Every example of `examples/` runs, and prints what it promises.

use std::process::Command;

/// Builds, if that was not done yet, and runs an example on the CPU or whatever `auto` finds. Features and target folder are
/// those of this test, so nothing is compiled twice.
fn run(example: &str) -> String {
    let me = std::env::current_exe().unwrap();
    let target = me.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(crate::ROOT);
    cargo.args(["run", "--quiet", "--example", example, "--target-dir"]).arg(target);
    if !cfg!(feature = "default") {
        cargo.arg("--no-default-features");
        if cfg!(feature = "gpu") {
            cargo.args(["--features", "gpu"]);
        }
    }
    if me.ancestors().nth(2).unwrap().ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}:\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of the lines that begin with `start`.
fn words<'a>(output: &'a str, start: &str) -> Vec<&'a str> {
    let line = output.lines().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("no line `{start}` in\n{output}")).split_whitespace().collect()
}

fn number(word: &str) -> f64 {
    word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"))
}

#[test]
fn score_pairs() {
    let output = run("01_score_pairs");
    let scores = |start: &str| {
        let words = words(&output, start);
        let last = |word: &str| number(words[words.iter().position(|w| *w == word).unwrap() + 1]);
        [last("product"), last("Mixture-of-Logits")]
    };
    let [same, neighbour, stranger] = ["the same", "a neighbour", "a stranger"].map(scores);
    // The inner product of a vector with itself is its squared length.
    assert!(same[0] > 0.0 && same[0] > stranger[0], "{output}");
    assert!(neighbour[1] > stranger[1], "{output}");
}

#[test]
fn search() {
    let output = run("02_search");
    assert!(output.starts_with("200 items on `"), "{output}");
    let (exact, tangent) = (words(&output, "exact:"), words(&output, "tangent:20:"));
    assert_eq!((exact.len(), tangent.len()), (11, 11), "five pairs each\n{output}");
    assert_eq!(exact[1..7], tangent[1..7], "the best three\n{output}");
}

#[test]
fn live_index() {
    let output = run("03_live_index");
    let items = |start: &str, at: usize| words(&output, start)[at].parse::<usize>().unwrap();
    assert_eq!((items("built", 1), items("50 items added", 3), items("opened again", 2)), (150, 200, 199));
    let removed = words(&output, "item ")[1];
    let best = |start: &str| words(&output, start).iter().any(|word| word.trim_matches(['[', ',', ']']) == removed);
    assert!(best("50 items added") && !best("opened again"), "{output}");
    assert!(output.contains("still has 150 items"), "{output}");
}

#[test]
fn batching() {
    let output = run("04_batching");
    let found = words(&output, "960 of 960 questions answered");
    let (batches, largest) = (number(found[6]), number(found[found.len() - 1]));
    assert!((30.0..=960.0).contains(&batches) && (2.0..=32.0).contains(&largest), "{output}");
}

#[test]
fn compare() {
    let output = run("05_compare");
    assert_eq!(words(&output, "algorithm"), ["algorithm", "recall@10", "us", "per", "query"]);
    let recall = |start: &str| number(words(&output, start)[1]);
    assert_eq!(recall("exact"), 1.0);
    for algorithm in ["naive:10", "avg:50", "comb:10_50", "tangent:50", "distilled:50", "cascade:80_40"] {
        assert!((0.5..=1.0).contains(&recall(algorithm)), "{output}");
    }
    assert!(recall("mips") < recall("tangent:50"), "{output}");
}
