//! The definition of Mixture-of-Logits, one pair at a time, as the papers write it.

use rails_wgpu::config::GatingCombination;
use rails_wgpu::model::{GatePart, Mol, Projection};
use rails_wgpu::ops::Linear;
use rails_wgpu::tensor::Tensor;

use super::bounded::{Bounded, exact};

/// Component embeddings, and the one-sided gate part.
pub type Side = (Vec<Vec<Bounded>>, Option<Vec<Bounded>>);

pub fn query_side(mol: &Mol<Tensor>, query: &[f32], user_id: i64) -> Side {
    let mut components = split(mol, projected(&mol.query, query));
    for (table, &size) in mol.uid_tables.iter().zip(&mol.config.uid_embedding_hash_sizes) {
        let row = user_id.rem_euclid(size as i64) as usize + 1;
        components.push(table.row(row).iter().map(|&value| exact(value)).collect());
    }
    (normalised(mol, components), mol.gate_query.as_ref().map(|part| gate(part, query)))
}

pub fn item_side(mol: &Mol<Tensor>, item: &[f32]) -> Side {
    let components = split(mol, projected(&mol.item, item));
    (normalised(mol, components), mol.gate_item.as_ref().map(|part| gate(part, item)))
}

pub fn score(mol: &Mol<Tensor>, query: &Side, item: &Side) -> Bounded {
    let pairs = query.0.iter().flat_map(|f| item.0.iter().map(move |g| Bounded::dot(f, g)));
    let z: Vec<Bounded> = pairs.map(|dot| dot / exact(mol.config.temperature)).collect();
    let cross = match &mol.gate_cross.hidden {
        Some(hidden) => linear(&linear(&z, hidden).into_iter().map(silu).collect::<Vec<_>>(), &mol.gate_cross.output),
        None => linear(&z, &mol.gate_cross.output),
    };
    let of = |side: &Side, l: usize| side.1.as_ref().map(|gate| gate[l]);
    let combined = |(l, cross): (usize, Bounded)| match (of(query, l), of(item, l), mol.config.gating_combination) {
        (Some(q), Some(x), GatingCombination::None) => q + x + cross,
        (Some(q), Some(x), _) => q * x + cross,
        (Some(part), None, _) | (None, Some(part), _) => part + cross,
        (None, None, _) => cross,
    };
    let g: Vec<Bounded> = cross.into_iter().enumerate().map(combined).collect();
    let w: Vec<Bounded> = match mol.config.gating_combination {
        GatingCombination::GluSilu => g.into_iter().map(silu).collect(),
        GatingCombination::GluSiluLn => g.iter().zip(layer_norm(&g)).map(|(g, n)| *g * sigmoid(n)).collect(),
        GatingCombination::None => g,
    };
    let greatest = w.iter().copied().reduce(Bounded::max).unwrap();
    let e: Vec<Bounded> = w.iter().map(|w| (*w - greatest).exp()).collect();
    Bounded::dot(&e, &z) / Bounded::sum(&e)
}

fn layer_norm(g: &[Bounded]) -> Vec<Bounded> {
    let n = exact(g.len() as f32);
    let mean = Bounded::sum(g) / n;
    let centred: Vec<Bounded> = g.iter().map(|g| *g - mean).collect();
    let deviation = (Bounded::dot(&centred, &centred) / n + exact(1e-5)).sqrt();
    centred.iter().map(|c| *c / deviation).collect()
}

fn gate(part: &GatePart<Tensor>, x: &[f32]) -> Vec<Bounded> {
    let x: Vec<Bounded> = x.iter().map(|&x| exact(x)).collect();
    linear(&linear(&x, &part.hidden).into_iter().map(silu).collect::<Vec<_>>(), &part.output)
}

/// Hidden layers are SwiGLU here.
fn projected(projection: &Projection<Tensor>, x: &[f32]) -> Vec<Bounded> {
    let mut x: Vec<Bounded> = x.iter().map(|&x| exact(x)).collect();
    if let Some((glu, _)) = &projection.glu {
        let doubled = linear(&x, glu);
        let (gates, values) = doubled.split_at(glu.n_out / 2);
        x = gates.iter().zip(values).map(|(gate, value)| silu(*gate) * *value).collect();
    }
    linear(&x, &projection.output)
}

fn split(mol: &Mol<Tensor>, joined: Vec<Bounded>) -> Vec<Vec<Bounded>> {
    joined.chunks(mol.config.dot_product_dimension).map(<[Bounded]>::to_vec).collect()
}

fn normalised(mol: &Mol<Tensor>, components: Vec<Vec<Bounded>>) -> Vec<Vec<Bounded>> {
    let divided = |component: Vec<Bounded>| {
        let norm = Bounded::dot(&component, &component).sqrt().max(exact(mol.config.eps));
        component.into_iter().map(|value| value / norm).collect()
    };
    if mol.config.dot_product_l2_norm { components.into_iter().map(divided).collect() } else { components }
}

fn linear(x: &[Bounded], layer: &Linear<Tensor>) -> Vec<Bounded> {
    let column = |o: usize| {
        let products = x.iter().zip(layer.weight.data()[o..].iter().step_by(layer.n_out)).map(|(x, &w)| *x * exact(w));
        products.chain(layer.bias.iter().map(|bias| exact(bias.data()[o]))).collect::<Vec<_>>()
    };
    (0..layer.n_out).map(|o| Bounded::sum(&column(o))).collect()
}

fn sigmoid(x: Bounded) -> Bounded {
    exact(1.0) / (exact(1.0) + (-x).exp())
}

fn silu(x: Bounded) -> Bounded {
    x * sigmoid(x)
}
