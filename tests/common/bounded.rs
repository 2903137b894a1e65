//! Numbers that know how far a device's f32 result may be from them.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Unit roundoff of f32.
const EPS: f64 = 1.0 / (1u64 << 24) as f64;

/// A value in f64, and a bound of the error that f32 arithmetic, in any order of summation, makes in computing it. The
/// errors of division, exp and square root are those that the WGSL specification allows (2.5, 3 + 2|x| and about 4 units
/// in the last place); a unit in the last place is 2 EPS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    pub value: f64,
    pub error: f64,
}

/// A number that the device holds exactly.
pub fn exact(value: f32) -> Bounded {
    Bounded { value: value.into(), error: 0.0 }
}

impl Bounded {
    fn rounded(value: f64, error: f64, roundings: f64) -> Bounded {
        Bounded { value, error: error + roundings * EPS * (value.abs() + error) }
    }

    pub fn exp(self) -> Bounded {
        let value = self.value.exp();
        Bounded::rounded(value, value * self.error.exp_m1(), 2.0 * (3.0 + 2.0 * (self.value.abs() + self.error)))
    }

    pub fn sqrt(self) -> Bounded {
        let value = self.value.sqrt();
        Bounded::rounded(value, value - (self.value - self.error).max(0.0).sqrt(), 9.0)
    }

    pub fn max(self, other: Bounded) -> Bounded {
        Bounded { value: self.value.max(other.value), error: self.error.max(other.error) }
    }

    /// A sum in any order.
    pub fn sum(terms: &[Bounded]) -> Bounded {
        let magnitude: f64 = terms.iter().map(|term| term.value.abs() + term.error).sum();
        let error = terms.iter().map(|term| term.error).sum::<f64>() + terms.len() as f64 * EPS * magnitude;
        Bounded { value: terms.iter().map(|term| term.value).sum(), error }
    }

    pub fn dot(a: &[Bounded], b: &[Bounded]) -> Bounded {
        Bounded::sum(&a.iter().zip(b).map(|(a, b)| *a * *b).collect::<Vec<_>>())
    }
}

impl Add for Bounded {
    type Output = Bounded;
    fn add(self, other: Bounded) -> Bounded {
        Bounded::rounded(self.value + other.value, self.error + other.error, 1.0)
    }
}

impl Sub for Bounded {
    type Output = Bounded;
    fn sub(self, other: Bounded) -> Bounded {
        self + -other
    }
}

impl Neg for Bounded {
    type Output = Bounded;
    fn neg(self) -> Bounded {
        Bounded { value: -self.value, ..self }
    }
}

impl Mul for Bounded {
    type Output = Bounded;
    fn mul(self, other: Bounded) -> Bounded {
        let error = self.value.abs() * other.error + other.value.abs() * self.error + self.error * other.error;
        Bounded::rounded(self.value * other.value, error, 1.0)
    }
}

impl Div for Bounded {
    type Output = Bounded;
    fn div(self, other: Bounded) -> Bounded {
        let value = self.value / other.value;
        let error = (self.error + value.abs() * other.error) / (other.value.abs() - other.error);
        Bounded::rounded(value, error, 5.0)
    }
}
