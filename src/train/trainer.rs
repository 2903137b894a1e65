//! Steps of a training.

use super::items::BatchItems;
use super::losses::{MolStep, Pairs};
use super::negatives::Negatives;
use super::optimiser::{TrainedParameter, adamw, gradient_norm};
use super::sites;
use super::weights::{ITEMS, Shapes, Weights, tensors};
use crate::backend::loss::FullSoftmax;
use crate::backend::{Trainable, TrainingOps};
use crate::config::{EncoderConfig, LossKind, ModelConfig, SimilarityConfig, TrainConfig};
use crate::error::Parameter;
use crate::model::Model;
use crate::ops::Ops;
use crate::random::Random;
use crate::tensor::Tensor;
use crate::train::{Losses, Masks, Node, Tape, TrainBatch};
use crate::{Error, Result};

/// What a training needs to go on from where it was.
#[derive(Clone, Debug)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// The weights.
    pub model: Model,
    /// Decaying means of gradients, in the shapes of the weights.
    pub first_moments: Model,
    /// Decaying means of their squares.
    pub second_moments: Model,
}

/// Trains a model, step by step. The same seed, model and batches make the same bits, with any number of threads.
///
/// ```
/// use rails_wgpu::backend::cpu::CpuOps;
/// use rails_wgpu::config::TrainConfig;
/// use rails_wgpu::train::{TrainBatch, Trainer};
///
/// # fn train(model: &rails_wgpu::Model, batches: &[TrainBatch]) -> rails_wgpu::Result<()> {
/// let mut trainer = Trainer::new(CpuOps::pooled(), model, &TrainConfig::default(), None)?;
/// for batch in batches {
///     let losses = trainer.step(batch, None)?;
///     println!("step {}: loss {:.4}", trainer.n_steps(), losses.total);
/// }
/// let trained = trainer.model()?;
/// # Ok(())
/// # }
/// ```
pub struct Trainer<B: TrainingOps> {
    ops: B,
    config: TrainConfig,
    shapes: Shapes,
    random: Random,
    negatives: Negatives,
    n_item_rows: usize,
    /// Those, and the row of a mask.
    n_table_rows: usize,
    step: u64,
    /// One for each tensor.
    parameters: Vec<TrainedParameter<B::Floats>>,
}

/// The gradients of a step, one for each tensor; that of the item table has the rows of the batch's items only.
struct StepGradients<F> {
    losses: Losses,
    items: BatchItems,
    gradients: Vec<Option<F>>,
}

impl<B: TrainingOps<Floats: 'static, Ints: 'static>> Trainer<B> {
    /// Begins with the weights of `model`. Negatives are drawn from the items with a count in `item_counts` (item rows), by default
    /// from ids 1 to the last; only negatives by popularity look at more than whether there is one. The full softmax is over the same
    /// items, and the targets of the batch.
    ///
    /// # Errors
    /// If the configuration cannot be used, or as [`Trainer::step`].
    pub fn new(ops: B, model: &Model, config: &TrainConfig, item_counts: Option<&[u32]>) -> Result<Trainer<B>> {
        config.validate()?;
        ops.check(&model.config)?;
        if let EncoderConfig::Transformer(_) = model.config.encoder {
            let expected = "HSTU, SASRec, GRU4Rec or BERT4Rec, as this program configures them";
            return Err(Error::argument(Parameter::Model, expected, "a transformer of another program"));
        }
        if model.config.encoder.appends_mask() && model.mol.is_some() {
            let expected =
                "a dot product, or an encoder without masks: masked positions are not trained with Mixture-of-Logits";
            return Err(Error::argument(Parameter::Model, expected, "BERT4Rec with Mixture-of-Logits"));
        }
        if config.loss == LossKind::FullSoftmax && model.mol.is_some() {
            let expected = "a dot product: with Mixture-of-Logits only the sampled softmax is trained";
            return Err(Error::argument(Parameter::HyperParameter("loss"), expected, "the full softmax"));
        }
        let n_item_rows = model.n_item_rows();
        let counts = match item_counts {
            Some(counts) if counts.len() != n_item_rows => {
                let expected = format!("{n_item_rows} counts, one for each row of the item table");
                return Err(Error::argument(Parameter::ItemIds, expected, counts.len()));
            }
            Some(counts) => counts.to_vec(),
            None => (0..n_item_rows).map(|id| u32::from(id > 0)).collect(),
        };
        let mut trainer = Trainer {
            ops,
            config: config.clone(),
            shapes: Shapes::of(model),
            random: Random::new(config.seed),
            negatives: Negatives::new(config.sampling, &counts)?,
            n_item_rows,
            n_table_rows: model.encoder.items.rows(),
            step: 0,
            parameters: Vec::new(),
        };
        trainer.parameters =
            tensors(model).iter().map(|tensor| TrainedParameter::new(&mut trainer.ops, tensor, None)).collect();
        Ok(trainer)
    }

