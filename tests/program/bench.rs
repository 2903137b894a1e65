//! `rails-bench bench`: the grid, bench files, the preset, its output files, and Ctrl-C.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rails_wgpu::checkpoint::{Checkpoint, save_safetensors};
use rails_wgpu::tensor::Tensor;
use safetensors::SafeTensors;
use serde_json::Value;

const MOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/oracle/tiny_hstu_mol");

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rails-bench"));
    command.current_dir(crate::ROOT).arg("bench").args(args);
    for variable in ["RAILS_DEVICE", "RAILS_DTYPE", "RAILS_CHECKPOINT", "RAILS_CONFIG", "RAILS_DATASET"] {
        command.env_remove(variable);
    }
    command
}

/// On the small trained model and its 96 users and 200 items.
fn trained<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--device", "cpu", "--checkpoint", "tests/oracle/tiny_hstu_mol/model.pt"];
    args.extend(["--dataset", "tests/oracle/tiny.csv", "--item-ids", "assets/demo.items.txt"]);
    args.extend(more);
    args
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeeds(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?} failed:\n{}", text(&output.stderr));
    text(&output.stdout)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[args, &["--json", "-"]].concat())).unwrap()
}

fn refuses(args: &[&str], words: &[&str]) {
    let output = run(args);
    let message = text(&output.stderr);
    assert!(!output.status.success() && !message.contains("panicked"), "{args:?}:\n{message}");
    for word in words {
        assert!(message.contains(word), "{args:?}: `{word}` is not in\n{message}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn rows(json: &Value) -> &[Value] {
    json["results"].as_array().unwrap()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

#[test]
fn the_grid_is_the_product_of_its_lists() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("out.csv");
    let lists = ["--k", "5,10", "--batch-size", "7,32", "--dtype", "f32,f16", "--items", "100,200"];
    let args = trained(&[&lists[..], &["--algorithm", "exact,avg:20", "--csv", path(&csv)]].concat());
    let report = json(&args);
    assert_eq!((&report["device"], &report["users"], &report["items"]), (&"cpu".into(), &96.into(), &200.into()));
    assert_eq!((rows(&report).len(), &report["interrupted"]), (32, &false.into()));

    let point = |row: &Value| ["dtype", "items", "batch", "k", "algorithm"].map(|key| row[key].to_string());
    let recalls: BTreeMap<_, f64> =
        rows(&report).iter().map(|row| (point(row), number(row, &format!("recall@{}", row["k"])))).collect();
    assert_eq!(recalls.len(), 32, "every point once");
    for (point, recall) in &recalls {
        let (dtype, exact) = (point[0].as_str(), point[4] == "\"exact\"");
        match (dtype, exact) {
            ("\"f32\"", true) => assert_eq!(*recall, 1.0, "{point:?}"),
            (_, true) => assert!(*recall > 0.98, "{point:?}: {recall}"),
            _ => assert!(*recall > 0.3 && *recall < 0.95, "{point:?}: {recall}"),
        }
        let other_batch = point.clone().map(|value| if value == "7" { "32".to_string() } else { value });
        assert!((recalls[&other_batch] - recall).abs() < 1e-12, "the batch size must not matter: {point:?}");
    }
    assert!(recalls.iter().any(|(point, recall)| point[0] == "\"f16\"" && point[4] == "\"exact\"" && *recall < 1.0));
    for row in rows(&report) {
        for key in ["ms_per_batch_p50", "ms_per_batch_p99", "ms_per_batch_mean", "bytes_per_item", "index_build_s"] {
            assert!(number(row, key) > 0.0, "{key}: {row}");
        }
        assert!(number(row, "ms_per_batch_p50") <= number(row, "ms_per_batch_p99"));
        assert_eq!(row["runs"], if row["batch"] == 7 { 14 } else { 3 }, "the last batch is filled up");
        assert_eq!(row["hr@10"].is_number(), row["k"] == 10, "{row}");
        let targets = number(row, "targets");
        assert!(if row["items"] == 200 { targets == 96.0 } else { targets > 20.0 && targets < 80.0 }, "{row}");
    }
    let bytes = |dtype: &str| number(rows(&report).iter().find(|row| row["dtype"] == dtype).unwrap(), "bytes_per_item");
    assert_eq!(bytes("f32"), 2.0 * bytes("f16"));

    let mut reader = csv::Reader::from_path(&csv).unwrap();
    let header = reader.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("no {name}"));
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 32);
    for (record, row) in records.iter().zip(rows(&report)) {
        assert_eq!(&record[at("algorithm")], row["algorithm"].as_str().unwrap());
        // The JSON reader is off by an ulp at times.
        let recall: f64 = record[at("recall")].parse().unwrap();
        assert!((recall - number(row, &format!("recall@{}", row["k"]))).abs() < 1e-15, "{row}");
        assert_eq!(record[at("hr@10")].is_empty(), row["hr@10"].is_null());
        assert_eq!(record[at("items")].parse::<f64>().unwrap(), number(row, "items"));
        assert!(record[at("ms_per_batch_p50")].parse::<f64>().unwrap() > 0.0);
    }
}

