//! Checkpoints of other programs: the scores of tiny models as these programs, or their forward passes in PyTorch, compute them
//! (`python/make_checkpoint_cases.py`), and files of theirs that are wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rails_wgpu::backend::Backend;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::config::{BlockNorm, EncoderConfig, FfnActivation};
use rails_wgpu::import::{Source, import};
use rails_wgpu::{Algorithm, Checkpoint, History, ImportOptions, ModelFile, Searcher, Tensor};

/// Largest difference of a number of a query embedding, as of each layer of the encoders' own cases.
const TOLERANCE: f32 = 1e-5;

fn options() -> ImportOptions {
    ImportOptions::default()
}

fn two_heads() -> ImportOptions {
    options().with_num_heads(Some(2))
}

/// Every case with its program, and what its file does not tell.
fn cases() -> [(&'static str, Source, ImportOptions); 17] {
    let length = options().with_max_sequence_length(Some(6));
    let sessions = options().with_max_sequence_length(Some(50));
    [
        ("recbole_sasrec", Source::Recbole, options()),
        ("recbole_gru4rec", Source::Recbole, options()),
        ("recbole_bert4rec", Source::Recbole, options()),
        ("rectools_sasrec", Source::Rectools, options()),
        ("rectools_bert4rec", Source::Rectools, options()),
        ("pmixer_earlier", Source::Pmixer, two_heads().with_source(Some(Source::Pmixer))),
        ("pmixer_between", Source::Pmixer, two_heads().with_block_norm(Some(BlockNorm::Query))),
        ("pmixer_pre", Source::Pmixer, two_heads().with_block_norm(Some(BlockNorm::Pre))),
        ("pmixer_post", Source::Pmixer, two_heads().with_block_norm(Some(BlockNorm::Post))),
        ("gsasrec", Source::Gsasrec, two_heads()),
        ("gru4rec_constrained", Source::Gru4rec, sessions.clone()),
        ("gru4rec_separate", Source::Gru4rec, sessions.clone()),
        ("gru4rec_ge", Source::Gru4rec, sessions),
        ("bert4rec_vae", Source::Bert4recVae, two_heads()),
        ("hf_sasrec", Source::Hf, two_heads()),
        ("hf_bert4rec", Source::Hf, two_heads()),
        ("hf_gru", Source::Hf, length),
    ]
}

/// The file of a case.
fn file(name: &str) -> PathBuf {
    let folder = Path::new("tests/checkpoints").join(name);
    let files = ["model.pt", "model.pth", "model.ckpt"].map(|file| folder.join(file));
    files.into_iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("no checkpoint in {}", folder.display()))
}

/// The histories of a case, and the scores (histories, items 1, 2, ...) of its program.
fn oracle(name: &str) -> (Vec<Vec<u32>>, Tensor) {
    let oracle = Checkpoint::open(format!("tests/checkpoints/{name}/oracle.safetensors")).unwrap();
    let histories = oracle.tensor("histories").unwrap();
    let row = |row| histories.row(row).iter().map(|&id| id as u32).filter(|&id| id != 0).collect();
    ((0..histories.rows()).map(row).collect(), oracle.tensor("scores").unwrap())
}

/// Our scores of all items, and how far each may be from the other program's.
struct Scores {
    found: Tensor,
    bounds: Tensor,
    /// Ids of all items, best first, for each history.
    order: Vec<Vec<u64>>,
}

fn scores(file: &ModelFile, histories: &[Vec<u32>], backend: &dyn Backend) -> Scores {
    let model = file.whole_model().unwrap();
    let ids: Vec<u32> = (1..model.n_item_rows() as u32).collect();
    let searcher = Searcher::builder().model(model, &ids).backend(backend.share()).build().unwrap();
    let times = vec![0; histories.iter().map(Vec::len).max().unwrap()];
    let history = |ids| History { user_id: 1, item_ids: ids, timestamps: &times[..ids.len()], now: 1 };
    let queries = searcher.encode(&histories.iter().map(|ids| history(ids)).collect::<Vec<_>>()).unwrap();
    let hits = searcher.search(Algorithm::Exact, &queries, ids.len(), &[]).unwrap();
    let items = model.item_embeddings(&ids).unwrap();
    let (mut found, mut bounds) = (Vec::new(), Vec::new());
    for (row, hits) in hits.iter().enumerate() {
        let by_id: BTreeMap<u64, f32> = hits.iter().map(|hit| (hit.id, hit.score)).collect();
        found.extend(ids.iter().map(|&id| by_id[&id.into()]));
        bounds.extend((0..ids.len()).map(|item| {
            let pairs = || queries.embeddings.row(row).iter().zip(items.row(item));
            let rounding: f32 = pairs().map(|(q, x)| (q * x).abs()).sum();
            let terms = 2.0 * (items.width() + 2) as f32 * f32::EPSILON;
            TOLERANCE * pairs().map(|(_, x)| x.abs()).sum::<f32>() + terms * rounding
        }));
    }
    let shape = [histories.len(), ids.len()];
    let order = hits.iter().map(|hits| hits.iter().map(|hit| hit.id).collect()).collect();
    Scores { found: Tensor::new(shape, found).unwrap(), bounds: Tensor::new(shape, bounds).unwrap(), order }
}