    /// Goes on from a state that [`Trainer::state`] has returned, with the same bits as if there had been no break.
    ///
    /// # Errors
    /// As [`Trainer::new`]; and if the moments are of a model of another shape.
    pub fn resume(ops: B, state: &TrainState, config: &TrainConfig, item_counts: Option<&[u32]>) -> Result<Trainer<B>> {
        let mut trainer = Trainer::new(ops, &state.model, config, item_counts)?;
        let (weights, first, second) =
            (tensors(&state.model), tensors(&state.first_moments), tensors(&state.second_moments));
        let shapes = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.shape().to_vec()).collect::<Vec<_>>();
        if shapes(&weights) != shapes(&first) || shapes(&weights) != shapes(&second) {
            let expected = "moments in the shapes of the weights";
            return Err(Error::argument(Parameter::Model, expected, "others: they belong to another model"));
        }
        let tensors = weights.iter().zip(first.iter().zip(&second));
        trainer.parameters = tensors
            .map(|(values, (first, second))| TrainedParameter::new(&mut trainer.ops, values, Some((first, second))))
            .collect();
        trainer.step = state.step;
        Ok(trainer)
    }

    /// Steps done.
    pub fn n_steps(&self) -> u64 {
        self.step
    }

    /// The weights as they are now.
    ///
    /// # Errors
    /// If the device failed.
    pub fn model(&mut self) -> Result<Model> {
        self.read(|parameter| &parameter.values)
    }

    /// What [`Trainer::resume`] needs.
    ///
    /// # Errors
    /// If the device failed.
    pub fn state(&mut self) -> Result<TrainState> {
        Ok(TrainState {
            step: self.step,
            model: self.model()?,
            first_moments: self.read(|parameter| &parameter.first_moment)?,
            second_moments: self.read(|parameter| &parameter.second_moment)?,
        })
    }

    fn read(&mut self, of: impl Fn(&TrainedParameter<B::Floats>) -> &B::Floats) -> Result<Model> {
        let ops = &mut self.ops;
        let values = self.parameters.iter().map(|parameter| ops.read(of(parameter)));
        Ok(self.shapes.model(values.collect::<Result<Vec<_>>>()?))
    }

    /// One step of AdamW on the mean loss of a batch. `negatives` (P, R), the items that each position is compared with, are
    /// drawn if there are none; with the full softmax there must be none.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or a gradient is not finite; weights and moments are then as before. An argument error if
    /// the batch has no position, or an id of `negatives` is not one of the item table. If the device failed.
    pub fn step(&mut self, batch: &TrainBatch, negatives: Option<&[u32]>) -> Result<Losses> {
        let StepGradients { losses, items, gradients } = self.differentiate(batch, negatives)?;
        let step = self.step + 1;
        if !losses.total.is_finite() {
            return Err(Error::Diverged { step, what: "the loss".to_string() });
        }
        let shapes = &self.shapes;
        let diverged = |number: Option<usize>| Error::Diverged {
            step,
            what: format!("the gradient of `{}`", shapes.name(number.unwrap_or(ITEMS))),
        };
        let norm = gradient_norm(&mut self.ops, &gradients, diverged)?;
        let adamw = adamw(&self.config, step, norm);
        let dim = self.shapes.config().item_embedding_dim;
        for (number, (parameter, gradient)) in self.parameters.iter_mut().zip(&gradients).enumerate() {
            let TrainedParameter { values, first_moment, second_moment } = parameter;
            let parameter = Trainable { values, first_moment, second_moment };
            match gradient {
                Some(rows) if number == ITEMS => {
                    self.ops.update_rows(&adamw, parameter, dim, &items.ids, rows, self.config.lazy_item_updates);
                }
                gradient => self.ops.update(&adamw, parameter, gradient.as_ref()),
            }
        }
        self.step = step;
        Ok(losses)
    }

    /// The losses of a batch, as the next step would see them, and their gradient with respect to all tensors, in the form of a
    /// model. For tests and other optimisers.
    ///
    /// # Errors
    /// As [`Trainer::step`], but that numbers may be anything.
    pub fn gradients(&mut self, batch: &TrainBatch, negatives: Option<&[u32]>) -> Result<(Losses, Model)> {
        let StepGradients { losses, items, gradients } = self.differentiate(batch, negatives)?;
        let dim = self.shapes.config().item_embedding_dim;
        let mut values = Vec::new();
        for (number, gradient) in gradients.iter().enumerate() {
            let read = gradient.as_ref().map(|gradient| self.ops.read(gradient)).transpose()?;
            values.push(match read {
                Some(rows) if number == ITEMS => {
                    let mut table = vec![0.0; self.n_table_rows * dim];
                    for (&id, row) in items.ids.iter().zip(rows.chunks_exact(dim)) {
                        table[id as usize * dim..][..dim].copy_from_slice(row);
                    }
                    table
                }
                Some(values) => values,
                None => vec![0.0; self.shapes.n_values(number)],
            });
        }
        Ok((losses, self.shapes.model(values)))
    }

    fn check(&self, batch: &TrainBatch, negatives: Option<&[u32]>) -> Result<()> {
        let (n_rows, n_positions) = (batch.sequences.n_rows(), batch.supervised().len());
        let all_supervised = n_positions == n_rows || self.shapes.config().similarity == SimilarityConfig::DotProduct;
        if n_positions == 0 || batch.targets.len() != n_rows || !all_supervised {
            let found = format!("{n_rows} positions and {n_positions} targets");
            return Err(Error::argument("training batch", "at least one position, and a target for each", found));
        }
        let Some(negatives) = negatives else { return Ok(()) };
        if self.config.loss == LossKind::FullSoftmax {
            return Err(Error::argument(
                "negatives",
                "none: the full softmax compares with all items",
                negatives.len(),
            ));
        }
        if negatives.is_empty() || negatives.len() % n_positions != 0 {
            let expected = format!("the same number of items for each of {n_positions} positions");
            return Err(Error::argument("negatives", expected, negatives.len()));
        }
        match negatives.iter().find(|&&id| id as usize >= self.n_item_rows) {
            None => Ok(()),
            Some(id) => {
                let expected = format!("ids below {} (rows of the item table)", self.n_item_rows);
                Err(Error::argument("negatives", expected, id))
            }
        }
    }

    fn differentiate(&mut self, batch: &TrainBatch, negatives: Option<&[u32]>) -> Result<StepGradients<B::Floats>> {
        self.check(batch, negatives)?;
        let step = self.step as u32;
        let is_full = self.config.loss == LossKind::FullSoftmax;
        let drawn = match negatives {
            None if !is_full => {
                self.negatives.draw(self.random.stream(step, sites::NEGATIVES), batch, self.config.negatives)
            }
            _ => Vec::new(),
        };
        let negatives = negatives.unwrap_or(&drawn);
        let sequences = &batch.sequences;
        let supervised = batch.supervised();
        let targets: Vec<u32> = supervised.iter().map(|&row| batch.targets[row as usize]).collect();
        // With the full softmax, what queries are compared with.
        let compared = is_full.then(|| BatchItems::of(&[&targets, self.negatives.ids()], self.n_table_rows));
        let others = compared.as_ref().map_or(negatives, |compared| &compared.ids);
        let items = BatchItems::of(&[&sequences.item_ids, &targets, others], self.n_table_rows);
        let config = self.shapes.config();
        let dim = config.item_embedding_dim;
        let masks = Masks::new(self.config.dropout, self.random, step);

        let ids = self.ops.ints(&items.ids);
        let rows = self.ops.gather(&self.parameters[ITEMS].values, dim, &ids, items.len());
        let mut tape = Tape::new(&mut self.ops, masks);
        let arrays = self.parameters.iter().enumerate();
        let arrays = arrays.map(|(number, parameter)| if number == ITEMS { &rows } else { &parameter.values });
        let leaves: Vec<Node<B::Floats>> = arrays.map(|array| tape.leaf(array.clone())).collect();
        drop(rows);
        let weights = self.shapes.place(leaves.iter().cloned());
        let history = tape.ints(&items.places(&sequences.item_ids));
        let mut states = weights.encoder.forward_all(&mut tape, &leaves[ITEMS], &history, sequences);
        if supervised.len() < sequences.n_rows() {
            let rows = tape.ints(&supervised);
            states = tape.gather(&states, config.query_embedding_dim(), &rows, supervised.len());
        }

        let mut pairs = Pairs {
            positives: items.places(&targets),
            negatives: items.places(negatives),
            correction: self.negatives.correction(&items.ids),
        };
        let mut seeds = Vec::new();
        let losses = match &weights.mol {
            Some(mol) => {
                let step = MolStep {
                    config: &self.config,
                    masks,
                    users: &sequences.user_ids,
                    offsets: &sequences.offsets,
                    n_items: items.len(),
                };
                step.differentiate(&mut tape, mol, &states, &leaves[ITEMS], &mut pairs, &mut seeds)?
            }
            None => {
                let outputs = Outputs { items: &items, compared: compared.as_ref(), n_item_rows: self.n_item_rows };
                let embeddings = outputs.embeddings(&mut tape, &weights, config, &leaves[ITEMS]);
                let (queries, vectors) = (states.values().clone(), embeddings.values().clone());
                let (dim, temperature) = (config.query_embedding_dim(), self.config.temperature);
                let (main, [of_queries, of_items]) = match &compared {
                    None => tape.ops().dot_loss(dim, &queries, &vectors, pairs.softmax(temperature))?,
                    Some(compared) => {
                        let softmax = FullSoftmax { targets: &compared.places(&targets), temperature };
                        tape.ops().full_softmax_loss(dim, &queries, &vectors, softmax)?
                    }
                };
                seeds.extend([(states.clone(), of_queries), (embeddings, of_items)]);
                Losses { total: main, main, ..Losses::default() }
            }
        };
        drop((states, weights));
        let mut gradients = tape.backward(seeds);
        let gradients = leaves.iter().map(|leaf| gradients.take(leaf)).collect();
        Ok(StepGradients { losses, items, gradients })
    }
}