#[test]
fn targets_and_metrics_are_those_of_eval() {
    let report = json(&trained(&["--algorithm", "exact,mips", "--k", "50", "--batch-size", "10"]));
    let mut args = trained(&["--algorithm", "exact,mips", "--k", "50", "--json", "-"]);
    args.insert(0, "eval");
    let eval = Command::new(env!("CARGO_BIN_EXE_rails-bench")).current_dir(crate::ROOT).args(&args).output().unwrap();
    let eval: Value = serde_json::from_slice(&eval.stdout).unwrap();
    for (bench, eval) in rows(&report).iter().zip(rows(&eval)) {
        for key in ["hr@1", "hr@10", "hr@50", "ndcg@10", "mrr"] {
            assert!((number(bench, key) - number(eval, key)).abs() < 1e-12, "{key}: {bench} is not {eval}");
        }
    }
}

#[test]
fn a_large_batch_goes_round_and_counts_each_user_once() {
    let report =
        json(&trained(&["--limit", "10", "--batch-size", "32", "--runs", "4", "--algorithm", "exact", "--k", "3"]));
    let row = &rows(&report)[0];
    assert_eq!((&row["queries"], &row["runs"], &row["targets"]), (&10.into(), &4.into(), &10.into()));
}

#[test]
fn wrong_points_are_named_before_the_work() {
    refuses(&trained(&["--k", "10,201"]), &["k: expected 1 to 200", "found 201"]);
    refuses(&trained(&["--items", "50,200", "--k", "20,100"]), &["1 to 50", "--items 50", "found 100"]);
    refuses(&trained(&["--items", "201"]), &["items: expected 1 to 200", "found 201"]);
    refuses(&trained(&["--items", "0"]), &["items", "found 0"]);
    refuses(&trained(&["--batch-size", "1,0"]), &["--batch-size"]);
    refuses(&trained(&["--preset", "fast"]), &["eval-batch"]);
    refuses(&trained(&["--csv", "no/such/folder/x.csv"]), &["no/such/folder/x.csv"]);
    refuses(&trained(&["--html", "no/such/folder/x.html"]), &["no/such/folder/x.html"]);
    refuses(&["--device", "cpu"], &["--bench-file"]);
    refuses(&["--bench-file", "no/such.safetensors"], &["no/such.safetensors"]);
}

