//! The statements of a claim and an outcome, and the same data with other ids and tokens.

/// What `connection/connect.rs` sets for a connection that is used for calls.
const SETTINGS: [&str; 4] =
    ["jit = off", "enable_seqscan = off", "plan_cache_mode = force_generic_plan", "search_path = pg_catalog, pg_temp"];
const INSERT: &str = "INSERT INTO public.minimum (key, request) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const UPDATE: &str = "UPDATE public.minimum SET answer = $2 WHERE key = $1";
/// The types of the parameters, as in `src/queries.rs`.
const CLAIM: &str = "text, bytea, uuid, bigint, smallint, bytea, interval, interval, bytea, timestamptz, timestamptz";
const OUTCOME: &str =
    "text, bytea, uuid, uuid, smallint, bytea, interval, boolean, interval, bytea, timestamptz, timestamptz";

/// A claim by `function.sql`.
const FUNCTION: &str = "SELECT * FROM public.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// The statements of a claim and an outcome, as they were sent.
pub(crate) struct Prepared {
    claim: Sent,
    outcome: Sent,
}

struct Sent {
    sql: String,
    parameters: Vec<String>,
}

impl Prepared {
    pub(crate) fn read(log: &str) -> Self {
        // A statement of several lines has each but the first indented.
        let log = log.replace("\n\t", " ");
        let mut sent = log.lines().zip(log.lines().skip(1)).filter_map(|(statement, detail)| {
            let (_, sql) = statement.strip_prefix("LOG:  execute s")?.split_once(": ")?;
            let parameters = detail.strip_prefix("DETAIL:  parameters: ")?.split(", $");
            let parameters: Vec<_> = parameters.map(|one| one.split_once(" = ").unwrap().1.to_owned()).collect();
            parameters
                .first()
                .is_some_and(|namespace| namespace == "'payments'")
                .then(|| Sent { sql: sql.to_owned(), parameters })
        });
        let prepared = Self { claim: sent.next().unwrap(), outcome: sent.next().unwrap() };
        assert!(sent.next().is_none(), "a claim and an outcome take a statement each");
        prepared
    }

    /// The statements of `times` exchanges.
    pub(crate) fn lines(&self, way: &str, times: u64) -> Vec<String> {
        let Self { claim, outcome } = self;
        let mut lines = settings();
        lines.push("TRUNCATE idempotency.record, public.minimum".to_owned());
        if way == "by-hand" {
            lines.push(format!("PREPARE claim (text, bytea) AS {INSERT}"));
            lines.push(format!("PREPARE outcome (text, bytea) AS {UPDATE}"));
        } else {
            let sql = if way == "claim-function" { FUNCTION } else { &claim.sql };
            lines.push(format!("PREPARE claim ({CLAIM}) AS {sql}"));
            lines.push(format!("PREPARE outcome ({OUTCOME}) AS {}", outcome.sql));
        }
        for number in 0..times {
            let id = blake3::hash(&if way == "claim-met" { 0 } else { number }.to_le_bytes());
            if way == "by-hand" {
                lines.push(format!("EXECUTE claim ('{}', '\\x{id}')", &id.to_hex()[..16]));
                lines.push(format!("EXECUTE outcome ('{}', '\\x{}')", &id.to_hex()[..16], "02".repeat(200)));
                continue;
            }
            let id = format!("'\\x{id}'");
            let [first, second] = [2 * number, 2 * number + 1].map(|number| format!("'{number:032x}'"));
            lines.push(claim.execute("claim", &[&id, &first]));
            if way == "claim-and-outcome" {
                lines.push(outcome.execute("outcome", &[&id, &first, &second]));
            }
        }
        // A statement that does nothing would look cheap.
        let (done, expected) = match way {
            "by-hand" => ("public.minimum WHERE answer IS NOT NULL", times),
            "claim-met" => ("idempotency.record WHERE kind = 1", 1),
            "claim" | "claim-function" => ("idempotency.record WHERE kind = 1", times),
            _ => ("idempotency.record WHERE kind = 3", times),
        };
        lines.push(format!("DO 'BEGIN ASSERT (SELECT count(*) FROM {done}) = {expected}; END'"));
        lines
    }

    /// Prepares a claim by the statement, `flat`, and one by the function, `function`.
    pub(crate) fn both_claims(&self) -> String {
        let mut lines = settings();
        lines.push("SET log_statement = none".to_owned());
        lines.push(format!("PREPARE flat ({CLAIM}) AS {}", self.claim.sql));
        lines.push(format!("PREPARE function ({CLAIM}) AS {FUNCTION}"));
        lines.join("; ")
    }

    /// A claim by one of the two.
    pub(crate) fn claim(&self, name: &str, number: u64) -> String {
        let id = format!("'\\x{}'", blake3::hash(&number.to_le_bytes()));
        self.claim.execute(name, &[&id, &format!("'{number:032x}'")])
    }
}

fn settings() -> Vec<String> {
    SETTINGS.iter().map(|setting| format!("SET {setting}")).collect()
}

impl Sent {
    /// With these in place of the second parameter and those that follow it: an id, the token that is expected if
    /// there is one, and the new one.
    fn execute(&self, name: &str, ours: &[&str]) -> String {
        let rest = self.parameters[1 + ours.len()..].iter().map(String::as_str);
        let all: Vec<_> = [self.parameters[0].as_str()].into_iter().chain(ours.iter().copied()).chain(rest).collect();
        format!("EXECUTE {name} ({})", all.join(", "))
    }
}
