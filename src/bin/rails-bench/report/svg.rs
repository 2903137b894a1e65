//! A chart of recall against time as SVG. Colours are left to the page: every mark has a class.

use super::axis::{LogAxis, RecallAxis};

pub(super) const WIDTH: f64 = 720.0;
pub(super) const HEIGHT: f64 = 450.0;
pub(super) const LEFT: f64 = 66.0;
pub(super) const RIGHT: f64 = 700.0;
pub(super) const TOP: f64 = 104.0;
pub(super) const BOTTOM: f64 = 396.0;

/// Width of a character of a label, about.
const LABEL_CHAR: f64 = 6.6;
const LABEL_HEIGHT: f64 = 13.0;

/// One measured algorithm.
pub(super) struct Point {
    pub ms: f64,
    pub recall: f64,
    /// Written beside the point; may be empty.
    pub label: String,
    /// Shown while the pointer rests on it.
    pub tooltip: String,
}

/// Points joined by a line in their order.
pub(super) struct Curve {
    pub name: String,
    /// Which colour and which form of mark.
    pub style: usize,
    pub points: Vec<Point>,
}

/// Curves of recall against time, and the time of exact search as a vertical line.
pub(super) struct Chart {
    pub title: String,
    pub x_title: String,
    pub y_title: String,
    pub curves: Vec<Curve>,
    pub exact: Option<Point>,
}

/// Text that means itself inside markup.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Characters that no XML document may hold.
            '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

impl Chart {
    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).chain(&self.exact);
        let recalls: Vec<f64> = points().map(|point| point.recall).collect();
        let x = LogAxis::around(points().map(|point| point.ms), LEFT, RIGHT);
        let y = RecallAxis::around(&recalls, BOTTOM, TOP);
        let mut svg = Drawing::new(&self.title);
        svg.text("title", LEFT, 22.0, "start", &self.title);
        self.grid(&mut svg, &x, &y);
        svg.legend(self.curves.iter().map(|curve| (curve.name.as_str(), curve.style)));
        let mut taken: Vec<Area> =
            points().map(|point| Area::around(x.at(point.ms), y.at(point.recall), 5.0, 5.0)).collect();
        if let Some(exact) = &self.exact {
            let (px, py) = (x.at(exact.ms), y.at(exact.recall));
            svg.open_group("exact", &exact.tooltip);
            svg.line("marker", px, TOP, px, BOTTOM);
            svg.mark(usize::MAX, px, py);
            let flipped = px > RIGHT - 12.0 - LABEL_CHAR * exact.label.chars().count() as f64;
            let (anchor, dx) = if flipped { ("end", -6.0) } else { ("start", 6.0) };
            svg.text("label", px + dx, BOTTOM - 8.0, anchor, &exact.label);
            svg.close_group();
            taken.push(Area { left: px - 2.0, right: px + 2.0, top: TOP, bottom: BOTTOM });
        }
        for curve in &self.curves {
            self.curve(&mut svg, curve, &x, &y);
            taken.extend(curve.points.windows(2).flat_map(|pair| {
                let (x1, y1) = (x.at(pair[0].ms), y.at(pair[0].recall));
                let (x2, y2) = (x.at(pair[1].ms), y.at(pair[1].recall));
                along(x1, y1, x2, y2)
            }));
        }
        for curve in &self.curves {
            for point in &curve.points {
                place_label(&mut svg, &mut taken, curve.style, point, x.at(point.ms), y.at(point.recall));
            }
        }
        svg.end()
    }

    fn grid(&self, svg: &mut Drawing, x: &LogAxis, y: &RecallAxis) {
        for tick in x.ticks() {
            let px = x.at(tick);
            svg.line("grid", px, TOP, px, BOTTOM);
            svg.text("tick", px, BOTTOM + 18.0, "middle", &format!("{tick}"));
        }
        for tick in y.ticks() {
            let py = y.at(tick);
            svg.line(if tick == 1.0 { "frame" } else { "grid" }, LEFT, py, RIGHT, py);
            svg.text("tick", LEFT - 8.0, py + 4.0, "end", &format!("{tick}"));
        }
        svg.line("frame", LEFT, BOTTOM, RIGHT, BOTTOM);
        svg.axis_titles(&self.x_title, &self.y_title);
    }

    fn curve(&self, svg: &mut Drawing, curve: &Curve, x: &LogAxis, y: &RecallAxis) {
        let at: Vec<(f64, f64)> = curve.points.iter().map(|point| (x.at(point.ms), y.at(point.recall))).collect();
        if at.len() > 1 {
            let path: Vec<String> = at.iter().map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
            svg.element(&format!("<polyline class=\"curve s{}\" points=\"{}\"/>", curve.style, path.join(" ")));
        }
        for (point, (px, py)) in curve.points.iter().zip(at) {
            svg.open_group("point", &point.tooltip);
            svg.mark(curve.style, px, py);
            svg.close_group();
        }
    }
}

