//! Pooling of token states into components, beside its formula.

use std::collections::BTreeMap;
use std::fs;

use rails_wgpu::checkpoint::save_safetensors;
use rails_wgpu::config::MolConfig;
use rails_wgpu::model::TOKEN_POOLING_KEY;
use rails_wgpu::{Algorithm, Mol, QueryBatch, Searcher, Tensor, TokenEmbeddings, TokenPooling};

use crate::common::backends::backends;
use crate::common::models::Random;
use crate::common::naive::{Num, compare, dot, exact, sum};

/// D and D_P: no multiples of a register or a block.
const DIM: usize = 20;
const WIDTH: usize = 6;
/// P and T.
const N: usize = 3;
const T: usize = 5;
const EPS: f32 = 1e-6;

/// Of one token, of less than P, of P, of T and of more, and not in this order.
fn texts() -> TokenEmbeddings {
    let lengths = [2, 9, 1, 3, 5, 2, 6];
    TokenEmbeddings::new(Random::new(1).tensor(&[lengths.iter().sum(), DIM], 1.0), &lengths).unwrap()
}

/// Weights whose softmax is far from uniform.
fn weights() -> Tensor {
    Random::new(2).tensor(&[N, T], 3.0)
}

/// With its weight (D_P, D) and its bias.
fn projection() -> [Tensor; 2] {
    [Random::new(3).tensor(&[WIDTH, DIM], 1.0), Random::new(4).tensor(&[WIDTH], 1.0)]
}

fn projected(pooling: TokenPooling) -> TokenPooling {
    let [weight, bias] = projection();
    pooling.with_projection(&weight, Some(bias)).unwrap().with_l2_norm(EPS).unwrap()
}

/// The weights of the tokens of a text of `length` tokens in its component `p`; none if it has no such component.
type Weigh<'a> = &'a dyn Fn(usize, usize) -> Option<Vec<Num>>;

/// The components by definition.
fn components(weigh: Weigh, is_projected: bool) -> Vec<Num> {
    let (texts, [weight, bias]) = (texts(), projection());
    let component = |(text, p): (usize, usize)| {
        let states: Vec<&[f32]> = texts.vectors_of(text).chunks(DIM).collect();
        let width = if is_projected { WIDTH } else { DIM };
        let Some(weights) = weigh(p, states.len()) else { return vec![exact(0.0); width] };
        let column = |j: usize| dot(&weights, states.iter().map(move |state| exact(state[j])));
        let mixed: Vec<Num> = (0..DIM).map(column).collect();
        if !is_projected {
            return mixed;
        }
        let row = |j: usize| dot(&mixed, weight.row(j).iter().map(|&x| exact(x))) + exact(bias.data()[j]);
        let projected: Vec<Num> = (0..WIDTH).map(row).collect();
        let norm = sum(projected.iter().map(|&x| x * x)).sqrt().max(exact(EPS));
        projected.iter().map(|&x| x / norm).collect()
    };
    (0..texts.len()).flat_map(|text| (0..N).map(move |p| (text, p))).flat_map(component).collect()
}

fn first_token(p: usize, length: usize) -> Option<Vec<Num>> {
    (p < length).then(|| (0..length).map(|t| exact(f64::from(u8::from(t == p)))).collect())
}

fn plain(p: usize, length: usize) -> Option<Vec<Num>> {
    Some(weights().row(p).iter().take(length).map(|&weight| exact(weight)).collect())
}

fn softmax(p: usize, length: usize) -> Option<Vec<Num>> {
    let exponentials: Vec<Num> = plain(p, length)?.into_iter().map(Num::exp).collect();
    let total = sum(exponentials.iter().copied());
    Some(exponentials.into_iter().map(|exponential| exponential / total).collect())
}

/// As if padding counted, too.
fn softmax_of_padded(p: usize, length: usize) -> Option<Vec<Num>> {
    softmax(p, T).map(|weights| weights.into_iter().take(length).collect())
}

