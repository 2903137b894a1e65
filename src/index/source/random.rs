//! Synthetic items for tests of capacity.

use super::{CHUNK, ItemSource, Items};
use crate::model::Model;
use crate::tensor::Tensor;
use crate::threads;

/// Standard deviation of the noise, as a share of that of the item table.
const NOISE: f32 = 0.5;

impl<'a> ItemSource<'a> {
    /// Items 1..=`n`: each is a row of the model's item table, drawn at random, plus noise half as strong as the table
    /// varies. The same for the same seed.
    pub fn random(model: &'a Model, n: usize, seed: u64) -> ItemSource<'a> {
        let (table, dim) =
            (model.output_items.as_ref().unwrap_or(&model.encoder.items), model.config.query_embedding_dim());
        // Row 0 is padding.
        let rows = model.n_item_rows().saturating_sub(1).max(1) as u64;
        let first = usize::from(model.n_item_rows() > 1);
        let mean_square = table.data().iter().map(|x| f64::from(x * x)).sum::<f64>() / table.data().len().max(1) as f64;
        let normalise = model.config.item_l2_norm.then_some(model.config.l2_norm_eps);
        // Of a uniform distribution over -1..1 the standard deviation is 1 / sqrt(3).
        let scale = NOISE * (3.0 * mean_square).sqrt() as f32;
        let chunk = move |from: usize| {
            let to = n.min(from + CHUNK);
            let mut data = vec![0.0; (to - from) * dim];
            let draw = |i: usize, item: &mut [f32]| {
                let mut state = seed ^ ((from + i) as u64).wrapping_mul(0xd134_2543_de82_ef95);
                let row = ((u128::from(split_mix(&mut state)) * u128::from(rows)) >> 64) as usize;
                let (item, bias) = item.split_at_mut(table.width());
                bias.iter_mut().zip(&model.output_bias).for_each(|(bias, of_rows)| *bias = of_rows.data()[row + first]);
                for (values, row) in item.chunks_mut(4).zip(table.row(row + first).chunks(4)) {
                    let bits = split_mix(&mut state);
                    for (lane, (value, row)) in values.iter_mut().zip(row).enumerate() {
                        let noise = f32::from((bits >> (16 * lane)) as u16) / 32768.0 - 1.0;
                        *value = row + scale * noise;
                    }
                }
            };
            threads::for_each_row(&mut data, dim, 1, draw);
            let embeddings = Tensor::trusted(vec![to - from, dim], data);
            Ok(Items::new((from as u64 + 1..=to as u64).collect(), embeddings))
        };
        let source = ItemSource::new(n, (0..n).step_by(CHUNK).map(chunk));
        match normalise {
            Some(eps) => source.normalised(eps),
            None => source,
        }
    }
}

/// The generator SplitMix64 (Steele, Lea and Flood, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
