//! Training through the program: files, resuming after every kind of end, errors, published tables at toy size.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::ROOT;

const GIN: &str = "tests/oracle/tiny_hstu_mol/config.gin";
const DATA: &str = "tests/oracle/tiny.csv";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rails-bench"));
    command.current_dir(ROOT).args(args).stdin(Stdio::null());
    command.env_remove("RAILS_DATASET").env_remove("RAILS_CHECKPOINT").env_remove("RAILS_CONFIG");
    command
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(args: &[&str]) -> String {
    let output = program(args).output().unwrap();
    assert!(output.status.success(), "{args:?} failed:\n{}", message(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[args, &["--json", "-"]].concat())).unwrap()
}

/// Asserts that the command fails in an orderly way, with all of `words` in its message.
fn refuses(args: &[&str], words: &[&str]) {
    let output = program(args).output().unwrap();
    let message = message(&output);
    assert!(output.status.code() == Some(1) && !message.contains("panicked"), "{args:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{args:?}: `{word}` is not in\n{message}");
    }
}

fn train<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--config", GIN, "--dataset", DATA, "--item-ids", "assets/demo.items.txt", "-o", folder], more].concat()
}

/// The tensors of a file of a run, without what its metadata say about times.
fn tensors(folder: &Path, file: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(folder.join(file)).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = read.iter().map(|(name, tensor)| (name.to_string(), tensor.data().to_vec())).collect();
    tensors.sort();
    assert!(tensors.len() > 10, "{file}");
    tensors
}

/// Weights, moments and the best model.
fn assert_same_run(one: &Path, other: &Path) {
    for file in ["last.safetensors", "state.safetensors", "model.safetensors"] {
        assert!(tensors(one, file) == tensors(other, file), "{file}");
    }
    let metrics = |folder: &Path| {
        let text = fs::read_to_string(folder.join("metrics.csv")).unwrap();
        let rate = text.lines().next().unwrap().split(',').position(|name| name == "positions_per_second").unwrap();
        let without = |line: &str| {
            let fields = line.split(',').enumerate().filter(|(i, _)| *i != rate).map(|(_, field)| field.to_string());
            fields.collect::<Vec<_>>()
        };
        text.lines().map(without).collect::<Vec<_>>()
    };
    assert_eq!(metrics(one), metrics(other));
}

