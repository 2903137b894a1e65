//! Sampled softmax over Mixture-of-Logits.

use super::tape::{Derivative, Tape, Var, compare};
use super::{cross_entropy, indices, numbers, with_threads};
use crate::backend::cpu::loss::mol::{mol_loss, mol_loss_in_rounds};
use crate::backend::loss::{
    GateDropout, MolGradients, MolLoss, MolLossValue, MolSide, MolSideGradient, SampledSoftmax,
};
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::ops::Linear;
use crate::random::{Dropout, Random};

/// What varies.
#[derive(Clone, Debug)]
struct Case {
    combination: GatingCombination,
    /// P_Q, P_X, D_P
    shape: (usize, usize, usize),
    hidden: Option<usize>,
    linear: bool,
    query_gate: bool,
    item_gate: bool,
    negative_queries: bool,
    /// P, R, M
    sizes: (usize, usize, usize),
    /// Of logits, and of probabilities.
    dropout: (f32, f32),
    correction: bool,
    mi_weight: f32,
    bias: bool,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            combination: GatingCombination::GluSilu,
            shape: (2, 3, 5),
            hidden: Some(7),
            linear: false,
            query_gate: true,
            item_gate: true,
            negative_queries: false,
            sizes: (5, 4, 6),
            dropout: (0.0, 0.0),
            correction: false,
            mi_weight: 0.5,
            bias: true,
        }
    }
}

fn cases() -> Vec<Case> {
    use GatingCombination::{GluSilu, GluSiluLn, None};
    let base = Case::default;
    vec![
        base(),
        Case { combination: GluSiluLn, ..base() },
        Case { combination: None, ..base() },
        Case { combination: GluSiluLn, hidden: Option::None, item_gate: false, dropout: (0.3, 0.4), ..base() },
        Case { combination: None, query_gate: false, negative_queries: true, dropout: (0.0, 0.5), ..base() },
        Case { combination: GluSilu, query_gate: false, hidden: Option::None, mi_weight: 0.0, ..base() },
        Case { query_gate: false, item_gate: false, linear: true, bias: false, dropout: (0.5, 0.0), ..base() },
        // One negative; probabilities of which dropout often leaves none.
        Case { shape: (2, 1, 3), sizes: (37, 1, 9), dropout: (0.5, 0.8), ..base() },
        // Tiles of one position, the last of them not full; a logit in each register of lanes and more.
        Case { shape: (3, 3, 16), hidden: Some(18), sizes: (3, 35, 11), negative_queries: true, ..base() },
        Case { shape: (1, 1, 70), sizes: (2, 24, 5), correction: true, ..base() },
        Case { shape: (6, 6, 2), sizes: (2, 16, 30), correction: true, dropout: (0.1, 0.2), ..base() },
    ]
}

/// The arrays of a loss, or of its gradients.
struct Arrays<T> {
    queries: Vec<T>,
    query_gate: Vec<T>,
    negative_queries: Vec<T>,
    negative_query_gate: Vec<T>,
    items: Vec<T>,
    item_gate: Vec<T>,
    hidden: Vec<T>,
    hidden_bias: Vec<T>,
    output: Vec<T>,
    output_bias: Vec<T>,
    linear: Vec<T>,
}

impl<T> Arrays<T> {
    fn map<U>(&self, f: impl Fn(&[T]) -> Vec<U>) -> Arrays<U> {
        Arrays {
            queries: f(&self.queries),
            query_gate: f(&self.query_gate),
            negative_queries: f(&self.negative_queries),
            negative_query_gate: f(&self.negative_query_gate),
            items: f(&self.items),
            item_gate: f(&self.item_gate),
            hidden: f(&self.hidden),
            hidden_bias: f(&self.hidden_bias),
            output: f(&self.output),
            output_bias: f(&self.output_bias),
            linear: f(&self.linear),
        }
    }

    fn all(&self) -> [(&str, &Vec<T>); 11] {
        [
            ("queries", &self.queries),
            ("query gate", &self.query_gate),
            ("negative queries", &self.negative_queries),
            ("negative query gate", &self.negative_query_gate),
            ("items", &self.items),
            ("item gate", &self.item_gate),
            ("hidden", &self.hidden),
            ("hidden bias", &self.hidden_bias),
            ("output", &self.output),
            ("output bias", &self.output_bias),
            ("linear", &self.linear),
        ]
    }
}