/// The largest difference of a score.
///
/// # Errors
/// If one is beyond its bound, or two items come in another order though the other program's scores tell them apart.
fn compare(scores: &Scores, expected: &Tensor) -> Result<f32, String> {
    let Scores { found, bounds, order } = scores;
    if found.shape() != expected.shape() {
        return Err(format!("expected {:?} scores, found {:?}", expected.shape(), found.shape()));
    }
    let mut worst = 0.0f32;
    for (row, order) in order.iter().enumerate() {
        let (expected, bounds) = (expected.row(row), bounds.row(row));
        for (item, (found, (expected, bound))) in found.row(row).iter().zip(expected.iter().zip(bounds)).enumerate() {
            let difference = (found - expected).abs();
            if difference > *bound {
                return Err(format!("history {row} item {}: expected {expected}, found {found}", item + 1));
            }
            worst = worst.max(difference);
        }
        for pair in order.windows(2) {
            let [better, worse] = [pair[0] as usize - 1, pair[1] as usize - 1];
            if expected[worse] - expected[better] > bounds[better] + bounds[worse] {
                return Err(format!("history {row}: {} comes before {}", pair[0], pair[1]));
            }
        }
    }
    Ok(worst)
}

fn message<T>(result: &rails_wgpu::Result<T>) -> String {
    result.as_ref().err().map(ToString::to_string).unwrap_or_default()
}

/// Compares every case; the differences are no larger than docs/CHECKPOINTS.md says.
fn check_all(backend: &dyn Backend) {
    let table = fs::read_to_string("docs/CHECKPOINTS.md").unwrap();
    for (name, _, options) in cases() {
        let file = ModelFile::open_with(file(name), None, &options).unwrap();
        let (histories, expected) = oracle(name);
        let worst = compare(&scores(&file, &histories, backend), &expected).unwrap_or_else(|e| panic!("{name}: {e}"));
        println!("{name}: {worst:e}");
        let row = table.lines().find(|line| line.contains(&format!("`{name}`")));
        let said = row.and_then(|row| row.trim_end_matches([' ', '|']).rsplit('|').next()).unwrap_or_default();
        let said: f32 = said.trim().parse().unwrap_or_else(|_| panic!("no row of {name} that ends with its error"));
        assert!(worst <= said, "{name}: off by {worst:e}, docs/CHECKPOINTS.md says {said:e}");
    }
}

#[test]
fn scores_are_those_of_the_programs_on_the_cpu() {
    check_all(&Cpu::default());
}

#[cfg(feature = "gpu")]
#[test]
fn scores_are_those_of_the_programs_on_a_gpu() {
    let Some(gpu) = crate::common::gpu::shared() else { return };
    check_all(&rails_wgpu::backend::gpu::GpuBackend::new(gpu));
}

#[test]
fn wrong_scores_and_orders_are_rejected() {
    let file = ModelFile::open_with(file("recbole_sasrec"), None, &options()).unwrap();
    let (histories, expected) = oracle("recbole_sasrec");
    let scores = scores(&file, &histories, &Cpu::default());
    assert!(compare(&scores, &expected).is_ok());
    let mut other = expected.data().to_vec();
    other[33] += 2.0 * scores.bounds.data()[33];
    let other = Tensor::new(expected.shape(), other).unwrap();
    assert!(compare(&scores, &other).unwrap_err().starts_with("history 1 item 14: expected"));
    let mut reversed = scores.order.clone();
    reversed[2].reverse();
    assert!(compare(&Scores { order: reversed, ..scores }, &expected).unwrap_err().contains("comes before"));
}