#[test]
fn components_are_those_of_the_formula_on_every_device() {
    let texts = texts();
    let cases: [(TokenPooling, Weigh, Weigh); 3] = [
        (TokenPooling::first_tokens(N).unwrap(), &first_token, &softmax),
        (TokenPooling::mixture(weights(), true).unwrap(), &softmax, &softmax_of_padded),
        (TokenPooling::mixture(weights(), false).unwrap(), &plain, &softmax),
    ];
    for backend in backends() {
        for (case, (pooling, weigh, other)) in cases.iter().enumerate() {
            for is_projected in [false, true] {
                let pooling = if is_projected { projected(pooling.clone()) } else { pooling.clone() };
                let pooled = backend.pool(&pooling, &texts).unwrap();
                assert_eq!(pooled.shape(), [7, N, if is_projected { WIDTH } else { DIM }]);
                compare(pooled.data(), &components(*weigh, is_projected))
                    .unwrap_or_else(|wrong| panic!("{}, case {case}: {wrong}", backend.info().name));
                let rejected = compare(pooled.data(), &components(*other, is_projected));
                assert!(rejected.is_err(), "the comparison accepts another formula than that of case {case}");
                for text in 0..texts.len() {
                    let alone = backend.pool(&pooling, &texts.select(&[text])).unwrap();
                    assert_eq!(alone.data(), pooled.row(text), "case {case}: a text and its company");
                }
            }
        }
        let nothing = TokenEmbeddings::new(Tensor::new([0, DIM], vec![]).unwrap(), &[]).unwrap();
        assert_eq!(backend.pool(&cases[1].0, &nothing).unwrap().shape(), [0, N, DIM]);
    }
}

/// More numbers than are on a device at a time.
#[test]
fn many_texts_are_pooled_in_parts() {
    let (dim, n) = (1 << 20, 6);
    let state = |text: usize| std::iter::repeat_n(text as f32, dim);
    let states = Tensor::new([n, dim], (0..n).flat_map(state).collect()).unwrap();
    let texts = TokenEmbeddings::new(states.clone(), &vec![1; n]).unwrap();
    let weights = Tensor::from_rows([[0.5, 9.0]]);
    for (pooling, factor) in [
        (TokenPooling::first_tokens(1).unwrap(), 1.0),
        (TokenPooling::mixture(weights.clone(), true).unwrap(), 1.0),
        (TokenPooling::mixture(weights, false).unwrap(), 0.5),
    ] {
        let pooled = backends()[0].pool(&pooling, &texts).unwrap();
        assert!((0..n).all(|text| pooled.row(text).iter().all(|&x| x == factor * text as f32)));
    }
}

#[test]
fn components_of_texts_are_indexed_and_found() {
    let pooling = projected(TokenPooling::mixture(weights(), true).unwrap());
    let components = backends()[0].pool(&pooling, &texts()).unwrap();
    let mol = Mol::of_components(&MolConfig::of_components(N, N, WIDTH), None).unwrap();
    let ids: Vec<u64> = (10..17).collect();
    let searcher = Searcher::builder().embeddings(&ids, &components).mol(&mol).device("cpu").build().unwrap();
    let hits = searcher.search(Algorithm::Exact, &QueryBatch::new(components), 1, &[]).unwrap();
    let found: Vec<u64> = hits.iter().map(|hits| hits[0].id).collect();
    assert_eq!(found, ids, "a text is like itself");
}

