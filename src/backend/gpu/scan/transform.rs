//! Queries transformed for items that are kept as raw embeddings.

use crate::Result;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::backend::gpu::kernels::Recorder;
use crate::config::MolConfig;
use crate::ops::{Activation, Linear, Ops};
use crate::tensor::Tensor;

/// The transformed query, for items of raw embeddings: `<f, W_m x + b_m> = <W_m^T f, x> + <f, b_m>`.
#[derive(Debug)]
pub(crate) struct Transform {
    /// f -> (P_X, D): W_m^T f.
    vectors: Linear<Buffer>,
    /// f -> (P_X): <f, b_m>.
    biases: Linear<Buffer>,
    p_x: usize,
}

impl Transform {
    /// For items that `output` projects.
    pub fn new(gpu: &Gpu, config: &MolConfig, output: &Linear<Tensor>) -> Result<Transform> {
        let (p_x, d_p, dim) = (config.item_dot_product_groups, config.dot_product_dimension, output.n_in);
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
    pub fn all(&self, recorder: &mut Recorder, vectors: &Buffer, n: usize) -> [Buffer; 2] {
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
