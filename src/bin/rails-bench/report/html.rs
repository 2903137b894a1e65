//! A benchmark as one self-contained page: a chart for each point of the grid, and the table.

use super::svg::{Chart, Curve, Point, escaped};
use super::{SpeedReport, SpeedRow};
use rails_wgpu::search::Algorithm;

/// Families with a colour of their own on every chart; others take the next ones.
const FAMILIES: [&str; 7] = ["avg", "tangent", "naive", "comb", "mips", "distilled", "cascade"];

/// Number of colours.
const STYLES: usize = 8;

/// Colours of Okabe and Ito (2008), which are told apart by colour-blind people too, lightened for dark pages.
const STYLE: &str = "\
:root{color-scheme:light dark;--page:#fff;--card:#fafafa;--ink:#1c1e21;--soft:#626873;--grid:#e3e5e8;--edge:#a4abb5;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b4578f;--c4:#b97f00;--c5:#3b9fd8;--c6:#7f7f7f;--c7:#8c564b}
@media(prefers-color-scheme:dark){:root{--page:#15171a;--card:#1c1f23;--ink:#e8eaed;--soft:#9aa2ad;--grid:#2d3238;--edge:#5d6570;
--c0:#56b4e9;--c1:#ff8a3d;--c2:#2fc79a;--c3:#e39ac4;--c4:#f0c04a;--c5:#9fd4f5;--c6:#b5b5b5;--c7:#c99a8d}}
body{margin:0 auto;max-width:1500px;padding:28px 24px 48px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
h1{font-size:22px;margin:0 0 12px;font-weight:650}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0 0 24px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}code{font:13px ui-monospace,Menlo,Consolas,monospace}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(560px,100%),1fr));gap:20px;margin-bottom:28px}
.charts:has(>:only-child){max-width:960px}
figure{margin:0;padding:12px;background:var(--card);border:1px solid var(--grid);border-radius:10px}
svg{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
text{fill:var(--soft)}.title{font-size:15px;font-weight:600;fill:var(--ink)}.legend{font-size:13px;fill:var(--ink)}
.axis{font-size:12.5px}.label{font-size:11.5px;paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}
.grid{stroke:var(--grid)}.frame{stroke:var(--edge)}.marker{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}.mark{stroke:var(--card);stroke-width:1.2}.ink{fill:var(--ink)}
.point:hover .mark{stroke:var(--ink);stroke-width:2}.exact .label{fill:var(--ink)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:4px 14px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--soft);font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:4px}
tbody tr:hover{background:var(--card)}
.note{color:var(--soft)}
";

/// The page.
pub fn page(report: &SpeedReport) -> String {
    let mut style = STYLE.to_string();
    for n in 0..STYLES {
        style.push_str(&format!(".s{n}{{stroke:var(--c{n})}}.f{n}{{fill:var(--c{n})}}.t{n}{{fill:var(--c{n})}}\n"));
    }
    let charts: String = charts(report).iter().map(|chart| format!("<figure>\n{}</figure>\n", chart.svg())).collect();
    let mut facts = String::new();
    let mut fact = |name: &str, value: &str| facts.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>\n"));
    fact("model", &escaped(&report.model));
    for (name, driver) in &report.devices {
        fact("device", &escaped(&format!("{name} ({driver})")));
    }
    fact("data", &format!("{} queries, {} items", report.users, report.items));
    fact("command", &format!("<code>{}</code>", escaped(&report.command)));
    if report.interrupted {
        fact("note", "ended early: rows are missing, or cover fewer queries");
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>rails-bench: recall and latency</title>\n<style>\n{style}</style>\n</head>\n<body>\n\
         <h1>Recall against latency</h1>\n<dl>\n{facts}</dl>\n<div class=\"charts\">\n{charts}</div>\n\
         <p class=\"note\">Up and to the left is better. Recall is the share of the exact f32 results found; each further \
         nine is as far as the last. The dashed line is exact search.</p>\n\
         <div class=\"scroll\">\n{}</div>\n</body>\n</html>\n",
        table(report)
    )
}

