//! Pooling of the token states of a language model into component embeddings.

use super::{Mol, transposed};
use crate::error::Parameter;
use crate::ops::{Activation, Linear, Ops};
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// Numbers that are on the device at a time, of at least one text.
const NUMBERS: usize = 4 << 20;

/// The largest magnitude of a number before it is normalised: the square of it is far from overflowing.
const LARGEST: f64 = (1u64 << 48) as f64;

/// What the components of a text are made of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PoolingMethod {
    /// The states of its first tokens.
    FirstTokens {
        /// P
        n_components: usize,
    },
    /// Weighted sums of the states of its tokens.
    Mixture {
        /// (P, T): for each component a number for each of the first T tokens.
        weights: Tensor,
        /// Whether these are softmaxed over the tokens that a text has; else they are the weights themselves.
        softmax: bool,
    },
}

/// A stage between a language model and Mixture-of-Logits: of each text with n token states x (n, D) it makes P component embeddings of
/// width D_P, which [`Mol::of_components`] scores as queries and as items.
///
/// ```text
/// first tokens:  c_p = x_p
/// mixture:       c_p = sum_{t < m} w_pt x_t    m = min(n, T),  w_p = softmax(a_p0, ..., a_p(m-1)), or w = a
/// then:          g_p = W c_p + b               with a projection, one for all components
///                g_p / max(||g_p||, eps)       with an l2 norm
/// ```
///
/// Texts are as long as they are: there are no states of padding, and what a longer text has beyond its first P or T tokens is left
/// out. A text of less than P tokens has no state for its last components: these are zeros, after projection and norm too. Both are
/// poolings of a language model for question answering as in Retrieval with Learned Similarities (arXiv 2407.15462), which has no
/// formula for them.
///
/// ```
/// use rails_wgpu::backend::select;
/// use rails_wgpu::{Tensor, TokenEmbeddings, TokenPooling};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let states = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
/// let texts = TokenEmbeddings::new(states, &[2, 1])?; // of two tokens, and of one
/// let components = select::open("cpu")?.pool(&TokenPooling::first_tokens(2)?, &texts)?; // (2, 2, 2)
/// assert_eq!(components.data(), [1.0, 0.0, 0.0, 1.0, 0.6, 0.8, 0.0, 0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokenPooling {
    method: PoolingMethod,
    /// D -> D_P
    projection: Option<Linear<Tensor>>,
    l2_norm: Option<f32>,
}

impl TokenPooling {
    /// The states of the first `n_components` (P) tokens.
    ///
    /// # Errors
    /// If P is 0 or greater than [`Mol::MAX_LOGITS`].
    pub fn first_tokens(n_components: usize) -> Result<TokenPooling> {
        TokenPooling::new(PoolingMethod::FirstTokens { n_components }, n_components)
    }

    /// Sums of the states of the first T tokens with `weights` (P, T): these themselves, or with `softmax` their softmax over the tokens
    /// that a text has.
    ///
    /// # Errors
    /// If the weights are no matrix or not finite, or as [`TokenPooling::first_tokens`].
    pub fn mixture(weights: Tensor, softmax: bool) -> Result<TokenPooling> {
        if weights.shape().len() != 2 || weights.width() == 0 {
            return Err(wrong("mixing weights (P, T) with T >= 1", format!("shape {:?}", weights.shape())));
        }
        check_finite("mixing weights", &weights)?;
        let n_components = weights.rows();
        TokenPooling::new(PoolingMethod::Mixture { weights, softmax }, n_components)
    }

    fn new(method: PoolingMethod, n_components: usize) -> Result<TokenPooling> {
        if !(1..=Mol::MAX_LOGITS).contains(&n_components) {
            return Err(wrong(format!("1 to {} components", Mol::MAX_LOGITS), n_components));
        }
        Ok(TokenPooling { method, projection: None, l2_norm: None })
    }

    /// The same, with components projected by `weight` (D_P, D) and, if there is one, `bias` (D_P): a linear layer as PyTorch has it.
    ///
    /// # Errors
    /// If the shapes are others, or a number is not finite.
    pub fn with_projection(self, weight: &Tensor, bias: Option<Tensor>) -> Result<TokenPooling> {
        let (n_out, n_in) = match *weight.shape() {
            [n_out, n_in] if n_out > 0 && n_in > 0 => (n_out, n_in),
            _ => return Err(wrong("a projection (D_P, D)", format!("shape {:?}", weight.shape()))),
        };
        if let Some(bias) = bias.as_ref().filter(|bias| bias.shape() != [n_out]) {
            return Err(wrong(format!("a bias ({n_out}) of the projection"), format!("shape {:?}", bias.shape())));
        }
        check_finite("a projection", weight)?;
        bias.iter().try_for_each(|bias| check_finite("a bias of the projection", bias))?;
        let projection = Some(Linear { weight: transposed(weight), bias, n_in, n_out });
        Ok(TokenPooling { projection, ..self })
    }

