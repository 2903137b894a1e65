//! How large the numbers of queries and items may be, so that nothing that is computed from them overflows.
//!
//! Every intermediate number is bounded by the same sums with magnitudes in place of numbers. No order of a sum exceeds that
//! bound, so all devices, number formats and forms refuse the same rows.

use super::mol::{GatePart, Mol, Projection};
use crate::config::GatingCombination;
use crate::error::Parameter;
use crate::ops::Linear;
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// Largest norm of a vector, 2^63: inner products of two, and squared norms, stay below 2^127.
const LARGEST_NORM: f64 = (1u64 << 63) as f64;

/// Largest norm of a token embedding, 2^48: a sum of 2^30 inner products of two stays below 2^126.
const LARGEST_TOKEN_NORM: f64 = (1u64 << 48) as f64;

/// Largest norms, 2^78 and 2^49, of the sum of a query's token embeddings and the mean of an item's: their inner product stays
/// below 2^127, and no sum of fewer than 2^30 token embeddings, and no mean, is refused.
const LARGEST_SUMMARY_NORMS: [f64; 2] = [(1u128 << 78) as f64, (1u64 << 49) as f64];

/// Largest magnitude, 2^62, of what is multiplied with another number of that size: logits, gate values, components that are
/// not normalised.
const LARGEST_FACTOR: f64 = (1u64 << 62) as f64;

/// Largest magnitude, 2^126, of what is only added.
const LARGEST_SUM: f64 = LARGEST_NORM * LARGEST_NORM;

/// Which queries and items a similarity can score.
#[derive(Debug)]
pub struct InputRange {
    /// D of queries and of items.
    dims: [usize; 2],
    /// P_Q and P_X, where components are given.
    components: Option<[usize; 2]>,
    mol: Option<MolRange>,
    /// Whether vectors are token embeddings.
    of_tokens: bool,
    /// Rows of queries and of items without a greater magnitude need no closer look.
    safe: [f64; 2],
}

#[derive(Debug)]
struct MolRange {
    mol: Mol<Tensor>,
    /// Largest norm of a component, as pairs are scored.
    component: f64,
    /// Largest magnitude of a one-sided gate part.
    gate: f64,
    /// Largest norm of the rows of the uid tables.
    uid: f64,
}

#[derive(Clone, Copy)]
enum Side {
    Query,
    Item,
}

/// What may become too large, and what it must not exceed.
struct Overflow {
    what: &'static str,
    reaches: f64,
    limit: f64,
}

impl InputRange {
    /// For raw embeddings of width `dim`, or given components, scored by `mol` or, without one, by inner products.
    pub fn new(mol: Option<&Mol<Tensor>>, dim: usize) -> InputRange {
        let given = mol.map(|mol| &mol.config).filter(|config| config.given_components);
        let components = given
            .map(|config| [config.query_width() / config.dot_product_dimension.max(1), config.item_dot_product_groups]);
        let dims = given.map_or([dim; 2], |config| [config.query_width(), config.item_width()]);
        let mol = mol.map(MolRange::new);
        InputRange { dims, components, mol, of_tokens: false, safe: [0.0; 2] }.with_safe_magnitudes()
    }

    /// For token embeddings of width `dim`, scored by late interaction.
    pub fn of_tokens(dim: usize) -> InputRange {
        InputRange { dims: [dim; 2], components: None, mol: None, of_tokens: true, safe: [0.0; 2] }
            .with_safe_magnitudes()
    }

    fn with_safe_magnitudes(self) -> InputRange {
        let mut range = self;
        for side in [Side::Query, Side::Item] {
            let dim = range.dims[side as usize];
            range.safe[side as usize] =
                largest_power_of_two(|magnitude| range.bounds(side, &vec![magnitude; dim]).is_ok());
        }
        range
    }

    /// D: width of raw item embeddings.
    pub fn item_dim(&self) -> usize {
        self.dims[Side::Item as usize]
    }

    /// D: width of raw query embeddings.
    pub fn query_dim(&self) -> usize {
        self.dims[Side::Query as usize]
    }

    /// Whether it is one of token embeddings.
    pub fn is_of_tokens(&self) -> bool {
        self.of_tokens
    }

    /// Raw query embeddings (B, D), given components (B, P_Q, D_P), or token embeddings and, beside them, the embedding (B, D) of
    /// each query.
    ///
    /// # Errors
    /// If the shape is another one, a number is not finite, or a row is so large that it cannot be scored; the row is named.
    pub fn check_queries(&self, embeddings: &Tensor, tokens: Option<&TokenEmbeddings>) -> Result<()> {
        let Some(tokens) = tokens else {
            return self.check(Parameter::QueryEmbeddings, Side::Query, embeddings, |row| format!("row {row}"));
        };
        self.check_tokens(tokens)?;
        let name_of = |row: usize| format!("token {row}, of query {}", owner(tokens, row));
        self.check(Parameter::TokenEmbeddings, Side::Query, tokens.vectors(), name_of)?;
        self.check_summaries(Side::Query, embeddings, tokens.len(), |row| format!("row {row}"))
    }