#[test]
fn a_trained_model_is_evaluated_and_indexed_as_it_was_in_training() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (page, run) = (folder.path().join("page.html"), run.to_str().unwrap());
    let report = json(&train(run, &["--epochs", "3", "--html", page.to_str().unwrap()]));
    let epochs = report["epochs"].as_array().unwrap();
    assert_eq!((epochs.len(), &epochs[2]["step"], &report["ending"]), (3, &9.into(), &"all epochs done".into()));
    let losses: Vec<f64> = epochs.iter().map(|epoch| epoch["losses"]["total"].as_f64().unwrap()).collect();
    assert!(losses[2] < losses[0], "{losses:?}");
    let best = &report["best"]["evaluation"];
    assert_eq!((&best["split"], &best["users"], &best["is_full"]), (&"test".into(), &96.into(), &true.into()));

    let checkpoint = format!("{run}/model.safetensors");
    let eval = ["eval", "--checkpoint", &checkpoint, "--dataset", DATA, "--item-ids", "assets/demo.items.txt"];
    let eval = json(&[&eval[..], &["--device", "cpu", "--protocol", "reference"]].concat());
    assert_eq!((&eval["results"][0]["hr@10"], &eval["results"][0]["mrr"]), (&best["chosen"], &best["mrr"]));
    // The list beside the data set is that of every command; results are no longer than it.
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    fs::copy(format!("{ROOT}/{DATA}"), at("data.csv")).unwrap();
    fs::copy(format!("{ROOT}/assets/demo.items.txt"), at("data.items.txt")).unwrap();
    let eval = |data: &str, more: &[&str]| {
        let eval =
            ["eval", "--checkpoint", &checkpoint, "--dataset", data, "--device", "cpu", "--protocol", "reference"];
        json(&[&eval[..], more].concat())
    };
    let beside = eval(&at("data.csv"), &["--k", "201"]);
    assert_eq!((&beside["results"][0]["hr@10"], &beside["results"][0]["mrr"]), (&best["chosen"], &best["mrr"]));
    assert_eq!((&beside["items"], &beside["k"]), (&200.into(), &200.into()));
    assert_eq!(beside["item_source"], at("data.items.txt"));
    let all = eval(DATA, &[]);
    assert_eq!((&all["items"], &all["item_source"]), (&219.into(), &"the model's item table".into()));
    let onto = ["eval", "--checkpoint", &checkpoint, "--dataset", &at("data.csv"), "--json", &at("data.items.txt")];
    refuses(&onto, &["it would replace the input"]);

    let index = folder.path().join("index");
    let index = index.to_str().unwrap();
    succeeds(&["index", "build", "--checkpoint", &checkpoint, "--items", "assets/demo.items.txt", "-o", index]);

    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Quality by epoch, test split") && page.matches("<polyline").count() == 5, "{page}");
    let metrics = fs::read_to_string(format!("{run}/metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 4, "{metrics}");
    // Lines for people say the split too.
    let lines = succeeds(&["train", "--resume", run]);
    for words in ["test: HR@10", "goes on after epoch 3, step 9", "test split, 96 users: HR@1 ", "model.safetensors"] {
        assert!(lines.contains(words), "`{words}` is not in\n{lines}");
    }
}

#[test]
fn a_run_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let [whole, more, steps] = ["whole", "more", "steps"].map(at);
    let text = |path: &Path| path.to_str().unwrap().to_string();
    succeeds(&train(&text(&whole), &["--epochs", "4", "--threads", "1"]));

    succeeds(&train(&text(&more), &["--epochs", "2"]));
    succeeds(&["train", "--resume", &text(&more), "--epochs", "4"]);
    assert_same_run(&whole, &more);

    // Within an epoch, where training ends with an evaluation: that is one record more.
    let report = json(&train(&text(&steps), &["--epochs", "4", "--max-steps", "4"]));
    assert_eq!(
        (report["epochs"].as_array().unwrap().len(), &report["ending"]),
        (2, &"the largest number of steps reached".into())
    );
    let report = json(&["train", "--resume", &text(&steps)]);
    assert_eq!(report["epochs"].as_array().unwrap().len(), 5);
    assert!(tensors(&whole, "state.safetensors") == tensors(&steps, "state.safetensors"));

    // Another seed makes other weights.
    let other = at("other");
    succeeds(&train(&text(&other), &["--epochs", "4", "--seed", "1"]));
    assert!(tensors(&whole, "last.safetensors") != tensors(&other, "last.safetensors"));
}

/// Kills in a row; `RAILS_TRAIN_KILLS` asks for more.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let kills: u64 = std::env::var("RAILS_TRAIN_KILLS").map_or(5, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let text = |path: &Path| path.to_str().unwrap().to_string();
    // Enough for all kills; the state is saved after every step.
    let epochs = (2 + kills).to_string();
    let options = ["--epochs", &epochs, "--save-every", "0", "--quiet"];
    let started = Instant::now();
    succeeds(&train(&text(&whole), &options));
    let longest = started.elapsed().as_millis() as u64 / 3 + 1;
    let killed_path = text(&killed);
    let begin = train(&killed_path, &options);
    let mut moment = 12345u64;
    for _ in 0..kills {
        let args: Vec<String> = match killed.join("config.json").exists() {
            true => vec!["train".into(), "--resume".into(), text(&killed), "--save-every".into(), "0".into()],
            false => begin.iter().map(|arg| arg.to_string()).collect(),
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        moment = moment.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis((moment >> 33) % longest));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    match killed.join("config.json").exists() {
        true => succeeds(&["train", "--resume", &text(&killed)]),
        false => succeeds(&begin),
    };
    assert_same_run(&whole, &killed);
    let left = fs::read_dir(&killed)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "tmp"));
    assert_eq!(left.count(), 0);
}

