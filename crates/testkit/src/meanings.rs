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
    let (_, section) = PAGE.split_once(&format!("# {heading}\n")).expect("the heading");
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

/// An answer with the status 200 whose body or trailers say something, with its row.
#[derive(Debug, Clone)]
pub struct Said {
    /// The name of the judge.
    pub judge: &'static str,
    /// The type of its body.
    pub content_type: &'static str,
    /// Its body.
    pub body: String,
    /// The `grpc-status` in its trailers. `None`: it has none.
    pub grpc_status: Option<String>,
    /// What the page says of it.
    pub row: Row,
}

/// Answers for each row of the tables of what a body says.
///
/// # Panics
/// A row has nothing to make an answer of.
#[must_use]
pub fn bodies() -> Vec<Said> {
    let of_json_rpc = table("JSON-RPC").into_iter().map(|row| ("json-rpc", "application/json", json_rpc(&row), row));
    let of_graphql = table("GraphQL").into_iter().map(|row| {
        let kind = "application/graphql-response+json; charset=utf-8";
        ("graphql", kind, graphql(&row), row)
    });
    let mut said = Vec::new();
    for (judge, content_type, bodies, row) in of_json_rpc.chain(of_graphql) {
        assert!(!bodies.is_empty(), "{row:?}");
        said.extend(bodies.into_iter().map(|body| Said {
            judge,
            content_type,
            body,
            grpc_status: None,
            row: row.clone(),
        }));
    }
    for row in table("gRPC") {
        let mut statuses: Vec<_> = numbers(&row).into_iter().map(Some).collect();
        statuses.extend(row.get("answer").contains("no status").then_some(None));
        said.extend(statuses.into_iter().map(|grpc_status| Said {
            judge: "grpc",
            content_type: "application/grpc",
            body: "message".to_owned(),
            grpc_status,
            row: row.clone(),
        }));
    }
    said
}

/// The numbers in the first cell of a row.
fn numbers(row: &Row) -> Vec<String> {
    let words = row.get("answer").split([' ', ',']).filter(|word| word.parse::<i64>().is_ok());
    words.map(ToOwned::to_owned).collect()
}

fn json_rpc(row: &Row) -> Vec<String> {
    if row.get("answer").contains("input_required") {
        return vec![r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"input_required"}}"#.to_owned()];
    }
    if row.get("answer").contains("result") {
        return ["{}", r#"{"isError":true,"content":[]}"#, "null"]
            .map(|result| format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#))
            .to_vec();
    }
    let ids = ["7", "\"a\"", "null"].into_iter().cycle();
    let errors = numbers(row).into_iter().zip(ids);
    errors
        .map(|(code, id)| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#))
        .collect()
}

fn graphql(row: &Row) -> Vec<String> {
    let text = row.get("answer");
    let error = r#"{"message":"no","path":["pay"],"extensions":{"code":"THROTTLED"}}"#;
    if text.contains("is there") {
        return vec![
            r#"{"data":{"pay":{"id":7}}}"#.to_owned(),
            format!(r#"{{"errors":[{error}],"data":{{"pay":null}}}}"#),
        ];
    }
    let path = if text.contains("`path`") { r#""path":["pay","receipt"],"# } else { "" };
    let is_code = |word: &&str| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let codes = text.split('`').filter(is_code).map(|code| format!(r#","extensions":{{"code":"{code}"}}"#));
    let none = text.contains("or none").then(String::new);
    let errors = codes.chain(none).map(|code| format!(r#"{{{path}"message":"no"{code}}}"#));
    errors.flat_map(|error| ["", r#","data":null"#].map(|data| format!(r#"{{"errors":[{error}]{data}}}"#))).collect()
}
