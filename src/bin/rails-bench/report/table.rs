//! A text table for people: plain where programs read it, with colours, and cut to the width, on a terminal.

use std::fmt;

use console::{Style, Term, measure_text_width, truncate_str};
use rails_wgpu::Result;

use crate::output::out;

/// What is assumed of a terminal that says it is narrower.
const NARROWEST: usize = 40;

/// Characters of a last column of words that a table has room for at least; what is longer is cut off.
const LAST_WORDS: usize = 16;

/// Rows of cells under a header, in groups. Columns of numbers are aligned right, others left.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<String>,
    /// Where a table that is too wide is cut first.
    cuts: Vec<usize>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
enum Row {
    /// The title of the rows that follow.
    Title(String),
    Cells {
        cells: Vec<String>,
        is_best: bool,
    },
}

impl Table {
    /// A table with these column names.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Table {
        Table { header: header.into_iter().map(Into::into).collect(), ..Table::default() }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(Row::Cells { cells: cells.into_iter().map(Into::into).collect(), is_best: false });
    }

    /// Adds a row that stands out.
    pub fn best_row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(Row::Cells { cells: cells.into_iter().map(Into::into).collect(), is_best: true });
    }

    /// Begins a group of rows with a title.
    pub fn group(&mut self, title: impl Into<String>) {
        self.rows.push(Row::Title(title.into()));
    }

    /// Lets a table that is too wide be cut before this column first.
    pub fn cut_before(&mut self, column: usize) {
        self.cuts.push(column);
    }

    /// Prints it on standard output.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn print(&self) -> Result<()> {
        let terminal = Term::stdout();
        if !terminal.is_term() {
            return out!("{self}");
        }
        let (_, width) = terminal.size();
        out!("{}", self.drawn(usize::from(width).max(NARROWEST), console::colors_enabled()))
    }

    /// For a terminal of `width` characters: closer columns, then parts one below the other, where all do not fit.
    fn drawn(&self, width: usize, has_colours: bool) -> String {
        let all: Vec<usize> = (0..self.header.len()).collect();
        for gap in [2, 1] {
            if self.width(&all, gap) <= width {
                return self.part(&all, gap, width, has_colours);
            }
        }
        let parts: Vec<String> =
            self.parts(width).iter().map(|columns| self.part(columns, 2, width, has_colours)).collect();
        parts.join("\n")
    }

    /// Columns of each part: the first one again and again, with as many as fit.
    fn parts(&self, width: usize) -> Vec<Vec<usize>> {
        let fits = |columns: &[usize]| self.width(columns, 2) <= width;
        let mut bounds: Vec<usize> = [1].into_iter().chain(self.cuts.iter().copied()).collect();
        bounds.push(self.header.len());
        let mut parts = vec![vec![0]];
        for block in bounds.windows(2).map(|pair| pair[0]..pair[1]) {
            let last = parts.last_mut().map_or(Vec::new(), std::mem::take);
            let joined: Vec<usize> = last.iter().copied().chain(block.clone()).collect();
            if fits(&joined) {
                parts.pop();
                parts.push(joined);
                continue;
            }
            parts.pop();
            if last.len() > 1 {
                parts.push(last);
            }
            let mut part = vec![0];
            for column in block {
                part.push(column);
                if part.len() > 2 && !fits(&part) {
                    part.pop();
                    parts.push(std::mem::replace(&mut part, vec![0, column]));
                }
            }
            parts.push(part);
        }
        parts
    }

    fn width(&self, columns: &[usize], gap: usize) -> usize {
        let needed = |&column: &usize| match self.column_width(column) {
            // The last words may be cut off.
            width if column + 1 == self.header.len() && !self.is_number(column) => width.min(LAST_WORDS),
            width => width,
        };
        columns.iter().map(needed).sum::<usize>() + gap * columns.len().saturating_sub(1)
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| match row {
            Row::Title(_) => None,
            Row::Cells { cells, .. } => cells.get(column).map(String::as_str),
        })
    }

    fn column_width(&self, column: usize) -> usize {
        let cells = self.cells(column).chain(self.header.get(column).map(String::as_str));
        cells.map(measure_text_width).max().unwrap_or(0)
    }

    fn is_number(&self, column: usize) -> bool {
        column > 0 && self.cells(column).all(|cell| !cell.starts_with(char::is_alphabetic))
    }

    fn part(&self, columns: &[usize], gap: usize, width: usize, has_colours: bool) -> String {
        let style = |style: Style| if has_colours { style.force_styling(true) } else { Style::new() };
        let (head, line) = (style(Style::new().bold()), style(Style::new().dim()));
        let (title, best) = (style(Style::new().cyan()), style(Style::new().green().bold()));
        let widths: Vec<usize> = columns.iter().map(|&column| self.column_width(column)).collect();
        let written = |cells: &[String]| {
            let cell = |(&column, &width): (&usize, &usize)| {
                let cell = cells.get(column).map_or("", String::as_str);
                let pad = " ".repeat(width.saturating_sub(measure_text_width(cell)));
                if self.is_number(column) { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            };
            let line: Vec<String> = columns.iter().zip(&widths).map(cell).collect();
            truncate_str(line.join(&" ".repeat(gap)).trim_end(), width, "…").into_owned()
        };
        let total = (widths.iter().sum::<usize>() + gap * columns.len().saturating_sub(1)).min(width);
        let mut lines =
            vec![head.apply_to(written(&self.header)).to_string(), line.apply_to("-".repeat(total)).to_string()];
        for (index, row) in self.rows.iter().enumerate() {
            match row {
                Row::Title(text) => {
                    if index > 0 {
                        lines.push(String::new());
                    }
                    lines.push(title.apply_to(text).to_string());
                }
                Row::Cells { cells, is_best: true } => lines.push(best.apply_to(written(cells)).to_string()),
                Row::Cells { cells, .. } => lines.push(written(cells)),
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let all: Vec<usize> = (0..self.header.len()).collect();
        f.write_str(&self.part(&all, 2, usize::MAX, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["name", "n", "title"]);
        table.row(["a", "10", "Alpha"]);
        table.best_row(["é longer", "7", "Be"]);
        table
    }

    #[test]
    fn numbers_are_aligned_right_and_words_left() {
        let text = "name       n  title\n-------------------\na         10  Alpha\né longer   7  Be\n";
        assert_eq!(table().to_string(), text);
    }

    #[test]
    fn groups_have_a_title_and_a_line_between_them() {
        let mut table = Table::new(["name", "n"]);
        table.group("first");
        table.row(["a", "1"]);
        table.group("second");
        table.row(["b", "2"]);
        assert_eq!(table.to_string(), "name  n\n-------\nfirst\na     1\n\nsecond\nb     2\n");
    }

    #[test]
    fn a_table_that_is_too_wide_is_cut_where_it_may() {
        let mut table = Table::new(["name", "aaaa", "bbbb", "cccc", "dddd"]);
        table.row(["x", "1", "2", "3", "4"]);
        table.cut_before(3);
        let lines = |width| table.drawn(width, false).lines().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(lines(28)[0], "name  aaaa  bbbb  cccc  dddd");
        assert_eq!(lines(24)[0], "name aaaa bbbb cccc dddd", "closer before it is cut");
        let cut = lines(23);
        assert_eq!((cut[0].as_str(), cut[3].as_str(), cut[4].as_str()), ("name  aaaa  bbbb", "", "name  cccc  dddd"));
        let single = lines(10);
        assert_eq!([0, 4, 8, 12].map(|i| single[i].as_str()), ["name  aaaa", "name  bbbb", "name  cccc", "name  dddd"]);
    }

    #[test]
    fn the_best_row_has_a_colour_where_there_are_colours() {
        assert!(table().drawn(80, true).contains("\u{1b}[32m\u{1b}[1mé longer   7  Be\u{1b}[0m"));
        assert!(!table().drawn(80, false).contains('\u{1b}'));
    }

    #[test]
    fn words_that_are_too_long_end_in_dots() {
        let mut table = Table::new(["rank", "title"]);
        table.row(["1", "a title that goes on and on"]);
        assert_eq!(table.drawn(22, false), "rank  title\n----------------------\n1     a title that go…\n");
    }
}