/// A tensor of the reference case, whatever its type.
fn reference(name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(format!("{MOL}/oracle.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let (data, size) = (tensor.data(), tensor.data().len() / tensor.shape().iter().product::<usize>());
    let value = |bytes: &[u8]| match (tensor.dtype(), size) {
        (safetensors::Dtype::F32, _) => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        (_, 4) => f64::from(i32::from_le_bytes(bytes.try_into().unwrap())),
        _ => i64::from_le_bytes(bytes.try_into().unwrap()) as f64,
    };
    (tensor.shape().to_vec(), data.chunks_exact(size).map(value).collect())
}

/// A bench file of the small model's similarity with the reference's own items, queries and best 100 ids, changed by
/// `change`.
fn bench_file(folder: &Path, name: &str, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> PathBuf {
    let checkpoint = Checkpoint::open(format!("{MOL}/model.pt")).unwrap();
    let weights = checkpoint.names().filter(|name| name.starts_with("_ndp_module."));
    let mut tensors: BTreeMap<String, Tensor> =
        weights.map(|name| (name.to_string(), checkpoint.tensor(name).unwrap())).collect();
    for (ours, theirs) in [
        ("items", "item.embeddings"),
        ("item_ids", "in.all_item_ids"),
        ("queries", "enc.query_embeddings"),
        ("user_ids", "in.user_ids"),
        ("expect.200.ids", "topk.MoLBruteForceTopK.ids"),
    ] {
        let (shape, values) = reference(theirs);
        let data = values.into_iter().map(|value| value as f32).collect();
        tensors.insert(ours.to_string(), Tensor::new(shape, data).unwrap());
    }
    change(&mut tensors);
    let file = folder.join(name);
    save_safetensors(&file, &tensors.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    file
}

#[test]
fn a_bench_file_agrees_with_its_expectation() {
    let folder = tempfile::tempdir().unwrap();
    let file = bench_file(folder.path(), "bench.safetensors", |_| {});
    let config = format!("{MOL}/config.gin");
    let algorithms = ["--device", "cpu", "--algorithm", "exact,avg:20", "--k", "10,100"];
    let given = json(&[&["--bench-file", path(&file), "--config", &config][..], &algorithms].concat());
    let guessed = json(&[&["--bench-file", path(&file)][..], &algorithms].concat());
    for report in [&given, &guessed] {
        assert_eq!((&report["users"], &report["items"]), (&16.into(), &200.into()));
        let exact: Vec<&Value> = rows(report).iter().filter(|row| row["algorithm"] == "exact").collect();
        assert_eq!(exact.len(), 2);
        for row in exact {
            assert_eq!((number(row, "agreement"), number(row, &format!("recall@{}", row["k"]))), (1.0, 1.0));
            assert_eq!((&row["runs"], &row["queries"]), (&20.into(), &16.into()), "one batch of 32, 20 times");
            assert!(row["hr@10"].is_null() && row["mrr"].is_null(), "{row}");
        }
        let avg = &rows(report)[1];
        assert!((number(avg, "agreement") - number(avg, "recall@10")).abs() < 1e-12 && number(avg, "agreement") < 0.95);
    }
    let smaller = json(&[
        "--bench-file",
        path(&file),
        "--device",
        "cpu",
        "--items",
        "150",
        "--algorithm",
        "exact",
        "--queries",
        "5",
    ]);
    assert_eq!((&rows(&smaller)[0]["agreement"], &smaller["users"]), (&Value::Null, &5.into()));
}

#[test]
fn a_wrong_expectation_and_wrong_files_show() {
    let folder = tempfile::tempdir().unwrap();
    let at =
        |file: &Path| ["--bench-file".to_string(), path(file).to_string(), "--device".to_string(), "cpu".to_string()];
    // The first of each ten expected ids replaced by one that no item has.
    let wrong = bench_file(folder.path(), "wrong.safetensors", |tensors| {
        let expected = &tensors["expect.200.ids"];
        let data = expected.data().iter().enumerate().map(|(i, &id)| if i % 10 == 0 { 9999.0 } else { id }).collect();
        let changed = Tensor::new(expected.shape().to_vec(), data).unwrap();
        tensors.insert("expect.200.ids".to_string(), changed);
    });
    let args = at(&wrong);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--algorithm", "exact", "--k", "100"]).collect();
    let report = json(&args);
    assert!((number(&rows(&report)[0], "agreement") - 0.9).abs() < 1e-12);

    let refused = |name: &str, words: &[&str], change: fn(&mut BTreeMap<String, Tensor>)| {
        let args = at(&bench_file(folder.path(), name, change));
        refuses(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    refused("a.safetensors", &["`items`"], |tensors| drop(tensors.remove("items")));
    refused("b.safetensors", &["user_ids", "whole numbers", "0.5"], |tensors| {
        tensors.insert("user_ids".to_string(), Tensor::new(vec![16], vec![0.5; 16]).unwrap());
    });
    refused("c.safetensors", &["`item_ids`", "[200]", "[3]"], |tensors| {
        tensors.insert("item_ids".to_string(), Tensor::new(vec![3], vec![1.0, 2.0, 3.0]).unwrap());
    });
    refused("d.safetensors", &["--config"], |tensors| {
        drop(tensors.remove("_ndp_module._query_embeddings_fn._uid_embeddings_0.weight"));
    });
    refused("e.safetensors", &["no place", "`extra`"], |tensors| {
        tensors.insert("extra".to_string(), Tensor::new(vec![1], vec![1.0]).unwrap());
    });
}

/// The share of the reference's queries whose best unseen item is among the candidate columns of `algorithm`.
fn reference_hit_rate(algorithm: &str) -> f64 {
    let (shape, best) = reference("filtered.MoLBruteForceTopK.ids");
    let (columns, candidates) = reference(&format!("cand.{algorithm}__f32.ids"));
    let found = |query: usize| candidates[query * columns[1]..][..columns[1]].contains(&best[query * shape[1]]);
    (0..16).filter(|&query| found(query)).count() as f64 / 16.0
}

#[test]
fn the_preset_has_the_references_hit_rates() {
    let names = ["MoLNaiveTopK5", "MoLNaiveTopK10", "MoLAvgTopK50", "MoLAvgTopK100", "MoLCombTopK5_50"];
    let list = names.join(",");
    let more = ["--preset", "eval-batch", "--limit", "16", "--batch-size", "16", "--runs", "2", "--algorithm", &list];
    let report = json(&trained(&more));
    assert_eq!((&report["protocol"], rows(&report).len()), (&"eval-batch".into(), 5));
    for (row, name) in rows(&report).iter().zip(names) {
        assert_eq!((&row["reference_name"], &row["k"]), (&name.into(), &120.into()));
        assert_eq!(number(row, "hr@1"), reference_hit_rate(name), "{name}");
        assert_eq!(number(row, "hr@100"), number(row, "hr@1"), "{name}");
    }
    assert!(reference_hit_rate("MoLNaiveTopK5") < 1.0, "nothing was compared");
}

/// Over all users, against what the reference itself reported where it did not fail.
#[test]
fn the_preset_agrees_with_the_references_report() {
    let oracle: Value = serde_json::from_str(&std::fs::read_to_string(format!("{MOL}/oracle.json")).unwrap()).unwrap();
    let report =
        json(&trained(&["--preset", "eval-batch", "--runs", "1", "--algorithm", "MoLNaiveTopK50,MoLCombTopK10_100"]));
    for row in rows(&report) {
        let name = row["reference_name"].as_str().unwrap();
        let expected = &oracle["recall_vs_brute_force"][format!("{name}__f32")];
        for key in ["hr@1", "hr@5", "hr@10", "hr@50", "hr@100", "mrr"] {
            assert!((number(row, key) - number(expected, key)).abs() < 1e-6, "{name} {key}: {row} is not {expected}");
        }
    }
}

#[test]
fn the_preset_prints_every_row_of_the_reference() {
    let table = succeeds(&trained(&["--preset", "eval-batch", "--limit", "40", "--runs", "1"]));
    for n in [5, 10, 50, 100] {
        assert!(table.contains(&format!("MoLNaiveTopK{n} ")), "{table}");
    }
    for name in ["MoLBruteForceTopK", "MoLAvgTopK200", "MoLAvgTopK4000", "MoLCombTopK5_200", "MoLCombTopK100_1000"] {
        assert!(table.contains(name), "{name} is not in\n{table}");
    }
    assert!(
        table.contains("recall    HR@1") && table.contains("HR@100  mean ms  speedup") && table.contains("1.00x"),
        "{table}"
    );
}

/// Asserts that every tag is closed in order, and returns how many elements there are of each name.
fn elements(page: &str) -> BTreeMap<String, usize> {
    let (mut open, mut counts) = (Vec::new(), BTreeMap::new());
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("`<{tag}` does not end"));
        let name = |tag: &str| tag.split_whitespace().next().unwrap().to_string();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "closed out of order");
        } else if !tag.starts_with('!') {
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            *counts.entry(name(tag.trim_end_matches('/'))).or_insert(0) += 1;
            if !tag.ends_with('/') {
                open.push(name(tag));
            }
        }
    }
    assert_eq!(open, [""; 0], "left open");
    counts
}

/// Centre of the mark that follows the title beginning with `algorithm`.
fn position(svg: &str, algorithm: &str) -> (f64, f64) {
    let after = svg.split(&format!("<title>{algorithm}\n")).nth(1).unwrap_or_else(|| panic!("{algorithm} has no mark"));
    let mark = after.split_once("</title>\n").unwrap().1;
    let attribute = |name: &str| mark.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?.parse().ok();
    attribute("cx").zip(attribute("cy")).unwrap()
}

#[test]
fn the_page_shows_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let (html, out) = (folder.path().join("page.html"), folder.path().join("out.json"));
    let algorithms = "exact,avg:20,avg:50,avg:150,tangent:20,mips,comb:5_20";
    let more = ["--algorithm", algorithms, "--k", "5,10", "--limit", "64", "--html", path(&html), "--json", path(&out)];
    succeeds(&trained(&more));
    let page = std::fs::read_to_string(&html).unwrap();
    let counts = elements(&page);
    assert_eq!(
        (counts["svg"], counts["tr"], counts["polyline"]),
        (16, 17, 2),
        "a mark in each row, a title for each k"
    );
    for outside in ["src=", "href=", "<script ", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} in a page that should need nothing else");
    }
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    for fact in ["processor", "date", "version"] {
        assert!(page.contains(report[fact].as_str().unwrap()), "{fact}");
    }
    assert!(page.contains("scored</dt><dd>items per query") && page.contains(" threads; rails-bench "), "{page}");
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("rails-bench bench --device cpu"));
    let charts: Vec<&str> = page.split("<svg").skip(1).collect();
    for row in rows(&report) {
        let chart = charts[usize::from(row["k"] == 10)];
        let (algorithm, k) = (row["algorithm"].as_str().unwrap(), row["k"].to_string());
        let title = format!("<title>{algorithm}\nrecall@{k} {:.4}\n", number(row, &format!("recall@{k}")));
        assert_eq!(chart.matches(&title).count(), 1, "{title} in\n{chart}");
    }
    // Marks of one family lie as the numbers do: more time is further right, more recall further up.
    let avg: Vec<&Value> =
        rows(&report).iter().filter(|row| row["algorithm"].as_str().unwrap().starts_with("avg")).collect();
    for (k, chart) in [5, 10].into_iter().zip(&charts) {
        let of_k: Vec<&&Value> = avg.iter().filter(|row| row["k"] == k).collect();
        assert_eq!(of_k.len(), 3);
        for (a, b) in of_k.iter().flat_map(|a| of_k.iter().map(move |b| (a, b))) {
            let place = |row: &Value| position(chart, row["algorithm"].as_str().unwrap());
            let (ms, recall) = ("ms_per_batch_p50", format!("recall@{k}"));
            assert!(number(a, ms) > number(b, ms) || place(a).0 <= place(b).0, "{a} {b}");
            assert!(number(a, &recall) > number(b, &recall) || place(a).1 >= place(b).1, "{a} {b}");
        }
    }
}