    /// Raw embeddings (n, D), given components (n, P_X, D_P), or token embeddings of the items `ids`.
    ///
    /// # Errors
    /// As [`InputRange::check_queries`], or if items have token embeddings and should not, or the other way round; the id is
    /// named, too.
    pub fn check_items(&self, ids: &[u64], embeddings: &Tensor, tokens: Option<&TokenEmbeddings>) -> Result<()> {
        let named = |row: usize| match ids.get(row) {
            Some(id) => format!("row {row} (id {id})"),
            None => format!("row {row}"),
        };
        match (tokens, self.is_of_tokens()) {
            (None, false) => self.check(Parameter::ItemEmbeddings, Side::Item, embeddings, named),
            (None, true) => {
                let expected = "token embeddings, as the other items of this index have";
                Err(Error::argument(Parameter::ItemEmbeddings, expected, "one embedding per item"))
            }
            (Some(tokens), _) => {
                self.check_tokens(tokens)?;
                let name_of = |row: usize| format!("token {row}, of {}", named(owner(tokens, row)));
                self.check(Parameter::TokenEmbeddings, Side::Item, tokens.vectors(), name_of)?;
                self.check_summaries(Side::Item, embeddings, tokens.len(), named)
            }
        }
    }

    /// Whether token embeddings are wanted at all.
    fn check_tokens(&self, tokens: &TokenEmbeddings) -> Result<()> {
        if self.is_of_tokens() {
            return Ok(());
        }
        let expected =
            format!("one embedding of {} numbers each: the items of this index have no others", self.item_dim());
        Err(Error::argument(Parameter::TokenEmbeddings, expected, format!("{} tokens", tokens.vectors().rows())))
    }

    /// The embeddings beside the token embeddings of `n` queries or items: of queries the sums, of items the means.
    fn check_summaries(
        &self,
        side: Side,
        embeddings: &Tensor,
        n: usize,
        name_of: impl Fn(usize) -> String,
    ) -> Result<()> {
        let name = match side {
            Side::Query => Parameter::QueryEmbeddings,
            Side::Item => Parameter::ItemEmbeddings,
        };
        let (dim, largest) = (self.dims[side as usize], LARGEST_SUMMARY_NORMS[side as usize]);
        if embeddings.shape() != [n, dim] {
            let expected = format!("shape ({n}, {dim}): one row beside the token embeddings of each");
            return Err(Error::argument(name, expected, format!("{:?}", embeddings.shape())));
        }
        let norms = embeddings.data().chunks_exact(dim).map(|row| norm(&magnitudes(row)));
        match norms.enumerate().find(|(_, norm)| norm.is_nan() || *norm > largest) {
            None => Ok(()),
            Some((row, norm)) => {
                let expected = format!("finite rows of a norm of at most {largest:e} beside token embeddings");
                Err(Error::argument(name, expected, format!("a norm of {norm:e} in {}", name_of(row))))
            }
        }
    }

    fn check(&self, name: Parameter, side: Side, embeddings: &Tensor, name_of: impl Fn(usize) -> String) -> Result<()> {
        let (dim, components) = (self.dims[side as usize], self.components.map(|components| components[side as usize]));
        let fits = match (embeddings.shape(), components) {
            (&[_, width], _) => width == dim && dim > 0,
            (&[_, n, width], Some(components)) => n == components && n * width == dim,
            _ => false,
        };
        if !fits {
            let rows = match side {
                Side::Query => "B",
                Side::Item => "N",
            };
            let expected = match (dim, components) {
                (0, _) => format!("shape ({rows}, D) with D >= 1"),
                (_, None) => format!("shape ({rows}, {dim})"),
                (_, Some(n)) => format!("shape ({rows}, {n}, {}) or ({rows}, {dim})", dim / n),
            };
            return Err(Error::argument(name, expected, format!("{:?}", embeddings.shape())));
        }
        for (row, values) in embeddings.data().chunks_exact(dim).enumerate() {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::argument(name, "finite numbers", format!("{value} in {}", name_of(row))));
            }
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            if f64::from(largest) <= self.safe[side as usize] {
                continue;
            }
            let magnitudes: Vec<f64> = values.iter().map(|value| f64::from(value.abs())).collect();
            if let Err(Overflow { what, reaches, limit }) = self.bounds(side, &magnitudes) {
                let expected = "numbers small enough to be scored in 32-bit floats (scale them down)";
                let found = format!(
                    "up to {largest:e} in {}: {what} may reach {reaches:.1e}, beyond {limit:.1e}",
                    name_of(row)
                );
                return Err(Error::argument(name, expected, found));
            }
        }
        Ok(())
    }

    /// Whether everything computed from a row of such `magnitudes` stays in range.
    fn bounds(&self, side: Side, magnitudes: &[f64]) -> Result<(), Overflow> {
        at_most(if self.of_tokens { LARGEST_TOKEN_NORM } else { LARGEST_NORM }, "its norm", norm(magnitudes))?;
        match &self.mol {
            Some(mol) => mol.bounds(side, magnitudes),
            None => Ok(()),
        }
    }
}

