//! Mixture-of-Logits as a similarity of low-rank item components and cosines, with one component of a user.
//!
//! With an item x (D) and a user u (D), both normalised where they are compared:
//!
//! ```text
//! g_l  = x + (x adapter_v[l]) adapter_u[l]               components of the item
//! z_l  = <u, g_l> / (|u| |g_l|)                          cosines
//! gate = softmax(silu(z gate_w1 + gate_b1) gate_w2 + gate_b2 + u gate_user_w + x gate_item_w)
//! score = sum_l gate_l z_l / temperature
//! ```
//!
//! | tensor | shape |
//! |---|---|
//! | `adapter_v`, `adapter_u` | (L, D, R), (L, R, D) |
//! | `gate_w1`, `gate_b1`, `gate_w2`, `gate_b2` | (L, H), (H), (H, L), (L) |
//! | `gate_user_w`, `gate_item_w`, each only if there is one | (D, L) |
//! | `temperature`, 1 if there is none | (1) |

use super::matrix::{identity, made, stacked, zeros};
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{GatingCombination, MolConfig};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Smallest norm that is divided by.
const EPS: f32 = 1e-6;

/// Most numbers of the components' matrices, which are of full rank here.
const LARGEST: usize = 1 << 28;

/// A similarity in the layout of this program.
pub struct ImportedMol {
    /// D: width of embeddings of items and users.
    pub dim: usize,
    /// Its hyper-parameters.
    pub config: MolConfig,
    /// Its tensors, as [`Mol::load`](crate::Mol::load) reads them.
    pub tensors: Vec<(String, Tensor)>,
}

/// Reads such a similarity; `None` if the tensors have other names.
///
/// # Errors
/// [`Error::Tensor`] if tensors do not fit each other, [`Error::Checkpoint`] if there are others, too, or they are too large.
pub fn import_mol(checkpoint: &Checkpoint) -> Result<Option<ImportedMol>> {
    let mut weights = Weights::new(checkpoint);
    let (Some(&[components, dim, rank]), true) = (weights.shape("adapter_v"), weights.has("gate_w1")) else {
        return Ok(None);
    };
    if !matches!([components, dim, dim].iter().try_fold(1usize, |n, &m| n.checked_mul(m)), Some(..=LARGEST)) {
        return Err(Error::Checkpoint {
            path: checkpoint.path().to_path_buf(),
            what: format!("its {components} matrices of {dim} x {dim} numbers are too large"),
            fix: format!("at most {LARGEST} numbers together are read"),
        });
    }
    let v = weights.take("adapter_v", &[components, dim, rank])?;
    let u = weights.take("adapter_u", &[components, rank, dim])?;
    let hidden = weights.shape("gate_b1").and_then(|shape| shape.first().copied()).unwrap_or(1);
    let w1 = weights.take("gate_w1", &[components, hidden])?;
    let b1 = weights.take("gate_b1", &[hidden])?;
    let w2 = weights.take("gate_w2", &[hidden, components])?;
    let b2 = weights.take("gate_b2", &[components])?;
    let of_user = weights.take_optional("gate_user_w", &[dim, components])?;
    let of_item = weights.take_optional("gate_item_w", &[dim, components])?;
    let temperature = weights.take_optional("temperature", &[1])?.map_or(1.0, |temperature| temperature.data()[0]);
    weights.finish()?;

    let is_one = |row: usize, column: usize| f32::from(u8::from(row == column));
    let component = |l: usize| {
        let (v, u) = (&v.row(l), &u.row(l));
        made(dim, dim, |out, from| {
            let low_rank = (0..rank).map(|r| v[from * rank + r] * u[r * dim + out]).sum::<f32>();
            is_one(out, from) + low_rank
        })
    };
    let items = stacked(&(0..components).map(component).collect::<Vec<_>>());
    let (query_emb, item_emb) = ("_ndp_module._query_embeddings_fn", "_ndp_module._item_embeddings_fn");
    let gating = "_ndp_module._gating_fn";
    let mut tensors = vec![
        (format!("{query_emb}._query_emb_proj_module.1.weight"), identity(dim)),
        (format!("{query_emb}._query_emb_proj_module.1.bias"), zeros(dim)),
        (format!("{item_emb}._item_emb_proj_module.1.weight"), items),
        (format!("{item_emb}._item_emb_proj_module.1.bias"), zeros(components * dim)),
        // The gate sees logits here, not cosines.
        (format!("{gating}._qi_partial_module.1.weight"), made(hidden, components, |h, l| temperature * w1.row(l)[h])),
        (format!("{gating}._qi_partial_module.1.bias"), b1),
        (format!("{gating}._qi_partial_module.3.weight"), made(components, hidden, |l, h| w2.row(h)[l])),
        (format!("{gating}._qi_partial_module.3.bias"), b2),
    ];
    // A linear part is one with a hidden layer, as y = silu(y) - silu(-y).
    let parts = [("_query_only_partial_module", 0, &of_user), ("_item_only_partial_module", 1, &of_item)];
    for (name, first, matrix) in parts {
        let Some(matrix) = matrix else { continue };
        let sign = |unit: usize| if unit < components { 1.0 } else { -1.0 };
        let into = made(2 * components, dim, |unit, d| sign(unit) * matrix.row(d)[unit % components]);
        let out = made(components, 2 * components, |l, unit| sign(unit) * is_one(l, unit % components));
        tensors.push((format!("{gating}.{name}.{first}.weight"), into));
        tensors.push((format!("{gating}.{name}.{first}.bias"), zeros(2 * components)));
        tensors.push((format!("{gating}.{name}.{}.weight", first + 2), out));
    }
    let config = MolConfig {
        query_dot_product_groups: 1,
        item_dot_product_groups: components,
        dot_product_dimension: dim,
        temperature,
        dot_product_l2_norm: true,
        eps: EPS,
        query_hidden: None,
        item_hidden: None,
        uid_embedding_hash_sizes: Vec::new(),
        gating_combination: GatingCombination::None,
        gating_query_hidden_dim: of_user.map(|_| 2 * components),
        gating_item_hidden_dim: of_item.map(|_| 2 * components),
        gating_qi_hidden_dim: Some(hidden),
        given_components: false,
    };
    config.validate()?;
    Ok(Some(ImportedMol { dim, config, tensors }))
}