/// What the queries of a batch are compared with.
struct Outputs<'a> {
    /// All items of the batch.
    items: &'a BatchItems,
    /// Those of them that are compared, if not all are.
    compared: Option<&'a BatchItems>,
    n_item_rows: usize,
}

impl Outputs<'_> {
    /// (items compared, width of query embeddings); `rows` are the rows of all items of the batch in the encoder's item table.
    fn embeddings<B: TrainingOps<Floats: 'static, Ints: 'static>>(
        &self,
        tape: &mut Tape<B>,
        weights: &Weights<Node<B::Floats>>,
        config: &ModelConfig,
        rows: &Node<B::Floats>,
    ) -> Node<B::Floats> {
        let (dim, compared) = (config.item_embedding_dim, self.compared.unwrap_or(self.items));
        let n = compared.len();
        // Nothing is compared with a mask; it has no row here.
        let row = |&id: &u32| if (id as usize) < self.n_item_rows { id } else { 0 };
        let ids = tape.ints(&compared.ids.iter().map(row).collect::<Vec<_>>());
        let mut embeddings = match &weights.output_items {
            Some(table) => tape.gather(table, dim, &ids, n),
            None if n == self.items.len() => rows.clone(),
            None => {
                let places = tape.ints(&self.items.places(&compared.ids));
                tape.gather(rows, dim, &places, n)
            }
        };
        if config.item_l2_norm {
            embeddings = tape.l2_norm(&embeddings, n, dim, config.l2_norm_eps);
        }
        match &weights.output_bias {
            Some(biases) => {
                let biases = tape.gather(biases, 1, &ids, n);
                tape.concat(&[(&embeddings, dim), (&biases, 1)], n)
            }
            None => embeddings,
        }
    }
}