#[test]
#[should_panic(expected = "closed out of order")]
fn a_page_that_is_not_well_formed_is_rejected() {
    elements("<p><b>x</p></b>");
}

/// Starts a run whose second point lasts long, sends `signal` once the first point is on disk, and returns what came of it
/// with the JSON and the records of the CSV.
#[cfg(unix)]
fn interrupted(signal: &str) -> (Output, Value, Vec<csv::StringRecord>) {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (csv, out, html) = (at("out.csv"), at("out.json"), at("out.html"));
    let files = ["--csv", path(&csv), "--json", path(&out), "--html", path(&html)];
    let grid = ["--items", "1,200", "--k", "1", "--algorithm", "exact", "--runs", "4000", "--limit", "64"];
    let child =
        command(&trained(&[&files[..], &grid].concat())).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    // The page is written last.
    while !html.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "the first point never ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let json = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let records = csv::Reader::from_path(&csv).unwrap().records().collect::<Result<_, _>>().unwrap();
    elements(&std::fs::read_to_string(&html).unwrap());
    (output, json, records)
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_measured() {
    let (output, json, records) = interrupted("-INT");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("stopping after this batch") && message.contains("ended early"), "{message}");
    assert_eq!((rows(&json).len(), records.len(), &json["interrupted"]), (2, 2, &true.into()));
    let [whole, part] = rows(&json) else { panic!("{json}") };
    assert_eq!((number(whole, "runs"), number(whole, "queries")), (8_000.0, 64.0));
    assert!((1.0..8_000.0).contains(&number(part, "runs")) && number(part, "queries") >= 32.0, "{part}");
    assert!(text(&output.stdout).contains("recall@1"), "the table is printed");
}

#[cfg(unix)]
#[test]
fn a_killed_run_keeps_its_points() {
    let (output, json, records) = interrupted("-KILL");
    assert_eq!(output.status.code(), None);
    assert_eq!((rows(&json).len(), records.len(), &json["interrupted"]), (1, 1, &false.into()));
}
