//! Small random Mixture-of-Logits models.
#![allow(clippy::unwrap_used, reason = "tests")]

use rails_wgpu::config::{GatingCombination, GluConfig, GluNonlinearity, MolConfig};
use rails_wgpu::model::{CrossGate, GatePart, Mol, Projection};
use rails_wgpu::ops::{Activation, Linear};
use rails_wgpu::tensor::Tensor;

/// Seeded uniform numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// In -1 .. 1.
    pub fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Numbers in -scale .. scale.
    #[allow(clippy::unwrap_used, reason = "as many numbers as the shape says; benchmarks use this, too")]
    pub fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let data = (0..shape.iter().product()).map(|_| scale * self.number()).collect();
        Tensor::new(shape.to_vec(), data).expect("as many numbers as the shape says")
    }

    fn linear(&mut self, n_in: usize, n_out: usize, bias: bool) -> Linear<Tensor> {
        let scale = (3.0 / n_in as f32).sqrt();
        let bias = bias.then(|| self.tensor(&[n_out], 0.5));
        Linear { weight: self.tensor(&[n_in, n_out], scale), bias, n_in, n_out }
    }
}

/// What a model has.
#[derive(Clone, Debug)]
pub struct Shape {
    pub p_q: usize,
    pub p_x: usize,
    pub d_p: usize,
    pub l2_norm: bool,
    pub gating: GatingCombination,
    pub query_gate: Option<usize>,
    pub item_gate: Option<usize>,
    pub hidden: Option<usize>,
    pub query_glu: Option<usize>,
    pub item_glu: Option<usize>,
    pub uid_sizes: Vec<usize>,
    /// Whether embeddings are components; gates and projections of either side are left out then.
    pub given: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            p_q: 2,
            p_x: 3,
            d_p: 6,
            l2_norm: true,
            gating: GatingCombination::GluSilu,
            query_gate: Some(4),
            item_gate: Some(3),
            hidden: Some(8),
            query_glu: None,
            item_glu: None,
            uid_sizes: vec![5],
            given: false,
        }
    }
}

impl Shape {
    /// A random model for embeddings of width `dim`.
    pub fn mol(&self, random: &mut Random, dim: usize) -> Mol<Tensor> {
        let is_projected = |hidden: &usize| *hidden > 0 && !self.given;
        let glu = |hidden: Option<usize>| {
            hidden
                .filter(is_projected)
                .map(|hidden_dim| GluConfig { hidden_dim, nonlinearity: GluNonlinearity::Swiglu })
        };
        let config = MolConfig {
            query_dot_product_groups: self.p_q,
            item_dot_product_groups: self.p_x,
            dot_product_dimension: self.d_p,
            given_components: self.given,
            temperature: 0.5,
            dot_product_l2_norm: self.l2_norm,
            eps: 1e-6,
            query_hidden: glu(self.query_glu),
            item_hidden: glu(self.item_glu),
            uid_embedding_hash_sizes: self.uid_sizes.clone(),
            gating_combination: self.gating,
            gating_query_hidden_dim: self.query_gate.filter(is_projected),
            gating_item_hidden_dim: self.item_gate.filter(is_projected),
            gating_qi_hidden_dim: self.hidden,
        };
        let n_logits = self.p_q * self.p_x;
        let mut projection = |glu: Option<usize>, groups: usize| {
            (!self.given).then(|| Projection {
                glu: glu.map(|hidden| (random.linear(dim, 2 * hidden, true), Activation::Silu)),
                output: random.linear(glu.unwrap_or(dim), groups * self.d_p, true),
            })
        };
        let query = projection(self.query_glu, self.p_q - self.uid_sizes.len());
        let item = projection(self.item_glu, self.p_x);
        let uid_tables = self.uid_sizes.iter().map(|size| random.tensor(&[size + 1, self.d_p], 1.0)).collect();
        let mut gate = |hidden: Option<usize>| {
            hidden.filter(is_projected).map(|hidden| GatePart {
                hidden: random.linear(dim, hidden, true),
                output: random.linear(hidden, n_logits, false),
            })
        };
        let (gate_query, gate_item) = (gate(self.query_gate), gate(self.item_gate));
        let gate_cross = CrossGate {
            hidden: self.hidden.map(|hidden| random.linear(n_logits, hidden, true)),
            output: random.linear(self.hidden.unwrap_or(n_logits), n_logits, true),
            linear: None,
        };
        Mol { config, query, uid_tables, item, gate_query, gate_item, gate_cross, principal: None }
    }
}