#[test]
fn programs_are_recognised_and_what_a_file_does_not_tell_is_asked_for() {
    for (name, source, options) in cases() {
        let open = |options: ImportOptions| ModelFile::open_with(file(name), None, &options);
        // The program may be named or not, save where two write the same names.
        let named = open(options.clone().with_source(Some(source))).unwrap();
        match options.source {
            None => assert_eq!(open(options.clone()).unwrap().tensors().unwrap(), named.tensors().unwrap(), "{name}"),
            Some(_) => {
                let said = open(options.clone().with_source(None)).err().unwrap().to_string();
                assert!(said.contains("--from pmixer") && said.contains("--from hf"), "{said}");
            }
        }
        // Heads, and lengths of recurrent networks, are nowhere but in settings.
        if options.num_heads.is_some() {
            let said = open(options.clone().with_num_heads(None)).err().unwrap().to_string();
            assert!(said.contains("--num-heads"), "{name}: {said}");
            let said = open(options.clone().with_num_heads(Some(3))).err().unwrap().to_string();
            assert!(said.contains("a divisor of item_embedding_dim = 8"), "{name}: {said}");
        }
        if options.max_sequence_length.is_some() {
            let said = open(options.clone().with_max_sequence_length(None)).err().unwrap().to_string();
            assert!(said.contains("--max-sequence-length"), "{name}: {said}");
        }
        if options.block_norm.is_some() {
            let said = open(options.clone().with_block_norm(None)).err().unwrap().to_string();
            assert!(said.contains("--block-norm"), "{name}: {said}");
        }
        // A file of another program, or of this one, is none of theirs.
        let said = open(options.clone().with_source(Some(Source::Rails))).err().unwrap().to_string();
        assert!(said.contains("holds no hyper-parameters") && said.contains("--from"), "{name}: {said}");
        let other = if source == Source::Gsasrec { Source::Recbole } else { Source::Gsasrec };
        assert!(open(options.clone().with_source(Some(other))).is_err(), "{name}");
    }
}

#[test]
fn options_overrule_what_a_file_says() {
    let open = |name: &str, options: ImportOptions| {
        let file = ModelFile::open_with(file(name), None, &options).unwrap();
        file.whole_model().unwrap().config.clone()
    };
    let of = |options: ImportOptions| match open("recbole_sasrec", options) {
        config if config.max_sequence_length == 6 => config.encoder,
        config => panic!("{config:?}"),
    };
    let EncoderConfig::Transformer(own) = of(options()) else { panic!("no transformer") };
    assert_eq!((own.num_heads, own.ffn_activation, own.layer_norm_eps), (2, FfnActivation::Gelu, 1e-12));
    let changed = options().with_num_heads(Some(4)).with_activation(Some(FfnActivation::Silu));
    let EncoderConfig::Transformer(other) = of(changed) else { panic!("no transformer") };
    assert_eq!((other.num_heads, other.ffn_activation), (4, FfnActivation::Silu));
    assert_eq!(open("recbole_gru4rec", options().with_max_sequence_length(Some(9))).max_sequence_length, 9);
    let too_long = options().with_max_sequence_length(Some(7));
    let said = ModelFile::open_with(file("recbole_sasrec"), None, &too_long).err().unwrap().to_string();
    assert!(
        said.contains("max-sequence-length: expected 1 to 6, as there are 6 position embeddings, found 7"),
        "{said}"
    );
}

