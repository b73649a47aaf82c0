//! A table, aligned for people at a terminal or as Markdown.

use std::fmt::Write;

/// A heading, the names of the columns, the rows.
pub struct Table {
    /// What it is about.
    pub heading: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(heading: impl Into<String>, columns: impl IntoIterator<Item = String>) -> Self {
        Self {
            heading: heading.into(),
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Has it no rows?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// With spaces between the columns.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.heading);
        for cells in self.lines() {
            text.push_str("  ");
            self.cells(&mut text, cells, "   ");
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// With a heading of the third level.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.heading);
        for (number, cells) in self.lines().enumerate() {
            text.push_str("| ");
            self.cells(&mut text, cells, " | ");
            text.push_str(" |\n");
            if number == 0 {
                let rules: Vec<String> = self.widths().into_iter().map(|width| "-".repeat(width + 2)).collect();
                let _ = writeln!(text, "|{}|", rules.join("|"));
            }
        }
        text.push('\n');
        text
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        [&self.columns].into_iter().chain(&self.rows)
    }

    fn cells(&self, text: &mut String, cells: &[String], between: &str) {
        for (number, (cell, width)) in cells.iter().zip(self.widths()).enumerate() {
            if number > 0 {
                text.push_str(between);
            }
            let _ = write!(text, "{cell:<width$}");
        }
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.columns.len())
            .map(|column| {
                self.lines()
                    .filter_map(|cells| cells.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Paths", ["a", "µs"].map(String::from));
        table.row(["long", "1"].map(String::from));
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(table().text(), "\nPaths\n  a      µs\n  long   1\n");
    }

    #[test]
    fn markdown_has_a_rule_under_the_names() {
        assert_eq!(
            table().markdown(),
            "### Paths\n\n| a    | µs |\n|------|----|\n| long | 1  |\n\n"
        );
    }
}
