//! Columns, as Docker's client sets them.

/// A cell is at least this wide, its gap included.
const NARROWEST: usize = 10;
/// Blanks between two columns.
const GAP: usize = 3;

/// Lines of cells, each as wide as the widest of its column; the last is not filled up.
pub fn align(lines: &[Vec<String>]) -> String {
    align_from(lines, NARROWEST)
}

/// The same with cells at least `narrowest` wide.
pub fn align_from(lines: &[Vec<String>], narrowest: usize) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines
            .iter()
            .filter(|line| column + 1 < line.len())
            .filter_map(|line| line.get(column));
        cells
            .map(|cell| cell.chars().count() + GAP)
            .max()
            .unwrap_or(0)
            .max(narrowest)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                let filled = cell.chars().count();
                text.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(filled)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_docker_sets_them() {
        let lines = [
            ["CONTAINER ID", "IMAGE", "NAMES"],
            ["0123456789ab", "a-long-image", "web"],
        ];
        let lines = lines.map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(
            align(&lines),
            "CONTAINER ID   IMAGE          NAMES\n0123456789ab   a-long-image   web\n"
        );
        let head = [["CONTAINER ID", "IMAGE", "NAMES"].map(str::to_owned).to_vec()];
        assert_eq!(align(&head), "CONTAINER ID   IMAGE     NAMES\n");
    }

    #[test]
    fn characters_count_not_bytes() {
        let lines =
            [["\"0123456789012345678…\"", "x"], ["\"short\"", "y"]].map(|line| line.map(str::to_owned).to_vec());
        let text = align(&lines);
        let at = |line: &str, what: char| line.chars().position(|character| character == what);
        let mut lines = text.lines();
        assert_eq!(at(lines.next().unwrap(), 'x'), at(lines.next().unwrap(), 'y'));
    }
}
