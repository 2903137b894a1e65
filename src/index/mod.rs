//! The item index: which items can be found, and their tables on a device.

mod sample;

pub use sample::Sample;

use crate::backend::{Backend, DeviceIndex, Dtype, Exclusions};
use crate::model::{Model, Mol};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Items with their tables on a device. Positions ascend with ids, so a tie between positions is a tie between ids.
pub struct ItemIndex {
    ids: Vec<u64>,
    dtype: Dtype,
    mol: Option<Mol<Tensor>>,
    sample: Option<Sample>,
    device: Box<dyn DeviceIndex>,
}

impl ItemIndex {
    /// Indexes rows `ids` of the model's own item table.
    ///
    /// # Errors
    /// If an id is beyond the table or given twice, or the device fails.
    pub fn from_model(backend: &dyn Backend, model: &Model, ids: &[u32], dtype: Dtype) -> Result<ItemIndex> {
        let mut embeddings = model.item_embeddings(ids)?;
        if model.config.item_l2_norm {
            embeddings = l2_normalised(&embeddings, model.config.l2_norm_eps);
        }
        let ids: Vec<u64> = ids.iter().map(|&id| id.into()).collect();
        ItemIndex::from_embeddings(backend, &ids, &embeddings, model.mol.as_ref(), dtype)
    }

    /// Indexes items `ids` with their raw embeddings (N, D), in any order.
    ///
    /// # Errors
    /// If there is no item, an id is given twice, a value is not finite, the widths of `mol` and `embeddings` differ,
    /// or the device fails.
    pub fn from_embeddings(
        backend: &dyn Backend,
        ids: &[u64],
        embeddings: &Tensor,
        mol: Option<&Mol<Tensor>>,
        dtype: Dtype,
    ) -> Result<ItemIndex> {
        let (n_items, width) = (embeddings.rows(), embeddings.width());
        if ids.is_empty() || ids.len() != n_items {
            return Err(Error::argument("item ids", format!("{n_items}, one per embedding, at least one"), ids.len()));
        }
        let mut order: Vec<usize> = (0..n_items).collect();
        order.sort_by_key(|&i| ids[i]);
        if let Some(pair) = order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
            return Err(Error::argument("item ids", "each id once", format!("id {} twice", ids[pair[0]])));
        }
        let sorted: Vec<f32> = order.iter().flat_map(|&i| embeddings.row(i)).copied().collect();
        let sorted = Tensor::new(vec![n_items, width], sorted);
        let device = backend.index(&sorted, mol, dtype)?;
        let sample = mol.map(|mol| Sample::draw(&sorted, mol)).transpose()?;
        Ok(ItemIndex { ids: order.iter().map(|&i| ids[i]).collect(), dtype, mol: mol.cloned(), sample, device })
    }

    /// N: number of items.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no item; never true for an index that was built.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All ids, ascending.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Number format of the tables.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The Mixture-of-Logits similarity that the index was built with, if any.
    pub fn mol(&self) -> Option<&Mol<Tensor>> {
        self.mol.as_ref()
    }

    /// Some of the items on the host, if there is a Mixture-of-Logits similarity.
    pub fn sample(&self) -> Option<&Sample> {
        self.sample.as_ref()
    }

    /// The tables on the device.
    pub fn device(&self) -> &dyn DeviceIndex {
        self.device.as_ref()
    }

    /// Bytes that the tables take on the device.
    pub fn bytes(&self) -> u64 {
        self.device.bytes()
    }

    /// Where `id` is, if it is in the index.
    pub fn position(&self, id: u64) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|position| position as u32)
    }

    /// The positions of `lists` of ids, one list per query, as a scan wants them. Ids that are not in the index are
    /// passed over.
    pub fn exclusions<'a>(&self, lists: impl IntoIterator<Item = &'a [u64]>) -> Exclusions {
        let mut exclusions = Exclusions { offsets: vec![0], positions: Vec::new() };
        for list in lists {
            let mut positions: Vec<u32> = list.iter().filter_map(|&id| self.position(id)).collect();
            positions.sort_unstable();
            positions.dedup();
            exclusions.positions.extend(positions);
            exclusions.offsets.push(exclusions.positions.len() as u32);
        }
        exclusions
    }
}

/// Rows of `matrix` divided by their l2 norm, clamped from below at `eps`.
fn l2_normalised(matrix: &Tensor, eps: f32) -> Tensor {
    let mut data = Vec::with_capacity(matrix.data().len());
    for row in matrix.data().chunks_exact(matrix.width()) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(eps);
        data.extend(row.iter().map(|x| x / norm));
    }
    Tensor::new(matrix.shape().to_vec(), data)
}
