//! Training against an independent implementation in PyTorch: losses of five steps, gradients of the first, parameters after one and
//! after five; those of GRU4Rec and BERT4Rec are made by `python/make_encoder_cases.py`. Each case is `NAME.json` and `NAME.safetensors` in the folder that `RAILS_TRAIN_ORACLE` names, by default
//! `tests/oracle/train`, and begins with the weights of the case NAME in the folder above.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::case::{Case, fixture};
use crate::common::naive::random;
use rails_wgpu::backend::TrainingOps;
use rails_wgpu::backend::cpu::CpuOps;
use rails_wgpu::config::{DropoutRates, LossKind, LossWeights, TrainConfig};
use rails_wgpu::error::ErrorKind;
use rails_wgpu::model::Model;
use rails_wgpu::ops::Ops;
use rails_wgpu::sequence::{History, SequenceBatch};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::train::{Losses, Masks, Tape, TrainBatch, Trainer};

struct TrainCase {
    name: String,
    json: Value,
    bytes: Vec<u8>,
    model: Model,
}

fn folder() -> PathBuf {
    std::env::var_os("RAILS_TRAIN_ORACLE").map_or_else(|| fixture("train"), PathBuf::from)
}

fn cases() -> Vec<TrainCase> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} holds no case", folder().display());
    names.iter().map(|name| TrainCase::load(&folder(), name)).collect()
}

impl TrainCase {
    fn load(folder: &Path, name: &str) -> TrainCase {
        let json = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        TrainCase {
            name: name.to_string(),
            json: serde_json::from_str(&json).unwrap(),
            bytes: std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap(),
            model: Case::load(&folder.parent().unwrap().join(name)).model,
        }
    }

    fn values<const N: usize, T>(&self, name: &str, number: fn([u8; N]) -> T) -> (Vec<usize>, Vec<T>) {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|_| panic!("{} has no {name}", self.name));
        let values = tensor.data().chunks_exact(N).map(|bytes| number(bytes.try_into().unwrap())).collect();
        (tensor.shape().to_vec(), values)
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        self.values(name, i64::from_le_bytes).1
    }

    /// Tensors under `prefix.`, without it.
    fn tensors(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let all = SafeTensors::deserialize(&self.bytes).unwrap();
        let names = all.names().into_iter().filter_map(|name| Some((name, name.strip_prefix(&format!("{prefix}."))?)));
        let tensor = |name: &str| {
            let (shape, values) = self.values(name, f32::from_le_bytes);
            Tensor::new(shape, values).unwrap()
        };
        names.map(|(full, name)| (name.to_string(), tensor(full))).collect()
    }

    fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    fn lengths(&self) -> Vec<usize> {
        self.integers("in.past_lengths").iter().map(|&length| length as usize).collect()
    }

    fn batch(&self) -> TrainBatch {
        let padded = self.model.config.padded_length();
        let ids: Vec<u32> = self.integers("in.past_ids").iter().map(|&id| id as u32).collect();
        let (times, users) = (self.integers("in.timestamps"), self.integers("in.user_ids"));
        let (mut histories, mut targets) = (Vec::new(), Vec::new());
        for (i, length) in self.lengths().into_iter().enumerate() {
            let (ids, times) = (&ids[i * padded..][..=length], &times[i * padded..][..=length]);
            targets.extend_from_slice(&ids[1..]);
            histories.push(History {
                user_id: users[i],
                item_ids: &ids[..length],
                timestamps: &times[..length],
                now: times[length],
            });
        }
        let n_item_rows = self.model.n_item_rows();
        let mut sequences = SequenceBatch::new(&histories, &self.model.config, n_item_rows).unwrap();
        if self.model.config.encoder.appends_mask() {
            targets = self.integers("in.targets").iter().map(|&id| id as u32).collect();
            let masks = sequences.item_ids.iter_mut().zip(&targets).filter(|(_, target)| **target > 0);
            masks.for_each(|(id, _)| *id = n_item_rows as u32);
        }
        TrainBatch { sequences, targets }
    }

    fn has_negatives(&self) -> bool {
        self.json["loss"] != "full_softmax"
    }

    fn negatives(&self, step: usize) -> Option<Vec<u32>> {
        let ids = || self.integers(&format!("step{step}.negative_ids")).iter().map(|&id| id as u32).collect();
        self.has_negatives().then(ids)
    }

    fn config(&self) -> TrainConfig {
        let weight = |name: &str| self.json["loss_weights"][name].as_f64().unwrap_or_default() as f32;
        let loss = if self.has_negatives() { LossKind::SampledSoftmax } else { LossKind::FullSoftmax };
        TrainConfig::default()
            .with_loss(loss)
            .with_temperature(self.number("temperature") as f32)
            .with_learning_rate(self.number("learning_rate") as f32)
            .with_weight_decay(self.number("weight_decay") as f32)
            .with_dropout(DropoutRates::NONE)
            .with_loss_weights(
                LossWeights::default()
                    .with_mi_loss(weight("mi_loss"))
                    .with_uid_embedding_l2_norm(weight("uid_embedding_l2_norm")),
            )
    }

    fn trainer(&self) -> Trainer<CpuOps> {
        self.trainer_on(CpuOps::pooled())
    }

    fn trainer_on<B: TrainingOps<Floats: 'static, Ints: 'static>>(&self, ops: B) -> Trainer<B> {
        Trainer::new(ops, &self.model, &self.config(), None).unwrap()
    }

    /// Losses of a step, as the reference has them.
    fn check_losses(&self, step: usize, found: &Losses) -> Result<(), String> {
        let expected = &self.json["losses"][step];
        let names = [
            ("loss", found.total),
            ("main_loss", found.main),
            ("mi_loss", found.mi_loss),
            ("uid_embedding_l2_norm", found.uid_embedding_l2_norm),
        ];
        for (name, found) in names {
            let expected = expected[name].as_f64().unwrap_or_default();
            if (found - expected).abs() > 1e-5 * expected.abs() {
                return Err(format!("{} step {step}: {name} is {found}, not {expected}", self.name));
            }
        }
        Ok(())
    }
}