#[test]
fn the_validation_split_chooses_and_the_test_is_said_apart() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let run = run.to_str().unwrap();
    let report = json(&train(run, &["--epochs", "9", "--validation", "--metric", "ndcg@10", "--patience", "1"]));
    let (best, test) = (&report["best"]["evaluation"], &report["test"]);
    assert_eq!((&best["split"], &test["split"], &test["users"]), (&"validation".into(), &"test".into(), &96.into()));
    let ndcgs: Vec<f64> =
        report["epochs"].as_array().unwrap().iter().map(|one| one["evaluation"]["ndcg"][0].as_f64().unwrap()).collect();
    let last = ndcgs.len() - 1;
    let is_over = report["ending"] == "no better evaluation for as long as patience lasts";
    assert!(is_over && ndcgs[last] <= ndcgs[last - 1] && ndcgs[..last].is_sorted(), "{ndcgs:?}");
    assert_eq!(best["chosen"].as_f64().unwrap(), ndcgs[last - 1]);
    // The test of the best model is what `eval` says.
    let checkpoint = format!("{run}/model.safetensors");
    let eval = ["eval", "--checkpoint", &checkpoint, "--dataset", DATA, "--item-ids", "assets/demo.items.txt"];
    let eval = json(&[&eval[..], &["--device", "cpu", "--protocol", "reference"]].concat());
    assert_eq!((&eval["results"][0]["mrr"], &eval["results"][0]["ndcg@10"]), (&test["mrr"], &test["chosen"]));
}

#[test]
fn bad_input_is_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let run = at("run");
    succeeds(&train(&run, &["--epochs", "1"]));
    let before = fs::read(format!("{run}/state.safetensors")).unwrap();

    // Folders.
    refuses(&train(&run, &[]), &["run folder: expected a new folder or an empty one", "--resume", "found a run in"]);
    fs::create_dir(at("mine")).unwrap();
    fs::write(at("mine/thesis.txt"), "all of it").unwrap();
    refuses(&train(&at("mine"), &[]), &["run folder", "`thesis.txt` in"]);
    refuses(&["train", "--resume", &at("mine")], &["expected the folder of a training run, with a file config.json"]);
    refuses(&["train", "--config", GIN, "--dataset", DATA], &["--output"]);
    refuses(&["train", "--dataset", DATA, "-o", &at("new")], &["--preset or --config"]);
    refuses(&["train", "--config", GIN, "-o", &at("new")], &["--dataset"]);
    refuses(&train(&at("new"), &["--device", "abacus"]), &["`abacus`", "`auto`"]);

    // Another run.
    refuses(
        &["train", "--resume", &run, "--seed", "5"],
        &["`train.seed`: expected 42, with which the run began", "found 5"],
    );
    refuses(
        &["train", "--resume", &run, "--learning-rate", "0.01"],
        &["`train.learning_rate`: expected 0.001, with", "found 0.01"],
    );
    refuses(&["train", "--resume", &run, "--negatives", "5"], &["`train.negatives`: expected 16", "found 5"]);
    let text = fs::read_to_string(Path::new(ROOT).join(DATA)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(at("less.csv"), lines[..lines.len() - 1].join("\n")).unwrap();
    let less = ["train", "--resume", &run, "--dataset", &at("less.csv"), "--item-ids", "assets/demo.items.txt"];
    refuses(&less, &["`data.", "with which the run began"]);

    // Data.
    fs::write(at("short.csv"), format!("{}\n0,1,\"1,2\",\"1,1\",\"1,2\"\n", lines[0])).unwrap();
    let short = ["train", "--config", GIN, "--dataset", &at("short.csv"), "-o", &at("new")];
    refuses(&short, &["dataset: expected users with at least 3 events: two to train on and 1 held out"]);
    fs::write(at("big.csv"), format!("{}\n0,1,\"1,2,4000000000\",\"1,1,1\",\"1,2,3\"\n", lines[0])).unwrap();
    let big = ["train", "--config", GIN, "--dataset", &at("big.csv"), "-o", &at("new")];
    refuses(&big, &["item ids: expected ids up to 1000000: ", "rails-bench preprocess", "found 4000000000"]);
    assert!(!Path::new(&at("new")).exists());
    // An item that the model does not have, where the run goes on and where it is evaluated.
    fs::write(at("grown.csv"), format!("{text}999,999,\"1,300,2\",\"1,1,1\",\"1,2,3\"\n")).unwrap();
    let grown = ["train", "--resume", &run, "--dataset", &at("grown.csv"), "--item-ids", "assets/demo.items.txt"];
    refuses(&grown, &["`data.", "with which the run began"]);
    let checkpoint = format!("{run}/model.safetensors");
    let eval =
        ["eval", "--checkpoint", &checkpoint, "--dataset", &at("grown.csv"), "--item-ids", "assets/demo.items.txt"];
    refuses(&[&eval[..], &["--device", "cpu"]].concat(), &["300"]);

    // Files.
    let config = fs::read_to_string(format!("{run}/config.json")).unwrap();
    fs::write(format!("{run}/config.json"), config.replace("\"format\": 1", "\"format\": 9")).unwrap();
    refuses(
        &["train", "--resume", &run],
        &["config.json: `format`: expected version 1, all this program knows, found 9"],
    );
    fs::write(format!("{run}/config.json"), &config[..100]).unwrap();
    refuses(&["train", "--resume", &run], &["config.json", "expected JSON written by a training run"]);
    fs::write(format!("{run}/config.json"), &config).unwrap();
    fs::write(format!("{run}/state.safetensors"), &before[..before.len() / 2]).unwrap();
    refuses(&["train", "--resume", &run], &["state.safetensors"]);
    fs::write(format!("{run}/state.safetensors"), &before).unwrap();
    succeeds(&["train", "--resume", &run, "--epochs", "2"]);
}

