//! One HTML file: a table, plots, and the stories of the worst keys. It needs no network, and no script.

use std::fmt::Write as _;

use crate::counts::{Belief, Event, Sample, Side, Story, locked};
use crate::run::{Settings, Verdict};
use crate::screen::is_verdict;

const STYLE: &str = include_str!("report.css");
/// The size of a plot.
const WIDTH: u64 = 640;
const HEIGHT: u64 = 220;

/// Writes the report.
pub(crate) fn report(settings: &Settings, story: &Story, verdicts: &[Verdict; 2]) -> String {
    let Settings { customers, seed, evil, store, proxy, .. } = settings;
    // A password is nothing for a report.
    let store = match &**store {
        _ if *proxy => "sled, of a proxy in front of the second server",
        store if store.starts_with("postgres") => "PostgreSQL, three servers",
        store => store,
    };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>The alien</title>\
        <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\
        <h1>{}</h1><p>{customers} customers on each side paid through the same retrying client, while an alien \
        interfered with {evil} of 100 attempts, and killed and stopped the servers. Seed {seed}; store: {store}.</p>",
        headline(verdicts)
    );
    page.push_str(&table(story));
    for side in Side::BOTH {
        let _ = write!(page, "<h2>{}</h2>", side.name());
        page.push_str(&plot(&story.samples(side)));
    }
    page.push_str("<h2>What the alien did</h2>");
    page.push_str(&mischief(story));
    for side in Side::BOTH {
        page.push_str(&worst(story, side, &verdicts[side as usize]));
    }
    page.push_str("</body></html>\n");
    page
}

fn headline(verdicts: &[Verdict; 2]) -> String {
    let [naive, ours] = verdicts.each_ref().map(|verdict| verdict.twice.len());
    format!("Charged twice: {naive} payments without the layer, {ours} with it")
}

fn table(story: &Story) -> String {
    let mut rows = String::new();
    let sides = Side::BOTH.map(|side| story.numbers(side));
    for (naive, ours) in sides[0].iter().zip(&sides[1]) {
        let verdict = if is_verdict(naive.0) { " class=\"verdict\"" } else { "" };
        let cell = |number: u64| {
            let class = if is_verdict(naive.0) && number > 0 { " class=\"bad\"" } else { "" };
            format!("<td{class}>{number}</td>")
        };
        let cells = [naive.1, ours.1].map(cell).concat();
        let _ = write!(rows, "<tr{verdict}><th>{}</th>{cells}</tr>", naive.0.to_lowercase());
    }
    format!(
        "<table class=\"numbers\"><tr><th></th><th>{}</th><th>{}</th></tr>{rows}</table>",
        Side::Naive.name(),
        Side::Ours.name()
    )
}

/// Lines over time: payments that customers know to be paid, charges in the ledger, and payments charged twice.
fn plot(samples: &[Sample]) -> String {
    let end = samples.last().map_or(1, |sample| sample.at.max(1));
    let most = samples.iter().map(|sample| sample.charges.max(sample.acknowledged)).max().unwrap_or(1).max(1);
    let line = |class: &str, value: fn(&Sample) -> u64| {
        let point = |sample: &Sample| {
            let (x, y) = (sample.at * WIDTH / end, HEIGHT - value(sample) * HEIGHT / most);
            format!("{x},{y}")
        };
        let points: Vec<_> = samples.iter().map(point).collect();
        format!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "))
    };
    let twice = if samples.iter().any(|sample| sample.twice > 0) { "twice bad" } else { "twice" };
    format!(
        "<figure><svg viewBox=\"-6 -6 {} {}\" role=\"img\" aria-label=\"counts over time\">\
        <rect class=\"frame\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>{}{}{}</svg>\
        <figcaption><b class=\"charges\">charges</b>, <b class=\"acknowledged\">acknowledged</b>, \
        <b class=\"{twice}\">charged twice</b>; from 0 to {most}, in {} s</figcaption></figure>",
        WIDTH + 12,
        HEIGHT + 12,
        line("charges", |sample| sample.charges),
        line("acknowledged", |sample| sample.acknowledged),
        line(twice, |sample| sample.twice),
        end.div_ceil(1_000)
    )
}