fn magnitude(tensor: &Tensor) -> f32 {
    tensor.data().iter().fold(0.0, |greatest, x| greatest.max(x.abs()))
}

/// Greatest difference of two tensors.
fn distance(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    found.data().iter().zip(expected.data()).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn states_of_all_positions_are_those_of_the_reference() {
    for case in cases() {
        let (shape, expected) = case.values("enc.output", f32::from_le_bytes);
        let [_, padded, dim] = shape[..] else { panic!("{shape:?}") };
        let batch = case.batch().sequences;
        let ops = &mut CpuOps::default();
        let mut tape = Tape::new(ops, Masks::none());
        let encoder = case.model.encoder.map(&mut |tensor: &Tensor| tape.floats(tensor));
        let ids = tape.ints(&batch.item_ids);
        let states = encoder.forward_all(&mut tape, &encoder.items, &ids, &batch);
        let found = tape.read(&states).unwrap();
        let mut compared = 0;
        for (i, pair) in batch.offsets.windows(2).enumerate() {
            let rows = &found[pair[0] as usize * dim..pair[1] as usize * dim];
            for (a, b) in rows.iter().zip(&expected[i * padded * dim..]) {
                assert!((a - b).abs() < 1e-5, "{}: {a} is not {b}", case.name);
                compared += 1;
            }
        }
        assert_eq!(compared, found.len());
    }
}

/// How many times further than a weight's rounding moves it a gradient may be off.
const UNCERTAINTIES: f32 = 8.0;

/// What rounding does to the gradients of a case, by tensor: how far they move when every weight moves by up to one unit in its last
/// place, the greatest of some tries. Whatever order an implementation computes in, its gradients are as uncertain.
fn uncertainty(case: &TrainCase, gradients: &[(String, Tensor)]) -> BTreeMap<String, f32> {
    const TRIES: u64 = 6;
    let named: BTreeMap<String, Tensor> = case.model.named_tensors().into_iter().collect();
    let mut uncertainty: BTreeMap<String, f32> = gradients.iter().map(|(name, _)| (name.clone(), 0.0)).collect();
    for seed in 0..TRIES {
        let mut moved = |name: &str, _: &[usize]| {
            let tensor = &named[name];
            let by = random(seed + name.len() as u64, tensor.data().len());
            let values = tensor.data().iter().zip(by).map(|(x, by)| x * (1.0 + f32::EPSILON * by)).collect();
            Tensor::new(tensor.shape(), values).unwrap()
        };
        let model = Model::make(case.model.config.clone(), case.model.n_item_rows(), &mut moved).unwrap();
        let mut trainer = Trainer::new(CpuOps::pooled(), &model, &case.config(), None).unwrap();
        let moved = trainer.gradients(&case.batch(), case.negatives(0).as_deref()).unwrap().1.named_tensors();
        for ((name, moved), (_, gradient)) in moved.iter().zip(gradients) {
            let greatest = uncertainty.get_mut(name).unwrap();
            *greatest = greatest.max(UNCERTAINTIES * distance(moved, gradient));
        }
    }
    uncertainty
}

/// Gradients of the first step, and how uncertain each is.
fn gradients(case: &TrainCase) -> (Vec<(String, Tensor)>, BTreeMap<String, f32>) {
    let (losses, gradient) = case.trainer().gradients(&case.batch(), case.negatives(0).as_deref()).unwrap();
    case.check_losses(0, &losses).unwrap();
    let gradients = gradient.named_tensors();
    let uncertainty = uncertainty(case, &gradients);
    (gradients, uncertainty)
}

/// Says which gradient is not the reference's, if any.
fn compare_gradients(
    case: &TrainCase,
    found: &[(String, Tensor)],
    uncertainty: &BTreeMap<String, f32>,
) -> Result<(), String> {
    let expected = case.tensors("grad");
    assert_eq!(found.len(), expected.len(), "{}", case.name);
    for (name, found) in found {
        let (off, size) = (distance(found, &expected[name]), magnitude(&expected[name]));
        if off > uncertainty[name] {
            return Err(format!("{} {name}: off by {off:e} of {size:e}, {:e} allowed", case.name, uncertainty[name]));
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_the_reference() {
    for case in cases() {
        let (found, uncertainty) = gradients(&case);
        compare_gradients(&case, &found, &uncertainty).unwrap();
        // A bound that would let everything pass is none.
        let sizes = case.tensors("grad");
        let of_size = found.iter().map(|(name, _)| uncertainty[name] / magnitude(&sizes[name]));
        let wide = of_size.filter(|&share| share > 2e-4).count();
        assert_eq!(wide, 0, "{}: tensors with wide bounds", case.name);
    }
}

#[test]
fn a_wrong_gradient_of_a_case_is_rejected() {
    let case = &cases()[1];
    let (mut found, uncertainty) = gradients(case);
    let (name, tensor) = found[5].clone();
    let mut values = tensor.data().to_vec();
    let place = values.iter().position(|x| x.abs() == magnitude(&tensor)).unwrap();
    values[place] *= 1.001;
    found[5].1 = Tensor::new(tensor.shape(), values).unwrap();
    let error = compare_gradients(case, &found, &uncertainty).unwrap_err();
    assert!(error.contains(&name), "{error}");
}

/// Says which parameter is not the reference's after some steps, if any, and how many could not be told.
///
/// An update is 1e-5 of the greatest update off at most, beside the rounding of each step, and beside the share of a gradient that is
/// uncertain: the optimiser divides by the gradient's own size. Where all of a gradient is uncertain, nothing can be said.
fn compare_parameters(
    found: &Tensor,
    expected: &Tensor,
    (start, gradient): (&Tensor, &Tensor),
    uncertainty: f32,
    n_steps: usize,
) -> Result<usize, String> {
    let update = distance(expected, start);
    let mut untold = 0;
    for (i, (&a, &b)) in found.data().iter().zip(expected.data()).enumerate() {
        // What no event or draw has met has no gradient at all.
        let gradient = gradient.data()[i].abs();
        let share = if gradient > 0.0 { uncertainty / gradient } else { 0.0 };
        if share > 0.1 {
            untold += 1;
            continue;
        }
        let allowed = (1e-5 + share) * update + n_steps as f32 * f32::EPSILON * b.abs();
        if (a - b).abs() > allowed {
            return Err(format!("value {i} is {a}, not {b}; {allowed:e} allowed, the update is {update:e}"));
        }
    }
    Ok(untold)
}

fn check_steps<B: TrainingOps<Floats: 'static, Ints: 'static>>(
    case: &TrainCase,
    mut trainer: Trainer<B>,
    (gradients, uncertainty): (Vec<(String, Tensor)>, &BTreeMap<String, f32>),
) {
    let batch = case.batch();
    let start: BTreeMap<String, Tensor> = case.model.named_tensors().into_iter().collect();
    // The greater of the two: one may be zero where the other is what rounding has left.
    let reference = case.tensors("grad");
    let greater = |(name, found): (String, Tensor)| {
        let pairs = found.data().iter().zip(reference[&name].data());
        let values = pairs.map(|(a, b)| a.abs().max(b.abs())).collect();
        let tensor = Tensor::new(found.shape(), values).unwrap();
        (name, tensor)
    };
    let mut gradients: BTreeMap<String, Tensor> = gradients.into_iter().map(greater).collect();
    let (mut untold, mut all) = (0, 0);
    let mut beside = case.trainer();
    for step in 1..=5 {
        let negatives = case.negatives(step - 1);
        if step > 1 {
            // What the first draws have not met has its gradient from the first step that meets it.
            let (_, found) = beside.gradients(&batch, negatives.as_deref()).unwrap();
            for (name, found) in found.named_tensors() {
                let first = |(&a, &b): (&f32, &f32)| if a == 0.0 { b.abs() } else { a };
                let values = gradients[&name].data().iter().zip(found.data()).map(first).collect();
                gradients.insert(name, Tensor::new(found.shape(), values).unwrap());
            }
        }
        beside.step(&batch, negatives.as_deref()).unwrap();
        let losses = trainer.step(&batch, negatives.as_deref()).unwrap();
        case.check_losses(step - 1, &losses).unwrap();
        if step != 1 && step != 5 {
            continue;
        }
        let expected = case.tensors(&format!("after{step}"));
        for (name, found) in trainer.model().unwrap().named_tensors() {
            let before = (&start[&name], &gradients[&name]);
            untold += compare_parameters(&found, &expected[&name], before, uncertainty[&name], step)
                .unwrap_or_else(|wrong| panic!("{} after {step} {name}: {wrong}", case.name));
            all += found.data().len();
            // Without the last step, the same values are wrong.
            if step == 5 && name == "_embedding_module._item_emb.weight" {
                let wrong = compare_parameters(&found, &case.tensors("after1")[&name], before, uncertainty[&name], 1);
                assert!(wrong.is_err());
            }
        }
    }
    assert!(untold * 10 < all, "{}: {untold} of {all} could not be told", case.name);
}

#[test]
fn losses_and_parameters_are_those_of_the_reference() {
    for case in cases() {
        let (found, uncertainty) = gradients(&case);
        check_steps(&case, case.trainer(), (found, &uncertainty));
    }
}

/// A small training with everything drawn: negatives, and dropout at every site.
fn drawn(case: &TrainCase) -> TrainConfig {
    let rates = DropoutRates::NONE
        .with_input(0.2)
        .with_hstu_linear(0.2)
        .with_attention(0.3)
        .with_feed_forward(0.1)
        .with_query(0.1)
        .with_item(0.2)
        .with_uid(0.5)
        .with_gate_item(0.1)
        .with_gate_cross(0.1)
        .with_gate_softmax(0.2);
    case.config().with_dropout(rates).with_negatives(9)
}

fn bits(model: &Model) -> Vec<u32> {
    let tensors = model.named_tensors();
    tensors.iter().flat_map(|(_, tensor)| tensor.data()).map(|x| x.to_bits()).collect()
}

fn find(name: &str) -> TrainCase {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

/// With every mask drawn, the gradient of each tensor is the slope of the loss along it.
#[test]
fn gradients_under_dropout_are_slopes_of_the_loss() {
    for name in ["tiny_hstu_mol", "tiny_sasrec_mol"] {
        let case = find(name);
        let (config, batch) = (drawn(&case), case.batch());
        let differentiate = |model: &Model| {
            let mut trainer = Trainer::new(CpuOps::pooled(), model, &config, None).unwrap();
            let (losses, gradients) = trainer.gradients(&batch, None).unwrap();
            (losses.total, gradients)
        };
        let (loss, gradients) = differentiate(&case.model);
        let weights: BTreeMap<String, Tensor> = case.model.named_tensors().into_iter().collect();
        for (tensor, gradient) in &gradients.named_tensors() {
            let square: f64 = gradient.data().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            if square < 1e-12 {
                // SASRec's key biases: no loss depends on them.
                assert!(tensor.contains("in_proj_bias") || square == 0.0, "{name} {tensor}: {square}");
                continue;
            }
            // A step that changes the loss by a thousandth, far above its rounding.
            let step = 1e-3 * loss / square;
            let at = |sign: f64| {
                let moved = Model::make(case.model.config.clone(), case.model.n_item_rows(), &mut |asked, _| {
                    let old = &weights[asked];
                    let change = |(&x, &g): (&f32, &f32)| x + (sign * step * f64::from(g)) as f32;
                    let values = match asked == tensor {
                        true => old.data().iter().zip(gradient.data()).map(change).collect(),
                        false => old.data().to_vec(),
                    };
                    Tensor::new(old.shape().to_vec(), values).unwrap()
                })
                .unwrap();
                differentiate(&moved).0
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step * square);
            assert!((slope - 1.0).abs() < 0.02, "{name} {tensor}: slope {slope}");
        }
    }
}

#[test]
fn neither_threads_nor_a_break_show_in_the_bits() {
    for name in ["tiny_hstu_mol", "tiny_sasrec_mol"] {
        let case = find(name);
        let (config, batch) = (drawn(&case), case.batch());
        let new = || Trainer::new(CpuOps::pooled(), &case.model, &config, None).unwrap();
        let train = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut trainer = new();
                (0..4).for_each(|_| _ = trainer.step(&batch, None).unwrap());
                bits(&trainer.model().unwrap())
            })
        };
        let expected = train(1);
        assert!(expected == train(2) && expected == train(3), "{name}: threads show");
        let mut trainer = new();
        (0..2).for_each(|_| _ = trainer.step(&batch, None).unwrap());
        let state = trainer.state().unwrap();
        let mut resumed = Trainer::resume(CpuOps::default(), &state, &config, None).unwrap();
        (0..2).for_each(|_| _ = resumed.step(&batch, None).unwrap());
        assert!(expected == bits(&resumed.model().unwrap()), "{name}: a break shows");
        assert_eq!(resumed.n_steps(), 4);
        // Another seed, or another step, draws something else.
        let mut other = Trainer::new(CpuOps::default(), &case.model, &config.clone().with_seed(7), None).unwrap();
        let (first, again) = (new().step(&batch, None).unwrap(), new().step(&batch, None).unwrap());
        assert_eq!(first, again);
        assert_ne!(first, other.step(&batch, None).unwrap());
    }
}

#[test]
fn numbers_that_are_not_finite_stop_with_the_last_good_state() {
    let case = find("tiny_hstu_mol");
    let config = case.config().with_learning_rate(1e30);
    let mut trainer = Trainer::new(CpuOps::default(), &case.model, &config, None).unwrap();
    trainer.step(&case.batch(), None).unwrap();
    let before = trainer.state().unwrap();
    let error = trainer.step(&case.batch(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged);
    assert!(error.to_string().starts_with("training step 2: the "), "{error}");
    let after = trainer.state().unwrap();
    assert_eq!((after.step, bits(&after.model)), (1, bits(&before.model)));
    assert_eq!(bits(&after.second_moments), bits(&before.second_moments));
}

#[test]
fn warm_up_clipping_and_lazy_updates_do_what_they_say() {
    let case = find("tiny_hstu_dot");
    let (batch, negatives) = (case.batch(), case.negatives(0).unwrap());
    let start: BTreeMap<String, Tensor> = case.model.named_tensors().into_iter().collect();
    let first_step = |config: TrainConfig| {
        let mut trainer = Trainer::new(CpuOps::default(), &case.model, &config, None).unwrap();
        trainer.step(&batch, Some(&negatives)).unwrap();
        trainer.state().unwrap()
    };
    let table = |model: &Model| model.encoder.items.clone();
    let started = &start["_embedding_module._item_emb.weight"];
    let full = distance(&table(&first_step(case.config()).model), started);
    let quarter = distance(&table(&first_step(case.config().with_warmup_steps(4)).model), started);
    assert!((quarter / full - 0.25).abs() < 1e-3, "{quarter} of {full}");

    let norm = |state: &rails_wgpu::train::TrainState| {
        let tensors = state.first_moments.named_tensors();
        tensors.iter().flat_map(|(_, tensor)| tensor.data()).map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    };
    let whole = norm(&first_step(case.config()));
    let clipped = norm(&first_step(case.config().with_max_gradient_norm(Some(0.01))));
    assert!(whole > 0.0011 && (clipped / 0.001 - 1.0).abs() < 1e-3, "{clipped}, unclipped {whole}");
    assert_eq!(norm(&first_step(case.config().with_max_gradient_norm(Some(1e6)))), whole);

    let lazy = table(&first_step(case.config().with_lazy_item_updates(true)).model);
    let eager = table(&first_step(case.config()).model);
    let met = |row: usize| {
        let id = row as u32;
        batch.targets.contains(&id) || batch.sequences.item_ids.contains(&id) || negatives.contains(&id)
    };
    let n_met = (0..started.rows()).filter(|&row| met(row)).count();
    assert!(n_met > 100 && n_met < started.rows());
    for row in 0..started.rows() {
        let expected = if met(row) { eager.row(row) } else { started.row(row) };
        assert_eq!(lazy.row(row), expected, "row {row}");
        assert_ne!(eager.row(row), started.row(row), "row {row}: all decay");
    }
}

#[test]
fn masks_of_items_compare_the_same_pairs() {
    // Rates that drop nothing, but are not zero.
    let case = find("tiny_hstu_mol");
    let rates = DropoutRates::NONE.with_item(1e-9);
    for masks in [Some(1), Some(3), None] {
        let config = case.config().with_dropout(rates).with_item_dropout_masks(masks);
        let mut trainer = Trainer::new(CpuOps::default(), &case.model, &config, None).unwrap();
        case.check_losses(0, &trainer.step(&case.batch(), case.negatives(0).as_deref()).unwrap()).unwrap();
    }
}

#[test]
fn what_cannot_be_trained_on_is_refused() {
    let case = find("tiny_hstu_dot");
    let mut trainer = case.trainer();
    let batch = case.batch();
    let mut says =
        |batch: &TrainBatch, negatives: &[u32]| trainer.step(batch, Some(negatives)).unwrap_err().to_string();
    let n = batch.targets.len();
    assert!(says(&batch, &vec![1; n + 1]).contains("the same number of items for each of 128 positions"));
    assert!(says(&batch, &vec![221; n]).contains("ids below 221 (rows of the item table), found 221"));
    assert!(says(&TrainBatch::default(), &[]).contains("at least one position"));
    let mut other = batch.clone();
    other.targets.pop();
    assert!(says(&other, &vec![1; n]).contains("found 128 positions and 127 targets"));
    let counts =
        |counts: &[u32]| Trainer::new(CpuOps::default(), &case.model, &case.config(), Some(counts)).err().unwrap();
    assert!(counts(&[1, 2]).to_string().contains("221 counts"));
    let mut state = case.trainer().state().unwrap();
    state.first_moments = find("tiny_sasrec_dot").model;
    let error = Trainer::resume(CpuOps::default(), &state, &case.config(), None).err().unwrap();
    assert!(error.to_string().contains("moments in the shapes of the weights"), "{error}");
}

/// With all items as negatives of each position, whose collisions have no weight, the sampled softmax is the full one.
#[test]
fn the_full_softmax_is_the_sampled_one_of_all_items() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| case.model.mol.is_none()) {
        let (config, batch) = (case.config(), case.batch());
        let ids: Vec<u32> = (1..case.model.n_item_rows() as u32).collect();
        let all: Vec<u32> = batch.supervised().iter().flat_map(|_| ids.iter().copied()).collect();
        // Some items are in no list: nothing is compared with them but where they are targets.
        let listed: Vec<u32> = (0..=ids.len() as u32).map(|id| u32::from(id > 0 && id % 3 > 0)).collect();
        for counts in [None, Some(&listed[..])] {
            let new =
                |loss| Trainer::new(CpuOps::default(), &case.model, &config.clone().with_loss(loss), counts).unwrap();
            let is_compared =
                |id: u32| counts.is_none_or(|counts| counts[id as usize] > 0) || batch.targets.contains(&id);
            let negatives: Vec<u32> = all.iter().copied().filter(|&id| is_compared(id)).collect();
            let (expected_loss, expected) = new(LossKind::SampledSoftmax).gradients(&batch, Some(&negatives)).unwrap();
            let (loss, found) = new(LossKind::FullSoftmax).gradients(&batch, None).unwrap();
            assert!((loss.total / expected_loss.total - 1.0).abs() < 1e-6, "{}: {loss:?}", case.name);
            let of_all = magnitude(&expected.encoder.items);
            for ((tensor, found), (_, expected)) in found.named_tensors().iter().zip(expected.named_tensors()) {
                let allowed = 2e-5 * magnitude(&expected) + 1e-6 * of_all;
                let off = distance(found, &expected);
                assert!(off <= allowed, "{} {tensor}: off by {off:e}, {allowed:e} allowed", case.name);
            }
            compared += 1;
        }
        let mut trainer = Trainer::new(CpuOps::default(), &case.model, &config.with_loss(LossKind::FullSoftmax), None);
        let error = trainer.as_mut().ok().unwrap().step(&batch, Some(&all)).unwrap_err().to_string();
        assert!(error.contains("the full softmax compares with all items"), "{error}");
    }
    assert!(compared >= 8, "{compared}");
    let case = find("tiny_hstu_mol");
    let config = case.config().with_loss(LossKind::FullSoftmax);
    let error = Trainer::new(CpuOps::default(), &case.model, &config, None).err().unwrap().to_string();
    assert!(error.contains("with Mixture-of-Logits only the sampled softmax is trained"), "{error}");
}

#[cfg(feature = "gpu")]
mod on_gpu {
    use super::*;
    use crate::common::gpu;
    use rails_wgpu::backend::TrainingDevice;
    use rails_wgpu::backend::gpu::GpuTrainingOps;
    use rails_wgpu::config::{EncoderConfig, ModelConfig};
    use rails_wgpu::metrics::Metric;
    use rails_wgpu::train::{
        DataSource, Ending, Run, RunConfig, RunData, RunEvent, RunFolder, RunLimits, Split, fresh_model,
    };
    use std::ops::ControlFlow;

    #[test]
    fn the_gpu_takes_the_steps_of_the_reference() {
        let Some(device) = gpu::shared() else { return };
        for case in cases() {
            let (_, uncertainty) = gradients(&case);
            let mut trainer = case.trainer_on(GpuTrainingOps::new(&device));
            let (losses, found) = trainer.gradients(&case.batch(), case.negatives(0).as_deref()).unwrap();
            case.check_losses(0, &losses).unwrap();
            let found = found.named_tensors();
            compare_gradients(&case, &found, &uncertainty).unwrap();
            check_steps(&case, trainer, (found, &uncertainty));
        }
    }

    #[test]
    fn a_model_that_is_too_wide_for_the_gpu_is_refused_or_trained_on_the_cpu() {
        let Some(device) = gpu::shared() else { return };
        let mut config = find("tiny_gru4rec_bias").model.config;
        let EncoderConfig::Gru4rec(gru) = &mut config.encoder else { panic!("{:?}", config.encoder) };
        (gru.hidden_dim, gru.dense) = (257, true);
        let model = fresh_model(&config, 9, 1).unwrap();
        let ops = GpuTrainingOps::new(&device);
        let refused = Trainer::new(ops, &model, &TrainConfig::default(), None).err().unwrap().to_string();
        assert!(refused.contains("GRU4Rec of width up to 256") && refused.contains("found width 257"), "{refused}");
        let trained_by = |model: &ModelConfig| TrainingDevice::gpu(&device).or_cpu(model).name();
        assert_eq!(trained_by(&config), "cpu");
        assert_eq!(trained_by(&find("tiny_gru4rec_bias").model.config), TrainingDevice::gpu(&device).name());
    }

    /// A run that was stopped within an epoch and goes on, and one that was not.
    #[test]
    fn a_run_on_the_gpu_goes_on_to_the_same_bits() {
        let Some(gpu) = gpu::shared() else { return };
        let (device, folder) = (TrainingDevice::gpu(&gpu), tempfile::tempdir().unwrap());
        let data = RunData::read(&DataSource::of_files(&fixture("tiny.csv"), None).unwrap()).unwrap();
        let model = ModelConfig::from_gin(fixture("tiny_hstu_mol/config.gin")).unwrap();
        let train = drawn(&find("tiny_hstu_mol")).with_epochs(2).with_batch_size(48);
        let config = RunConfig::new(model, train, Split::Validation, Metric::HitRate(10), data.summary());
        let begin = |name| Run::create(&folder.path().join(name), config.clone(), data.set(), &device).unwrap();
        let mut whole = begin("whole");
        let ending = whole.train(&RunLimits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((ending, whole.step()), (Ending::Epochs, 4));

        let mut stopped = begin("stopped");
        let mut stop = |event: RunEvent| match event {
            RunEvent::Step { step: 3, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        assert_eq!(stopped.train(&RunLimits::default(), &mut stop).unwrap(), Ending::Stopped);
        drop(stopped);
        let (opened, stored) = RunFolder::open(&folder.path().join("stopped")).unwrap();
        assert_eq!(stored.device, device.name());
        let mut resumed = Run::resume(opened, &stored, stored.clone(), data.set(), &device).unwrap();
        resumed.train(&RunLimits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        for file in ["last.safetensors", "model.safetensors"] {
            let read = |name: &str| std::fs::read(folder.path().join(name).join(file)).unwrap();
            assert!(read("whole") == read("stopped"), "{file}");
        }
        assert_eq!(whole.best().unwrap().evaluation, resumed.best().unwrap().evaluation);
    }

    /// Masks and negatives are the CPU's, so the gradients are, too; and the same steps make the same bits.
    #[test]
    fn what_is_drawn_on_the_gpu_is_what_is_drawn_on_the_cpu() {
        let Some(device) = gpu::shared() else { return };
        for name in ["tiny_hstu_dot", "tiny_sasrec_dot", "tiny_hstu_mol", "tiny_sasrec_mol"] {
            let case = find(name);
            let (config, batch) = (drawn(&case), case.batch());
            let new = || Trainer::new(GpuTrainingOps::new(&device), &case.model, &config, None).unwrap();
            let mut cpu = Trainer::new(CpuOps::pooled(), &case.model, &config, None).unwrap();
            let (expected_loss, expected) = cpu.gradients(&batch, None).unwrap();
            let mut trainer = new();
            let (loss, found) = trainer.gradients(&batch, None).unwrap();
            assert!((loss.total / expected_loss.total - 1.0).abs() < 1e-5, "{name}: {loss:?}, not {expected_loss:?}");
            let of_all = magnitude(&expected.encoder.items);
            for ((tensor, found), (_, expected)) in found.named_tensors().iter().zip(expected.named_tensors()) {
                // Gradients that are zero but for rounding are as small as this.
                let allowed = 1e-4 * magnitude(&expected) + 1e-6 * of_all;
                let off = distance(found, &expected);
                assert!(off <= allowed, "{name} {tensor}: off by {off:e}, {allowed:e} allowed");
            }
            let mut again = new();
            for _ in 0..2 {
                assert_eq!(trainer.step(&batch, None).unwrap(), again.step(&batch, None).unwrap());
            }
            assert!(bits(&trainer.model().unwrap()) == bits(&again.model().unwrap()), "{name}: a run shows");
        }
    }
}
