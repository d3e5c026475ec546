//! The two ledgers are compared.

use std::collections::HashMap;

use serde_json::Value;

use crate::shop::{Order, amount, customer};

/// What is wrong. `charges` are the server's, in the order in which they were made.
pub(crate) fn violations(ledger: &[Order], charges: &[Value], calls: u32) -> Vec<String> {
    let mut violations = Vec::new();
    if ledger.len() != calls as usize {
        violations.push(format!("{} of {calls} orders are there", ledger.len()));
    }
    let mut of = HashMap::<u32, Vec<&Value>>::new();
    let mut last = HashMap::new();
    for charge in charges {
        let number = charge["description"].as_str().and_then(|text| text.strip_prefix("order-")?.parse().ok());
        let Some(number) = number else {
            violations.push(format!("a charge of no order: {charge}"));
            continue;
        };
        of.entry(number).or_default().push(charge);
        let before = customer(number).and_then(|customer| last.insert(customer, number));
        if before.is_some_and(|before| before > number) {
            violations.push(format!("order {number} was charged after {before:?} of the same customer"));
        }
    }
    for order in ledger {
        let made = of.remove(&order.number).unwrap_or_default();
        let [charge] = made[..] else {
            let Order { number, state, tries, reason, .. } = order;
            let times = made.len();
            violations
                .push(format!("order {number} is {state}, {reason:?}, and was charged {times} times in {tries} tries"));
            continue;
        };
        if charge["amount"] != amount(order.number) {
            violations.push(format!("order {} was charged as {charge}", order.number));
        }
        // The answer that the shop has kept is of this charge, unless it was cut before it said so.
        let kept = order.answer.as_ref().and_then(|body| serde_json::from_slice::<Value>(body).ok());
        let is_of_it = order.is_cut || kept.as_ref().is_some_and(|kept| kept["id"] == charge["id"]);
        if order.state != "delivered" || !is_of_it {
            violations.push(format!("order {} is {}, with the answer {kept:?}: {charge}", order.number, order.state));
        }
    }
    violations.extend(of.keys().map(|number| format!("order {number} was charged, and is not there")));
    violations
}