/// Bars: how many attempts met which mischief.
fn mischief(story: &Story) -> String {
    let mut bars = String::new();
    let counts = Side::BOTH.map(|side| locked(&story.counts(side).mischief).clone());
    let most = counts.iter().flat_map(|side| side.values()).max().copied().unwrap_or(1);
    for (name, naive) in &counts[0] {
        let ours = counts[1].get(name).copied().unwrap_or(0);
        let bar = |class: &str, count: u64| {
            format!("<span class=\"bar {class}\" style=\"width:{}%\">{count}</span>", (count * 100 / most).max(6))
        };
        let _ = write!(bars, "<tr><th>{name}</th><td>{}{}</td></tr>", bar("naive", *naive), bar("ours", ours));
    }
    let blows = story.blows();
    let kills = blows.iter().filter(|blow| blow.what.contains("killed")).count();
    let _ = write!(bars, "<tr><th>servers killed</th><td>{kills}</td></tr>");
    let _ = write!(bars, "<tr><th>servers stopped for a while</th><td>{}</td></tr>", blows.len() - kills);
    format!("<table class=\"bars\">{bars}</table>")
}

/// The story of the worst payment of a side: the one with the most charges, or that was sent most often.
fn worst(story: &Story, side: Side, verdict: &Verdict) -> String {
    let of = |key: &String| story.of(side, key, &verdict.ledger);
    let badness = |key: &&String| (verdict.twice.get(*key).copied().unwrap_or(1), of(key).len());
    let Some(key) = verdict.beliefs.keys().max_by_key(badness) else { return String::new() };
    let mut events = of(key);
    let (Some(first), Some(last)) = (events.first().map(|event| event.at), events.last().map(|event| event.at)) else {
        return String::new();
    };
    // What befell the servers meanwhile.
    let meanwhile = |blow: &Event| (first..=last).contains(&blow.at);
    events.extend(story.blows().into_iter().filter(meanwhile));
    events.sort_by_key(|event| event.at);
    let (mut lines, mut charged) = (String::new(), 0);
    for event in &events {
        let is_charge = event.what.starts_with("THE SERVER");
        charged += u32::from(is_charge);
        let class = match &event.what {
            // A payment is charged once.
            _ if is_charge && charged > 1 => "charge bad",
            _ if is_charge => "charge",
            what if what.starts_with("the alien") || what.starts_with("server") => "alien",
            what if what.starts_with("the customer") => "belief",
            _ => "",
        };
        let at = event.at - first;
        let _ = write!(lines, "<li class=\"{class}\"><time>{at} ms</time> {}</li>", escaped(&event.what));
    }
    let charges = verdict.ledger.iter().filter(|charge| charge.order == *key).count();
    let belief = match verdict.beliefs.get(key) {
        Some(Belief::Acknowledged(charge)) => format!("paid once, by charge {}", charge.id),
        Some(Belief::Refused(_)) => "not paid".to_owned(),
        Some(Belief::Unknown(_)) => "unknown".to_owned(),
        None => String::new(),
    };
    format!(
        "<h2>The worst key: {}</h2><p><code>{}</code>. The customer believes: {belief}. The ledger has {charges} \
        charge(s).</p><ol>{lines}</ol>",
        side.name(),
        escaped(key)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Charge;
    use crate::counts::{Payment, charged_twice, key};

    // Seeded fault: each charge is bad.
    #[test]
    fn only_what_is_bad_is_red() {
        let story = Story::new(1);
        let payment = Payment { customer: 1, order: 1, attempts: Default::default() };
        let charge = |id| Charge { id, order: key(1, 1, 1), amount: 5, at: id };
        let red = |side, ledger: Vec<Charge>| {
            story.believe(side, &payment, Belief::Acknowledged(ledger[0].clone()));
            let moment = story.moment(side);
            story.sample(side, &moment, &ledger);
            let (twice, lost) = (charged_twice(&ledger), Vec::new());
            let verdict = Verdict { ledger, beliefs: moment.beliefs, twice, lost, unknown: Vec::new() };
            [plot(&story.samples(side)), worst(&story, side, &verdict)].map(|part| part.matches("bad\"").count())
        };
        // A line and its name; the second charge.
        assert_eq!(red(Side::Naive, vec![charge(1), charge(2)]), [2, 1]);
        assert_eq!(red(Side::Ours, vec![charge(1)]), [0, 0]);
        assert_eq!(table(&story).matches("bad\"").count(), 1);
    }
}
