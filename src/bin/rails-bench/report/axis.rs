//! Scales of a chart: from values to positions, with the values worth a tick.

/// Steps of a recall axis. Each nine more is the same distance: what separates .9 from .99 is what separates .99 from .999.
const RECALL_STEPS: [f64; 13] = [0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999];

/// A logarithmic scale between two positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogAxis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl LogAxis {
    /// A scale of at least a factor of 2 that holds all of the positive `values`, ends at steps of 1, 2 or 5, and
    /// reaches from position `from` to `to`.
    pub fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> LogAxis {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        // A little room on both sides, so that no point sits on the frame.
        let (low, high) = (low / 1.1, high * 1.1);
        let ladder = ladder(low, high);
        let end = |step: Option<&f64>, otherwise: f64| step.copied().unwrap_or(otherwise);
        let below = end(ladder.iter().rev().find(|step| **step <= low), low);
        let above = end(ladder.iter().find(|step| **step >= high && **step > 1.9 * below), high);
        LogAxis { low: below, high: above, from, to }
    }

    /// Position of `value`.
    pub fn at(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// Values with a tick, ascending: 1, 2 and 5 of each power of ten, or only the 1 where there are many powers.
    pub fn ticks(&self) -> Vec<f64> {
        let inside = |step: &f64| (self.low * 0.999..=self.high * 1.001).contains(step);
        let all: Vec<f64> = ladder(self.low, self.high).into_iter().filter(inside).collect();
        if all.len() <= 12 {
            return all;
        }
        all.into_iter().filter(|step| (step.log10() - step.log10().round()).abs() < 1e-9).collect()
    }
}

/// 1, 2 and 5 times the powers of ten around `low..=high`.
fn ladder(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32 + 1;
    powers.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power))).collect()
}

/// A linear scale between two positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearAxis {
    low: f64,
    high: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl LinearAxis {
    /// A scale that holds all `values`, ends at multiples of its step (1, 2 or 5 times a power of ten), and reaches from position
    /// `from` to `to`.
    pub fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> LinearAxis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-9 * high.abs().max(1e-9) {
            // One value: in the middle.
            let room = if high == 0.0 { 1.0 } else { high.abs() / 2.0 };
            (low, high) = (low - room, high + room);
        }
        let rough = (high - low) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough).unwrap_or(10.0) * power;
        LinearAxis { low: (low / step).floor() * step, high: (high / step).ceil() * step, step, from, to }
    }

    /// Position of `value`.
    pub fn at(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value - self.low) / (self.high - self.low)
    }

    /// Values with a tick, ascending, as they are written.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let n = ((self.high - self.low) / self.step).round() as usize;
        let decimals = (-self.step.log10().floor()).clamp(0.0, 12.0) as usize;
        (0..=n).map(|i| self.low + i as f64 * self.step).map(|value| (value, format!("{value:.decimals$}"))).collect()
    }
}

/// A scale of recall: -log10(1 - recall), and 1 a little above the largest step.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecallAxis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

/// The share of the axis between its largest step and 1.
const GAP: f64 = 0.12;

impl RecallAxis {
    /// A scale that begins at a step below all `values` and has a step above all that are below 1.
    pub fn around(values: &[f64], from: f64, to: f64) -> RecallAxis {
        let below_one = || values.iter().copied().filter(|value| *value < 1.0);
        let (least, most) = (below_one().fold(0.9, f64::min), below_one().fold(0.99, f64::max));
        let low = RECALL_STEPS.iter().rev().find(|step| **step <= least).copied().unwrap_or(0.0);
        let high = RECALL_STEPS.iter().find(|step| **step >= most).copied().unwrap_or(0.9999);
        RecallAxis { low, high, from, to }
    }

    /// Position of `recall`.
    pub fn at(&self, recall: f64) -> f64 {
        let nines = |recall: f64| -(1.0 - recall).log10();
        if recall >= 1.0 {
            return self.to;
        }
        let share = (nines(recall.min(self.high)) - nines(self.low)) / (nines(self.high) - nines(self.low));
        self.from + (self.to - self.from) * (1.0 - GAP) * share.max(0.0)
    }

