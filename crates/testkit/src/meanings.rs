//! The tables of `docs/meanings.md`, with which tests of several crates compare their code.

const PAGE: &str = include_str!("../../../docs/meanings.md");

/// A row of a table: the texts of its cells, by their columns.
#[derive(Debug, Clone)]
pub struct Row(Vec<(&'static str, &'static str)>);

impl Row {
    /// The text in a column, without the marks of code.
    ///
    /// # Panics
    /// The table has no such column.
    #[must_use]
    pub fn get(&self, column: &str) -> &'static str {
        let cell = self.0.iter().find(|(name, _)| *name == column);
        cell.unwrap_or_else(|| panic!("the table has a column {column}: {:?}", self.0)).1
    }

    /// The statuses of the row.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        self.get("status").split(", ").map(|status| status.parse().expect("a status")).collect()
    }

    /// Whether the row is for this policy: `refuse`, `ask` or `rerun`.
    #[must_use]
    pub fn is_for(&self, policy: &str) -> bool {
        let policies = self.get("policy");
        policies.is_empty() || policies.split(", ").any(|name| name == policy)
    }
}

/// The rows of the table below a heading.
///
/// # Panics
/// The page has no such heading, or no table below it.
#[must_use]
pub fn table(heading: &str) -> Vec<Row> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let mut lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &'static str| {
        let inner = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')).expect("a row");
        inner.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>()
    };
    let columns = cells(lines.next().expect("a table"));
    let rows: Vec<_> = lines.skip(1).map(|line| Row(columns.iter().copied().zip(cells(line)).collect())).collect();
    assert!(!rows.is_empty(), "{heading}");
    rows
}

/// The rows of what the layer refuses.
#[must_use]
pub fn rejections() -> Vec<Row> {
    table("What the layer refuses")
}

/// The rows of the proxy's own answers.
#[must_use]
pub fn of_the_proxy() -> Vec<Row> {
    table("What the proxy answers by itself")
}

/// Each status with its row.
#[must_use]
pub fn statuses() -> Vec<(u16, Row)> {
    let rows = table("What a status means");
    rows.iter().flat_map(|row| row.statuses().into_iter().map(|status| (status, row.clone()))).collect()
}