#[test]
fn options_that_a_model_has_no_use_for_are_refused() {
    let said = |path: &Path, options: ImportOptions| message(&ModelFile::open_with(path, None, &options));
    for (name, _, options) in cases() {
        let model = ModelFile::open_with(file(name), None, &options).unwrap();
        if matches!(model.whole_model().unwrap().config.encoder, EncoderConfig::Gru4rec(_)) {
            let heads = said(&file(name), options.clone().with_num_heads(Some(2)));
            assert!(heads.contains("num-heads: expected nothing") && heads.contains("transformer, found 2"), "{heads}");
            let relu = said(&file(name), options.with_activation(Some(FfnActivation::Relu)));
            assert!(relu.contains("activation: expected nothing") && relu.contains("found relu"), "{relu}");
        } else if options.block_norm.is_none() {
            let tried = [BlockNorm::Pre, BlockNorm::Post, BlockNorm::Query].map(|norm| {
                let said = said(&file(name), options.clone().with_block_norm(Some(norm)));
                assert!(said.is_empty() || said.contains("block-norm: expected"), "{name}: {said}");
                said.is_empty()
            });
            assert_eq!(tried.iter().filter(|read| **read).count(), 1, "{name}");
        }
    }
    // Files of this program say all of it themselves, whole models and similarities alone.
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("similarity.safetensors");
    let trained = ModelFile::open("tests/oracle/tiny_hstu_mol/model.safetensors", None).unwrap();
    rails_wgpu::model_file::save_mol(&alone, trained.mol().unwrap()).unwrap();
    for path in [Path::new("tests/oracle/tiny_hstu_mol/model.safetensors"), &alone] {
        assert_eq!(said(path, options().with_source(Some(Source::Rails))), "");
        let heads = said(path, two_heads());
        assert!(heads.contains("num-heads: expected nothing") && heads.contains("--from"), "{heads}");
        let length = said(path, options().with_max_sequence_length(Some(6)));
        assert!(length.contains("max-sequence-length: expected nothing"), "{length}");
    }
    let other = said(&alone, options().with_source(Some(Source::Recbole)));
    assert!(other.contains("from: expected rails or nothing"), "{other}");
    let gin = Some(Path::new("tests/no.gin"));
    let other = ModelFile::open_with(file("recbole_sasrec"), gin, &options().with_source(Some(Source::Recbole)));
    assert!(message(&other).contains("config: expected no .gin file (--config, RAILS_CONFIG) beside --from recbole"));
}

#[test]
fn transformers_of_other_programs_are_not_trained() {
    use rails_wgpu::backend::cpu::CpuOps;
    use rails_wgpu::config::TrainConfig;
    use rails_wgpu::train::Trainer;

    let train = |name: &str, options: &ImportOptions| {
        let file = ModelFile::open_with(file(name), None, options).unwrap();
        Trainer::new(CpuOps::pooled(), file.whole_model().unwrap(), &TrainConfig::default(), None).map(|_| ())
    };
    assert!(train("recbole_gru4rec", &options()).is_ok());
    let said = train("recbole_sasrec", &options()).unwrap_err().to_string();
    assert!(said.contains("a transformer of another program"), "{said}");
}