struct Batch {
    case: Case,
    config: MolConfig,
    arrays: Arrays<f32>,
    positives: Vec<u32>,
    negatives: Vec<u32>,
    correction: Vec<f32>,
    dropout: [GateDropout; 2],
}

impl Batch {
    fn new(case: &Case) -> Batch {
        let ((p_q, p_x, d_p), (n, r, m)) = (case.shape, case.sizes);
        let n_logits = p_q * p_x;
        let has = |is: bool, n: usize| if is { n } else { 0 };
        let hidden = case.hidden.unwrap_or(0);
        let inputs = case.hidden.unwrap_or(n_logits);
        let [scale, scale_in, scale_out] = [d_p, n_logits, inputs].map(|n| 1.0 / (n as f64).sqrt());
        let arrays = Arrays {
            queries: numbers(1, n * p_q * d_p, scale),
            query_gate: numbers(2, has(case.query_gate, n * n_logits), 1.0),
            negative_queries: numbers(3, has(case.negative_queries, n * p_q * d_p), scale),
            negative_query_gate: numbers(4, has(case.negative_queries && case.query_gate, n * n_logits), 1.0),
            items: numbers(5, m * p_x * d_p, scale),
            item_gate: numbers(6, has(case.item_gate, m * n_logits), 1.0),
            hidden: numbers(7, n_logits * hidden, scale_in),
            hidden_bias: numbers(8, has(case.bias, hidden), 0.5),
            output: numbers(9, inputs * n_logits, scale_out),
            output_bias: numbers(10, has(case.bias, n_logits), 0.5),
            linear: numbers(11, has(case.linear, n_logits * n_logits), scale_in),
        };
        let positives = indices(1, n, m);
        let mut negatives = indices(2, n * r, m);
        // A negative that is the positive, and two of an item.
        negatives[0] = positives[0];
        negatives[n * r - 1] = negatives[n * r / 2];
        let dropout = [0, 1].map(|site| {
            let of = |what: u32, rate: f32| Dropout::new(Random::new(3).stream(1, 2 * site + what), rate);
            GateDropout { logits: of(0, case.dropout.0), probabilities: of(1, case.dropout.1) }
        });
        let config = MolConfig {
            query_dot_product_groups: p_q,
            item_dot_product_groups: p_x,
            dot_product_dimension: d_p,
            given_components: false,
            temperature: 0.3,
            dot_product_l2_norm: true,
            eps: 1e-6,
            query_hidden: None,
            item_hidden: None,
            uid_embedding_hash_sizes: Vec::new(),
            gating_combination: case.combination,
            gating_query_hidden_dim: None,
            gating_item_hidden_dim: None,
            gating_qi_hidden_dim: case.hidden,
        };
        let correction = numbers(12, has(case.correction, m), 1.0);
        Batch { case: case.clone(), config, arrays, positives, negatives, correction, dropout }
    }

