//! Weights under the names of a checkpoint: what [`Model::load`] reads.

use super::encoder::{ITEMS, POSITIONS, REFERENCE_ITEMS, REFERENCE_POSITIONS};
use super::mol::{GATE, ITEM, QUERY};
use super::{Encoder, EncoderLayers, GatePart, Gru4rec, Hstu, Model, Mol, Projection, Sasrec, Transformer, transposed};
use crate::ops::{LayerNorm, Linear};
use crate::tensor::Tensor;

/// Tensors by name.
type Named = Vec<(String, Tensor)>;

impl Model {
    /// All tensors under the reference's names and in its shapes; [`Model::load`] of them gives the same model.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let mut named = self.encoder.named_tensors();
        named.extend(self.mol.iter().flat_map(Mol::named_tensors));
        named.extend(self.output_items.iter().map(|items| ("output.weight".to_string(), items.clone())));
        named.extend(self.output_bias.iter().map(|bias| ("output.bias".to_string(), bias.clone())));
        named
    }
}

impl Encoder<Tensor> {
    /// The same of an encoder.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let (items, positions) = match &self.layers {
            EncoderLayers::Hstu(_) | EncoderLayers::Sasrec(_) => (REFERENCE_ITEMS, REFERENCE_POSITIONS),
            EncoderLayers::Gru4rec(_) | EncoderLayers::Transformer(_) => (ITEMS, POSITIONS),
        };
        let mut named = vec![(items.to_string(), self.items.clone())];
        named.extend(self.positions.iter().map(|table| (positions.to_string(), table.clone())));
        match &self.layers {
            EncoderLayers::Hstu(layers) => hstu(&mut named, layers),
            EncoderLayers::Sasrec(layers) => sasrec(&mut named, layers),
            EncoderLayers::Gru4rec(layers) => gru4rec(&mut named, layers),
            EncoderLayers::Transformer(layers) => transformer(&mut named, layers),
        }
        named
    }
}

impl Mol<Tensor> {
    /// The same of a similarity.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let mut named = Named::new();
        projection(&mut named, &format!("{QUERY}._query_emb_proj_module"), self.query.as_ref());
        projection(&mut named, &format!("{ITEM}._item_emb_proj_module"), self.item.as_ref());
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

fn hstu(named: &mut Named, hstu: &Hstu<Tensor>) {
    for (block, layer) in hstu.layers.iter().enumerate() {
        let name = format!("_hstu._attention_layers.{block}");
        named.push((format!("{name}._uvqk"), layer.uvqk.weight.clone()));
        linear(named, &format!("{name}._o"), &layer.output);
        named.push((format!("{name}._rel_attn_bias._pos_w"), layer.pos_w.clone()));
        named.push((format!("{name}._rel_attn_bias._ts_w"), layer.ts_w.clone()));
    }
}

fn gru4rec(named: &mut Named, gru: &Gru4rec<Tensor>) {
    for (i, layer) in gru.layers.iter().enumerate() {
        for (from, gates) in [("ih", &layer.input), ("hh", &layer.recurrent)] {
            named.push((format!("gru.weight_{from}_l{i}"), transposed(&gates.weight)));
            named.extend(gates.bias.iter().map(|bias| (format!("gru.bias_{from}_l{i}"), bias.clone())));
        }
    }
    gru.dense.iter().for_each(|dense| linear(named, "dense", dense));
}

fn transformer(named: &mut Named, transformer: &Transformer<Tensor>) {
    transformer.embedding_norm.iter().for_each(|norm| layer_norm(named, "embedding_norm", norm));
    for (i, block) in transformer.blocks.iter().enumerate() {
        let name = format!("blocks.{i}");
        attention_inputs(named, &format!("{name}.attention"), &block.query, &block.key_value);
        linear(named, &format!("{name}.attention.out_proj"), &block.output);
        layer_norm(named, &format!("{name}.attention_norm"), &block.attention_norm);
        linear(named, &format!("{name}.ffn.0"), &block.ffn_in);
        linear(named, &format!("{name}.ffn.1"), &block.ffn_out);
        layer_norm(named, &format!("{name}.ffn_norm"), &block.ffn_norm);
    }
    transformer.final_norm.iter().for_each(|norm| layer_norm(named, "final_norm", norm));
    if let Some((dense, norm)) = &transformer.head {
        linear(named, "head.dense", dense);
        layer_norm(named, "head.norm", norm);
    }
}

fn layer_norm(named: &mut Named, name: &str, norm: &LayerNorm<Tensor>) {
    named.push((format!("{name}.weight"), norm.weight.clone()));
    named.push((format!("{name}.bias"), norm.bias.clone()));
}

/// Queries, keys and values as one matrix (3 D, D), as torch's `nn.MultiheadAttention` has them.
fn attention_inputs(named: &mut Named, name: &str, query: &Linear<Tensor>, key_value: &Linear<Tensor>) {
    let rows = |layer: &Linear<Tensor>| transposed(&layer.weight).data().to_vec();
    let (width, n_out) = (query.n_in, query.n_out + key_value.n_out);
    let weight = Tensor::trusted(vec![n_out, width], [rows(query), rows(key_value)].concat());
    named.push((format!("{name}.in_proj_weight"), weight));
    if let (Some(query), Some(key_value)) = (&query.bias, &key_value.bias) {
        let bias = Tensor::trusted(vec![n_out], [query.data(), key_value.data()].concat());
        named.push((format!("{name}.in_proj_bias"), bias));
    }
}

fn sasrec(named: &mut Named, sasrec: &Sasrec<Tensor>) {
    for (block, layer) in sasrec.layers.iter().enumerate() {
        let attention = format!("attention_layers.{block}");
        attention_inputs(named, &attention, &layer.query, &layer.key_value);
        linear(named, &format!("{attention}.out_proj"), &layer.output);
        let conv = format!("forward_layers.{block}._conv1d");
        conv1d(named, &format!("{conv}.0"), &layer.ffn_in);
        conv1d(named, &format!("{conv}.3"), &layer.ffn_out);
    }
}

fn conv1d(named: &mut Named, name: &str, layer: &Linear<Tensor>) {
    let weight = transposed(&layer.weight).data().to_vec();
    named.push((format!("{name}.weight"), Tensor::trusted(vec![layer.n_out, layer.n_in, 1], weight)));
    if let Some(bias) = &layer.bias {
        named.push((format!("{name}.bias"), bias.clone()));
    }
}

fn projection(named: &mut Named, name: &str, projection: Option<&Projection<Tensor>>) {
    let Some(projection) = projection else { return };
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