#[test]
fn ids_of_items_are_kept_in_converted_files() {
    let file = ModelFile::open(file("rectools_bert4rec"), None).unwrap();
    let names = file.item_names().unwrap();
    // The first history is that of item 3 of the script, whose id in RecTools' data is 1000 + 7 * 3.
    let row = oracle("rectools_bert4rec").0[0][0] as usize;
    assert_eq!((names.len(), names[row - 1].as_str()), (20, "1021"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    file.save(&path).unwrap();
    let converted = ModelFile::open(&path, None).unwrap();
    assert_eq!(converted.item_names(), Some(names));
    assert_eq!(converted.tensors().unwrap(), file.tensors().unwrap());
    assert_eq!(converted.whole_model().unwrap().config, file.whole_model().unwrap().config);
}

/// Low-rank item components, cosines, a gate with linear parts of user and item: by definition, in f64.
fn score_of_components(weights: &BTreeMap<&str, Tensor>, user: &[f32], item: &[f32]) -> f64 {
    let at = |name: &str, index: &[usize]| -> f64 {
        let tensor = &weights[name];
        let flat = index.iter().zip(tensor.shape()).fold(0, |flat, (i, extent)| flat * extent + i);
        tensor.data()[flat].into()
    };
    let (dim, rank) = (user.len(), weights["adapter_u"].shape()[1]);
    let (components, hidden) = (weights["gate_b2"].rows(), weights["gate_b1"].rows());
    let number = |values: &[f32], i: usize| f64::from(values[i]);
    let component = |l: usize| -> Vec<f64> {
        let low = |r: usize| (0..dim).map(|d| number(item, d) * at("adapter_v", &[l, d, r])).sum::<f64>();
        let low: Vec<f64> = (0..rank).map(low).collect();
        let of = |d: usize| number(item, d) + (0..rank).map(|r| low[r] * at("adapter_u", &[l, r, d])).sum::<f64>();
        (0..dim).map(of).collect()
    };
    let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    let user_norm = norm(&user.iter().map(|&x| x.into()).collect::<Vec<_>>());
    let cosine = |l: usize| {
        let g = component(l);
        g.iter().enumerate().map(|(d, g)| number(user, d) * g).sum::<f64>() / (user_norm * norm(&g))
    };
    let cosines: Vec<f64> = (0..components).map(cosine).collect();
    let unit = |h: usize| {
        let x = at("gate_b1", &[h]) + (0..components).map(|l| cosines[l] * at("gate_w1", &[l, h])).sum::<f64>();
        x / (1.0 + (-x).exp())
    };
    let units: Vec<f64> = (0..hidden).map(unit).collect();
    let gate = |l: usize| {
        let sides = (0..dim)
            .map(|d| number(user, d) * at("gate_user_w", &[d, l]) + number(item, d) * at("gate_item_w", &[d, l]));
        let sum = at("gate_b2", &[l]) + (0..hidden).map(|h| units[h] * at("gate_w2", &[h, l])).sum::<f64>();
        (sum + sides.sum::<f64>()).exp()
    };
    let gates: Vec<f64> = (0..components).map(gate).collect();
    let mixed = gates.iter().zip(&cosines).map(|(gate, cosine)| gate * cosine).sum::<f64>();
    mixed / gates.iter().sum::<f64>() / at("temperature", &[0])
}

#[test]
fn mixtures_of_low_rank_components_are_read() {
    let mut next = 0.0f32;
    let mut tensor = |shape: &[usize]| {
        let mut number = || {
            next += 1.0;
            (next * next).sin()
        };
        Tensor::new(shape, (0..shape.iter().product()).map(|_| number()).collect()).unwrap()
    };
    let shapes: [(&str, &[usize]); 8] = [
        ("adapter_v", &[3, 6, 2]),
        ("adapter_u", &[3, 2, 6]),
        ("gate_w1", &[3, 5]),
        ("gate_b1", &[5]),
        ("gate_w2", &[5, 3]),
        ("gate_b2", &[3]),
        ("gate_user_w", &[6, 3]),
        ("gate_item_w", &[6, 3]),
    ];
    let mut weights: BTreeMap<&str, Tensor> = shapes.map(|(name, shape)| (name, tensor(shape))).into();
    weights.insert("temperature", Tensor::new([1], vec![0.25]).unwrap());
    let (users, items) = (tensor(&[4, 6]), tensor(&[20, 6]));
    let folder = tempfile::tempdir().unwrap();
    let named = |weights: &BTreeMap<&str, Tensor>| -> Vec<(String, Tensor)> {
        weights.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
    };
    let open = |weights: &BTreeMap<&str, Tensor>| {
        let path = folder.path().join("mol.safetensors");
        rails_wgpu::checkpoint::save_safetensors(&path, &named(weights), &BTreeMap::new()).unwrap();
        ModelFile::open(&path, None)
    };
    let file = open(&weights).unwrap();
    // Saved in the layout of this program, it is the same.
    file.save(folder.path().join("saved.safetensors")).unwrap();
    let saved = ModelFile::open(folder.path().join("saved.safetensors"), None).unwrap();
    assert_eq!((saved.tensors().unwrap(), saved.dim()), (file.tensors().unwrap(), 6));

    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Cpu::default())];
    #[cfg(feature = "gpu")]
    if let Some(gpu) = crate::common::gpu::shared() {
        backends.push(Box::new(rails_wgpu::backend::gpu::GpuBackend::new(gpu)));
    }
    let ids: Vec<u64> = (0..20).collect();
    for backend in backends {
        let builder = Searcher::builder().embeddings(&ids, &items).model_file(&saved).backend(backend.share());
        let searcher = builder.build().unwrap();
        let queries = rails_wgpu::QueryBatch::new(users.clone());
        let hits = searcher.search(Algorithm::Exact, &queries, 20, &[]).unwrap();
        for (user, hits) in hits.iter().enumerate() {
            assert_eq!(hits.len(), 20);
            for hit in hits {
                let expected = score_of_components(&weights, users.row(user), items.row(hit.id as usize));
                // Scores are up to 1 / temperature = 4.
                assert!(
                    (f64::from(hit.score) - expected).abs() < 4.0 * f64::from(TOLERANCE),
                    "{expected} {}",
                    hit.score
                );
            }
        }
    }

    let refused = |name: &'static str, tensor: Tensor| {
        let mut changed = weights.clone();
        changed.insert(name, tensor);
        open(&changed).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused("adapter_u", tensor(&[3, 3, 6])).contains("`adapter_u`"));
    assert!(refused("gate_w2", tensor(&[4, 3])).contains("`gate_w2`"));
    assert!(refused("temperature", Tensor::new([1], vec![-1.0]).unwrap()).contains("temperature"));
    assert!(refused("other", tensor(&[1])).contains("`other`"));
    assert!(refused("adapter_v", tensor(&[3, 6])).contains("holds no hyper-parameters"));
}