    fn softmax(&self) -> SampledSoftmax<'_> {
        let correction = self.case.correction.then_some(&self.correction[..]);
        SampledSoftmax { positives: &self.positives, negatives: &self.negatives, temperature: 0.7, correction }
    }

    /// The layers of the cross part.
    fn cross<T>(&self, [hidden, hidden_bias, output, output_bias, linear]: [T; 5]) -> CrossGate<T> {
        let n_logits = self.config.n_logits();
        CrossGate {
            hidden: self.case.hidden.map(|n_hidden| Linear {
                weight: hidden,
                bias: self.case.bias.then_some(hidden_bias),
                n_in: n_logits,
                n_out: n_hidden,
            }),
            output: Linear {
                weight: output,
                bias: self.case.bias.then_some(output_bias),
                n_in: self.case.hidden.unwrap_or(n_logits),
                n_out: n_logits,
            },
            linear: self.case.linear.then_some(linear),
        }
    }

    /// The losses and the gradients, in rounds of that many numbers if it is given.
    fn run(&self, round: Option<usize>) -> (MolLossValue, Arrays<f32>) {
        let of = &self.arrays;
        let loss = MolLoss {
            config: &self.config,
            cross: self.cross([&of.hidden[..], &of.hidden_bias, &of.output, &of.output_bias, &of.linear]),
            queries: MolSide { components: &of.queries, gate: self.case.query_gate.then_some(&of.query_gate) },
            negative_queries: self.case.negative_queries.then_some(MolSide {
                components: &of.negative_queries,
                gate: self.case.query_gate.then_some(&of.negative_query_gate),
            }),
            items: MolSide { components: &of.items, gate: self.case.item_gate.then_some(&of.item_gate) },
            softmax: self.softmax(),
            positive_dropout: self.dropout[0],
            negative_dropout: self.dropout[1],
            mi_weight: self.case.mi_weight,
        };
        // What was there before is overwritten.
        let mut out = self.arrays.map(|values| vec![7.0; values.len()]);
        let (has_query_gate, has_negatives) = (self.case.query_gate, self.case.negative_queries);
        let cross = [&mut out.hidden[..], &mut out.hidden_bias, &mut out.output, &mut out.output_bias, &mut out.linear];
        let mut gradients = MolGradients {
            queries: MolSideGradient {
                components: &mut out.queries,
                gate: has_query_gate.then_some(&mut out.query_gate),
            },
            negative_queries: has_negatives.then_some(MolSideGradient {
                components: &mut out.negative_queries,
                gate: has_query_gate.then_some(&mut out.negative_query_gate),
            }),
            items: MolSideGradient {
                components: &mut out.items,
                gate: self.case.item_gate.then_some(&mut out.item_gate),
            },
            cross: self.cross(cross),
        };
        let value = match round {
            Some(numbers) => mol_loss_in_rounds(&loss, &mut gradients, numbers),
            None => mol_loss(&loss, &mut gradients),
        };
        (value, out)
    }

    /// The definition: both losses with the errors that f32 arithmetic may make, and the gradients.
    fn definition(&self) -> ([(f64, f64); 2], Arrays<Derivative>) {
        let tape = Tape::default();
        let vars = self.arrays.map(|values| tape.vars(values));
        let (n, r) = (self.case.sizes.0, self.case.sizes.1);
        let (mut total, mut gates) = (Vec::new(), Vec::new());
        for position in 0..n {
            let positive = self.positives[position];
            let (score, gate) = self.pair(&tape, &vars, true, position, position, positive);
            gates.push(gate);
            let mut logits = vec![self.logit(score, positive)];
            for pair in position * r..(position + 1) * r {
                let item = self.negatives[pair];
                logits.push(match item == positive {
                    true => tape.var(-5e4),
                    false => self.logit(self.pair(&tape, &vars, false, position, pair, item).0, item),
                });
            }
            total.push(cross_entropy(&logits));
        }
        let main = total.into_iter().sum::<Var>() * (1.0 / n as f64);
        let n_logits = self.config.n_logits();
        let mean = |l: usize| gates.iter().map(|gate| gate[l]).sum::<Var>() * (1.0 / n as f64);
        let of_mean = products(&(0..n_logits).map(mean).collect::<Vec<_>>());
        let of_pairs = gates.iter().map(|gate| products(gate)).sum::<Var>() * (1.0 / n as f64);
        let mi = of_mean - of_pairs;
        let derivatives = tape.derivatives(main + mi * f64::from(self.case.mi_weight));
        ([main, mi].map(|var| (var.value(), var.error())), vars.map(|vars| derivatives(vars)))
    }

    fn logit<'a>(&self, score: Var<'a>, item: u32) -> Var<'a> {
        let softmax = self.softmax();
        let correction = softmax.correction.map_or(0.0, |correction| f64::from(correction[item as usize]));
        score * (1.0 / f64::from(softmax.temperature)) + -correction
    }

    /// The score of a pair, and the probabilities of its gate.
    fn pair<'a>(
        &self,
        tape: &'a Tape,
        vars: &Arrays<Var<'a>>,
        is_positive: bool,
        position: usize,
        pair: usize,
        item: u32,
    ) -> (Var<'a>, Vec<Var<'a>>) {
        let ((p_q, p_x, d_p), n_logits, item) = (self.case.shape, self.config.n_logits(), item as usize);
        let other = self.case.negative_queries && !is_positive;
        let queries = if other { &vars.negative_queries } else { &vars.queries };
        let query_gate = if other { &vars.negative_query_gate } else { &vars.query_gate };
        let dropout = &self.dropout[usize::from(!is_positive)];
        let kept = |dropout: Dropout, l: usize| match dropout.keep((pair * n_logits + l) as u64) {
            true => f64::from(dropout.scale()),
            false => 0.0,
        };
        let logit = |l: usize| {
            let f = &queries[(position * p_q + l / p_x) * d_p..][..d_p];
            let g = &vars.items[(item * p_x + l % p_x) * d_p..][..d_p];
            f.iter().zip(g).map(|(&f, &g)| f * g).sum::<Var>() * (1.0 / f64::from(self.config.temperature))
        };
        let z: Vec<Var> = (0..n_logits).map(logit).collect();
        let seen: Vec<Var> = (0..n_logits).map(|l| z[l] * kept(dropout.logits, l)).collect();
        let apply = |weight: &[Var<'a>], bias: &[Var<'a>], x: &[Var<'a>], n_out: usize| -> Vec<Var<'a>> {
            let of = |out: usize| {
                let sum = x.iter().enumerate().map(|(i, &x)| x * weight[i * n_out + out]).sum::<Var>();
                bias.get(out).map_or(sum, |&bias| sum + bias)
            };
            (0..n_out).map(of).collect()
        };
        let inputs = match self.case.hidden {
            Some(hidden) => {
                let x = apply(&vars.hidden, &vars.hidden_bias, &seen, hidden);
                x.into_iter().map(|x| x * x.sigmoid()).collect()
            }
            None => seen.clone(),
        };
        let mut cross = apply(&vars.output, &vars.output_bias, &inputs, n_logits);
        if self.case.linear {
            let linear = apply(&vars.linear, &[], &seen, n_logits);
            cross.iter_mut().zip(linear).for_each(|(cross, linear)| *cross = *cross + linear);
        }
        let combination = self.case.combination;
        let neutral = tape.var(if combination == GatingCombination::None { 0.0 } else { 1.0 });
        let one_sided = self.case.query_gate || self.case.item_gate;
        let gates: Vec<Var> = (0..n_logits)
            .map(|l| {
                let q = query_gate.get(position * n_logits + l).copied().unwrap_or(neutral);
                let i = vars.item_gate.get(item * n_logits + l).copied().unwrap_or(neutral);
                match combination {
                    _ if !one_sided => cross[l],
                    GatingCombination::None => q + i + cross[l],
                    _ => q * i + cross[l],
                }
            })
            .collect();
        let inverse = 1.0 / n_logits as f64;
        let mean = gates.iter().copied().sum::<Var>() * inverse;
        let variance = gates.iter().map(|&g| (g - mean) * (g - mean)).sum::<Var>() * inverse;
        let deviation = (variance + 1e-5).sqrt();
        let weight = |&g: &Var<'a>| match combination {
            GatingCombination::None => g,
            GatingCombination::GluSilu => g * g.sigmoid(),
            GatingCombination::GluSiluLn => g * ((g - mean) / deviation).sigmoid(),
        };
        let exponentials: Vec<Var> = gates.iter().map(|g| weight(g).exp()).collect();
        let sum = exponentials.iter().copied().sum::<Var>();
        let shares: Vec<Var> = (0..n_logits).map(|l| exponentials[l] / sum * kept(dropout.probabilities, l)).collect();
        let left = shares.iter().copied().sum::<Var>();
        let divisor = if left.value() > 1e-6 { left } else { tape.var(1e-6) };
        let probabilities: Vec<Var> = shares.into_iter().map(|share| share / divisor).collect();
        (probabilities.iter().zip(&z).map(|(&p, &z)| p * z).sum(), probabilities)
    }
}