    /// The same, with components divided by their l2 norm, which is clamped from below at `eps`.
    ///
    /// # Errors
    /// If `eps` is not a finite number above 0.
    pub fn with_l2_norm(self, eps: f32) -> Result<TokenPooling> {
        match eps.is_finite() && eps > 0.0 {
            true => Ok(TokenPooling { l2_norm: Some(eps), ..self }),
            false => Err(wrong("a finite eps above 0", eps)),
        }
    }

    /// What components are made of.
    pub fn method(&self) -> &PoolingMethod {
        &self.method
    }

    /// The projection D -> D_P, if there is one.
    pub fn projection(&self) -> Option<&Linear<Tensor>> {
        self.projection.as_ref()
    }

    /// The smallest norm divided by, if components are normalised.
    pub fn l2_norm(&self) -> Option<f32> {
        self.l2_norm
    }

    /// P.
    pub fn n_components(&self) -> usize {
        match &self.method {
            PoolingMethod::FirstTokens { n_components } => *n_components,
            PoolingMethod::Mixture { weights, .. } => weights.rows(),
        }
    }

    /// (N, P, D_P): the component embeddings of N texts with token states of width D. Those of a text are the same bits in whatever
    /// company it is.
    ///
    /// # Errors
    /// If D is not that of the projection, a number is not finite or so large that components may overflow, or the device fails.
    pub fn pool<O: Ops>(&self, ops: &mut O, texts: &TokenEmbeddings) -> Result<Tensor> {
        self.check(texts)?;
        let (dim, n_components) = (texts.dim(), self.n_components());
        let width = self.projection.as_ref().map_or(dim, |layer| layer.n_out);
        let projection = self.projection.as_ref().map(|layer| layer.map(&mut |tensor| ops.floats(tensor)));
        let shape = [texts.len(), n_components, width];
        let mut pooled = zeros(shape)?;
        // Texts of the same length have the same weights.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| self.n_used(texts, text));
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (mut n, mut numbers) = (0, 0);
            while n < rest.len() && (n == 0 || numbers < NUMBERS) {
                numbers += self.n_used(texts, rest[n]).max(n_components) * dim.max(width);
                n += 1;
            }
            let (chunk, more) = rest.split_at(n);
            rest = more;
            let (mut components, rows) = match &self.method {
                PoolingMethod::FirstTokens { .. } => self.first_states(ops, texts, chunk),
                PoolingMethod::Mixture { weights, softmax } => self.mixtures(ops, texts, chunk, (weights, *softmax)),
            };
            if let Some(layer) = &projection {
                components = ops.linear(&components, rows.len(), layer, Activation::Identity, None);
            }
            if let Some(eps) = self.l2_norm {
                components = ops.l2_norm(&components, rows.len(), width, eps);
            }
            for (row, component) in rows.into_iter().zip(ops.read(&components)?.chunks_exact(width)) {
                pooled[row * width..][..width].copy_from_slice(component);
            }
        }
        Tensor::new(shape, pooled)
    }

    /// Tokens of a text that are looked at.
    fn n_used(&self, texts: &TokenEmbeddings, text: usize) -> usize {
        let most = match &self.method {
            PoolingMethod::FirstTokens { n_components } => *n_components,
            PoolingMethod::Mixture { weights, .. } => weights.width(),
        };
        texts.range(text).len().min(most)
    }

    /// (R, D): the states of the first tokens of some texts, and for each its row of all components (N P).
    fn first_states<O: Ops>(&self, ops: &mut O, texts: &TokenEmbeddings, chunk: &[usize]) -> (O::Floats, Vec<usize>) {
        let (mut states, mut rows) = (Vec::new(), Vec::new());
        for &text in chunk {
            let n_used = self.n_used(texts, text);
            states.extend_from_slice(&texts.vectors_of(text)[..n_used * texts.dim()]);
            rows.extend((0..n_used).map(|p| text * self.n_components() + p));
        }
        (ops.floats(&Tensor::trusted(vec![rows.len(), texts.dim()], states)), rows)
    }

    /// (R, D): the mixtures of some texts, shorter ones first, and for each its row of all components (N P).
    fn mixtures<O: Ops>(
        &self,
        ops: &mut O,
        texts: &TokenEmbeddings,
        chunk: &[usize],
        (weights, softmax): (&Tensor, bool),
    ) -> (O::Floats, Vec<usize>) {
        let (dim, n_components) = (texts.dim(), self.n_components());
        let (mut parts, mut rows) = (Vec::new(), Vec::new());
        for group in chunk.chunk_by(|&a, &b| self.n_used(texts, a) == self.n_used(texts, b)) {
            // The m states of k texts as a layer m -> k D, whose inputs are the weights (P, m).
            let (m, k) = (self.n_used(texts, group[0]), group.len());
            let mut states = Vec::with_capacity(m * k * dim);
            for t in 0..m {
                group.iter().for_each(|&text| states.extend_from_slice(&texts.vectors_of(text)[t * dim..][..dim]));
            }
            let weight = ops.floats(&Tensor::trusted(vec![m, k * dim], states));
            let layer = Linear { weight, bias: None, n_in: m, n_out: k * dim };
            let weights = ops.floats(&first_weights(weights, m, softmax));
            let mixed = ops.linear(&weights, n_components, &layer, Activation::Identity, None);
            parts.push((mixed, n_components * k * dim));
            rows.extend((0..n_components).flat_map(|p| group.iter().map(move |text| text * n_components + p)));
        }
        let parts: Vec<(&O::Floats, usize)> = parts.iter().map(|(part, width)| (part, *width)).collect();
        (ops.concat(&parts, 1), rows)
    }

    /// Whether these are states that can be pooled.
    fn check(&self, texts: &TokenEmbeddings) -> Result<()> {
        if let Some(layer) = self.projection.as_ref().filter(|layer| layer.n_in != texts.dim()) {
            let expected = format!("width {}, which the projection of the pooling takes", layer.n_in);
            return Err(Error::argument(Parameter::TokenEmbeddings, expected, texts.dim()));
        }
        let states = texts.vectors();
        if let Some(at) = states.data().iter().position(|x| !x.is_finite()) {
            let found = format!("{} in vector {}", states.data()[at], at / texts.dim());
            return Err(Error::argument(Parameter::TokenEmbeddings, "finite numbers", found));
        }
        let largest = states.data().iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let bound = self.bound(largest.into());
        if bound <= LARGEST {
            return Ok(());
        }
        let expected = format!("numbers whose components stay below {LARGEST:.1e}");
        let found = format!("numbers up to {largest:.1e}, components up to {bound:.1e}");
        Err(Error::argument(Parameter::TokenEmbeddings, expected, found))
    }

    /// What no number of a component, nor one on the way to it, exceeds where states have none above `largest`.
    fn bound(&self, largest: f64) -> f64 {
        let sum = |numbers: &mut dyn Iterator<Item = &f32>| numbers.map(|&x| f64::from(x.abs())).sum::<f64>();
        let mixed = match &self.method {
            PoolingMethod::Mixture { weights, softmax: false } => {
                let sums = (0..weights.rows()).map(|p| sum(&mut weights.row(p).iter()));
                largest * sums.fold(1.0, f64::max)
            }
            _ => largest,
        };
        let Some(Linear { weight, bias, n_out, .. }) = &self.projection else { return mixed };
        let bias = |j: usize| bias.as_ref().map_or(0.0, |bias| f64::from(bias.data()[j].abs()));
        let projected = (0..*n_out).map(|j| mixed * sum(&mut weight.data().iter().skip(j).step_by(*n_out)) + bias(j));
        projected.fold(mixed, f64::max)
    }
}

