//! A benchmark as one self-contained page: a chart for each point of the grid, and the table.

use super::columns::{Column, significant};
use super::row::SpeedRow;
use super::speed::{GOOD_RECALL, SpeedReport};
use super::svg::{Chart, Curve, Point, escaped, mark};
use crate::output::counted;
use rails_wgpu::search::Algorithm;

/// Families of algorithms, each with a colour and a mark of its own on every chart.
const FAMILIES: [&str; 12] = [
    "avg",
    "tangent",
    "naive",
    "comb",
    "mips",
    "distilled",
    "cascade",
    "naive-ivf",
    "tangent-ivf",
    "tangent-sampled",
    "h-indexer",
    "exact-pruned",
];

/// Colours of Okabe and Ito (2008), which are told apart by colour-blind people too, lightened for dark pages.
const STYLE: &str = "\
:root{color-scheme:light dark;--page:#fff;--card:#fafafa;--ink:#1c1e21;--soft:#626873;--grid:#e3e5e8;--edge:#a4abb5;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b4578f;--c4:#b97f00;--c5:#3b9fd8;--c6:#7a5cc7;--c7:#8c564b;
--c8:#5f8a00;--c9:#e0559b;--c10:#607d8b;--c11:#444b55;--good:#00734f}
@media(prefers-color-scheme:dark){:root{--page:#15171a;--card:#1c1f23;--ink:#e8eaed;--soft:#9aa2ad;--grid:#2d3238;--edge:#5d6570;
--c0:#56b4e9;--c1:#ff8a3d;--c2:#2fc79a;--c3:#e39ac4;--c4:#f0c04a;--c5:#9fd4f5;--c6:#b39ddb;--c7:#c99a8d;
--c8:#a8d150;--c9:#ff8fc0;--c10:#9fb4bf;--c11:#cfd5dc;--good:#4fd8a8}}
body{margin:0 auto;max-width:1500px;padding:28px 24px 48px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
h1{font-size:22px;margin:0 0 12px;font-weight:650}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0 0 24px}dl.meanings{font-size:14px;margin-top:16px}
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
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:5px 14px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
thead th{color:var(--soft);font-weight:600;border-bottom:2px solid var(--edge);padding:0}
thead button{all:unset;box-sizing:border-box;width:100%;padding:6px 14px;cursor:pointer}
thead button:hover{color:var(--ink)}thead button:focus-visible{outline:2px solid var(--c0)}
th[aria-sort=ascending] button::after{content:' \\25b4'}th[aria-sort=descending] button::after{content:' \\25be'}
th:first-child,td:first-child{text-align:left}
tr.point th{text-align:left;padding-top:18px;color:var(--ink);font-weight:600}
tbody tr:hover td{background:var(--card)}tr.best td{color:var(--good);font-weight:600}
td svg{display:inline-block;width:14px;height:14px;vertical-align:-2px;margin-right:8px}
.wide th:first-child button,.wide td:first-child{padding-left:4px}.wide td,.wide thead button{padding-left:8px;padding-right:8px}
.note{color:var(--soft)}
";

/// The page.
pub fn page(report: &SpeedReport) -> String {
    let charts: String = charts(report).iter().map(|chart| format!("<figure>\n{}</figure>\n", chart.svg())).collect();
    let mut facts = String::new();
    let mut fact = |name: &str, value: &str| facts.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>\n"));
    fact("model", &escaped(&report.model));
    fact("machine", &escaped(&report.machine.to_string()));
    fact("date", &escaped(&report.date));
    for (name, driver) in &report.devices {
        fact("device", &escaped(&format!("{name} ({driver})")));
    }
    let items = counted(report.items, "item");
    fact("data", &escaped(&format!("{} queries, {items} from {}", report.users, report.item_source)));
    fact("command", &format!("<code>{}</code>", escaped(&report.command)));
    if report.interrupted {
        fact("note", "ended early: rows are missing, or cover fewer queries");
    }
    let content = format!(
        "<h1>Recall against latency</h1>\n<dl>\n{facts}</dl>\n<div class=\"charts\">\n{charts}</div>\n\
         <p class=\"note\">Up and to the left is better. Recall is the share of the exact f32 results found, \
         on a logarithmic scale of what is missed. The dashed line is exact search.</p>\n\
         <div class=\"scroll\">\n{}</div>\n{}",
        table(report),
        meanings(report)
    );
    document("rails-bench: recall and latency", &content)
}

/// A page with the styles of charts, and of tables whose columns sort their rows.
pub(super) fn document(title: &str, content: &str) -> String {
    let mut style = STYLE.to_string();
    for n in 0..FAMILIES.len() {
        style.push_str(&format!(".s{n}{{stroke:var(--c{n})}}.f{n}{{fill:var(--c{n})}}.t{n}{{fill:var(--c{n})}}\n"));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{content}<script>\n{SORT}</script>\n\
         </body>\n</html>\n"
    )
}

/// Sorts the rows of each group by the column whose title was clicked, the other way round at the second click. Cells without
/// a number come last.
const SORT: &str = "\
for (const button of document.querySelectorAll('thead button')) button.onclick = () => {
  const th = button.parentElement, column = th.cellIndex;
  const sign = th.ariaSort === 'descending' ? 1 : -1;
  for (const other of th.parentElement.cells) other.ariaSort = null;
  th.ariaSort = sign === 1 ? 'ascending' : 'descending';
  const value = row => column ? parseFloat(row.cells[column].textContent) : row.cells[0].textContent;
  const order = (a, b) => column ? (Number.isNaN(a) - Number.isNaN(b)) || sign * (a - b) : sign * a.localeCompare(b);
  for (const group of document.querySelectorAll('tbody.rows'))
    group.append(...[...group.rows].sort((a, b) => order(value(a), value(b))));
};
";

/// The table: a group of rows for each point of the grid.
fn table(report: &SpeedReport) -> String {
    let columns = report.columns();
    let names = ["algorithm".to_string()].into_iter().chain(columns.iter().map(|column| report.title(column)));
    let header: String =
        names.map(|name| format!("<th><button type=\"button\">{}</button></th>", escaped(&name))).collect();
    let mut groups = String::new();
    for rows in report.points() {
        if let Some(title) = report.point_title(rows[0]) {
            let (title, width) = (escaped(&title), columns.len() + 1);
            groups.push_str(&format!(
                "<tbody>\n<tr class=\"point\"><th colspan=\"{width}\">{title}</th></tr>\n</tbody>\n"
            ));
        }
        let best = report.best(&rows);
        groups.push_str("<tbody class=\"rows\">\n");
        for row in rows {
            let is_best = best.is_some_and(|best| std::ptr::eq(best, row));
            let cells = columns.iter().map(|column| (column.cell)(row, report.speedup(row)));
            let cells: String = cells.map(|cell| format!("<td>{}</td>", escaped(&cell))).collect();
            let class = if is_best { " class=\"best\"" } else { "" };
            let (mark, name) = (swatch(row.measurement.algorithm), escaped(&report.name(row)));
            groups.push_str(&format!("<tr{class}><td>{mark}{name}</td>{cells}</tr>\n"));
        }
        groups.push_str("</tbody>\n");
    }
    format!("<table>\n<thead>\n<tr>{header}</tr>\n</thead>\n{groups}</table>\n")
}

/// The mark that an algorithm has in the charts.
fn swatch(algorithm: Algorithm) -> String {
    let name = algorithm.to_string();
    let mark = mark(style(name.split(':').next().unwrap_or(&name)), 7.0, 7.0);
    format!("<i><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">{mark}</svg></i>")
}

/// What the columns mean.
fn meanings(report: &SpeedReport) -> String {
    let meaning =
        |column: &&Column| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(&report.title(column)), escaped(column.meaning));
    let columns: String = report.columns().iter().map(meaning).collect();
    let best = match report.legend() {
        Some(_) => {
            format!("<dt>green</dt><dd>the fastest approximate algorithm with a recall of {GOOD_RECALL} or more</dd>\n")
        }
        None => String::new(),
    };
    format!("<dl class=\"meanings\">\n{columns}{best}</dl>\n")
}

/// Colour and mark of a family; exact search has the ink's.
fn style(family: &str) -> usize {
    FAMILIES.iter().position(|known| *known == family).unwrap_or(usize::MAX)
}

/// One chart for each point of the grid, in the order of the rows.
fn charts(report: &SpeedReport) -> Vec<Chart> {
    report.points().iter().map(|rows| chart(rows)).collect()
}

fn chart(rows: &[&SpeedRow]) -> Chart {
    let first = rows[0];
    let mut curves: Vec<Curve> = Vec::new();
    let mut exact = None;
    for row in rows {
        let name = row.measurement.algorithm.to_string();
        let (family, parameter) = name.split_once(':').unwrap_or((&name, ""));
        if row.measurement.algorithm == Algorithm::Exact {
            exact = Some(point(row, format!("exact {} ms", significant(row.percentile_ms(0.5)))));
            continue;
        }
        let point = point(row, parameter.to_string());
        match curves.iter_mut().find(|curve| curve.name == family) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name: family.to_string(), style: style(family), points: vec![point] }),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::machine::Machine;
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
            machine: Machine { processor: "cpu <2>".to_string(), threads: 2, version: "0" },
            date: "today".to_string(),
            devices: vec![("cpu <1>".to_string(), "AVX".to_string())],
            command: "rails-bench bench --x \"<y>\"".to_string(),
            users: 32,
            skipped_users: 0,
            items: 10,
            item_source: "ids.txt".to_string(),
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
        assert!(!page.contains("<2>") && page.contains("cpu &lt;2&gt;, 2 threads; rails-bench 0"), "{page}");
        // The fastest of those that find 99 %, in the group that has one.
        assert_eq!((page.matches("<tr class=\"best\">").count(), page.matches("tbody class=\"rows\"").count()), (1, 2));
        assert!(page.contains("k 10</th>") && page.contains("<td>3.00x</td>"), "{page}");
        assert!(!page.contains("<1>") && !page.contains("<y>") && page.contains("cpu &lt;1&gt;"), "{page}");
    }
}