#[test]
fn a_preset_for_other_data_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let args =
        ["train", "--preset", "ml-20m/sasrec", "--dataset", DATA, "--max-steps", "1", "-o", run.to_str().unwrap()];
    let said = message(&program(&args).output().unwrap());
    assert!(said.contains("`ml-20m/sasrec` was chosen for ml-20m, which has 138493 users, and this"), "{said}");
    assert!(
        !message(&program(&train(folder.path().join("other").to_str().unwrap(), &["--epochs", "1"])).output().unwrap())
            .contains("chosen for")
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_and_a_loss_that_is_no_number_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, full, wild] = ["whole", "full", "wild"].map(|name| folder.path().join(name));
    let text = |path: &Path| path.to_str().unwrap().to_string();
    succeeds(&train(&text(&whole), &["--epochs", "2"]));
    // ulimit counts blocks of 512 bytes or of 1 KiB; either is too little for a state.
    let args = train(&text(&full), &["--epochs", "2"]).join(" ");
    let command = format!("trap '' XFSZ; ulimit -f 16; exec {} {args}", env!("CARGO_BIN_EXE_rails-bench"));
    let output = Command::new("sh").current_dir(ROOT).args(["-c", &command]).output().unwrap();
    let said = message(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("cannot write") && said.contains(".safetensors"),
        "{said}"
    );
    succeeds(&["train", "--resume", &text(&full)]);
    assert_same_run(&whole, &full);

    let rate = ["--epochs", "9", "--save-every", "0", "--learning-rate", "1e20"];
    refuses(&train(&text(&wild), &rate), &["training step ", " is not finite; lower the learning rate"]);
    let weights = tensors(&wild, "last.safetensors");
    assert!(
        weights.iter().all(|(_, bytes)| bytes.chunks(4).all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite()))
    );
    refuses(&["train", "--resume", &text(&wild)], &["training step ", " is not finite"]);
    refuses(&["train", "--resume", &text(&wild), "--learning-rate", "0.1"], &["`train.learning_rate`: expected 1"]);
}

