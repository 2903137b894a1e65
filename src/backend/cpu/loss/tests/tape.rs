//! Derivatives in f64 by a record of every operation, each with a bound of the error that f32 arithmetic may make: roundings are taken for
//! independent of each other, since sums of their magnitudes are thousands of times too wide after a dozen of steps.

use std::cell::RefCell;
use std::iter::Sum;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Standard deviations that a value may be off by.
const DEVIATIONS: f64 = 8.0;

/// The deviation of one rounding, of a value of 1.
const UNIT: f64 = f32::EPSILON as f64 / 3.0;

/// Roundings of an exponential, a sigmoid or a quotient.
const FUNCTION: f64 = 3.0;

#[derive(Default)]
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
}

/// A value and its variance in units, to first order; and for each operand the derivative with respect to it, and the variance of that.
#[derive(Clone, Copy)]
struct Node {
    value: f64,
    variance: f64,
    operands: [(usize, f64, f64); 2],
}

#[derive(Clone, Copy)]
pub struct Var<'a> {
    tape: &'a Tape,
    index: usize,
}

/// A derivative and how far an f32 computation of it may be off.
#[derive(Clone, Copy, Debug)]
pub struct Derivative {
    pub value: f64,
    pub error: f64,
}

impl Tape {
    fn push(&self, value: f64, variance: f64, operands: [(usize, f64, f64); 2]) -> Var<'_> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { value, variance, operands });
        Var { tape: self, index: nodes.len() - 1 }
    }

    pub fn var(&self, value: impl Into<f64>) -> Var<'_> {
        self.push(value.into(), 0.0, [(0, 0.0, 0.0); 2])
    }

    pub fn vars(&self, values: &[f32]) -> Vec<Var<'_>> {
        values.iter().map(|&value| self.var(value)).collect()
    }

    /// The derivatives of `of` with respect to all variables so far.
    pub fn derivatives(&self, of: Var) -> impl Fn(&[Var]) -> Vec<Derivative> {
        let nodes = self.nodes.borrow();
        let (mut values, mut variances) = (vec![0.0; nodes.len()], vec![0.0; nodes.len()]);
        values[of.index] = 1.0;
        for (i, node) in nodes.iter().enumerate().rev() {
            let (value, variance): (f64, f64) = (values[i], variances[i]);
            for (operand, slope, slope_variance) in node.operands {
                let term = value * slope;
                values[operand] += term;
                // The product is rounded, and the sum.
                variances[operand] += variance * slope.powi(2) + value.powi(2) * slope_variance + 2.0 * term.powi(2);
            }
        }
        let derivative = move |var: &Var| Derivative {
            value: values[var.index],
            // Of subnormal numbers: 0 is as good.
            error: DEVIATIONS * UNIT * variances[var.index].sqrt() + 1e-37,
        };
        move |vars| vars.iter().map(&derivative).collect()
    }
}

impl<'a> Var<'a> {
    fn node(self) -> Node {
        self.tape.nodes.borrow()[self.index]
    }

    pub fn value(self) -> f64 {
        self.node().value
    }

    /// How far an f32 computation may be off.
    pub fn error(self) -> f64 {
        DEVIATIONS * UNIT * self.node().variance.sqrt()
    }

    /// A function by its value, and its first and second derivatives.
    fn unary(self, value: f64, slope: f64, second: f64) -> Var<'a> {
        let variance = self.node().variance;
        let slope_variance = FUNCTION * slope.powi(2) + second.powi(2) * variance;
        let variance = FUNCTION * value.powi(2) + slope.powi(2) * variance;
        self.tape.push(value, variance, [(self.index, slope, slope_variance), (0, 0.0, 0.0)])
    }

    pub fn exp(self) -> Var<'a> {
        let value = self.value().exp();
        self.unary(value, value, value)
    }

    pub fn ln(self) -> Var<'a> {
        let x = self.value();
        self.unary(x.ln(), 1.0 / x, -1.0 / (x * x))
    }

    pub fn sqrt(self) -> Var<'a> {
        let root = self.value().sqrt();
        self.unary(root, 0.5 / root, -0.25 / root.powi(3))
    }

    pub fn sigmoid(self) -> Var<'a> {
        let share = 1.0 / (1.0 + (-self.value()).exp());
        let slope = share * (1.0 - share);
        self.unary(share, slope, slope * (1.0 - 2.0 * share))
    }
}

