//! Losses and optimiser on the CPU.

use super::loss::{dot_loss, full_softmax, mol_loss};
use super::ops::{CpuOps, Shared};
use crate::Result;
use crate::backend::loss::{
    DotGradients, DotLoss, FullDotLoss, FullSoftmax, MolGradients, MolLoss, MolLossValue, MolSide as Side,
    MolSideGradient, SampledSoftmax,
};
use crate::backend::{AdamW, MolArrays, MolLossSettings, MolSide, Trainable, TrainingOps};
use crate::model::CrossGate;
use crate::ops::Linear;
use crate::threads;

impl TrainingOps for CpuOps {
    fn zeros(&mut self, len: usize) -> Shared {
        self.memory().zeros(len)
    }

    fn dot_loss(
        &mut self,
        dim: usize,
        queries: &Shared,
        items: &Shared,
        softmax: SampledSoftmax,
    ) -> Result<(f64, [Shared; 2])> {
        let [mut of_queries, mut of_items] = [queries, items].map(|array| self.memory().unspecified(array.len()));
        let mut gradients = DotGradients { queries: of_queries.make_mut(), items: of_items.make_mut() };
        let loss = dot_loss(&DotLoss { dim, queries, items, softmax }, &mut gradients);
        Ok((loss, [of_queries, of_items]))
    }

    fn full_softmax_loss(
        &mut self,
        dim: usize,
        queries: &Shared,
        items: &Shared,
        softmax: FullSoftmax,
    ) -> Result<(f64, [Shared; 2])> {
        let [mut of_queries, mut of_items] = [queries, items].map(|array| self.memory().unspecified(array.len()));
        let mut gradients = DotGradients { queries: of_queries.make_mut(), items: of_items.make_mut() };
        let loss = full_softmax(&FullDotLoss { dim, queries, items, softmax }, &mut gradients);
        Ok((loss, [of_queries, of_items]))
    }

    fn mol_loss(
        &mut self,
        arrays: &MolArrays<Shared>,
        settings: &MolLossSettings,
    ) -> Result<(MolLossValue, MolArrays<Shared>)> {
        let mut gradients = arrays.map(&mut |array| self.memory().unspecified(array.len()));
        let MolLossSettings { config, softmax, positive_dropout, negative_dropout, mi_weight } = *settings;
        let loss = MolLoss {
            config,
            cross: cross(&arrays.cross),
            queries: side(&arrays.queries),
            negative_queries: arrays.negative_queries.as_ref().map(side),
            items: side(&arrays.items),
            softmax,
            positive_dropout,
            negative_dropout,
            mi_weight,
        };
        let value = mol_loss(
            &loss,
            &mut MolGradients {
                queries: side_mut(&mut gradients.queries),
                negative_queries: gradients.negative_queries.as_mut().map(side_mut),
                items: side_mut(&mut gradients.items),
                cross: cross_mut(&mut gradients.cross),
            },
        );
        Ok((value, gradients))
    }

    fn squared_rows(&mut self, x: &Shared, width: usize, weights: &[f32], scale: f32) -> Result<(f64, Shared)> {
        let mut gradient = self.memory().unspecified(x.len());
        let rows = gradient.make_mut().chunks_exact_mut(width).zip(x.chunks_exact(width));
        let sums = rows.zip(weights).map(|((gradient, x), &weight)| {
            gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient = 2.0 * scale * weight * x);
            f64::from(weight) * x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
        });
        Ok((sums.sum(), gradient))
    }

    fn sums_of_squares(&mut self, arrays: &[&Shared]) -> Result<Vec<f64>> {
        const PIECE: usize = 1 << 14;
        let sum = |array: &&Shared| {
            let pieces: Vec<&[f32]> = array.chunks(PIECE).collect();
            let sums = threads::map(&pieces, 1, |(): &mut (), piece| {
                piece.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
            });
            sums.iter().sum()
        };
        Ok(arrays.iter().map(sum).collect())
    }

    fn update(&mut self, adamw: &AdamW, parameter: Trainable<Shared>, gradient: Option<&Shared>) {
        self.adamw(adamw, parameter, gradient);
    }

    fn update_rows(
        &mut self,
        adamw: &AdamW,
        table: Trainable<Shared>,
        width: usize,
        rows: &[u32],
        gradient: &Shared,
        lazy: bool,
    ) {
        self.adamw_rows(adamw, table, width, rows, gradient, lazy);
    }
}

fn side((components, gate): &MolSide<Shared>) -> Side<'_> {
    Side { components, gate: gate.as_deref() }
}

fn side_mut((components, gate): &mut MolSide<Shared>) -> MolSideGradient<'_> {
    MolSideGradient { components: components.make_mut(), gate: gate.as_mut().map(Shared::make_mut) }
}

fn cross(gate: &CrossGate<Shared>) -> CrossGate<&[f32]> {
    CrossGate { hidden: gate.hidden.as_ref().map(layer), output: layer(&gate.output), linear: gate.linear.as_deref() }
}

fn cross_mut(gate: &mut CrossGate<Shared>) -> CrossGate<&mut [f32]> {
    CrossGate {
        hidden: gate.hidden.as_mut().map(layer_mut),
        output: layer_mut(&mut gate.output),
        linear: gate.linear.as_mut().map(Shared::make_mut),
    }
}

fn layer(layer: &Linear<Shared>) -> Linear<&[f32]> {
    Linear { weight: &layer.weight, bias: layer.bias.as_deref(), n_in: layer.n_in, n_out: layer.n_out }
}

fn layer_mut(layer: &mut Linear<Shared>) -> Linear<&mut [f32]> {
    let (n_in, n_out) = (layer.n_in, layer.n_out);
    Linear { weight: layer.weight.make_mut(), bias: layer.bias.as_mut().map(Shared::make_mut), n_in, n_out }
}
