//! Mixture-of-Logits weights under the names of a checkpoint: what [`Mol::load`] reads.

use super::mol::{GATE, ITEM, QUERY};
use super::{GatePart, Mol, Projection, transposed};
use crate::ops::Linear;
use crate::tensor::Tensor;

/// Tensors by name.
type Named = Vec<(String, Tensor)>;

impl Mol<Tensor> {
    /// All tensors under the reference's names and in its shapes.
    pub fn tensors(&self) -> Named {
        let mut named = Named::new();
        projection(&mut named, &format!("{QUERY}._query_emb_proj_module"), &self.query);
        projection(&mut named, &format!("{ITEM}._item_emb_proj_module"), &self.item);
        for (i, table) in self.uid_tables.iter().enumerate() {
            named.push((format!("{QUERY}._uid_embeddings_{i}.weight"), table.clone()));
        }
        gate_part(&mut named, &format!("{GATE}._query_only_partial_module"), 0, self.gate_query.as_ref());
        gate_part(&mut named, &format!("{GATE}._item_only_partial_module"), 1, self.gate_item.as_ref());
        let cross = format!("{GATE}._qi_partial_module");
        match &self.gate_cross.hidden {
            Some(hidden) => {
                linear(&mut named, &format!("{cross}.1"), hidden);
                linear(&mut named, &format!("{cross}.3"), &self.gate_cross.output);
            }
            None => linear(&mut named, &format!("{cross}.1"), &self.gate_cross.output),
        }
        named
    }
}

fn projection(named: &mut Named, name: &str, projection: &Projection<Tensor>) {
    let Some((glu, _)) = &projection.glu else {
        return linear(named, &format!("{name}.1"), &projection.output);
    };
    named.push((format!("{name}.1._w"), glu.weight.clone()));
    if let Some(bias) = &glu.bias {
        named.push((format!("{name}.1._b"), Tensor::trusted(vec![1, glu.n_out], bias.data().to_vec())));
    }
    linear(named, &format!("{name}.2"), &projection.output);
}

fn gate_part(named: &mut Named, name: &str, first: usize, part: Option<&GatePart<Tensor>>) {
    if let Some(part) = part {
        linear(named, &format!("{name}.{first}"), &part.hidden);
        linear(named, &format!("{name}.{}", first + 2), &part.output);
    }
}

fn linear(named: &mut Named, name: &str, layer: &Linear<Tensor>) {
    named.push((format!("{name}.weight"), transposed(&layer.weight)));
    if let Some(bias) = &layer.bias {
        named.push((format!("{name}.bias"), bias.clone()));
    }
}
