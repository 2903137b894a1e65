//! A Mixture-of-Logits similarity on the device: the weights of the query side and of the gate, and the programs of its
//! scorers.

use super::item_table::ItemLayout;
use super::program::{Program, Score, Target, has_linear};
use super::{Buffer, Gpu, Recorder};
use crate::Result;
use crate::backend::{DeviceKind, Scorer, Similarity, check};
use crate::config::MolConfig;
use crate::model::{CrossGate, Mol};
use crate::ops::{Activation, Linear, Ops};
use crate::tables::Form;
use crate::tensor::Tensor;

/// The similarity.
#[derive(Debug)]
pub(super) struct MolSide {
    mol: Mol<Buffer>,
    /// For [`Form::Raw`].
    transform: Option<Transform>,
    mixture: (Program, Weights),
    bound: Program,
    distilled: Option<(Program, Weights)>,
}

/// A cross gate on the device.
#[derive(Debug)]
pub(super) struct Weights {
    /// From [`cross_weights`].
    pub floats: Buffer,
    /// For cooperative matrices, where they may be used.
    pub halves: Option<Buffer>,
}

impl MolSide {
    /// For items in `form`, of width `dim` and packed as `items`.
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    pub fn new(gpu: &Gpu, similarity: &Similarity, items: &ItemLayout, (form, dim): (Form, usize)) -> Result<MolSide> {
        let mol = &similarity.mol;
        let target = Target { software: gpu.info().kind == DeviceKind::SoftwareGpu, matrices: gpu.matrices() };
        let program = |score: Score<Tensor>| Program::mol(&mol.config, items, (form, dim), score, target);
        let mixture = |cross: &CrossGate<Tensor>| -> Result<(Program, Weights)> {
            let program = program(Score::Mixture(cross));
            let floats = gpu.upload(&cross_weights(cross))?;
            let halves = program.coop_weights(cross).map(|halves| gpu.upload(&halves)).transpose()?;
            Ok((program, Weights { floats, halves }))
        };
        let transform = (form == Form::Raw).then(|| Transform::new(gpu, mol)).transpose()?;
        let mut failed = None;
        let uploaded = mol.map(&mut |tensor| {
            gpu.upload(tensor.data()).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                gpu.nothing().clone()
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(MolSide {
                mol: uploaded,
                transform,
                mixture: mixture(&mol.gate_cross)?,
                bound: program(Score::Bound),
                distilled: similarity.distilled.as_ref().map(|distilled| mixture(&distilled.cross)).transpose()?,
            }),
        }
    }

    pub fn config(&self) -> &MolConfig {
        &self.mol.config
    }

    pub fn transform(&self) -> Option<&Transform> {
        self.transform.as_ref()
    }

    /// The program and the weights of a scorer of mixtures.
    ///
    /// # Errors
    /// If there is no such gate.
    pub fn scorer(&self, scorer: Scorer) -> Result<(&Program, &Weights)> {
        match scorer {
            Scorer::Bound => Ok((&self.bound, &self.mixture.1)),
            Scorer::Distilled => {
                self.distilled.as_ref().map(|(program, weights)| (program, weights)).ok_or_else(check::no_distilled)
            }
            Scorer::Mol | Scorer::Dot => Ok((&self.mixture.0, &self.mixture.1)),
        }
    }

    /// The arrays of the query record, of `n_queries` raw query embeddings.
    pub fn query_parts(
        &self,
        recorder: &mut Recorder,
        raw: &Buffer,
        n_queries: usize,
        user_ids: Option<&[i64]>,
    ) -> Vec<Buffer> {
        let (components, gate) = self.mol.query_side(recorder, raw, n_queries, user_ids);
        let vectors = match &self.transform {
            None => vec![components],
            Some(transform) => {
                transform.all(recorder, &components, n_queries * self.config().query_dot_product_groups).into()
            }
        };
        vectors.into_iter().chain(gate).collect()
    }
}

/// The transformed query, for items of raw embeddings: `<f, W_m x + b_m> = <W_m^T f, x> + <f, b_m>`.
#[derive(Debug)]
pub(super) struct Transform {
    /// f -> (P_X, D): W_m^T f.
    vectors: Linear<Buffer>,
    /// f -> (P_X): <f, b_m>.
    biases: Linear<Buffer>,
    p_x: usize,
}

impl Transform {
    fn new(gpu: &Gpu, mol: &Mol<Tensor>) -> Result<Transform> {
        let (p_x, d_p) = (mol.config.item_dot_product_groups, mol.config.dot_product_dimension);
        let (output, dim) = (&mol.item.output, mol.item.output.n_in);
        let mut vectors = Vec::with_capacity(d_p * p_x * dim);
        let mut biases = Vec::with_capacity(d_p * p_x);
        for column in (0..d_p).flat_map(|j| (0..p_x).map(move |m| m * d_p + j)) {
            vectors.extend((0..dim).map(|d| output.weight.row(d)[column]));
            biases.push(output.bias.as_ref().map_or(0.0, |bias| bias.data()[column]));
        }
        let layer = |weight: Vec<f32>| -> Result<Linear<Buffer>> {
            Ok(Linear { n_in: d_p, n_out: weight.len() / d_p, weight: gpu.upload(&weight)?, bias: None })
        };
        Ok(Transform { vectors: layer(vectors)?, biases: layer(biases)?, p_x })
    }

    /// `n` vectors (n, D_P) for every component: (n, P_X, D) and (n, P_X).
    fn all(&self, recorder: &mut Recorder, vectors: &Buffer, n: usize) -> [Buffer; 2] {
        [&self.vectors, &self.biases].map(|layer| recorder.linear(vectors, n, layer, Activation::Identity, None))
    }

    /// Vector i of (n, D_P) for component `component_of(i)`: (n, D) and (n).
    pub fn each(
        &self,
        recorder: &mut Recorder,
        vectors: &Buffer,
        n: usize,
        component_of: impl Fn(usize) -> usize,
    ) -> [Buffer; 2] {
        let [vectors, biases] = self.all(recorder, vectors, n);
        let rows: Vec<u32> = (0..n).map(|i| (i * self.p_x + component_of(i)) as u32).collect();
        let rows = recorder.ints(&rows);
        let dim = self.vectors.n_out / self.p_x;
        [recorder.gather(&vectors, dim, &rows, n), recorder.gather(&biases, 1, &rows, n)]
    }
}

/// A cross gate as `mol.wgsl` reads it.
fn cross_weights(cross: &CrossGate<Tensor>) -> Vec<f32> {
    let n_logits = cross.output.n_out;
    let mut weights = Vec::new();
    let mut quads = |values: &mut dyn Iterator<Item = f32>| {
        weights.extend(values);
        weights.resize(weights.len().next_multiple_of(4), 0.0);
    };
    match &cross.output.bias {
        Some(bias) => quads(&mut bias.data().iter().copied()),
        None => quads(&mut std::iter::repeat_n(0.0, n_logits)),
    }
    if let Some(hidden) = &cross.hidden {
        for unit in 0..hidden.n_out {
            quads(&mut std::iter::once(hidden.bias.as_ref().map_or(0.0, |bias| bias.data()[unit])));
            quads(&mut hidden.weight.data().iter().skip(unit).step_by(hidden.n_out).copied());
            quads(&mut cross.output.weight.row(unit).iter().copied());
        }
    }
    if has_linear(cross) {
        // Without a hidden layer the output layer is the linear part.
        let linear = cross.linear.as_ref().unwrap_or(&cross.output.weight);
        linear.data().chunks_exact(n_logits).for_each(|row| quads(&mut row.iter().copied()));
    }
    weights
}