/// Which query or item the token in this row belongs to.
fn owner(tokens: &TokenEmbeddings, row: usize) -> usize {
    tokens.offsets().partition_point(|&offset| offset <= row) - 1
}

impl MolRange {
    fn new(mol: &Mol<Tensor>) -> MolRange {
        let d_p = mol.config.dot_product_dimension.max(1);
        let rows = mol.uid_tables.iter().flat_map(|table| table.data().chunks_exact(d_p));
        let uid = rows.map(|row| norm(&magnitudes(row))).fold(0.0, f64::max);
        let temperature = f64::from(mol.config.temperature);
        let pair = |component: f64| cross_gate_is_safe(mol, component * component / temperature);
        let component = match mol.config.dot_product_l2_norm {
            // A little more than 1, for rounding.
            true => {
                if pair(1.01) {
                    LARGEST_NORM
                } else {
                    0.0
                }
            }
            false => largest_power_of_two(pair).min(LARGEST_FACTOR),
        };
        // The product of two gate parts is squared where gates are normalised.
        let gate = match mol.config.gating_combination {
            GatingCombination::GluSiluLn => LARGEST_FACTOR.sqrt(),
            _ => LARGEST_FACTOR,
        };
        MolRange { mol: mol.clone(), component, gate, uid }
    }

    fn bounds(&self, side: Side, row: &[f64]) -> Result<(), Overflow> {
        let Mol { config, query, item, gate_query, gate_item, .. } = &self.mol;
        let (projection, gate) = match side {
            Side::Query => (query, gate_query),
            Side::Item => (item, gate_item),
        };
        let components = match projection {
            Some(projection) => projected(projection, row)?,
            None => row.to_vec(),
        };
        let of_row = components.chunks_exact(config.dot_product_dimension.max(1)).map(norm).fold(0.0, f64::max);
        let of_users = match side {
            Side::Query => self.uid,
            Side::Item => 0.0,
        };
        at_most(self.component, "a component of its projection", of_row.max(of_users))?;
        match gate {
            Some(gate) => at_most(self.gate, "its part of the gate", largest(&gate_part(gate, row)?)),
            None => Ok(()),
        }
    }
}

/// Whether the cross gate of logits up to `logit` stays in range.
fn cross_gate_is_safe(mol: &Mol<Tensor>, logit: f64) -> bool {
    let logits = vec![logit; mol.config.n_logits()];
    let hidden = mol.gate_cross.hidden.as_ref().map(|layer| linear(layer, &logits));
    let gates = linear(&mol.gate_cross.output, hidden.as_ref().unwrap_or(&logits));
    [logit, hidden.as_deref().map_or(0.0, largest), largest(&gates)].iter().all(|&number| number <= LARGEST_FACTOR)
}

fn projected(projection: &Projection<Tensor>, row: &[f64]) -> Result<Vec<f64>, Overflow> {
    let Some((glu, _)) = &projection.glu else { return Ok(linear(&projection.output, row)) };
    let doubled = linear(glu, row);
    at_most(LARGEST_NORM, "the hidden layer of its projection", largest(&doubled))?;
    // No activation is greater than its argument.
    let (a, b) = doubled.split_at(doubled.len() / 2);
    let hidden: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
    let output = linear(&projection.output, &hidden);
    at_most(LARGEST_SUM, "the hidden layer of its projection", largest(&output))?;
    Ok(output)
}

fn gate_part(part: &GatePart<Tensor>, row: &[f64]) -> Result<Vec<f64>, Overflow> {
    let hidden = linear(&part.hidden, row);
    at_most(LARGEST_SUM, "the hidden layer of its part of the gate", largest(&hidden))?;
    Ok(linear(&part.output, &hidden))
}

