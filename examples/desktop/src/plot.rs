//! The plot of what each algorithm finds against the time it takes.

use std::time::Duration;

use eframe::egui::{Align2, Painter, Pos2, Rect, Sense, Stroke, Ui, pos2, vec2};
use rails_wgpu::search::Algorithm;

use crate::engine::{K, Point};
use crate::theme::{self, ACCENT, LINE, RAISED, TEXT, WEAK};

/// Draws `points`; the algorithm in use stands out. Returns one that was clicked.
pub fn plot(ui: &mut Ui, points: &[Point], used: Algorithm, height: f32) -> Option<Algorithm> {
    let (whole, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
    let painter = ui.painter_at(whole);
    let area = Rect::from_min_max(whole.min + vec2(38.0, 32.0), whole.max - vec2(12.0, 40.0));
    let axes = Axes::new(area, points);
    axes.draw(&painter);
    let places: Vec<Pos2> = points.iter().map(|point| axes.place(point)).collect();
    let near = |pointer: Pos2| {
        let distance = |i: &usize| places[*i].distance(pointer);
        (0..points.len()).filter(|i| distance(i) < 14.0).min_by(|a, b| distance(a).total_cmp(&distance(b)))
    };
    let hovered = response.hover_pos().and_then(near);

    let dots = places.iter().map(|&place| Rect::from_center_size(place, vec2(10.0, 10.0)));
    let mut taken: Vec<Rect> = dots.collect();
    for (i, (point, &place)) in points.iter().zip(&places).enumerate() {
        let (is_used, is_hovered) = (point.algorithm == used, hovered == Some(i));
        let color = if is_used { ACCENT } else { WEAK };
        if is_used {
            painter.circle_stroke(place, 9.0, Stroke::new(1.5, ACCENT.gamma_multiply(0.6)));
        }
        painter.circle_filled(place, if is_hovered { 6.5 } else { 5.0 }, color);
        let text = if is_used || is_hovered { TEXT } else { WEAK };
        let label = painter.layout_no_wrap(point.algorithm.to_string(), theme::font(12.5), text);
        // The first place that is free.
        let size = label.size();
        let sides = [
            vec2(12.0, -size.y / 2.0),
            vec2(-12.0 - size.x, -size.y / 2.0),
            vec2(-size.x / 2.0, 10.0),
            vec2(-size.x / 2.0, -10.0 - size.y),
            vec2(10.0, 8.0),
            vec2(-10.0 - size.x, 8.0),
            vec2(10.0, -8.0 - size.y),
        ];
        // Moved to the left where it would leave the plot.
        let at = |side: &eframe::egui::Vec2| {
            let rect = Rect::from_min_size(place + *side, size);
            rect.translate(vec2((whole.right() - rect.right()).min(0.0), 0.0))
        };
        let free = |rect: &Rect| whole.contains_rect(*rect) && !taken.iter().any(|other| other.intersects(*rect));
        let rect = sides.iter().map(at).find(free).unwrap_or_else(|| at(&sides[0]));
        taken.push(rect);
        painter.galley(rect.min, label, text);
    }
    if let Some(i) = hovered {
        let Point { algorithm, recall, latency } = points[i];
        response.clone().on_hover_text(format!("{algorithm}: recall {recall:.3}, {}", readable(latency)));
    }
    let clicked = response.clicked().then(|| response.interact_pointer_pos().and_then(near)).flatten();
    clicked.map(|i| points[i].algorithm)
}

/// A time with a unit that suits it.
pub fn readable(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1000.0 => format!("{micros:.0} µs"),
        ..10_000.0 => format!("{:.2} ms", micros / 1e3),
        ..1_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Recall upwards, the logarithm of the time to the right.
struct Axes {
    area: Rect,
    /// Seconds.
    times: [f64; 2],
    recalls: [f64; 2],
}

impl Axes {
    fn new(area: Rect, points: &[Point]) -> Axes {
        let seconds = points.iter().map(|point| point.latency.as_secs_f64());
        let (low, high) = seconds.fold((f64::MAX, 0.0f64), |(low, high), time| (low.min(time), high.max(time)));
        let times = if points.is_empty() { [1e-4, 1e-2] } else { [low / 1.5, (high * 2.0).max(low * 3.0)] };
        let lowest = points.iter().map(|point| point.recall).fold(0.9, f64::min);
        Axes { area, times, recalls: [((lowest - 0.06) * 10.0).floor() / 10.0, 1.0] }
    }

    fn x(&self, seconds: f64) -> f32 {
        let [low, high] = self.times;
        let share = (seconds / low).ln() / (high / low).ln();
        self.area.left() + share as f32 * self.area.width()
    }

    fn y(&self, recall: f64) -> f32 {
        let [low, high] = self.recalls;
        self.area.bottom() - ((recall - low) / (high - low)) as f32 * (self.area.height() - 8.0)
    }

    fn place(&self, point: &Point) -> Pos2 {
        pos2(self.x(point.latency.as_secs_f64()), self.y(point.recall))
    }

    fn draw(&self, painter: &Painter) {
        let Axes { area, times: [fast, slow], recalls: [low, high] } = self;
        let small = theme::font(11.5);
        let step = if high - low > 0.55 { 0.2 } else { 0.1 };
        let mut recall = *high;
        while recall > low - 1e-9 {
            let y = self.y(recall);
            painter.hline(area.x_range(), y, Stroke::new(1.0, RAISED));
            painter.text(pos2(area.left() - 8.0, y), Align2::RIGHT_CENTER, format!("{recall:.1}"), small.clone(), WEAK);
            recall -= step;
        }
        painter.hline(area.x_range(), area.bottom(), Stroke::new(1.0, LINE));
        for exponent in -6..=1 {
            for digit in [1.0, 2.0, 5.0] {
                let seconds = digit * 10f64.powi(exponent);
                if (*fast..=*slow).contains(&seconds) {
                    let x = self.x(seconds);
                    painter.vline(x, area.bottom()..=area.bottom() + 4.0, Stroke::new(1.0, LINE));
                    let text = match seconds * 1e6 {
                        ..999.0 => format!("{:.0} µs", seconds * 1e6),
                        _ => format!("{:.0} ms", seconds * 1e3),
                    };
                    painter.text(pos2(x, area.bottom() + 7.0), Align2::CENTER_TOP, text, small.clone(), WEAK);
                }
            }
        }
        let recall = format!("recall: share of the exact best {K} that are found");
        painter.text(pos2(area.left() - 30.0, area.top() - 14.0), Align2::LEFT_BOTTOM, recall, small.clone(), WEAK);
        let time = "time of one search, logarithmic";
        painter.text(pos2(area.center().x, area.bottom() + 24.0), Align2::CENTER_TOP, time, small, WEAK);
    }
}
