//! `rails-bench` as a user runs it: success, help, and every kind of bad input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/oracle/tiny_hstu_mol");

fn rails_bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rails-bench"))
        .current_dir(crate::ROOT)
        .env_remove("RAILS_DEVICE")
        .env_remove("RAILS_CHECKPOINT")
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn succeeds(args: &[&str]) -> String {
    let output = rails_bench(args);
    assert!(output.status.success(), "{args:?} failed:\n{}", stderr(&output));
    stdout(&output)
}

/// Asserts that the command fails without a panic, with all of `words` in its message.
fn refuses(args: &[&str], words: &[&str]) {
    let output = rails_bench(args);
    let message = stderr(&output);
    assert!(!output.status.success(), "{args:?} should have failed:\n{}", stdout(&output));
    assert!(!message.contains("panicked"), "{args:?} panicked:\n{message}");
    for word in words {
        assert!(message.contains(word), "{args:?}: `{word}` is not in\n{message}");
    }
}

fn eval<'a>(checkpoint: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["eval", "--device", "cpu", "--checkpoint", checkpoint, "--dataset", "tests/oracle/tiny.csv"];
    args.extend(["--item-ids", "assets/demo.items.txt"]);
    args.extend(more);
    args
}

fn eval_json(checkpoint: &str, more: &[&str]) -> serde_json::Value {
    let mut args = eval(checkpoint, more);
    args.extend(["--json", "-"]);
    serde_json::from_str(&succeeds(&args)).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn changed_config(folder: &Path, from: &str, to: &str) -> PathBuf {
    let text = std::fs::read_to_string(format!("{MOL}/config.gin")).unwrap();
    assert!(text.contains(from), "`{from}` is not in the config");
    let changed = folder.join("changed.gin");
    std::fs::write(&changed, text.replace(from, to)).unwrap();
    changed
}

#[test]
fn help_says_what_inverted_lists_are_for() {
    for command in ["eval", "bench", "search"] {
        let help = succeeds(&[command, "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("want inverted lists (`index build --lists`)"), "{help}");
    }
}

#[test]
fn help_names_every_command() {
    let help = succeeds(&["--help"]);
    for command in
        ["demo", "devices", "preprocess", "convert", "train", "reproduce", "index", "eval", "bench", "search"]
    {
        assert!(help.contains(command), "{command} is not in\n{help}");
        assert!(succeeds(&[command, "--help"]).contains("Usage: rails-bench"));
    }
}

#[test]
fn demo_prints_the_quality_table_and_what_approximate_search_gains() {
    let tables = succeeds(&["demo", "--device", "cpu", "--items", "3000"]);
    for word in ["HR@10", "NDCG@10", "MRR", "exact", "96 users, 200 items", "MoL 4x2x16", "3000 items", "recall@10"] {
        assert!(tables.contains(word), "`{word}` is not in\n{tables}");
    }
    let json = succeeds(&["demo", "--device", "cpu", "--items", "3000", "--json", "-"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (exact, tangent) = (&json["large"]["results"][0], &json["large"]["results"][3]);
    assert_eq!((&exact["recall@10"], &exact["speedup"], &exact["items"]), (&1.0.into(), &1.0.into(), &3000.into()));
    assert_eq!(tangent["algorithm"], "tangent:1000");
    // A third of the items hold nearly all of the best.
    assert!((0.9..=1.0).contains(&tangent["recall@10"].as_f64().unwrap()), "{tangent}");
    assert!(!succeeds(&["demo", "--device", "cpu", "--items", "0"]).contains("recall"));
}

#[test]
fn the_program_says_its_own_name_and_version() {
    assert_eq!(succeeds(&["--version"]), format!("rails-bench {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn devices_and_recommendations_come_as_json_too() {
    let devices: serde_json::Value =
        serde_json::from_str(&succeeds(&["devices", "--threads", "3", "--json", "-"])).unwrap();
    let cpu = &devices["devices"][0];
    assert_eq!((&cpu["name"], &cpu["type"], &devices["threads"]), (&"cpu".into(), &"native CPU".into(), &3.into()));
    assert!(devices["auto"].is_string() && !devices["processor"].as_str().unwrap().is_empty(), "{devices}");

    let checkpoint = format!("{MOL}/model.pt");
    let search = ["search", "--checkpoint", &checkpoint, "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    let search = [&search[..], &["--user", "111", "--k", "3"]].concat();
    let json: serde_json::Value = serde_json::from_str(&succeeds(&[&search[..], &["--json", "-"]].concat())).unwrap();
    let table = succeeds(&search);
    let hits: Vec<&str> = table.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!((&json["user"], json["results"].as_array().unwrap().len(), hits.len()), (&"111".into(), 3, 3));
    for (line, hit) in hits.iter().zip(json["results"].as_array().unwrap()) {
        let (item, score) = (hit["item"].to_string(), format!("{:.4}", hit["score"].as_f64().unwrap()));
        assert_eq!(line.split_whitespace().skip(1).take(2).collect::<Vec<_>>(), [item, score]);
    }
    assert!(json["stats"]["pairs"].as_u64().unwrap() >= 3, "{json}");
}

#[test]
fn a_search_that_mostly_samples_says_how_it_would_not() {
    let checkpoint = format!("{MOL}/model.pt");
    let search = ["search", "--checkpoint", &checkpoint, "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    let search = [&search[..], &["--user", "111", "--k", "3", "--algorithm", "tangent:3"]].concat();
    let said = stderr(&rails_bench(&search));
    assert!(said.contains("tangent:3 sampled items") && said.contains("index build --distill DATASET"), "{said}");
    assert_eq!(stderr(&rails_bench(&[&search[..], &["--quiet"]].concat())), "");
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let build = ["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "-o", path(&index)];
    succeeds(&[&build[..], &["--distill", "tests/oracle/tiny.csv"]].concat());
    let learned = ["search", "--index", path(&index), "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    let learned = [&learned[..], &["--user", "111", "--k", "3", "--algorithm", "tangent:3"]].concat();
    assert_eq!(stderr(&rails_bench(&learned)), "");
}

/// Starts an evaluation that takes long, and reads its log up to the evaluation itself.
#[cfg(unix)]
fn long_evaluation() -> (std::process::Child, impl std::io::BufRead, String) {
    use std::io::BufRead;
    use std::process::Stdio;

    let checkpoint = format!("{MOL}/model.pt");
    let algorithms = vec!["exact"; 2000].join(",");
    let mut child = Command::new(env!("CARGO_BIN_EXE_rails-bench"))
        .current_dir(crate::ROOT)
        .args(eval(&checkpoint, &["--batch-size", "1", "--json", "-", "--algorithm", &algorithms]))
        .env("RUST_LOG", "info")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut log, mut lines) = (String::new(), std::io::BufReader::new(child.stderr.take().unwrap()));
    while !log.contains("evaluating 96 users") {
        assert!(lines.read_line(&mut log).unwrap() > 0, "ended: {log}");
    }
    (child, lines, log)
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_learning_of_an_index_that_stays() {
    use std::io::BufRead;
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    let (index, checkpoint) = (folder.path().join("index"), format!("{MOL}/model.pt"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_rails-bench"))
        .current_dir(crate::ROOT)
        .args(["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "-o", path(&index)])
        .args(["--distill", "tests/oracle/tiny.csv"])
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut log, mut lines) = (String::new(), std::io::BufReader::new(child.stderr.take().unwrap()));
    while !log.contains("learning from") {
        assert!(lines.read_line(&mut log).unwrap() > 0, "ended: {log}");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    std::io::Read::read_to_string(&mut lines, &mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{log}");
    assert!(log.contains("the index is there, but has not learned") && log.contains("cancelled"), "{log}");
    assert!(succeeds(&["index", "info", path(&index)]).contains("distilled gate no"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_evaluated_and_the_log_tells_the_stages() {
    // The pipe stays open: the program has more to say.
    let (child, _lines, log) = long_evaluation();
    for stage in ["model.pt: ", "tiny.csv: ", "indexing 200 items on cpu: "] {
        assert!(log.contains(stage), "`{stage}` is not in\n{log}");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["interrupted"] == true && (1..96).contains(&json["users"].as_u64().unwrap()), "{}", json["users"]);
    assert_eq!(json["results"].as_array().unwrap().len(), 2000);
}

#[test]
fn devices_lists_the_cpu_and_what_auto_takes() {
    let list = succeeds(&["devices"]);
    assert!(list.contains("native CPU") && list.contains("\nauto: "), "{list}");
    refuses(&["devices", "--tune", "no such GPU"], &["no such GPU"]);
}

#[test]
fn models_with_their_configuration_inside_are_evaluated_searched_and_indexed() {
    for case in ["tiny_gru4rec", "tiny_bert4rec"] {
        let checkpoint = format!("tests/oracle/{case}/model.safetensors");
        let facts = std::fs::read_to_string(format!("{}/tests/oracle/{case}/oracle.json", crate::ROOT)).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        let json = eval_json(&checkpoint, &["--protocol", "reference", "--algorithm", "exact"]);
        for name in ["hr@10", "ndcg@10", "mrr"] {
            let (expected, found) = (facts["metrics"][name].as_f64().unwrap(), json["results"][0][name].as_f64());
            assert!(found.is_some_and(|found| (found - expected).abs() < 1e-6), "{case} {name}: {expected}, {json}");
        }
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index");
        let items = ["--item-ids", "assets/demo.items.txt"];
        let build = ["index", "build", "--device", "cpu", "--checkpoint", &checkpoint, "-o", path(&index)];
        succeeds(&[&build[..], &["--items", items[1]]].concat());
        let search = |more: &[&str]| {
            let args =
                ["search", "--device", "cpu", "--dataset", "tests/oracle/tiny.csv", "--user", "37", "--json", "-"];
            let json: serde_json::Value = serde_json::from_str(&succeeds(&[&args, more].concat())).unwrap();
            json["results"].clone()
        };
        let hits = search(&["--checkpoint", &checkpoint, items[0], items[1]]);
        assert!(hits.as_array().is_some_and(|hits| !hits.is_empty()), "{hits}");
        assert_eq!(hits, search(&["--index", path(&index)]), "{case}");
    }
}

/// Copies an archive with `new` for the one `old` in what was pickled.
fn replace_in_pickle(archive: &str, old: &[u8; 3], new: &[u8; 3], copy: &str) {
    use std::io::{Read, Write};

    let file = std::fs::File::open(Path::new(crate::ROOT).join(archive)).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut writer = zip::ZipWriter::new(std::fs::File::create(copy).unwrap());
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let (name, mut bytes) = (entry.name().unwrap().into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with("data.pkl") {
            let places: Vec<usize> = (0..bytes.len() - 2).filter(|&i| bytes[i..].starts_with(old)).collect();
            let &[place] = &places[..] else { panic!("{} places", places.len()) };
            bytes[place..place + 3].copy_from_slice(new);
        }
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        writer.start_file(name, stored).unwrap();
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn checkpoints_of_other_programs_are_converted_evaluated_searched_and_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder.path().join(name)).to_string();
    let (data, converted, index) = (at("data.csv"), at("model.safetensors"), at("index"));
    let header = "index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps";
    std::fs::write(&data, format!("{header}\n0,37,\"3,9,20,4\",\"5,5,5,5\",\"1,2,3,4\"\n")).unwrap();
    let search = |more: &[&str]| {
        let args = ["search", "--device", "cpu", "--dataset", &data, "--user", "37", "--k", "5", "--json", "-"];
        let json: serde_json::Value = serde_json::from_str(&succeeds(&[&args, more].concat())).unwrap();
        json["results"].clone()
    };
    // The file tells everything, the ids of items included.
    let checkpoint = "tests/checkpoints/rectools_sasrec/model.ckpt";
    let said = succeeds(&["convert", checkpoint, "-o", &converted]);
    assert!(
        said.contains("causal transformer, 2 blocks, 2 heads") && said.contains("20 items with their ids"),
        "{said}"
    );
    let list = std::fs::read_to_string(at("model.items.txt")).unwrap();
    assert!(list.starts_with("item_id,original_id\n1,10") && list.lines().count() == 21, "{list}");
    // A list of something else is not replaced, and then there is no model either; the same list is.
    std::fs::write(at("ml-1m.items.txt"), "7\n").unwrap();
    let beside = ["convert", checkpoint, "-o", &at("ml-1m.safetensors")];
    refuses(&beside, &["--items-output", "ml-1m.items.txt, which would be lost"]);
    assert_eq!(std::fs::read_to_string(at("ml-1m.items.txt")).unwrap(), "7\n");
    assert!(!folder.path().join("ml-1m.safetensors").exists());
    for _ in 0..2 {
        succeeds(&[&beside[..], &["--items-output", &at("list.txt")]].concat());
    }
    assert_eq!(std::fs::read_to_string(at("list.txt")).unwrap(), list);
    assert_eq!(succeeds(&["convert", checkpoint, "-o", &converted]), said);
    let no_folder = ["--items-output", &at("no/list.txt")];
    refuses(&[&["convert", checkpoint, "-o", &at("new.safetensors")][..], &no_folder].concat(), &["no/list.txt"]);
    assert!(!folder.path().join("new.safetensors").exists());
    succeeds(&["index", "build", "--device", "cpu", "--checkpoint", checkpoint, "-o", &index]);
    let found = search(&["--checkpoint", checkpoint]);
    assert!(found.as_array().is_some_and(|hits| hits.len() == 5), "{found}");
    assert_eq!(found, search(&["--checkpoint", &converted]));
    // The index has the ids of the other program as its own.
    let named = search(&["--checkpoint", checkpoint, "--item-ids", &at("model.items.txt")]);
    assert_eq!(named, search(&["--index", &index]));
    let evaluated = succeeds(&["eval", "--device", "cpu", "--checkpoint", checkpoint, "--dataset", &data]);
    assert!(evaluated.contains("exact"), "{evaluated}");
    // Ids that cannot be read are not passed over in silence.
    let other_ids = at("other_ids.ckpt");
    replace_in_pickle(checkpoint, b"M\xef\x03", b"NN0", &other_ids);
    let output = rails_bench(&["convert", &other_ids, "-o", &at("other.safetensors")]);
    assert!(
        output.status.success() && stderr(&output).contains("`item_external_ids` are not texts"),
        "{}",
        stderr(&output)
    );
    assert!(!folder.path().join("other.items.txt").exists());
    let options = ["search", "--dataset", &data, "--user", "37", "--index", &index, "--num-heads", "2"];
    refuses(&options, &["--checkpoint"]);
    // It does not: options say the rest, and errors name them.
    let pmixer = "tests/checkpoints/pmixer_earlier/model.pth";
    refuses(&["convert", pmixer, "-o", &at("p.safetensors")], &["--from pmixer", "--from hf"]);
    refuses(&["convert", pmixer, "--from", "pmixer", "-o", &at("p.safetensors")], &["--num-heads"]);
    refuses(&["convert", pmixer, "--from", "recbole", "-o", &at("p.safetensors")], &["item_embedding.weight"]);
    succeeds(&["convert", pmixer, "--from", "pmixer", "--num-heads", "2", "-o", &at("p.safetensors")]);
    assert!(!folder.path().join("p.items.txt").exists());
    let itself = at("p.safetensors");
    refuses(
        &["convert", &itself, "-o", &at("q.safetensors"), "--items-output", &at("q.txt")],
        &["items-output: expected nothing"],
    );
    let options = ["--from", "hf", "--num-heads", "2", "--activation", "identity"];
    let other = search(&[&["--checkpoint", pmixer][..], &options].concat());
    assert_ne!(other, search(&["--checkpoint", &at("p.safetensors")]));
}

#[test]
fn eval_says_which_algorithms_are_given_more_candidates_than_they_aim_at() {
    let checkpoint = format!("{MOL}/model.pt");
    let algorithms = ["--algorithm", "exact,tangent:5,avg:40", "--k", "20"];
    let said = stderr(&rails_bench(&eval(&checkpoint, &algorithms)));
    assert!(said.contains("tangent:5 aims at fewer candidates than the 20 items of a result"), "{said}");
    assert!(!said.contains("avg:40") && !said.contains("exact aims"), "{said}");
}

#[test]
fn pt_safetensors_and_converted_file_give_identical_results() {
    let folder = tempfile::tempdir().unwrap();
    let converted = folder.path().join("model.safetensors");
    let pt = format!("{MOL}/model.pt");
    succeeds(&["convert", &pt, "-o", path(&converted)]);
    let results = |checkpoint: &str| {
        let mut json = eval_json(checkpoint, &["--algorithm", "exact,mips"]);
        for row in json["results"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_qps"));
        }
        json
    };
    let from_pt = results(&pt);
    assert_eq!(from_pt["users"], 96);
    assert_eq!(from_pt["results"].as_array().unwrap().len(), 2);
    assert_eq!(from_pt, results(&format!("{MOL}/model.safetensors")));
    assert_eq!(from_pt, results(path(&converted)));
    assert_ne!(
        from_pt["results"],
        results("tests/oracle/tiny_hstu_mol_geglu/model.pt")["results"],
        "nothing was compared"
    );
}

#[test]
fn limit_and_k_are_honoured() {
    let json = eval_json(&format!("{MOL}/model.pt"), &["--limit", "10", "--k", "50", "--batch-size", "3"]);
    let row = &json["results"][0];
    assert_eq!((&json["users"], &json["items"], &json["device"]), (&10.into(), &200.into(), &"cpu".into()));
    assert!(row["hr@50"].is_number() && row["hr@100"].is_null(), "{row}");
    let one_batch = eval_json(&format!("{MOL}/model.pt"), &["--limit", "10", "--k", "50"]);
    assert_eq!(row["mrr"], one_batch["results"][0]["mrr"], "the batch size must not matter");
}

#[test]
fn bench_measures_recall_against_exact() {
    let checkpoint = format!("{MOL}/model.pt");
    let mut args = eval(&checkpoint, &["--algorithm", "exact,tangent:200,MoLAvgTopK20", "--k", "10", "--limit", "40"]);
    args[0] = "bench";
    assert!(succeeds(&args).contains("recall@10"));
    args.extend(["--json", "-"]);
    let json: serde_json::Value = serde_json::from_str(&succeeds(&args)).unwrap();
    let rows = json["results"].as_array().unwrap();
    assert_eq!((rows[0]["recall@10"].as_f64(), rows[1]["recall@10"].as_f64()), (Some(1.0), Some(1.0)));
    let avg = rows[2]["recall@10"].as_f64().unwrap();
    assert!(rows[2]["algorithm"] == "avg:20" && avg > 0.2 && avg < 1.0, "{}", rows[2]);
    assert!(rows.iter().all(|row| row["ms_per_batch_p50"].as_f64().unwrap() > 0.0 && row["batch"] == 32));
}

#[test]
fn json_is_written_to_a_file_beside_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.json");
    let table = succeeds(&eval(&format!("{MOL}/model.pt"), &["--json", path(&file)]));
    assert!(table.contains("HR@10"));
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(json["results"][0]["algorithm"], "exact");
}

#[test]
fn search_recommends_unseen_items_with_titles() {
    let folder = tempfile::tempdir().unwrap();
    let movies = folder.path().join("movies.csv");
    let titles: String = (1..221).map(|id| format!("{id},Film {id} (1999),Drama\n")).collect();
    std::fs::write(&movies, format!("movieId,title,genres\n{titles}")).unwrap();
    let checkpoint = format!("{MOL}/model.pt");
    let common = ["--checkpoint", &checkpoint, "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    let mut args = vec!["search", "--user", "111", "--k", "7", "--movies", path(&movies)];
    args.extend(common);
    let list = succeeds(&args);
    assert!(list.contains("user 111: 3 events") && list.contains("Film 167 (1999)"), "{list}");
    let hits: Vec<&str> = list.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(hits.len(), 7, "{list}");
    for seen in ["163", "164", "167"] {
        assert!(hits.iter().all(|hit| hit.split_whitespace().nth(1) != Some(seen)), "{seen} was seen\n{list}");
    }
}

#[test]
fn preprocess_then_eval() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, csv) = (folder.path().join("events.txt"), folder.path().join("sequences.csv"));
    let events: String = (1..=9).flat_map(|user| (1..=6).map(move |i| format!("{user} {}\n", user * 7 + i))).collect();
    std::fs::write(&raw, events).unwrap();
    let report = succeeds(&["preprocess", "txt", path(&raw), "-o", path(&csv)]);
    assert!(report.contains("sequences.csv") && report.contains("sequences.items.txt"), "{report}");
    let checkpoint = format!("{MOL}/model.pt");
    succeeds(&["eval", "--device", "cpu", "--checkpoint", &checkpoint, "--dataset", path(&csv)]);
}

#[test]
fn bad_arguments_are_explained() {
    let checkpoint = format!("{MOL}/model.pt");
    refuses(&eval(&checkpoint, &["--k", "0"]), &["k: expected at least 1", "found 0"]);
    refuses(&eval(&checkpoint, &["--algorithm", "bogus"]), &["bogus", "exact"]);
    refuses(&eval(&checkpoint, &["--protocol", "bogus"]), &["bogus", "strict"]);
    refuses(&eval(&checkpoint, &["--batch-size", "0"]), &["--batch-size"]);
    let dataset = ["--dataset", "tests/oracle/tiny.csv"];
    refuses(
        &[&["eval", "--device", "geforce 9000", "--checkpoint", &checkpoint][..], &dataset].concat(),
        &["no device `geforce 9000`", "available", "`cpu`"],
    );
    refuses(
        &[&["search", "--user", "5", "--device", "cpu", "--checkpoint", &checkpoint][..], &dataset].concat(),
        &["user", "5", "tests/oracle/tiny.csv"],
    );
}

#[test]
fn bad_files_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let checkpoint = format!("{MOL}/model.pt");

    refuses(&eval("no/such/model.pt", &[]), &["no/such/model.pt"]);
    refuses(&["eval", "--checkpoint", &checkpoint, "--dataset", "no/such.csv"], &["no/such.csv"]);
    refuses(&eval(&checkpoint, &["--config", "no/such.gin"]), &["no/such.gin"]);

    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(at("truncated.pt"), &bytes[..bytes.len() / 2]).unwrap();
    refuses(&eval(path(&at("truncated.pt")), &["--config", &format!("{MOL}/config.gin")]), &["truncated.pt"]);

    std::fs::write(at("alone.pt"), &bytes).unwrap();
    refuses(&eval(path(&at("alone.pt")), &[]), &["holds no hyper-parameters", "--config"]);

    let wrong = changed_config(folder.path(), "item_embedding_dim = 16", "item_embedding_dim = 32");
    refuses(&eval(&checkpoint, &["--config", path(&wrong)]), &["_item_emb.weight", "expected", "32", "found", "16"]);

    std::fs::write(at("ids.txt"), "1\n2\n9999\n").unwrap();
    let mut args = eval(&checkpoint, &["--k", "1"]);
    let list = args.iter().position(|arg| *arg == "assets/demo.items.txt").unwrap();
    let ids = at("ids.txt");
    args[list] = path(&ids);
    refuses(&args, &["item ids", "1 to 220", "9999"]);

    let header = "index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps\n";
    std::fs::write(at("beyond.csv"), format!("{header}0,8,\"1,500,3\",\"4,4,4\",\"1,2,3\"\n")).unwrap();
    std::fs::write(at("single.csv"), format!("{header}0,8,\"1\",\"4\",\"1\"\n")).unwrap();
    std::fs::write(at("broken.csv"), format!("{header}0,8,\"1,2\",\"4,4\",\"1,2\"\n1,9,\"1,x\",\"4,4\",\"1,2\"\n"))
        .unwrap();
    let with = |name: &str| {
        let csv = at(name);
        rails_bench(&["eval", "--device", "cpu", "--checkpoint", &checkpoint, "--dataset", path(&csv)])
    };
    for (name, words) in [
        ("beyond.csv", ["500", "user 8"]),
        ("single.csv", ["at least two events", "1 users"]),
        ("broken.csv", ["broken.csv:3", "x"]),
    ] {
        let output = with(name);
        let message = stderr(&output);
        assert!(!output.status.success() && !message.contains("panicked"), "{name}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {words:?} not all in\n{message}");
    }
}

#[test]
fn unwritable_outputs_are_explained_before_the_work() {
    let checkpoint = format!("{MOL}/model.pt");
    refuses(&eval(&checkpoint, &["--json", "no/such/folder/out.json"]), &["no/such/folder/out.json"]);
    refuses(&["convert", &checkpoint, "-o", "no/such/folder/model.safetensors"], &["no/such/folder"]);
    refuses(&["preprocess", "txt", "no/such.txt", "-o", "no/such/folder/x.csv"], &["no/such/folder/x.csv"]);
    let folder = tempfile::tempdir().unwrap();
    let named_pt = folder.path().join("model.pt");
    refuses(&["convert", &checkpoint, "-o", path(&named_pt)], &["output: expected a name that ends in .safetensors"]);
    assert!(!named_pt.exists());
    // Only --json goes to standard output; a file called `-` is nobody's wish.
    let (kept, csv) = (folder.path().join("kept.json"), folder.path().join("x.csv"));
    let data = ["--checkpoint", &checkpoint, "--dataset", "tests/oracle/tiny.csv"];
    for (args, more) in [
        (vec!["convert", &checkpoint, "-o", "-"], &[][..]),
        (vec!["preprocess", "txt", "no/such.txt", "-o", "-"], &[]),
        (vec!["preprocess", "txt", "no/such.txt", "--items-output", "-", "-o", path(&csv)], &[]),
        (vec!["index", "build", "--checkpoint", &checkpoint, "-o", "-"], &[]),
        (vec!["bench", "--csv", "-"], &data),
        (vec!["man", "--folder", "-"], &[]),
    ] {
        refuses(&[&args[..], more].concat(), &["output: expected a file or folder", "--json", "found -"]);
    }
    assert!(!Path::new(crate::ROOT).join("-").exists());
    refuses(&["preprocess", "txt", "no/such.txt", "-o", path(&csv)], &["no/such.txt"]);
    std::fs::write(&kept, "earlier results").unwrap();
    refuses(&eval(&checkpoint, &["--k", "0", "--json", path(&kept)]), &["found 0"]);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "earlier results");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a failed run leaves no file behind");
}

/// Every option that writes, onto every kind of input, by every way there is to name it.
#[test]
fn no_output_replaces_an_input() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(Path::new(crate::ROOT).join(from), at(to)).unwrap();
    copy(&format!("{MOL}/model.pt"), "m.pt");
    copy(&format!("{MOL}/config.gin"), "config.gin");
    copy(&format!("{MOL}/model.safetensors"), "m.safetensors");
    copy("tests/oracle/tiny.csv", "d.csv");
    copy("assets/demo.items.txt", "i.txt");
    std::fs::write(at("t.txt"), "1 2\n1 3\n").unwrap();
    std::fs::write(at("t.items.txt"), "1 2\n1 3\n").unwrap();
    std::fs::write(at("ratings.dat"), "1::2::5::1\n").unwrap();
    std::fs::write(at("movies.dat"), "2::B::x\n").unwrap();
    std::fs::hard_link(at("m.pt"), at("hard.pt")).unwrap();
    let (m, d, i) = (at("m.pt"), at("d.csv"), at("i.txt"));
    succeeds(&["index", "build", "--checkpoint", &m, "--device", "cpu", "-o", &at("idx")]);
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let folders = [folder.path().to_path_buf(), folder.path().join("idx")];
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut files: Vec<_> = files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
        files.sort();
        files
    };
    let before = files();
    let other = folder.path().join("idx/../m.pt").into_os_string().into_string().unwrap();
    let eval = ["eval", "--device", "cpu", "--checkpoint", &m, "--dataset", &d, "--item-ids", &i, "--json"];
    let bench = ["bench", "--device", "cpu", "--checkpoint", &m, "--dataset", &d, "--item-ids", &i];
    let preprocess = |input: &str, output: &str| ["preprocess", "txt", input, "-o", output].map(str::to_string);
    let cases: Vec<Vec<String>> = [
        &["convert", &m, "-o", &m][..],
        &["convert", &m, "-o", &other],
        &["convert", &m, "-o", &at("hard.pt")],
        &["convert", &at("m.safetensors"), "-o", &at("m.safetensors")],
        &["convert", &m, "-o", &at("config.gin")],
        &[&eval[..], &[&d]].concat(),
        &[&eval[..], &[&i]].concat(),
        &[&eval[..], &[&m]].concat(),
        &[&bench[..], &["--csv", &d]].concat(),
        &[&bench[..], &["--html", &m]].concat(),
        &[&bench[..], &["--json", &i]].concat(),
        &[&bench[..], &["--csv", &at("x"), "--html", &at("x")]].concat(),
        &["eval", "--device", "cpu", "--index", &at("idx"), "--dataset", &d, "--json", &at("idx/manifest.json")],
        &["index", "info", &at("idx"), "--json", &at("idx/lock")],
        &["index", "verify", &at("idx"), "--json", &at("idx/new.json")],
        &["preprocess", "ml-1m", &at(""), "-o", &at("ratings.dat")],
        &["preprocess", "ml-1m", &at("ratings.dat"), "-o", &at("x.csv"), "--items-output", &at("movies.dat")],
        &["preprocess", "txt", &at("t.txt"), "-o", &at("x.csv"), "--items-output", &at("x.csv")],
    ]
    .iter()
    .map(|args| args.iter().map(|arg| arg.to_string()).collect())
    .chain([preprocess(&at("t.txt"), &at("t.txt")).to_vec(), preprocess(&at("t.items.txt"), &at("t.csv")).to_vec()])
    .collect();
    for args in &cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refuses(&args, &["output: expected a path of its own, where nothing is lost, found"]);
        assert!(files() == before, "{args:?} changed a file");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("m.pt"), at("link.pt")).unwrap();
        std::os::unix::fs::symlink(at("."), at("here")).unwrap();
        refuses(&["convert", &m, "-o", &at("link.pt")], &["it would replace the input"]);
        refuses(&["convert", &at("link.pt"), "-o", &at("here/m.pt")], &["it would replace the input"]);
    }
    // What is not read may be replaced.
    succeeds(&["preprocess", "txt", &at("t.txt"), "-o", &at("d.csv")]);
}

#[test]
fn an_empty_history_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("empty.csv");
    let header = "index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps\n";
    std::fs::write(&csv, format!("{header}0,8,\"\",\"\",\"\"\n")).unwrap();
    let checkpoint = format!("{MOL}/model.pt");
    refuses(
        &["search", "--user", "8", "--device", "cpu", "--checkpoint", &checkpoint, "--dataset", path(&csv)],
        &["empty.csv:2"],
    );
}

#[test]
fn a_stored_index_answers_as_one_in_memory_without_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let checkpoint = format!("{MOL}/model.pt");
    let build = ["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "-o", path(&index)];
    let made = succeeds(&[&build[..], &["--items", "assets/demo.items.txt", "--segment-items", "64"]].concat());
    assert!(made.contains("200 in 4 segments; 0 deleted") && made.contains("MoL 4x2x16"), "{made}");
    let data = ["--device", "cpu", "--dataset", "tests/oracle/tiny.csv"];
    let items = ["--checkpoint", &checkpoint, "--item-ids", "assets/demo.items.txt"];
    let stored = ["--index", path(&index)];
    let search = ["search", "--user", "37", "--k", "7", "--algorithm", "tangent:100"];
    let from_memory = succeeds(&[&search[..], &data, &items].concat());
    assert_eq!(succeeds(&[&search[..], &data, &stored, &["--check-index"]].concat()), from_memory);
    assert_eq!(succeeds(&[&search[..], &data, &stored, &["--device-memory", "0"]].concat()), from_memory);
    let results = |more: &[&str]| -> serde_json::Value {
        let eval = ["eval", "--algorithm", "exact,mips,tangent:200", "--json", "-"];
        let mut json: serde_json::Value = serde_json::from_str(&succeeds(&[&eval[..], &data, more].concat())).unwrap();
        for row in json["results"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_qps"));
        }
        let source = json.as_object_mut().unwrap().remove("item_source").unwrap();
        let expected = if more == stored { format!("index {}", path(&index)) } else { items[3].to_string() };
        assert_eq!(source, expected);
        json
    };
    let all = results(&items);
    assert_eq!(results(&stored), all);
    assert_eq!((&all["items"], &all["dtype"]), (&200.into(), &"f32".into()));

    // Without some, and with them again.
    let few = folder.path().join("few.txt");
    std::fs::write(&few, "1\n2\n3\n4\n5\n200\n").unwrap();
    let removed = succeeds(&["index", "remove", path(&index), "--ids", path(&few)]);
    assert!(removed.contains(" items removed, 19") && results(&stored) != all, "{removed}");
    let info = ["index", "info", path(&index), "--json", "-"];
    let info = || -> serde_json::Value { serde_json::from_str(&succeeds(&info)).unwrap() };
    assert_eq!(info()["items"].as_u64().unwrap() + info()["deleted"].as_u64().unwrap(), 200);
    let added = succeeds(&["index", "add", path(&index), "--items", "assets/demo.items.txt"]);
    assert!(added.contains("200 now"), "{added}");
    succeeds(&["index", "compact", path(&index)]);
    assert_eq!((&info()["deleted"], info()["items"].as_u64()), (&0.into(), Some(200)));
    assert!(succeeds(&["index", "verify", path(&index)]).contains("sound"));
    assert_eq!(results(&stored), all);
}

#[test]
fn items_are_found_by_their_attributes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let (index, csv, checkpoint) = (at("index"), at("items.csv"), format!("{MOL}/model.pt"));
    let (other, parquet) = (at("other"), at("items.parquet"));
    let genre = |id: u32| if id.is_multiple_of(2) { "Comedy" } else { "Drama" };
    let list = std::fs::read_to_string(Path::new(crate::ROOT).join("assets/demo.items.txt")).unwrap();
    let row = |line: &str| {
        let id: u32 = line.parse().unwrap();
        format!("{id},{},{}\n", 1900 + id, genre(id))
    };
    std::fs::write(&csv, format!("item_id,year,genre\n{}", list.lines().map(row).collect::<String>())).unwrap();
    let build = ["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "--items", "assets/demo.items.txt"];
    let made = succeeds(&[&build[..], &["-o", &index, "--attributes", &csv]].concat());
    assert!(made.contains("attributes year INTEGER, genre TEXT"), "{made}");
    let data = ["--device", "cpu", "--dataset", "tests/oracle/tiny.csv"];
    let condition = ["--where", "year >= 1990 AND genre = 'Comedy'"];
    let (stored, memory) = (["--index", &index], ["--checkpoint", &checkpoint, "--item-ids", "assets/demo.items.txt"]);
    let search = ["search", "--user", "37", "--k", "200", "--json", "-"];
    let ids = |more: &[&str], condition: &[&str]| -> Vec<u64> {
        let found = succeeds(&[&search[..], &data, more, condition].concat());
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        found["results"].as_array().unwrap().iter().map(|hit| hit["item"].as_u64().unwrap()).collect()
    };
    let found = ids(&stored, &condition);
    assert!(found.len() > 40 && found.iter().all(|id| id % 2 == 0 && *id >= 90), "{found:?}");
    assert_eq!(ids(&[&memory[..], &["--attributes", &csv]].concat(), &condition), found);
    let everything = ids(&stored, &[]);
    assert_eq!(everything.into_iter().filter(|id| id % 2 == 0 && *id >= 90).collect::<Vec<_>>(), found);
    for command in ["eval", "bench"] {
        let measured = rails_bench(
            &[&[command, "--algorithm", "exact,tangent:50", "--k", "5"], &data[..], &stored, &condition].concat(),
        );
        assert!(measured.status.success(), "{}", stderr(&measured));
        assert!(stdout(&measured).contains("where year >= 1990"), "{}", stdout(&measured));
    }
    let rows =
        [&["bench", "--items", "50,200", "--algorithm", "exact", "--k", "5", "--limit", "40"], &data[..], &memory]
            .concat();
    succeeds(&[&rows[..], &["--attributes", &csv, "--where", "year > 1900"]].concat());

    let refuse = |more: &[&str], words: &[&str]| {
        refuses(&[&["search", "--user", "37"], &data[..], &stored, more].concat(), words)
    };
    refuse(&["--where", "yeer > 3"], &["id INTEGER, year INTEGER, genre TEXT, found no such column: yeer"]);
    refuse(&["--where", "1); DROP TABLE items; --"], &["a closing parenthesis too many"]);
    refuse(&["--attributes", &csv], &["cannot be used with"]);
    refuses(&[&["search", "--user", "37"], &data[..], &memory, &condition].concat(), &["an index with attributes"]);
    std::fs::write(&csv, "item_id,year\n1,3\n777,4\n").unwrap();
    let again = [&build[..], &["-o", &other, "--attributes", &csv]].concat();
    refuses(
        &again,
        &["attributes: expected attributes of items that are indexed with them, found 1 of other ids, the first 777"],
    );
    std::fs::write(&parquet, "PAR1").unwrap();
    refuses(&[&build[..], &["-o", &other, "--attributes", &parquet]].concat(), &["CSV or TSV"]);
}

#[test]
fn wrong_uses_of_an_index_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let checkpoint = format!("{MOL}/model.pt");
    let search = ["search", "--user", "37", "--device", "cpu", "--dataset", "tests/oracle/tiny.csv"];
    refuses(&[&search[..], &["--index", path(&index)]].concat(), &["index", "no index here"]);
    refuses(&search, &["--checkpoint or --index"]);
    let build = ["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "-o", path(&index)];
    refuses(&[&build[..], &["--items", "random:many"]].concat(), &["random:N"]);
    refuses(&[&build[..], &["--items", "random:0"]].concat(), &["at least one item"]);
    refuses(&[&build[..], &["--items", "no/such.safetensors"]].concat(), &["no/such.safetensors"]);
    refuses(&[&build[..], &["--items", "no/such.txt"]].concat(), &["no/such.txt"]);
    let hidden = "tests/oracle/tiny_hstu_mol_itemhidden/model.pt";
    refuses(
        &["index", "build", "--checkpoint", hidden, "--device", "cpu", "-o", path(&index), "--form", "raw"],
        &["raw form", "item_hidden"],
    );
    succeeds(&[&build[..], &["--items", "random:30:5", "--dtype", "int8", "--form", "raw"]].concat());
    refuses(&[&build[..], &["--items", "random:30"]].concat(), &["there is an index already"]);
    refuses(&["index", "add", path(&index), "--items", "no/such.txt"], &["no/such.txt"]);
    refuses(&["index", "remove", path(&index), "--ids", "no/such.txt"], &["no/such.txt"]);
    refuses(&["index", "info", "no/such"], &["no index here", "index build"]);
    // What would be ignored is refused.
    for (option, file) in [("--checkpoint", checkpoint.as_str()), ("--config", "tests/oracle/tiny_hstu_mol/config.gin")]
    {
        for command in ["eval", "bench"] {
            let args = [command, "--index", path(&index), "--dataset", "tests/oracle/tiny.csv", option, file];
            refuses(&args, &[&option[2..], "expected no --", "the index has its model in it"]);
        }
    }
    refuses(&["index", "verify", "no/such"], &["no index here"]);
    let both = [&search[..], &["--index", path(&index), "--item-ids", "assets/demo.items.txt"]].concat();
    refuses(&both, &["--item-ids", "cannot be used"]);
}

#[test]
fn a_stored_index_is_measured_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let checkpoint = format!("{MOL}/model.pt");
    let build = ["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "-o", path(&index)];
    let kind = ["--dtype", "int8", "--lists", "4", "--distill", "tests/oracle/tiny.csv"];
    succeeds(&[&build[..], &["--items", "assets/demo.items.txt"], &kind].concat());
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .into_iter()
            .filter(|file| file.is_file())
            .map(|file| (file.clone(), std::fs::read(file).unwrap()))
            .collect()
    };
    let before = files();
    let bench = ["bench", "--dataset", "tests/oracle/tiny.csv", "--device", "cpu", "--k", "10", "--limit", "20"];
    let stored = ["--index", path(&index), "--warm-up", "0"];
    let algorithms = ["--algorithm", "exact,naive-ivf:60@4,distilled:200", "--json", "-"];
    let json: serde_json::Value =
        serde_json::from_str(&succeeds(&[&bench[..], &stored, &algorithms].concat())).unwrap();
    assert_eq!(json["items"], 200);
    let rows = json["results"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!((&row["dtype"], &row["items"]), (&"int8".into(), &200.into()));
    }
    assert_eq!((rows[0]["recall@10"].as_f64(), rows[2]["recall@10"].as_f64()), (Some(1.0), Some(1.0)));
    assert_eq!(files(), before, "measuring changes nothing");
    assert!(!before.is_empty());

    refuses(&[&bench[..], &stored, &["--items", "100"]].concat(), &["--items", "--index"]);
    refuses(&[&bench[..], &stored, &["--form", "raw"]].concat(), &["--form", "--index"]);
    refuses(&["bench", "--index", path(&index)], &["--dataset"]);
    refuses(&[&bench[..], &["--index", "no/such"]].concat(), &["no index here"]);
}

/// A similarity as `export_mol` writes it, and items as `np.save` does.
#[test]
fn a_similarity_of_ones_own_becomes_an_index() {
    use rails_wgpu::checkpoint::{Checkpoint, save_safetensors};
    use rails_wgpu::config::ModelConfig;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let checkpoint = Checkpoint::open(format!("{MOL}/model.pt")).unwrap();
    let config = ModelConfig::from_gin(format!("{MOL}/config.gin")).unwrap();
    let mut mol = serde_json::to_value(&config.similarity).unwrap();
    mol.as_object_mut().unwrap().remove("type");
    let json = serde_json::json!({ "format": 1, "dim": 16, "mol": mol }).to_string();
    let names = checkpoint.names().filter(|name| name.starts_with("_ndp_module."));
    let mut tensors: Vec<_> = names.map(|name| (name.to_string(), checkpoint.tensor(name).unwrap())).collect();
    let metadata = [("rails.mol".to_string(), json)].into();
    save_safetensors(at("mol.safetensors"), &tensors, &metadata).unwrap();
    let table = checkpoint.tensor("_embedding_module._item_emb.weight").unwrap();
    let n = 50;
    let npy = |name: &str, dtype: &str, shape: &str, data: &[u8]| npy(Path::new(&at(name)), dtype, shape, data);
    let rows = &table.data()[16..16 * (n + 1)];
    npy("items.npy", "<f4", "(50, 16)", &rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());

    let (mol, items) = (at("mol.safetensors"), at("items.npy"));
    let build = ["index", "build", "--checkpoint", &mol, "--device", "cpu", "-o"];
    let index = at("idx");
    let made = succeeds(&[&build[..], &[&index, "--items", &items, "--lists", "3"]].concat());
    assert!(made.contains(" 50 in ") && made.contains("MoL 4x2x16, D = 16; encoder no"), "{made}");
    npy("new.npy", "<f4", "(1, 16)", &[0; 64]);
    npy("new.ids.npy", "<i8", "(1,)", &77i64.to_le_bytes());
    assert!(
        succeeds(&["index", "add", &index, "--items", &at("new.npy")]).contains("1 item added, 0 replaced; 51 now")
    );
    assert!(succeeds(&["index", "add", &index, "--items", &items]).contains("0 items added, 50 replaced; 51 now"));
    assert!(succeeds(&["index", "remove", &index, "--ids", &at("new.ids.npy")]).contains("1 item removed, 50 left"));
    refuses(&[&build[..], &[&at("a")]].concat(), &["items: expected", ".npy file", "no item table", "found none"]);
    refuses(&[&build[..], &[&at("a"), "--items", "random:9"]].concat(), &["no item table", "synthetic"]);
    let distill = ["--items", &items, "--distill", "tests/oracle/tiny.csv"];
    refuses(&[&build[..], &[&at("a")], &distill].concat(), &["distill: expected a whole model", "a similarity only"]);
    let search = ["search", "--user", "37", "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    refuses(&[&search[..], &["--index", &index]].concat(), &["an index without one"]);
    let whole = format!("{MOL}/model.pt");
    let found = succeeds(&[&search[..], &["--index", &index, "--checkpoint", &whole, "--k", "3"]].concat());
    assert!(found.contains("rank"), "the encoder of a checkpoint serves an index without one: {found}");
    let removed = succeeds(&["index", "remove", &index, "--ids", "3, 4,999"]);
    assert!(removed.contains("2 items removed, 48 left"), "{removed}");
    assert!(!folder.path().join("a").exists(), "nothing was begun");

    // The same file, with items and queries in it, is one for `bench`.
    let matrix = |rows: std::ops::Range<usize>| {
        let data = table.data()[16 * rows.start..16 * rows.end].to_vec();
        rails_wgpu::Tensor::new(vec![rows.len(), 16], data).unwrap()
    };
    let ids = |n: usize| rails_wgpu::Tensor::new(vec![n], (0..n).map(|id| id as f32).collect::<Vec<_>>()).unwrap();
    tensors.extend([("items".into(), matrix(1..51)), ("item_ids".into(), ids(50))]);
    tensors.extend([("queries".into(), matrix(60..68)), ("user_ids".into(), ids(8))]);
    save_safetensors(at("bench.safetensors"), &tensors, &metadata).unwrap();
    let bench = ["bench", "--bench-file", &at("bench.safetensors"), "--device", "cpu", "--k", "5", "--runs", "1"];
    let output = rails_bench(&[&bench[..], &["--algorithm", "exact"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("MoL 4x2x16") && !stderr(&output).contains("no hyper-parameters"));
}

#[test]
fn real_items_are_not_lost_to_synthetic_ones() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("idx");
    let checkpoint = format!("{MOL}/model.pt");
    let build = ["index", "build", "--checkpoint", &checkpoint, "--device", "cpu", "-o", path(&index)];
    succeeds(&[&build[..], &["--items", "assets/demo.items.txt", "--dtype", "f16"]].concat());
    let add = ["index", "add", path(&index), "--items", "random:100"];
    let version = || succeeds(&["index", "info", path(&index), "--json", "-"]);
    let before = version();
    refuses(&add, &["items: expected ids 1 to N that are free", "--replace", "items with such ids"]);
    assert_eq!(version(), before);
    assert!(succeeds(&[&add[..], &["--replace"]].concat()).contains(" replaced; "));
    assert!(version() != before);

    // Another number format than the index has.
    let data = ["--index", path(&index), "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    let eval = [&["eval", "--limit", "5"][..], &data].concat();
    for wrong in ["f32", "int8"] {
        refuses(&[&eval[..], &["--dtype", wrong]].concat(), &["dtype: expected f16, that of the stored index", wrong]);
        let both = format!("f16,{wrong}");
        let bench = [&["bench", "--limit", "5", "--dtype", &both][..], &data].concat();
        refuses(&bench, &["dtype: expected f16, that of the stored index", wrong]);
    }
    succeeds(&[&eval[..], &["--dtype", "f16"]].concat());

    // Nothing left.
    succeeds(&["index", "remove", path(&index), "--ids", "assets/demo.items.txt"]);
    let left = folder.path().join("left.txt");
    std::fs::write(&left, (1..=100).map(|id| format!("{id}\n")).collect::<String>()).unwrap();
    succeeds(&["index", "remove", path(&index), "--ids", path(&left)]);
    refuses(&eval, &["index: expected at least one item", "rails-bench index add"]);
    refuses(&[&["search", "--user", "37"][..], &data].concat(), &["index: expected at least one item"]);
}

/// Data of one's own, from events with ids of any text to an answer in these ids.
#[test]
fn ids_of_the_raw_data_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let user = |name: &str, from: usize| -> String {
        (0..6).map(|i| format!("{name},film-{:03},{}\n", from + i, 1_000 + i)).collect()
    };
    let events = format!("user,item,timestamp\n{}{}", user("zoe", 3), user("\"-7, \"\"x\"\"\"", 40));
    std::fs::write(at("events.csv"), events).unwrap();
    std::fs::write(at("titles.csv"), "item,title\nfilm-008,Last\nfilm-999,Nobody's\n").unwrap();
    let csv = at("seq.csv");
    let report = succeeds(&["preprocess", "csv", &at("events.csv"), "-o", &csv]);
    assert!(report.contains("ids numbered anew      users yes, items yes"), "{report}");
    // A warning is said once.
    std::fs::write(at("ratings.dat"), "1::2::5::1\n").unwrap();
    let output = rails_bench(&["preprocess", "ml-1m", &at(""), "-o", &at("ml.csv")]);
    assert!(stdout(&output).contains("the list of items holds the rated ones only"), "{}", stdout(&output));
    assert_eq!(stderr(&output), "");
    let checkpoint = format!("{MOL}/model.pt");
    let data = ["--checkpoint", &checkpoint, "--dataset", &csv, "--device", "cpu"];
    let items = at("seq.items.txt");
    let search = |user: &str, more: &[&str]| {
        let args = [&["search", "--user", user][..], &data, more].concat();
        let output = rails_bench(&args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let (list, warnings) = search("zoe", &["--item-ids", &items, "--movies", &at("titles.csv")]);
    assert!(list.starts_with("user zoe: 6 events, the last ones: film-004, film-005"), "{list}");
    assert!(list.contains("film-008 Last") && !list.contains("Nobody"), "{list}");
    // Without --k what there is: 12 items, of which 6 are seen.
    assert_eq!(list.lines().filter(|line| line.contains("film-04")).count(), 6, "{list}");
    assert_eq!(warnings, "");
    let beside = search("-7, \"x\"", &["--k", "3"]).0;
    assert!(beside.contains("the last ones: film-041, film-042"), "{beside}");
    refuses(&[&["search", "--user", "1"][..], &data].concat(), &["one of the 2 user ids of the raw data", "found 1"]);

    // What is probably wrong is said, in a line each.
    let header = "index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps\n";
    let rows = "0,5,\"1,2\",\"4,4\",\"9,8\"\n1,5,\"3,4\",\"4,4\",\"8,1700000000000\"\n";
    std::fs::write(at("odd.csv"), format!("{header}{rows}")).unwrap();
    std::fs::write(at("three.txt"), "1\n2\n3\n").unwrap();
    let odd = at("odd.csv");
    let data = ["--checkpoint", &checkpoint, "--dataset", &odd, "--device", "cpu", "--item-ids", &at("three.txt")];
    let output = rails_bench(&[&["search", "--user", "5", "--include-seen", "--now", "-5"][..], &data].concat());
    assert_eq!(stdout(&output).lines().filter(|line| line.starts_with(['1', '2', '3'])).count(), 3, "three items");
    for warning in [
        "odd.csv: users with events out of time order: 1;",
        "odd.csv: users with timestamps beyond the year 5000: 1;",
        "odd.csv: 2 rows have the user 5; the first one is taken",
        "--now -5 is before the last event",
    ] {
        let lines = stderr(&output);
        assert_eq!(
            lines.lines().filter(|line| line.starts_with("warning: ") && line.contains(warning)).count(),
            1,
            "{lines}"
        );
    }
    let output = rails_bench(&[&["eval"][..], &data].concat());
    assert!(
        stderr(&output).contains("users whose next item is not among the items, which counts as not found: 1 of 2"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn search_says_what_it_took() {
    let checkpoint = format!("{MOL}/model.pt");
    let search = ["search", "--user", "37", "--k", "7", "--device", "cpu", "--dataset", "tests/oracle/tiny.csv"];
    let stats =
        ["--checkpoint", &checkpoint, "--item-ids", "assets/demo.items.txt", "--algorithm", "avg:50", "--stats"];
    let text = succeeds(&[&search[..], &stats].concat());
    assert!(text.contains("50 pairs scored, 0 pruned; 50 candidates;"), "{text}");
    for stage in ["query-side", "first-stage", "scoring", "selection", "certifying", "total"] {
        assert!(text.lines().any(|line| line.starts_with(stage)), "{stage} is not in\n{text}");
    }
}

/// Whoever reads the output may have seen enough: `rails-bench devices | head -1`.
#[test]
fn a_closed_standard_output_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = format!("{MOL}/model.pt");
    let (index, csv, converted) =
        (folder.path().join("index"), folder.path().join("bench.csv"), folder.path().join("model.safetensors"));
    let build = ["index", "build", "--checkpoint", &checkpoint, "--items", "random:30", "--device", "cpu", "-o"];
    succeeds(&[&build[..], &[path(&index)]].concat());
    let data = ["--checkpoint", &checkpoint, "--dataset", "tests/oracle/tiny.csv", "--device", "cpu"];
    let run: [&[&str]; 9] = [
        &["devices"],
        &["demo", "--device", "cpu"],
        &["convert", &checkpoint, "-o", path(&converted)],
        &["index", "info", path(&index)],
        &["index", "verify", path(&index), "--json", "-"],
        &[&["eval", "--json", "-"][..], &data].concat(),
        &[&["search", "--user", "37", "--stats"][..], &data].concat(),
        &[&["bench", "--limit", "10", "--k", "5", "--algorithm", "exact", "--csv", path(&csv)][..], &data].concat(),
        &["--help"],
    ];
    for args in run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rails-bench"))
            .current_dir(crate::ROOT)
            .args(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Before the program has written anything, or soon after.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args:?}: {}", stderr(&output));
    }
    assert!(std::fs::read_to_string(csv).unwrap().contains("exact"), "files are written all the same");
    assert!(converted.exists());
}

#[test]
fn completions_and_manual_pages_know_commands_options_and_values() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let completions = succeeds(&["completions", shell]);
        assert!(["preprocess", "item-ids", "dtype"].iter().all(|word| completions.contains(word)), "{shell}");
    }
    assert!(succeeds(&["completions", "bash"]).contains("f32 f16 int8"));
    refuses(&["completions", "edlin"], &["edlin", "bash"]);
    assert!(succeeds(&["man"]).contains("preprocess"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(succeeds(&["man", "--folder", path(folder.path())]), "");
    let page = std::fs::read_to_string(folder.path().join("rails-bench-eval.1")).unwrap();
    assert!(page.contains("algorithm") && page.contains("tangent:K"), "{page}");
    refuses(&["man", "--folder", "no/such/folder"], &["no/such/folder"]);
}

/// What `np.save` writes of numbers.
fn npy(path: &Path, dtype: &str, shape: &str, data: &[u8]) {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    let file =
        [b"\x93NUMPY\x01\x00", &(118u16).to_le_bytes()[..], format!("{header:<117}\n").as_bytes(), data].concat();
    std::fs::write(path, file).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Given components, by the softmax of their logits; results as a run, and its quality.
#[test]
fn given_components_are_indexed_searched_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder.path().join(name)).to_string();
    // Two components of two numbers for each of three items and two queries.
    let items = [1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 2.0, -1.0, 0.0, 0.0, -1.0];
    let queries = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0];
    npy(folder.path().join("items.npy").as_path(), "<f4", "(3, 2, 2)", &floats(&items));
    npy(folder.path().join("items.ids.npy").as_path(), "<i8", "(3,)", &[10i64, 20, 30].map(i64::to_le_bytes).concat());
    npy(folder.path().join("queries.npy").as_path(), "<f4", "(2, 2, 2)", &floats(&queries));
    npy(folder.path().join("flat.npy").as_path(), "<f4", "(3, 4)", &floats(&items));
    let build = ["index", "build", "--device", "cpu", "--components", &at("items.npy"), "-o"];
    // The model of the environment is for other commands.
    let mut built = Command::new(env!("CARGO_BIN_EXE_rails-bench"));
    built.env("RAILS_CHECKPOINT", "assets/demo.safetensors").env("RAILS_CONFIG", "nothing.gin");
    let built = built.args([&build[..], &[&at("index"), "--temperature", "0.5"]].concat()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    refuses(
        &[&build[..], &[&at("new"), "--checkpoint", "assets/demo.safetensors"]].concat(),
        &["checkpoint: expected none beside --components", "found assets/demo.safetensors"],
    );
    for components in ["100000000", "18446744073709551615"] {
        refuses(
            &[&build[..], &[&at("new"), "--query-components", components]].concat(),
            &["expected at most 4096 logits, P_Q * P_X", &format!("found {components} * 2")],
        );
    }
    let search = ["index", "search", &at("index"), "--queries", &at("queries.npy"), "--device", "cpu", "-o"];
    let said = succeeds(&[&search[..], &[&at("run"), "--k", "2", "--run-name", "mine"]].concat());
    assert!(said.contains("results of 2 queries"), "{said}");
    let run = std::fs::read_to_string(at("run")).unwrap();
    // Query 0 and item 10: logits 2, 0, 0, 0.
    let weight = 1f32.exp().powi(2);
    let lines: Vec<Vec<&str>> = run.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(
        lines.iter().map(|line| (line[0], line[2], line[3])).collect::<Vec<_>>(),
        [("0", "10", "1"), ("0", "20", "2"), ("1", "20", "1"), ("1", "10", "2")]
    );
    assert!((lines[0][4].parse::<f32>().unwrap() - 2.0 * weight / (weight + 3.0)).abs() < 1e-5, "{run}");
    assert_eq!((lines[1][4], lines[2][4], lines[0][5]), ("0", "4", "mine"));

    std::fs::write(at("qrels"), "0 0 10 1\n1 0 10 2\n1 0 20 0\n7 0 10 1\n").unwrap();
    let judge =
        ["eval-run", "--qrels", &at("qrels"), "--run", &at("run"), "--metric", "mrr@10,hr@1,recall@2", "--json", "-"];
    let judged: serde_json::Value = serde_json::from_str(&succeeds(&judge)).unwrap();
    assert_eq!(judged["metrics"], serde_json::json!({ "mrr@10": 0.75, "hr@1": 0.5, "recall@2": 1.0 }));
    assert_eq!((&judged["queries"]["1"]["mrr@10"], &judged["missing_queries"]), (&0.5.into(), &1.into()));
    let all = succeeds(&["eval-run", "--qrels", &at("qrels"), "--run", &at("run"), "--all-judged", "--metric", "mrr"]);
    assert!(all.contains("mrr") && all.contains("0.5000"), "{all}");

    // The same with string ids.
    std::fs::write(at("names"), "first item\nsecond\n\nthird\n").unwrap();
    std::fs::write(at("queries.txt"), "what\nwhere\n").unwrap();
    let named = ["--string-ids", &at("names")];
    succeeds(&[&build[..], &[&at("named")], &named].concat());
    let search_named =
        ["index", "search", &at("named"), "--queries", &at("queries.npy"), "--device", "cpu", "-o", &at("run2")];
    refuses(&search_named, &["name: expected a name without blanks", "`first item`"]);
    std::fs::write(at("gone"), "first item\nunknown\n").unwrap();
    let removed = succeeds(&["index", "remove", &at("named"), "--string-ids", &at("gone")]);
    assert!(removed.contains("1 item removed, 2 left"), "{removed}");
    // What is wrong with names is said before the device opens.
    let early = [&search_named[..5], &["--device", "no such device", "-o", search_named[8]]].concat();
    for (names, words) in [("what\nwhat\n", "each name once, found `what` twice"), ("a b\nc\n", "found `a b`")] {
        std::fs::write(at("wrong.txt"), names).unwrap();
        refuses(&[&early[..], &["--query-ids", &at("wrong.txt")]].concat(), &[words]);
    }
    refuses(&[&early[..], &["--run-name", "two words"]].concat(), &["without blanks", "`two words`"]);
    succeeds(&[&search_named[..], &["--query-ids", &at("queries.txt")]].concat());
    let run = std::fs::read_to_string(at("run2")).unwrap();
    assert!(run.starts_with("what Q0 second 1 0 ") && run.contains("\nwhere Q0 second 1 "), "{run}");
    let add = ["index", "add", &at("named"), "--items", &at("items.npy")];
    refuses(&add, &["item ids: expected strings, as those of the index, found numbers"]);
    let added = succeeds(&[&add[..], &named].concat());
    assert!(added.contains("1 item added, 2 replaced; 3 now"), "{added}");
    assert!(succeeds(&["index", "verify", &at("named")]).contains(": sound"));

    std::fs::write(at("bad"), "1 Q0 a 1 x y\n").unwrap();
    refuses(&["eval-run", "--qrels", &at("qrels"), "--run", &at("bad")], &["bad:1: expected a score", "found `x`"]);
    refuses(&["eval-run", "--qrels", &at("bad"), "--run", &at("run")], &["bad:1: expected 4 fields"]);
    refuses(
        &["index", "build", "--components", &at("flat.npy"), "-o", &at("new")],
        &["components: expected", "(N, P_X, D_P)"],
    );
    refuses(&[&build[..], &[&at("new"), "--temperature", "0"]].concat(), &["temperature", "above 0"]);
    refuses(
        &[&build[..], &[&at("new"), "--gate", "assets/demo.safetensors"]].concat(),
        &["gate: expected", "another model"],
    );
    refuses(&[&build[..], &[&at("new"), "--form", "raw"]].concat(), &["given components"]);
    let run = ["index", "search", &at("index"), "--queries", &at("flat.npy"), "-o", &at("run"), "--algorithm", "mips"];
    refuses(&run, &["expected one of Mixture-of-Logits", "inner products"]);
    refuses(&[&search[..5], &["-o", &at("index/run")]].concat(), &["it would lie in the index"]);
}

/// Token embeddings from files to a run, by MaxSim.
#[test]
fn token_embeddings_are_indexed_changed_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder.path().join(name)).to_string();
    let array = |name: &str, shape: &str, values: &[f32]| npy(Path::new(&at(name)), "<f4", shape, &floats(values));
    let whole = |name: &str, values: &[i64]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        npy(Path::new(&at(name)), "<i8", &format!("({},)", values.len()), &data);
    };
    // Items of two, one and three token embeddings; queries of one and two.
    array("items.npy", "(6, 2)", &[1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 2.0, 0.0, -1.0, 0.0, 0.0, -2.0]);
    whole("items.lengths.npy", &[2, 1, 3]);
    whole("items.ids.npy", &[30, 20, 10]);
    array("queries.npy", "(3, 2)", &[0.0, 1.0, 1.0, 0.0, 0.0, -1.0]);
    whole("queries.lengths.npy", &[1, 2]);
    let build = ["index", "build", "--device", "cpu", "--token-embeddings", &at("items.npy"), "-o"];
    let built = succeeds(&[&build[..], &[&at("index"), "--segment-items", "2", "--lists", "0"]].concat());
    assert!(built.contains("items      3 in 2 segments") && built.contains("similarity MaxSim, D = 2"), "{built}");
    let info: serde_json::Value =
        serde_json::from_str(&succeeds(&["index", "info", &at("index"), "--json", "-"])).unwrap();
    assert_eq!(info["token_embeddings"], true);
    let search =
        ["index", "search", &at("index"), "--queries", &at("queries.npy"), "--device", "cpu", "-o", &at("run")];
    let results = |args: &[&str]| {
        succeeds(&[&search[..], args].concat());
        let run = std::fs::read_to_string(at("run")).unwrap();
        let fields = run.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields.map(|line| format!("{} {} {}", line[0], line[2], line[4])).collect::<Vec<_>>()
    };
    // Maxima for query 0 are 1, 0.5, 0; for query 1 they are 1 + 0, 0.5 - 0.5, 2 + 2.
    let exact = ["0 30 1", "0 20 0.5", "0 10 0", "1 10 4", "1 30 1", "1 20 0"];
    assert_eq!(results(&[]), exact);
    assert_eq!(results(&["--algorithm", "centroids:3"]), exact);
    succeeds(&["index", "compact", &at("index")]);
    assert_eq!(results(&["--k", "1", "--algorithm", "naive:1"]), ["0 30 1", "1 10 4"]);

    // Item 20 anew and item 5, then 10 is removed.
    array("new.npy", "(2, 1, 2)", &[0.0, 3.0, 1.0, -1.0]);
    whole("new.ids.npy", &[20, 5]);
    let add = ["index", "add", &at("index"), "--items"];
    let added = succeeds(&[&add[..], &[&at("new.npy")]].concat());
    assert!(added.contains("1 item added, 1 replaced; 4 now"), "{added}");
    succeeds(&["index", "remove", &at("index"), "--ids", "10"]);
    assert_eq!(results(&["--k", "2"]), ["0 20 3", "0 30 1", "1 5 2", "1 30 1"]);
    assert!(succeeds(&["index", "verify", &at("index")]).contains(": sound"));

    // The first two of them as components: as those given in a file.
    let (pooled, given) = (at("pooled"), at("given"));
    rails_wgpu::TokenPooling::first_tokens(2).unwrap().save(at("pooling")).unwrap();
    array("components.npy", "(3, 2, 2)", &[1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.0, 0.0, 2.0, 0.0, -1.0, 0.0]);
    whole("components.ids.npy", &[30, 20, 10]);
    array("asked.npy", "(2, 2, 2)", &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, -1.0]);
    let temperature = ["--temperature", "0.5"];
    succeeds(&[&build[..], &[&pooled, "--pooling", &at("pooling")], &temperature].concat());
    let components = ["index", "build", "--device", "cpu", "--components", &at("components.npy"), "-o", &given];
    succeeds(&[&components[..], &temperature].concat());
    let run = |index: &str, queries: &str, more: &[&str]| {
        let search = ["index", "search", index, "--queries", queries, "--device", "cpu", "-o", &at("run")];
        succeeds(&[&search[..], more].concat());
        std::fs::read_to_string(at("run")).unwrap()
    };
    let pooling = ["--pooling", &at("pooling")];
    let found = run(&pooled, &at("queries.npy"), &pooling);
    assert!(found.starts_with("0 Q0 30 1 ") && found.lines().count() == 6, "{found}");
    assert_eq!(found, run(&given, &at("asked.npy"), &[]));
    let added = succeeds(&[&["index", "add", &pooled, "--items", &at("new.npy")][..], &pooling].concat());
    assert!(added.contains("1 item added, 1 replaced; 4 now"), "{added}");
    assert!(run(&pooled, &at("queries.npy"), &pooling).starts_with("0 Q0 20 1 "));
    refuses(&[&search[..], &pooling].concat(), &["pooling: expected none for an index of token embeddings"]);
    refuses(&[&add[..], &[&at("new.npy")], &pooling].concat(), &["pooling: expected none"]);
    refuses(&[&components[..], &pooling].concat(), &["--components", "--pooling"]);
    let demo = "assets/demo.safetensors";
    refuses(&[&build[..], &[&at("a"), "--pooling", demo]].concat(), &[demo, "it is not a token pooling"]);

    // Items and queries by names.
    std::fs::write(at("names"), "thirty\ntwenty\nten\n").unwrap();
    std::fs::write(at("asked"), "a\nb\n").unwrap();
    let mut named = build.to_vec();
    let (names, asked, named_index) = (at("names"), at("asked"), at("named"));
    named.extend([&*named_index, "--string-ids", &names, "--dtype", "f16"]);
    succeeds(&named);
    let search_named =
        ["index", "search", &at("named"), "--queries", &at("queries.npy"), "--device", "cpu", "-o", &at("run2")];
    succeeds(&[&search_named[..], &["--k", "1", "--query-ids", &asked]].concat());
    assert_eq!(std::fs::read_to_string(at("run2")).unwrap(), "a Q0 thirty 1 1 rails-wgpu\nb Q0 ten 1 4 rails-wgpu\n");

    // What is wrong.
    let wrong = |more: &[&str], words: &[&str]| refuses(&[&build[..], &[&at("new")], more].concat(), words);
    wrong(&["--checkpoint", "assets/demo.safetensors"], &["checkpoint: expected none beside --token-embeddings"]);
    wrong(&["--form", "raw"], &["--form"]);
    array("wide.npy", "(2, 1, 3)", &[0.0; 6]);
    refuses(&[&add[..], &[&at("wide.npy")]].concat(), &["expected shape (N, 2), found [2, 3]"]);
    array("nan.npy", "(1, 2, 2)", &[0.0, 1.0, f32::NAN, 1.0]);
    refuses(&[&add[..], &[&at("nan.npy")]].concat(), &["found NaN in token 1, of row 0"]);
    refuses(&[&add[..], &["random:3"]].concat(), &["items: expected", "token embeddings"]);
    whole("queries.lengths.npy", &[3, 0]);
    refuses(&search, &["item 1 (id 1) has no token embedding"]);
    whole("queries.lengths.npy", &[1, 2]);
    whole("queries.ids.npy", &[4, 4]);
    refuses(&search, &["queries: expected each id once, found id 4 twice"]);
    // The ids and lengths of what is read are read, too.
    refuses(&[&search[..8], &[&at("queries.lengths.npy")]].concat(), &["it would replace the input"]);
    assert_eq!(succeeds(&["index", "info", &at("index")]).matches("items      3 in").count(), 1);
}

/// Items keep the ids that another program gave them, in an index that is searched and judged by histories of rows.
#[test]
fn an_index_of_a_model_has_its_names_as_ids() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder.path().join(name)).to_string();
    let histories = "3,1,7,12,5\",\"5,5,5,5,5\",\"1,2,3,4,5\"\n1,8,\"2,9,4,19";
    std::fs::write(
        at("users.csv"),
        format!("index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps\n0,7,\"{histories}\",\"5,5,5,5\",\"1,2,3,4\"\n"),
    )
    .unwrap();
    let checkpoint = "tests/checkpoints/rectools_sasrec/model.ckpt";
    let file = rails_wgpu::ModelFile::open(Path::new(crate::ROOT).join(checkpoint), None).unwrap();
    let names = file.item_names().unwrap();
    let users = at("users.csv");
    let of_model = ["--checkpoint", checkpoint, "--dataset", &users, "--device", "cpu"];
    let index = at("index");
    let of_index = ["--index", &index, "--dataset", &users, "--device", "cpu"];
    succeeds(&["index", "build", "--checkpoint", checkpoint, "--device", "cpu", "-o", &index]);
    let json = |args: &[&[&str]]| -> serde_json::Value { serde_json::from_str(&succeeds(&args.concat())).unwrap() };
    let asked = ["--user", "7", "--k", "30", "--json", "-"];
    let by_row = json(&[&["search"], &of_model, &asked]);
    let expected: Vec<serde_json::Value> = by_row["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let row = item["item"].as_u64().unwrap() as usize;
            serde_json::json!({ "rank": item["rank"], "item": names[row - 1], "score": item["score"] })
        })
        .collect();
    assert_eq!(expected.len(), names.len() - 5, "what was seen is not among them");
    let by_name = |index: &str| json(&[&["search", "--index", index], &of_index[2..], &asked])["results"].clone();
    assert_eq!(by_name(&index), serde_json::json!(expected));
    let quality = |of: &[&str]| {
        let result = json(&[&["eval"], of, &["--json", "-"]])["results"][0].clone();
        ["hr@1", "hr@10", "ndcg@10", "mrr"].map(|metric| result[metric].clone())
    };
    assert_eq!(quality(&of_index), quality(&of_model));
    assert!(quality(&of_index)[3].as_f64().unwrap() > 0.0);

    // Rows are added and removed by their names.
    std::fs::write(at("gone"), &names[1]).unwrap();
    succeeds(&["index", "remove", &index, "--string-ids", &at("gone")]);
    refuses(&["index", "remove", &index, "--ids", "2"], &["ids: expected --string-ids", "numbers"]);
    assert_eq!(by_name(&index).as_array().unwrap().len(), expected.len() - 1);
    std::fs::write(at("rows"), "1\n2\n").unwrap();
    let added = succeeds(&["index", "add", &index, "--items", &at("rows")]);
    assert!(added.contains("1 item added, 1 replaced; 20 now"), "{added}");
    assert_eq!(by_name(&index), serde_json::json!(expected));

    // The same with names of the caller's.
    let own: Vec<String> = names.iter().map(|name| format!("item {name}\n")).collect();
    std::fs::write(at("own"), own.concat()).unwrap();
    let build = ["index", "build", "--checkpoint", checkpoint, "--device", "cpu", "-o"];
    succeeds(&[&build[..], &[&at("owned"), "--string-ids", &at("own")]].concat());
    let first = format!("item {}", expected[0]["item"].as_str().unwrap());
    assert_eq!(by_name(&at("owned"))[0]["item"], first);
    refuses(
        &[&build[..], &[&at("short"), "--string-ids", &at("gone")]].concat(),
        &["string-ids: expected 20", "found 1"],
    );
}