#[test]
fn poolings_are_kept_in_files_and_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pooling.safetensors");
    let backend = &backends()[0];
    let without_bias = |pooling: TokenPooling| pooling.with_projection(&projection()[0], None).unwrap();
    for pooling in [
        TokenPooling::first_tokens(N).unwrap(),
        without_bias(TokenPooling::first_tokens(2).unwrap()),
        projected(TokenPooling::mixture(weights(), true).unwrap()),
        TokenPooling::mixture(weights(), false).unwrap(),
    ] {
        pooling.save(&path).unwrap();
        let opened = TokenPooling::open(&path).unwrap();
        assert_eq!(backend.pool(&opened, &texts()).unwrap(), backend.pool(&pooling, &texts()).unwrap());
        assert_eq!((opened.method(), opened.l2_norm()), (pooling.method(), pooling.l2_norm()));
    }
    let matrix = |name: &str| (name.to_string(), Tensor::from_rows([[1.0, 2.0]]));
    let number = |n: f32| ("n_components".to_string(), Tensor::new([1], vec![n]).unwrap());
    let mixture = r#"{"format": 1, "method": "mixture", "softmax": true, "l2_norm": null}"#;
    let first = r#"{"format": 1, "method": "first_tokens", "l2_norm": null}"#;
    for (json, tensors, words) in [
        ("", vec![number(2.0)], "no `rails.token_pooling`"),
        ("{", vec![number(2.0)], "expected JSON"),
        (r#"{"format": 2}"#, vec![number(2.0)], "format version 1"),
        (&mixture.replace("mixture", "median"), vec![matrix("mixing_weights")], "unknown variant `median`"),
        (&mixture.replace("softmax", "sparsemax"), vec![matrix("mixing_weights")], "unknown field `sparsemax`"),
        (&first.replace("first_tokens", "mixture"), vec![number(2.0)], "another combination"),
        (mixture, vec![number(2.0)], "mixing_weights"),
        (mixture, vec![("mixing_weights".to_string(), Tensor::new([2], vec![1.0; 2]).unwrap())], "found shape [2]"),
        (mixture, vec![matrix("mixing_weights"), matrix("more")], "`more`"),
        (first, vec![matrix("n_components")], "expected shape [1]"),
        (first, vec![number(-1.0)], "1 to 4096 components, found 0"),
        (first, vec![number(1e30)], "1 to 4096 components"),
        (first, vec![number(1.5)], "a whole number `n_components`, found 1.5"),
        (&first.replace("null", "-1.0"), vec![number(2.0)], "a finite eps above 0, found -1"),
        (first, vec![number(2.0), matrix("projection.bias")], "`projection.bias`"),
        (first, vec![number(2.0), matrix("projection.weight"), matrix("projection.bias")], "expected shape [1]"),
    ] {
        let metadata = [(TOKEN_POOLING_KEY.to_string(), json.to_string())].into();
        let metadata = if json.is_empty() { BTreeMap::new() } else { metadata };
        save_safetensors(&path, &tensors, &metadata).unwrap();
        let error = TokenPooling::open(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    fs::write(&path, "nonsense").unwrap();
    assert!(TokenPooling::open(&path).is_err());
}

#[test]
fn what_cannot_be_pooled_is_refused() {
    let backend = &backends()[0];
    let says = |pooling: &TokenPooling, states: Tensor, words: &str| {
        let lengths = [states.rows()];
        let error = backend.pool(pooling, &TokenEmbeddings::new(states, &lengths).unwrap()).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    };
    let first = TokenPooling::first_tokens(2).unwrap();
    says(&projected(first.clone()), Tensor::from_rows([[1.0, 2.0]]), "expected width 20");
    says(&first, Tensor::from_rows([[1.0], [f32::NAN]]), "expected finite numbers, found NaN in vector 1");
    says(&first, Tensor::from_rows([[1e15]]), "components up to 1.0e15");
    let steep = first.clone().with_projection(&Tensor::from_rows([[1e9, -2e9]]), None).unwrap();
    says(&steep, Tensor::from_rows([[1.0, -1e6]]), "components up to 3.0e15");
    let heavy = TokenPooling::mixture(Tensor::from_rows([[1e9, -1e9]]), false).unwrap();
    says(&heavy, Tensor::from_rows([[1e6], [1.0]]), "components up to 2.0e15");

    let wrong = |result: rails_wgpu::Result<TokenPooling>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("token pooling") && error.contains(words), "{words}: {error}");
    };
    wrong(TokenPooling::first_tokens(0), "1 to 4096 components, found 0");
    wrong(TokenPooling::mixture(Tensor::new([4], vec![0.0; 4]).unwrap(), true), "shape [4]");
    wrong(TokenPooling::mixture(Tensor::new([4, 0], vec![]).unwrap(), true), "shape [4, 0]");
    wrong(TokenPooling::mixture(Tensor::from_rows([[f32::INFINITY]]), true), "found inf");
    let with = |weight: Tensor, bias: Option<Tensor>| first.clone().with_projection(&weight, bias);
    wrong(with(Tensor::new([0, 2], vec![]).unwrap(), None), "(D_P, D), found shape [0, 2]");
    wrong(with(Tensor::from_rows([[f32::NAN]]), None), "found NaN");
    wrong(with(Tensor::from_rows([[1.0]]), Some(Tensor::from_rows([[1.0]]))), "a bias (1)");
    wrong(first.clone().with_l2_norm(f32::INFINITY), "eps above 0");
}