/// sum p log(p + 1e-6)
fn products<'a>(p: &[Var<'a>]) -> Var<'a> {
    p.iter().map(|&p| p * (p + 1e-6).ln()).sum()
}

#[test]
fn losses_and_gradients_are_those_of_the_definition() {
    for case in cases() {
        let batch = Batch::new(&case);
        let (value, gradients) = batch.run(None);
        let (losses, expected) = batch.definition();
        for (found, (loss, error)) in [value.loss, value.mi_loss].into_iter().zip(losses) {
            assert!((found - loss).abs() <= error, "{case:?}: {found} instead of {loss}");
        }
        for ((name, found), (_, expected)) in gradients.all().into_iter().zip(expected.all()) {
            if let Err(error) = compare(found, expected) {
                panic!("{case:?}: {name}: {error}");
            }
            // Bounds that say something. A single logit has no gate.
            let largest = expected.iter().map(|of| of.value.abs()).fold(1e-5, f64::max);
            let widest = expected.iter().map(|of| of.error).fold(0.0, f64::max);
            assert!(widest < 2e-3 * largest || largest == 1e-5, "{case:?}: {name}: {widest} for {largest}");
        }
    }
}

#[test]
fn a_wrong_gradient_is_rejected() {
    let batch = Batch::new(&Case { dropout: (0.2, 0.3), negative_queries: true, linear: true, ..Case::default() });
    let (_, expected) = batch.definition();
    let wrong = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new(&batch.case);
        change(&mut batch);
        let (_, gradients) = batch.run(None);
        let all = gradients.all().into_iter().zip(expected.all());
        all.filter(|((_, found), (_, expected))| compare(found, expected).is_err()).count()
    };
    assert_eq!(wrong(&|_| {}), 0);
    assert_eq!(wrong(&|batch| batch.config.temperature *= 1.001), 11);
    assert_eq!(wrong(&|batch| batch.case.mi_weight *= 1.01), 9, "the negatives' query side is as it was");
    assert_eq!(wrong(&|batch| batch.arrays.output_bias[0] += 1e-3), 11);
    let masks = |batch: &mut Batch| batch.dropout[1].logits = batch.dropout[0].logits;
    assert_eq!(wrong(&masks), 11, "another mask");
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads_and_any_rounds() {
    for (r, shape) in [(3, (2, 3, 5)), (24, (2, 2, 5))] {
        let case = Case { sizes: (300, r, 40), shape, dropout: (0.2, 0.3), ..Case::default() };
        let batch = Batch::new(&case);
        let bits = |gradients: &Arrays<f32>| -> Vec<u32> {
            gradients.all().iter().flat_map(|(_, values)| values.iter().map(|value| value.to_bits())).collect()
        };
        let (value, gradients) = batch.run(None);
        for round in [0, 1 << 14] {
            for (other, others) in with_threads(|| batch.run(Some(round))) {
                assert!(other == value && bits(&others) == bits(&gradients), "{r} {round}");
            }
        }
    }
}