impl<'a> Add for Var<'a> {
    type Output = Var<'a>;
    fn add(self, other: Var<'a>) -> Var<'a> {
        let (a, b) = (self.node(), other.node());
        let value = a.value + b.value;
        self.tape.push(
            value,
            a.variance + b.variance + value.powi(2),
            [(self.index, 1.0, 0.0), (other.index, 1.0, 0.0)],
        )
    }
}

impl<'a> Mul for Var<'a> {
    type Output = Var<'a>;
    fn mul(self, other: Var<'a>) -> Var<'a> {
        let (a, b) = (self.node(), other.node());
        let value = a.value * b.value;
        let variance = a.value.powi(2) * b.variance + a.variance * b.value.powi(2) + value.powi(2);
        self.tape.push(value, variance, [(self.index, b.value, b.variance), (other.index, a.value, a.variance)])
    }
}

impl<'a> Mul<f64> for Var<'a> {
    type Output = Var<'a>;
    fn mul(self, factor: f64) -> Var<'a> {
        self * self.tape.var(factor)
    }
}

impl<'a> Add<f64> for Var<'a> {
    type Output = Var<'a>;
    fn add(self, term: f64) -> Var<'a> {
        self + self.tape.var(term)
    }
}

impl<'a> Neg for Var<'a> {
    type Output = Var<'a>;
    fn neg(self) -> Var<'a> {
        let node = self.node();
        self.tape.push(-node.value, node.variance, [(self.index, -1.0, 0.0), (0, 0.0, 0.0)])
    }
}

impl<'a> Sub for Var<'a> {
    type Output = Var<'a>;
    fn sub(self, other: Var<'a>) -> Var<'a> {
        self + -other
    }
}

impl<'a> Div for Var<'a> {
    type Output = Var<'a>;
    fn div(self, other: Var<'a>) -> Var<'a> {
        let x = other.value();
        self * other.unary(1.0 / x, -1.0 / (x * x), 2.0 / x.powi(3))
    }
}

impl<'a> Sum for Var<'a> {
    fn sum<I: Iterator<Item = Var<'a>>>(vars: I) -> Var<'a> {
        vars.reduce(|sum, var| sum + var).expect("at least one term")
    }
}

/// Says where `found` is off by more than the bound, if anywhere.
pub fn compare(found: &[f32], expected: &[Derivative]) -> Result<(), String> {
    assert_eq!(found.len(), expected.len());
    // A NaN is within no bound.
    let within = |(&x, exact): (&f32, &Derivative)| (f64::from(x) - exact.value).abs() <= exact.error;
    match found.iter().zip(expected).position(|pair| !within(pair)) {
        None => Ok(()),
        Some(i) => Err(format!("value {i} of {}: {} instead of {:?}", found.len(), found[i], expected[i])),
    }
}

#[test]
fn derivatives_are_slopes() {
    let f = |x: f64, y: f64| {
        let tape = Tape::default();
        let (a, b) = (tape.var(x), tape.var(y));
        let value = (a * b + a.exp()).sqrt() / (b.ln() + 3.0) - (a * -0.5).sigmoid();
        let slopes = tape.derivatives(value)(&[a, b]);
        (value.value(), slopes)
    };
    let (x, y, step) = (0.7, 1.9, 1e-6);
    let slopes = f(x, y).1;
    let expected = [(f(x + step, y).0 - f(x - step, y).0), (f(x, y + step).0 - f(x, y - step).0)];
    for (slope, difference) in slopes.iter().zip(expected) {
        assert!((slope.value - difference / (2.0 * step)).abs() < 1e-8, "{slope:?} {difference}");
        assert!(slope.error > 0.0 && slope.error < 1e-5);
    }
}