#[test]
fn a_time_limit_keeps_the_run_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, limited] = ["whole", "limited"].map(|name| folder.path().join(name));
    let text = |path: &Path| path.to_str().unwrap().to_string();
    succeeds(&train(&text(&whole), &["--epochs", "2"]));
    let output = program(&train(&text(&limited), &["--epochs", "2", "--time-limit", "0"])).output().unwrap();
    let said = message(&output);
    let expected = format!("to go on: rails-bench train --resume {}", text(&limited));
    assert!(output.status.success() && said.contains(&expected), "{said}");
    succeeds(&["train", "--resume", &text(&limited)]);
    assert_same_run(&whole, &limited);
}

#[test]
fn a_table_is_reproduced_at_toy_size() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    fs::create_dir(&raw).unwrap();
    let movies: String = (1..=30).map(|movie| format!("{movie}::Film {movie} (1999)::Drama\n")).collect();
    let rating =
        |user: u32, event: u32| format!("{user}::{}::4::{}\n", 1 + (7 * user + event) % 30, 1_000_000 + 60 * event);
    let ratings: String = (1..=12).flat_map(|user| (0..8).map(move |event| rating(user, event))).collect();
    fs::write(raw.join("movies.dat"), movies).unwrap();
    fs::write(raw.join("ratings.dat"), ratings).unwrap();
    fs::write(raw.join("users.dat"), "").unwrap();
    let (raw, table) = (raw.to_str().unwrap(), folder.path().join("table"));
    let reproduce = [
        "reproduce",
        "ml-1m",
        raw,
        "-o",
        table.to_str().unwrap(),
        "--rows",
        "hstu,sasrec,bert4rec,gru4rec",
        "--epochs",
        "1",
    ];
    let reproduce = [&reproduce[..], &["--seeds", "2", "--negatives", "4", "--quiet"]].concat();
    let lines = succeeds(&reproduce);
    for words in
        ["sasrec", "hstu", "1 epochs, 2 seeds", "published", "0.2853", "0.1720", "0.2811", "0.1537", "test split"]
    {
        assert!(lines.contains(words), "`{words}` is not in\n{lines}");
    }
    let read = || serde_json::from_str::<Value>(&fs::read_to_string(table.join("table.json")).unwrap()).unwrap();
    let written = read();
    let models: Vec<&str> =
        written["rows"].as_array().unwrap().iter().filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(models, ["sasrec", "gru4rec", "bert4rec", "hstu"]);
    assert_eq!(written["columns"][0], "HR@10");
    for words in ["softmax over all items", "4 negatives"] {
        assert!(lines.contains(words), "`{words}` is not in\n{lines}");
    }
    assert_eq!(written["rows"][1]["tests"].as_array().unwrap().len(), 2);
    // Again: everything is there already.
    let state = fs::read(table.join("hstu-43/state.safetensors")).unwrap();
    succeeds(&reproduce);
    assert_eq!(read(), written);
    assert_eq!(fs::read(table.join("hstu-43/state.safetensors")).unwrap(), state);
    refuses(&["reproduce", "ml-1m", raw, "-o", table.to_str().unwrap(), "--rows", "bprmf"], &["rows: expected sasrec"]);
    let taken = folder.path().to_str().unwrap();
    refuses(&["reproduce", "ml-1m", raw, "-o", taken], &["output: expected a new folder", "found `raw` in it"]);
    let run = folder.path().join("run");
    let preset = ["train", "--preset", "ml-1m/gru4rec", "--dataset", DATA, "-o", run.to_str().unwrap()];
    refuses(&[&preset[..], &["--negatives", "4"]].concat(), &["this configuration's softmax is over all items"]);
}