/// `|x| |W| + |b|`
fn linear(layer: &Linear<Tensor>, x: &[f64]) -> Vec<f64> {
    let mut sums = layer.bias.as_ref().map_or_else(|| vec![0.0; layer.n_out], |bias| magnitudes(bias.data()));
    for (x, weights) in x.iter().zip(layer.weight.data().chunks_exact(layer.n_out.max(1))) {
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * f64::from(weight.abs()));
    }
    sums
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(value.abs())).collect()
}

fn norm(magnitudes: &[f64]) -> f64 {
    magnitudes.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn largest(magnitudes: &[f64]) -> f64 {
    magnitudes.iter().copied().fold(0.0, f64::max)
}

fn at_most(limit: f64, what: &'static str, reaches: f64) -> Result<(), Overflow> {
    // Not even what is not a number passes.
    if reaches <= limit { Ok(()) } else { Err(Overflow { what, reaches, limit }) }
}

/// The largest power of two from 2^-64 to 2^63 for which `holds`, which is true for all smaller numbers, too; 0 if there is
/// none.
fn largest_power_of_two(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut fits, mut too_large) = (-65, 64);
    while too_large - fits > 1 {
        let middle = (fits + too_large) / 2;
        match holds(2f64.powi(middle)) {
            true => fits = middle,
            false => too_large = middle,
        }
    }
    if fits < -64 { 0.0 } else { 2f64.powi(fits) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_largest_power_of_two_is_found() {
        for exponent in [-64, -1, 0, 17, 63] {
            assert_eq!(largest_power_of_two(|x| x <= 1.5 * 2f64.powi(exponent)), 2f64.powi(exponent));
        }
        assert_eq!(largest_power_of_two(|_| false), 0.0);
        assert_eq!(largest_power_of_two(|_| true), 2f64.powi(63));
    }

    #[test]
    fn vectors_for_inner_products_are_refused_from_a_norm_of_2_to_the_63_on() {
        let range = InputRange::new(None, 4);
        let check = |row: [f32; 4]| range.check_queries(&Tensor::from_rows([row]), None);
        let edge = 2f32.powi(62);
        assert!(check([edge; 4]).is_ok() && check([2.0 * edge, 0.0, 0.0, 0.0]).is_ok());
        assert!(check([2.0 * edge, 1e15, 0.0, 0.0]).is_err() && check([edge, edge, edge, -edge.next_up()]).is_err());
        assert!(check([f32::NAN, 0.0, 0.0, 0.0]).is_err());
    }

    #[test]
    fn token_embeddings_are_refused_from_a_norm_of_2_to_the_48_on_and_named() {
        let range = InputRange::of_tokens(2);
        let check = |last: f32| {
            let vectors = Tensor::from_rows([[1.0, 0.0], [1.0, 0.0], [0.0, last]]);
            range.check_items(
                &[7, 8],
                &Tensor::from_rows([[0.0; 2]; 2]),
                TokenEmbeddings::new(vectors, &[1, 2]).ok().as_ref(),
            )
        };
        let edge = 2f32.powi(48);
        assert!(check(edge).is_ok());
        assert!(check(edge.next_up()).unwrap_err().to_string().contains("token 2, of row 1 (id 8)"));
        assert!(check(f32::INFINITY).is_err());
        assert!(range.check_items(&[7], &Tensor::from_rows([[1.0, 0.0]]), None).is_err());
    }

    #[test]
    fn embeddings_beside_token_embeddings_have_their_shape_and_are_finite() {
        let range = InputRange::of_tokens(2);
        let edge = 2f32.powi(48);
        let tokens = TokenEmbeddings::new(Tensor::from_rows([[edge, 0.0], [edge, 0.0], [0.0, 1.0]]), &[2, 1]).unwrap();
        let queries = |embeddings: &Tensor| range.check_queries(embeddings, Some(&tokens));
        let items = |embeddings: &Tensor| range.check_items(&[7, 8], embeddings, Some(&tokens));
        assert!(queries(&tokens.sums()).is_ok() && items(&tokens.means()).is_ok());
        for wrong in [
            Tensor::from_rows([[1.0, 0.0]]),
            Tensor::from_rows([[1.0, 0.0, 0.0]; 2]),
            Tensor::from_rows([[1.0, 0.0], [f32::NAN, 0.0]]),
            Tensor::from_rows([[1.0, 0.0], [f32::INFINITY, 0.0]]),
            Tensor::from_rows([[1.0, 0.0], [2f32.powi(79), 0.0]]),
        ] {
            assert!(queries(&wrong).is_err() && items(&wrong).is_err(), "{wrong:?}");
        }
        let named = items(&Tensor::from_rows([[1.0, 0.0], [f32::NAN, 0.0]])).unwrap_err().to_string();
        assert!(named.contains("row 1 (id 8)"), "{named}");
    }
}
