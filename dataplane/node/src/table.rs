//! Tables of text for terminals and pipes alike.

/// Columns whose width fits their content; numbers to the right.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    is_right: Vec<bool>,
}

impl Table {
    /// A table with these headings; one that begins with `>` stands over a column of numbers.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let is_right = headings.iter().map(|h| h.starts_with('>')).collect();
        let first = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![first], is_right }
    }

    /// Another row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// True if it has no rows but its headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The text, each line indented.
    pub(crate) fn text(&self, indent: &str) -> String {
        let width = |at: usize| self.rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.is_right.len()).map(|at| width(at).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for ((cell, width), is_right) in row.iter().zip(&widths).zip(&self.is_right) {
                let pad = " ".repeat(width - cell.chars().count());
                if *is_right {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
                line.push_str("  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">calls"]);
        assert!(table.is_empty());
        table.row(vec!["é".into(), "1".into()]);
        table.row(vec!["catalog".into(), "1,000".into()]);
        assert_eq!(table.text(" "), " name     calls\n é            1\n catalog  1,000\n");
    }
}
