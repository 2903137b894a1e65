//! The scan kernels of similarities with and without each part, for tests of `shaders/`.

use super::fused_scan::{ListParams, ScanParams};
use super::item_table::ItemLayout;
use super::rescore::{RescoreHitsParams, RescoreParams};
use super::variant::{Score, ShaderVariant, Target};
use super::{pack, quantized_queries, token_items};
use crate::backend::Dtype;
use crate::backend::gpu::device::{Bind, KernelSpec, Matrices, ParamsLayout, Tier};
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::ops::Linear;
use crate::tables::Form;

/// All of them, with the layout of their uniform parameters.
pub(crate) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let layer = |n_in, n_out| Linear { weight: (), bias: None, n_in, n_out };
    let (mut dots, mut mols) = (Vec::new(), Vec::new());
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
        let components = ItemLayout::new(dtype, (2, 5), Some(6), None);
        dots.push(ShaderVariant::dot(&components, (1, 1), 5));
        dots.push(ShaderVariant::dot(&components.in_lines(), (0, 2), 5));
        let raw = ItemLayout::new(dtype, (1, 7), None, Some(2)).in_lines();
        dots.push(ShaderVariant::transformed_dot(&raw, (0, 2), 7));
        for gating_combination in [GatingCombination::GluSilu, GatingCombination::GluSiluLn, GatingCombination::None] {
            // The last ones have more logits than a thread.
            for (groups, parts) in (0..8).map(|parts| ((3, 2), parts)).chain([6, 7].map(|parts| ((9, 8), parts))) {
                let n_logits = groups.0 * groups.1;
                let part = |bit: usize| (parts >> bit & 1 == 1).then_some(4);
                let config = MolConfig {
                    query_dot_product_groups: groups.0,
                    item_dot_product_groups: groups.1,
                    dot_product_dimension: 5,
                    given_components: false,
                    temperature: 0.05,
                    dot_product_l2_norm: true,
                    eps: 1e-6,
                    query_hidden: None,
                    item_hidden: None,
                    uid_embedding_hash_sizes: Vec::new(),
                    gating_combination,
                    gating_query_hidden_dim: part(0),
                    gating_item_hidden_dim: part(1),
                    gating_qi_hidden_dim: part(2),
                };
                let form = if parts % 2 == 0 { Form::Components } else { Form::Raw };
                let (vectors, norms) = if form == Form::Raw { ((1, 7), Some(groups.1)) } else { ((groups.1, 5), None) };
                let items = ItemLayout::new(dtype, vectors, part(1).map(|_| n_logits), norms).in_lines();
                let cross = CrossGate {
                    hidden: part(2).map(|hidden| layer(n_logits, hidden)),
                    output: layer(part(2).unwrap_or(n_logits), n_logits),
                    linear: part(0).map(|_| ()),
                };
                let scores = if parts < 6 {
                    [Score::Mixture(&cross)].to_vec()
                } else {
                    vec![Score::Mixture(&cross), Score::Bound]
                };
                let matrices = |edge| Matrices { edge, subgroup: 32, workgroup_bytes: 32 << 10, arithmetic: true };
                let edge = if dtype == Dtype::F16 { 16 } else { 8 };
                let target = Target {
                    software: true,
                    uniform_bytes: 64 << 10,
                    matrices: Some(matrices(edge)),
                    thread_logits: 64,
                };
                mols.extend(
                    scores.into_iter().map(|score| ShaderVariant::mol(&config, &items, (form, 7), score, target)),
                );
            }
        }
    }
    let scans = |variants: &[ShaderVariant], kernel: fn(&ShaderVariant, usize) -> KernelSpec| -> Vec<_> {
        let queries = |variant: &ShaderVariant| {
            let tiers = variant.candidates().into_iter();
            tiers.filter(|tier| matches!(tier, Tier::Registers(_))).map(Tier::queries).collect::<Vec<_>>()
        };
        let kernels = variants.iter().flat_map(|variant| {
            queries(variant).into_iter().map(move |queries| (kernel(variant, queries), ScanParams::LAYOUT))
        });
        kernels.collect()
    };
    let mut specs = scans(&dots, ShaderVariant::scan_kernel);
    specs.extend(dots.iter().map(|variant| (variant.scan_kernel(16), ScanParams::LAYOUT)));
    specs.extend(scans(&mols, ShaderVariant::scan_kernel));
    let tiers =
        |variant: &ShaderVariant| variant.candidates().into_iter().map(|tier| variant.tier_kernel(tier)).collect();
    let tiers = mols.iter().flat_map(|variant| -> Vec<KernelSpec> { tiers(variant) });
    let others = tiers.filter(|kernel| kernel.label == "mol_scan_coop" || kernel.bindings.contains(&Bind::Uniform));
    specs.extend(others.map(|kernel| (kernel, ScanParams::LAYOUT)));
    let some: Vec<ShaderVariant> = mols
        .iter()
        .enumerate()
        .filter(|(i, mol)| *i < 3 || mol.sections().count() > 1)
        .map(|(_, mol)| mol.clone())
        .collect();
    specs.extend(scans(&some, ShaderVariant::pruned_kernel));
    specs.extend(dots.iter().map(|variant| (variant.list_kernel(), ListParams::LAYOUT)));
    specs.extend(mols.iter().map(|variant| (variant.rescore_kernel(), RescoreParams::LAYOUT)));
    specs.extend(some.iter().map(|variant| (variant.rescore_hits_kernel(), RescoreHitsParams::LAYOUT)));
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
        for at_once in [4, 16] {
            let max_sim = ShaderVariant::max_sim(&ItemLayout::new(dtype, (1, 5), None, None), 5, at_once);
            specs.push((max_sim.scan_kernel(1), ScanParams::LAYOUT));
            specs.push(token_items::rescore_spec(&max_sim));
        }
    }
    specs.extend(pack::kernel_specs());
    specs.push(quantized_queries::kernel_spec());
    specs
}