#[test]
fn a_number_that_is_none_shows_in_the_loss() {
    let clean = Batch::new(&Case::default());
    assert!(clean.run(None).0.loss.is_finite());
    for bad in [f32::NAN, f32::INFINITY] {
        for array in 0..9 {
            let mut batch = Batch::new(&Case::default());
            let of = &mut batch.arrays;
            let arrays = [
                &mut of.queries,
                &mut of.query_gate,
                &mut of.items,
                &mut of.item_gate,
                &mut of.hidden,
                &mut of.hidden_bias,
                &mut of.output,
                &mut of.output_bias,
            ];
            let Some(values) = arrays.into_iter().nth(array) else { continue };
            let item = batch.positives[0] as usize;
            let place = if array == 2 || array == 3 { item * (values.len() / 6) } else { 0 };
            values[place] = bad;
            assert!(!batch.run(None).0.loss.is_finite(), "{bad} in array {array}");
        }
    }
}

#[test]
fn a_batch_without_positions_has_no_loss() {
    let mut batch = Batch::new(&Case::default());
    (batch.positives, batch.negatives) = (Vec::new(), Vec::new());
    for values in [&mut batch.arrays.queries, &mut batch.arrays.query_gate] {
        values.clear();
    }
    let (value, gradients) = batch.run(None);
    assert_eq!(value, MolLossValue { loss: 0.0, mi_loss: 0.0 });
    assert!(gradients.all().iter().all(|(_, values)| values.iter().all(|&value| value == 0.0)));
}
