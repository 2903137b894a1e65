//! A chart of some quantities by epoch as SVG.

use super::axis::LinearAxis;
use super::svg::{BOTTOM, Drawing, LEFT, RIGHT, TOP};

/// Points joined by a line, in their order.
pub(super) struct Line {
    pub name: String,
    /// Which colour and which form of mark.
    pub style: usize,
    pub points: Vec<(f64, f64)>,
}

/// Lines with linear scales.
pub(super) struct LineChart {
    pub title: String,
    pub x_title: String,
    pub y_title: String,
    pub lines: Vec<Line>,
    /// An x with a vertical line, and its label.
    pub marker: Option<(f64, String)>,
}

/// Lines with more points than this have no marks.
const MARKED: usize = 40;

impl LineChart {
    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = LinearAxis::around(points().map(|point| point.0), LEFT, RIGHT);
        let y = LinearAxis::around(points().map(|point| point.1), BOTTOM, TOP);
        let mut svg = Drawing::new(&self.title);
        svg.text("title", LEFT, 22.0, "start", &self.title);
        for (value, text) in x.ticks() {
            svg.line("grid", x.at(value), TOP, x.at(value), BOTTOM);
            svg.text("tick", x.at(value), BOTTOM + 18.0, "middle", &text);
        }
        for (value, text) in y.ticks() {
            svg.line("grid", LEFT, y.at(value), RIGHT, y.at(value));
            svg.text("tick", LEFT - 8.0, y.at(value) + 4.0, "end", &text);
        }
        svg.line("frame", LEFT, BOTTOM, RIGHT, BOTTOM);
        svg.axis_titles(&self.x_title, &self.y_title);
        svg.legend(self.lines.iter().map(|line| (line.name.as_str(), line.style)));
        if let Some((at, label)) = &self.marker {
            svg.line("marker", x.at(*at), TOP, x.at(*at), BOTTOM);
            let is_right = x.at(*at) > (LEFT + RIGHT) / 2.0;
            let (anchor, dx) = if is_right { ("end", -6.0) } else { ("start", 6.0) };
            svg.text("label", x.at(*at) + dx, BOTTOM - 8.0, anchor, label);
        }
        for line in &self.lines {
            let path: Vec<String> =
                line.points.iter().map(|&(px, py)| format!("{:.1},{:.1}", x.at(px), y.at(py))).collect();
            svg.element(&format!("<polyline class=\"curve s{}\" points=\"{}\"/>", line.style, path.join(" ")));
            if line.points.len() <= MARKED {
                for &(px, py) in &line.points {
                    svg.open_group("point", &format!("{}\n{} {px}: {py:.4}", line.name, self.x_title));
                    svg.mark(line.style, x.at(px), y.at(py));
                    svg.close_group();
                }
            }
        }
        svg.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_where_the_scales_put_them() {
        let line = |n: usize| Line {
            name: "HR@10".to_string(),
            style: 1,
            points: (0..n).map(|i| (i as f64, 0.1 * i as f64)).collect(),
        };
        let chart = |n| LineChart {
            title: "a < b".to_string(),
            x_title: "epoch".to_string(),
            y_title: "HR".to_string(),
            lines: vec![line(n)],
            marker: Some((2.0, "best".to_string())),
        };
        // Epochs 0 to 4 on 634 pixels from 66, values 0 to .4 on 292 pixels up from 396.
        let svg = chart(5).svg();
        let expected = "points=\"66.0,396.0 224.5,323.0 383.0,250.0 541.5,177.0 700.0,104.0\"";
        assert!(svg.contains(expected), "{expected} is not in\n{svg}");
        assert!(svg.contains("<line class=\"marker\" x1=\"383.0\"") && svg.contains("a &lt; b"), "{svg}");
        let marks = |svg: &str| svg.matches("class=\"point\"").count();
        assert_eq!((marks(&svg), marks(&chart(100).svg())), (5, 0));
    }
}