/// Small areas that cover a line.
fn along(x1: f64, y1: f64, x2: f64, y2: f64) -> impl Iterator<Item = Area> {
    let steps = ((x2 - x1).abs().max((y2 - y1).abs()) / 4.0).ceil().max(1.0) as usize;
    (0..=steps).map(move |step| {
        let share = step as f64 / steps as f64;
        Area::around(x1 + share * (x2 - x1), y1 + share * (y2 - y1), 1.5, 1.5)
    })
}

/// Writes the point's label at the first place around it that is free.
fn place_label(svg: &mut Drawing, taken: &mut Vec<Area>, style: usize, point: &Point, px: f64, py: f64) {
    if point.label.is_empty() {
        return;
    }
    let width = LABEL_CHAR * point.label.chars().count() as f64;
    let places = [
        ("end", -7.0, -6.0),
        ("start", 8.0, 15.0),
        ("start", 8.0, -6.0),
        ("end", -8.0, 15.0),
        ("end", -10.0, 4.0),
        ("start", 10.0, 4.0),
        ("middle", 0.0, -10.0),
        ("middle", 0.0, 20.0),
        ("end", -8.0, 28.0),
        ("start", 8.0, 28.0),
    ];
    let area = |(anchor, dx, dy): (&str, f64, f64)| {
        let left =
            px + dx - width * [("start", 0.0), ("middle", 0.5)].iter().find(|a| a.0 == anchor).map_or(1.0, |a| a.1);
        Area { left, right: left + width, top: py + dy - LABEL_HEIGHT + 2.0, bottom: py + dy + 2.0 }
    };
    let free = |place: &(&str, f64, f64)| {
        let area = area(*place);
        area.left >= LEFT
            && area.right <= RIGHT + 16.0
            && area.bottom <= BOTTOM
            && !taken.iter().any(|other| other.meets(&area))
    };
    let place = places.into_iter().find(free).unwrap_or(places[0]);
    taken.push(area(place));
    let (anchor, dx, dy) = place;
    svg.text(&format!("label t{style}"), px + dx, py + dy, anchor, &point.label);
}

#[derive(Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn around(x: f64, y: f64, dx: f64, dy: f64) -> Area {
        Area { left: x - dx, right: x + dx, top: y - dy, bottom: y + dy }
    }

    fn meets(&self, other: &Area) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }
}

/// Outlines of marks by style; the first, and what has none, is a circle.
const OUTLINES: [&[(f64, f64)]; 12] = [
    &[],
    // Square, triangle, diamond, triangle that stands on its tip, pentagon.
    &[(-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)],
    &[(0.0, -5.6), (5.2, 4.2), (-5.2, 4.2)],
    &[(0.0, -6.0), (6.0, 0.0), (0.0, 6.0), (-6.0, 0.0)],
    &[(0.0, 5.6), (5.2, -4.2), (-5.2, -4.2)],
    &[(0.0, -5.4), (5.1, -1.7), (3.2, 4.4), (-3.2, 4.4), (-5.1, -1.7)],
    // Plus and cross.
    &[
        (-1.7, -5.4),
        (1.7, -5.4),
        (1.7, -1.7),
        (5.4, -1.7),
        (5.4, 1.7),
        (1.7, 1.7),
        (1.7, 5.4),
        (-1.7, 5.4),
        (-1.7, 1.7),
        (-5.4, 1.7),
        (-5.4, -1.7),
        (-1.7, -1.7),
    ],
    &[
        (0.0, -2.2),
        (3.3, -5.5),
        (5.5, -3.3),
        (2.2, 0.0),
        (5.5, 3.3),
        (3.3, 5.5),
        (0.0, 2.2),
        (-3.3, 5.5),
        (-5.5, 3.3),
        (-2.2, 0.0),
        (-5.5, -3.3),
        (-3.3, -5.5),
    ],
    // Star.
    &[
        (0.0, -6.4),
        (1.6, -2.1),
        (6.1, -2.0),
        (2.5, 0.8),
        (3.8, 5.2),
        (0.0, 2.6),
        (-3.8, 5.2),
        (-2.5, 0.8),
        (-6.1, -2.0),
        (-1.6, -2.1),
    ],
    // Triangles to the left and to the right, and a bar.
    &[(-5.6, 0.0), (4.2, -5.2), (4.2, 5.2)],
    &[(5.6, 0.0), (-4.2, -5.2), (-4.2, 5.2)],
    &[(-6.0, -2.4), (6.0, -2.4), (6.0, 2.4), (-6.0, 2.4)],
];

/// The mark of a style, around a point, as an element.
pub(super) fn mark(style: usize, x: f64, y: f64) -> String {
    let class = if style == usize::MAX { "mark ink".to_string() } else { format!("mark f{style}") };
    let outline = OUTLINES.get(style).copied().unwrap_or_default();
    if outline.is_empty() {
        return format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.6\"/>");
    }
    let points: Vec<String> = outline.iter().map(|(dx, dy)| format!("{:.1} {:.1}", x + dx, y + dy)).collect();
    format!("<path class=\"{class}\" d=\"M{}Z\"/>", points.join("L"))
}

/// SVG as it is written.
pub(super) struct Drawing(String);