/// (P, m): the weights of a text with m tokens, of all (P, T).
fn first_weights(weights: &Tensor, m: usize, softmax: bool) -> Tensor {
    let mut first = Vec::with_capacity(weights.rows() * m);
    for p in 0..weights.rows() {
        let weights = &weights.row(p)[..m];
        if !softmax {
            first.extend_from_slice(weights);
            continue;
        }
        let largest = weights.iter().copied().fold(f32::MIN, f32::max);
        let exponentials = weights.iter().map(|&weight| f64::from(weight - largest).exp());
        let total: f64 = exponentials.clone().sum();
        first.extend(exponentials.map(|exponential| (exponential / total) as f32));
    }
    Tensor::trusted(vec![weights.rows(), m], first)
}

/// As many as fill `shape`, if there is memory for them.
fn zeros(shape: [usize; 3]) -> Result<Vec<f32>> {
    let mut zeros = Vec::new();
    let n = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    match n.filter(|&n| zeros.try_reserve_exact(n).is_ok()) {
        Some(n) => zeros.resize(n, 0.0),
        None => return Err(wrong("components that fit into memory", format!("shape {shape:?}"))),
    }
    Ok(zeros)
}

fn check_finite(what: &str, tensor: &Tensor) -> Result<()> {
    match tensor.data().iter().find(|x| !x.is_finite()) {
        Some(x) => Err(wrong(format!("{what} of finite numbers"), x)),
        None => Ok(()),
    }
}

fn wrong(expected: impl Into<String>, found: impl ToString) -> Error {
    Error::argument(Parameter::TokenPooling, expected, found)
}
