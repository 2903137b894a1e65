//! Reductions of slices in as many parts as a compiler turns into vector instructions. Parts are the same on every machine, and so are
//! results.

/// The sum, of eight partial sums.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let (many, rest) = x.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for x in many {
        for i in 0..8 {
            sums[i] += x[i];
        }
    }
    rest.iter().fold(total(sums), |sum, x| sum + x)
}

/// The sum of `(x - a) (y - b)`.
#[inline(always)]
pub fn sum_of_products(x: &[f32], y: &[f32], a: f32, b: f32) -> f32 {
    let ((x_many, x_rest), (y_many, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (x, y) in x_many.iter().zip(y_many) {
        for i in 0..8 {
            sums[i] += (x[i] - a) * (y[i] - b);
        }
    }
    x_rest.iter().zip(y_rest).fold(total(sums), |sum, (x, y)| sum + (x - a) * (y - b))
}

/// The greatest value that is a number; minus infinity if there is none.
#[inline(always)]
pub fn greatest(x: &[f32]) -> f32 {
    let (many, rest) = x.as_chunks::<16>();
    let mut greatest = [f32::NEG_INFINITY; 16];
    for x in many {
        for i in 0..16 {
            greatest[i] = if x[i] > greatest[i] { x[i] } else { greatest[i] };
        }
    }
    greatest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn total(sums: [f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_once() {
        for n in [0, 1, 7, 8, 15, 16, 17, 40] {
            let x: Vec<f32> = (0..n).map(|i| (i * 7 % 11) as f32).collect();
            let whole = |of: &dyn Fn(f32) -> f32| x.iter().map(|&x| of(x)).sum::<f32>();
            assert_eq!(sum(&x), whole(&|x| x));
            assert_eq!(sum_of_products(&x, &x, 1.0, 2.0), whole(&|x| (x - 1.0) * (x - 2.0)));
            for place in 0..n {
                let mut x: Vec<f32> = x.iter().map(|x| -x).collect();
                x[place] = 1.0;
                assert_eq!(greatest(&x), 1.0, "{place} of {n}");
                x[place] = f32::NAN;
                assert!(greatest(&x) <= 0.0);
            }
        }
        assert_eq!(greatest(&[]), f32::NEG_INFINITY);
    }
}