impl Drawing {
    pub fn new(title: &str) -> Drawing {
        let title = escaped(title);
        let open = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"");
        Drawing(format!("{open} aria-label=\"{title}\">\n"))
    }

    pub fn element(&mut self, element: &str) {
        self.0.push_str(element);
        self.0.push('\n');
    }

    pub fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        self.element(&format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }

    pub fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        self.element(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// What the axes show.
    pub fn axis_titles(&mut self, x_title: &str, y_title: &str) {
        self.text("axis", (LEFT + RIGHT) / 2.0, HEIGHT - 12.0, "middle", x_title);
        let (cx, cy) = (12.0, (TOP + BOTTOM) / 2.0);
        let attributes =
            format!("class=\"axis\" text-anchor=\"middle\" transform=\"translate({cx} {cy}) rotate(-90)\"");
        self.element(&format!("<text {attributes}>{}</text>", escaped(y_title)));
    }

    /// Names and styles of curves, above the chart.
    pub fn legend<'a>(&mut self, curves: impl Iterator<Item = (&'a str, usize)>) {
        let (mut left, mut middle) = (LEFT, 44.0);
        for (name, style) in curves {
            let width = 52.0 + 7.0 * name.chars().count() as f64;
            if left + width > WIDTH && left > LEFT {
                (left, middle) = (LEFT, middle + 20.0);
            }
            self.line(&format!("curve s{style}"), left, middle, left + 22.0, middle);
            self.mark(style, left + 11.0, middle);
            self.text("legend", left + 28.0, middle + 4.0, "start", name);
            left += width;
        }
    }

    pub fn open_group(&mut self, class: &str, tooltip: &str) {
        self.element(&format!("<g class=\"{class}\"><title>{}</title>", escaped(tooltip)));
    }

    pub fn close_group(&mut self) {
        self.element("</g>");
    }

    /// A mark whose form, like its colour, tells the curves apart.
    pub fn mark(&mut self, style: usize, x: f64, y: f64) {
        self.element(&mark(style, x, y));
    }

    pub fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ms: f64, recall: f64, label: &str) -> Point {
        Point { ms, recall, label: label.to_string(), tooltip: format!("{label} <{ms}>") }
    }

    fn chart() -> Chart {
        let points = vec![point(20.0, 0.9, "500"), point(50.0, 0.99, "1000")];
        Chart {
            title: "a & b".to_string(),
            x_title: "ms".to_string(),
            y_title: "recall".to_string(),
            curves: vec![Curve { name: "avg".to_string(), style: 0, points }],
            exact: Some(point(90.0, 1.0, "exact")),
        }
    }

    #[test]
    fn points_are_where_the_scales_put_them() {
        // Times 18.2..99 lie on 10..100: 20 at log10(2), 50 at log10(5) of 634 pixels from 66. Recall .9 is the lowest
        // step, .99 the highest one: 88 % of the 292 pixels up from 396.
        let svg = chart().svg();
        let x = |ms: f64| 66.0 + 634.0 * (ms / 10.0).log10();
        let expected = format!("points=\"{:.1},396.0 {:.1},{:.1}\"", x(20.0), x(50.0), 396.0 - 0.88 * 292.0);
        assert!(svg.contains(&expected), "{expected} is not in\n{svg}");
        let marker = format!("<line class=\"marker\" x1=\"{:.1}\" y1=\"104.0\"", x(90.0));
        assert!(svg.contains(&marker), "{marker} is not in\n{svg}");
        assert!(svg.contains("<title>500 &lt;20&gt;</title>") && svg.contains(">a &amp; b</text>"), "{svg}");
    }

    #[test]
    fn every_style_has_a_mark_of_its_own() {
        let marks: std::collections::BTreeSet<String> =
            (0..OUTLINES.len()).map(|style| mark(style, 0.0, 0.0).replace(&format!(" f{style}"), "")).collect();
        assert_eq!(marks.len(), OUTLINES.len());
    }

    #[test]
    fn a_long_legend_goes_on_in_a_second_line() {
        let mut chart = chart();
        let curve = |i: usize| Curve { name: format!("algorithm-{i}"), style: i, points: vec![point(20.0, 0.9, "")] };
        chart.curves = (0..12).map(curve).collect();
        let svg = chart.svg();
        let heights = |text: &str| svg.matches(text).count();
        assert_eq!((heights("y=\"48.0\" text-anchor=\"start\""), heights("y=\"68.0\" text-anchor=\"start\"")), (5, 5));
    }

    #[test]
    fn labels_do_not_cover_each_other() {
        let mut chart = chart();
        chart.curves[0].points = (0..4).map(|i| point(30.0, 0.95, &format!("10{i}"))).collect();
        let svg = chart.svg();
        let at = |i: usize| {
            let line = svg.lines().find(|line| line.ends_with(&format!(">10{i}</text>"))).unwrap_or("");
            line.split("text-anchor").next().unwrap_or("").to_string()
        };
        let places: std::collections::BTreeSet<String> = (0..4).map(at).collect();
        assert_eq!(places.len(), 4, "{places:?}");
    }

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escaped("<a href=\"x\">&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
    }
}