    /// Values with a tick, ascending, 1 the last.
    pub fn ticks(&self) -> Vec<f64> {
        let inside = |step: &f64| (self.low..=self.high).contains(step);
        RECALL_STEPS.iter().copied().filter(inside).chain([1.0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_placed_by_their_logarithm() {
        // 12..80 with room: 10.9..88, so 10 to 100, one power of ten on 400 pixels.
        let axis = LogAxis::around([12.0, 80.0].into_iter(), 100.0, 500.0);
        assert_eq!((axis.low, axis.high), (10.0, 100.0));
        assert!((axis.at(10.0) - 100.0).abs() < 1e-9 && (axis.at(100.0) - 500.0).abs() < 1e-9);
        assert!((axis.at(1000f64.sqrt()) - 300.0).abs() < 1e-9);
        assert_eq!(axis.ticks(), [10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn one_time_or_none_is_a_scale_too() {
        let one = LogAxis::around([7.0].into_iter(), 0.0, 1.0);
        assert_eq!((one.low, one.high), (5.0, 10.0));
        let none = LogAxis::around([0.0, f64::NAN].into_iter(), 0.0, 1.0);
        assert!(none.at(1.0) >= 0.0 && none.at(10.0) <= 1.0);
        let wide = LogAxis::around([0.01, 9000.0].into_iter(), 0.0, 1.0);
        assert_eq!(wide.ticks(), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0]);
    }

    #[test]
    fn linear_ticks_are_round_and_hold_all_values() {
        let texts = |values: &[f64]| {
            let axis = LinearAxis::around(values.iter().copied(), 0.0, 100.0);
            let mut finite = values.iter().filter(|value| value.is_finite());
            assert!(finite.all(|value| (-1e-9..=100.0 + 1e-9).contains(&axis.at(*value))));
            axis.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&[0.012, 0.0337]), ["0.010", "0.015", "0.020", "0.025", "0.030", "0.035"]);
        assert_eq!(texts(&[1.0, 12.0]), ["0", "2", "4", "6", "8", "10", "12"]);
        assert_eq!(texts(&[-0.5, 0.4]).len(), 6);
        assert!(texts(&[3.0]).len() > 2 && texts(&[f64::NAN]).len() > 2 && texts(&[0.0]).len() > 2);
    }

    #[test]
    fn each_nine_of_recall_is_as_far() {
        // 0 to .999 is three nines on 88 % of the axis, 1 at its end.
        let axis = RecallAxis::around(&[0.2, 0.9985, 1.0], 300.0, 0.0);
        assert_eq!((axis.low, axis.high), (0.0, 0.999));
        for (recall, position) in [(0.0, 300.0), (0.9, 212.0), (0.99, 124.0), (0.999, 36.0), (1.0, 0.0)] {
            assert!((axis.at(recall) - position).abs() < 1e-6, "{recall} is at {}", axis.at(recall));
        }
        assert_eq!(axis.ticks().last(), Some(&1.0));
    }

    #[test]
    fn good_recalls_get_the_whole_axis() {
        let axis = RecallAxis::around(&[0.97, 0.992], 0.0, 100.0);
        assert_eq!(axis.ticks(), [0.9, 0.95, 0.98, 0.99, 0.995, 1.0]);
        let perfect = RecallAxis::around(&[1.0], 0.0, 100.0);
        assert_eq!(perfect.ticks(), [0.9, 0.95, 0.98, 0.99, 1.0]);
    }

    #[test]
    fn both_scales_are_monotone() {
        let recall = RecallAxis::around(&[0.3, 0.99997], 0.0, 100.0);
        let time = LogAxis::around([0.3, 70.0].into_iter(), 0.0, 100.0);
        for step in 0..1000 {
            let x = f64::from(step) / 1000.0;
            assert!(recall.at(x) <= recall.at(x + 0.001) && time.at(x + 0.001) < time.at(x + 0.002));
        }
        assert!(recall.at(0.99999) < recall.at(1.0));
    }
}