/// Tensors of a case in memory, as if they were those of a file without settings.
fn tensors(name: &str) -> Vec<(String, Tensor)> {
    let checkpoint = Checkpoint::open(file(name)).unwrap();
    checkpoint.names().map(|name| (name.to_string(), checkpoint.tensor(name).unwrap())).collect()
}

/// What `import` and the model itself say of tensors.
fn load(tensors: Vec<(String, Tensor)>, options: &ImportOptions) -> Result<(), String> {
    let checkpoint = Checkpoint::from_tensors(tensors, "memory").map_err(|e| e.to_string())?;
    let imported = import(&checkpoint, options).map_err(|e| e.to_string())?.ok_or("not recognised")?;
    let checkpoint = Checkpoint::from_tensors(imported.tensors, "memory").map_err(|e| e.to_string())?;
    rails_wgpu::Model::load(&checkpoint, imported.config).map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn models_without_their_output_layer_are_refused() {
    let said = message(&ModelFile::open("tests/hostile/import_recbole_bert4rec.pt", None));
    assert!(said.contains("a BERT4Rec of RecBole before its output layer") && said.contains("1.2.1"), "{said}");
}

/// Layers of width 1 beside one of 512: filled up, each would be as large as that.
#[test]
fn all_matrices_together_that_are_filled_up_are_bounded() {
    let mut tensors = Vec::new();
    let mut put = |name: String, shape: &[usize]| {
        tensors.push((name, Tensor::new(shape, vec![0.0; shape.iter().product()]).unwrap()));
    };
    put("Wy.weight".into(), &[1, 1]);
    put("By.weight".into(), &[1, 1]);
    for layer in 0..171 {
        let (n_in, hidden) = ([1, 512, 1][layer.min(2)], if layer == 0 { 512 } else { 1 });
        put(format!("G.{layer}.weight_ih"), &[3 * hidden, n_in]);
        put(format!("G.{layer}.weight_hh"), &[3 * hidden, hidden]);
        put(format!("G.{layer}.bias_ih"), &[3 * hidden]);
        put(format!("G.{layer}.bias_hh"), &[3 * hidden]);
    }
    let said = load(tensors, &options().with_max_sequence_length(Some(2))).unwrap_err();
    assert!(said.contains("numbers that it does not hold"), "{said}");
}

/// Whatever tensor is missing, one too many or of another shape: an error that names a tensor or an option.
#[test]
fn damaged_models_of_every_program_are_refused() {
    let unused = ["pooler.", "word_embeddings.", "head.weight"];
    for (name, source, options) in cases() {
        if source == Source::Rectools {
            continue; // Its settings are not in its tensors.
        }
        let options = match name {
            "recbole_gru4rec" => self::options().with_max_sequence_length(Some(6)),
            "recbole_sasrec" | "recbole_bert4rec" => two_heads(),
            _ => options,
        };
        let whole = tensors(name);
        for source in [None, Some(source)] {
            let options = options.clone().with_source(options.source.or(source));
            assert_eq!(load(whole.clone(), &options), Ok(()), "{name}");
            for (i, (tensor, value)) in whole.iter().enumerate() {
                let with = |shape: Vec<usize>| {
                    let values = (0..shape.iter().product()).map(|i| value.data()[i % value.data().len()]).collect();
                    let mut changed = whole.clone();
                    changed[i].1 = Tensor::new(shape, values).unwrap();
                    load(changed, &options)
                };
                let shape = value.shape().to_vec();
                let longer = |axis: usize| {
                    let mut shape = shape.clone();
                    shape[axis] += 1;
                    shape
                };
                let mut without = whole.clone();
                without.remove(i);
                let is_unused = unused.iter().any(|unused| tensor.contains(unused));
                for result in
                    [load(without, &options), with([&shape[..], &[1, 2]].concat()), with(longer(shape.len() - 1))]
                {
                    assert!(is_unused || result.is_err(), "{name}: {tensor}");
                }
            }
            let extra = [whole.clone(), vec![("extra.weight".to_string(), Tensor::from_rows([[1.0]]))]].concat();
            let said = load(extra, &options).unwrap_err();
            assert!(said.contains("`extra.weight`") && said.contains("docs/CHECKPOINTS.md"), "{name}: {said}");
        }
    }
}
