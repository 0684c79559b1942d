/// Lines of cells in columns that are apart by tabs: a column is as wide as its widest cell and at
/// least one blank, rounded up to tab stops of eight. Who reads it by fields splits at tabs.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |text: &str| text.chars().count();
    let stops: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            (cells.map(|cell| width(cell)).max().unwrap_or(0) + 1).next_multiple_of(8)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut cells = row.iter().zip(&stops).peekable();
        while let Some((cell, stop)) = cells.next() {
            text.push_str(cell);
            if cells.peek().is_some() {
                let missing = stop - width(cell);
                text.extend(std::iter::repeat_n('\t', missing.div_ceil(8)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_apart_by_tabs() {
        let text = table(&rows(&[
            &["ID", "NAME", "SIZE"],
            &["sha512-e0a7cb8ba1a8", "coreos.com/rkt/stage1-coreos:0.8.1", "19MiB"],
            &["", "x", ""],
        ]));
        assert_eq!(
            text,
            "ID\t\t\tNAME\t\t\t\t\tSIZE\n\
             sha512-e0a7cb8ba1a8\tcoreos.com/rkt/stage1-coreos:0.8.1\t19MiB\n\
             \t\t\tx\t\t\t\t\t\n"
        );
    }

    #[test]
    fn a_cell_of_exactly_one_tab_stop_still_has_a_gap() {
        assert_eq!(table(&rows(&[&["12345678", "x"], &["1", "y"]])), "12345678\tx\n1\t\ty\n");
    }

    proptest::proptest! {
        #[test]
        fn every_cell_can_be_found_again(
            cells in proptest::collection::vec(
                proptest::collection::vec("[^\t\r\n]{1,20}", 3..=3), 1..6
            ),
        ) {
            let text = table(&cells);
            for (line, row) in text.lines().zip(&cells) {
                let found: Vec<&str> = line.split('\t').filter(|cell| !cell.is_empty()).collect();
                proptest::prop_assert_eq!(&found, &row.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }
}