fn table(report: &SpeedReport) -> String {
    let table = report.table();
    let cells = |row: &[String], tag: &str| {
        let cells: String = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let (header, rows) = table.rows().split_first().map_or((&[][..], &[][..]), |(first, rest)| (&first[..], rest));
    let rows: String = rows.iter().map(|row| cells(row, "td")).collect();
    format!("<table>\n<thead>\n{}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n", cells(header, "th"))
}

/// One chart for each point of the grid, in the order of the rows.
fn charts(report: &SpeedReport) -> Vec<Chart> {
    let mut points: Vec<Vec<&SpeedRow>> = Vec::new();
    for row in &report.rows {
        match points.iter_mut().find(|rows| rows[0].shares_point(row)) {
            Some(rows) => rows.push(row),
            None => points.push(vec![row]),
        }
    }
    points.iter().map(|rows| chart(rows)).collect()
}

fn chart(rows: &[&SpeedRow]) -> Chart {
    let first = rows[0];
    let mut curves: Vec<Curve> = Vec::new();
    let mut exact = None;
    for row in rows {
        let name = row.measurement.algorithm.to_string();
        let (family, parameter) = name.split_once(':').unwrap_or((&name, ""));
        if row.measurement.algorithm == Algorithm::Exact {
            exact = Some(point(row, format!("exact {:.3} ms", Significant(row.percentile_ms(0.5)))));
            continue;
        }
        let point = point(row, parameter.to_string());
        match curves.iter_mut().find(|curve| curve.name == family) {
            Some(curve) => curve.points.push(point),
            None => {
                let known = FAMILIES.iter().position(|known| *known == family);
                let others = curves.iter().filter(|curve| curve.style >= FAMILIES.len()).count();
                let style = known.unwrap_or(FAMILIES.len() + others % (STYLES - FAMILIES.len()));
                curves.push(Curve { name: family.to_string(), style, points: vec![point] });
            }
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.recall.total_cmp(&b.recall).then(a.ms.total_cmp(&b.ms)));
    }
    Chart {
        title: format!(
            "{}, {}: {} items, batches of {}, k = {}",
            first.device, first.dtype, first.items, first.batch, first.k
        ),
        x_title: format!("median time of a batch of {}, ms", first.batch),
        y_title: format!("recall@{}", first.k),
        curves,
        exact,
    }
}

fn point(row: &SpeedRow, label: String) -> Point {
    let (median, tail) = (row.percentile_ms(0.5), row.percentile_ms(0.99));
    let queries_per_second = if median > 0.0 { 1e3 * row.batch as f64 / median } else { 0.0 };
    let tooltip = format!(
        "{}\nrecall@{} {:.4}\nmedian {median:.2} ms, p99 {tail:.2} ms\n{queries_per_second:.0} queries/s, {} runs",
        row.measurement.algorithm,
        row.k,
        row.measurement.recall,
        row.measurement.times.len(),
    );
    Point { ms: median, recall: row.measurement.recall, label, tooltip }
}

/// A number with as many significant digits as the precision says.
struct Significant(f64);

impl std::fmt::Display for Significant {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(3) as i32;
        let magnitude = if self.0 > 0.0 { self.0.log10().floor() as i32 } else { 0 };
        write!(f, "{:.*}", (digits - 1 - magnitude).max(0) as usize, self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::{Measurement, Rules};
    use rails_wgpu::metrics::Quality;

    fn row(algorithm: &str, k: usize, ms: u64, recall: f64) -> SpeedRow {
        let measurement = Measurement {
            algorithm: algorithm.parse().unwrap_or(Algorithm::Exact),
            times: vec![Duration::from_millis(ms)],
            queries: 32,
            scored: 0.0,
            pruned: 0.0,
            quality: Quality::new(None),
            recall,
            agreement: None,
        };
        let (device, dtype) = ("cpu <1>".to_string(), "f32".to_string());
        SpeedRow { device, dtype, items: 10, batch: 32, k, bytes_per_item: 4.0, build: Duration::ZERO, measurement }
    }

    #[test]
    fn a_chart_per_grid_point_and_a_curve_per_family() {
        let rows = vec![
            row("exact", 10, 90, 1.0),
            row("avg:500", 10, 50, 0.95),
            row("avg:200", 10, 20, 0.9),
            row("tangent:9", 10, 30, 0.99),
            row("exact", 20, 95, 1.0),
        ];
        let report = SpeedReport {
            model: "MoL".to_string(),
            devices: vec![("cpu <1>".to_string(), "AVX".to_string())],
            command: "rails-bench bench --x \"<y>\"".to_string(),
            users: 32,
            skipped_users: 0,
            items: 10,
            rules: Rules::Strict,
            interrupted: false,
            rows,
        };
        let charts = charts(&report);
        assert_eq!(charts.len(), 2);
        let names: Vec<(&str, usize)> = charts[0].curves.iter().map(|c| (c.name.as_str(), c.points.len())).collect();
        assert_eq!(names, [("avg", 2), ("tangent", 1)]);
        assert_eq!(charts[0].curves[0].points[0].label, "200", "in the order of recalls");
        assert!(charts[0].exact.as_ref().is_some_and(|exact| exact.label == "exact 90.0 ms"));
        let page = page(&report);
        assert!(!page.contains("<1>") && !page.contains("<y>") && page.contains("cpu &lt;1&gt;"), "{page}");
    }

    #[test]
    fn three_digits_say_enough() {
        let text = |value| format!("{:.3}", Significant(value));
        assert_eq!([text(0.01234), text(1.234), text(174.41), text(12_345.6)], ["0.0123", "1.23", "174", "12346"]);
    }
}
