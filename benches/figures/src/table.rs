//! The tables, in Markdown.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::plot::plots;
use crate::report::Report;

const BEGIN: &str = "<!-- figures: written by `cargo run -p figures` -->";
const END: &str = "<!-- end of the figures -->";

/// Returns the text with the tables of `reports` between its marks.
pub(crate) fn put(text: &str, reports: &[Report]) -> Result<String, String> {
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| format!("the README has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("the README has no {END}"))?;
    let mut tables = String::new();
    for report in reports {
        tables.push_str(&table(report).map_err(|error| error.to_string())?);
    }
    Ok(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}

fn table(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    let Report { bench, question, command, taken, machine, goals, .. } = report;
    let day = Timestamp::from_second(*taken)?.strftime("%F");
    let machine: Vec<_> = machine.iter().map(|(name, value)| format!("{name} {value}")).collect();
    writeln!(text, "\n## `{bench}`: {question}\n\n`{command}`, {day}; {}.\n", machine.join(", "))?;
    writeln!(text, "| goal | measured | wanted | |\n|---|---:|---:|---|")?;
    for goal in goals {
        let (name, op) = (&goal.name, if goal.op == "<=" { "≤" } else { "≥" });
        let met = if goal.met == "met" { goal.met.clone() } else { format!("**{}**", goal.met) };
        writeln!(text, "| {name} | {} | {op} {} | {met} |", goal.estimate.written(), goal.bound)?;
    }
    writeln!(text)?;
    for plot in plots(bench) {
        writeln!(text, "![{}](figures/plots/{})\n", plot.title, plot.file)?;
    }
    writeln!(text, "All rows are in [`{bench}.json`](figures/data/{bench}.json).")?;
    Ok(text)
}
