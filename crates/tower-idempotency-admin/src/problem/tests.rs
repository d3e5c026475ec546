use super::*;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Why(&'static str, #[source] Option<Box<Why>>);

#[test]
fn an_error_is_said_with_each_of_its_causes_once() {
    let because = |text, cause: Option<Why>| Why(text, cause.map(Box::new));
    let error = because("the store is away", Some(because("no route", Some(because("the network is down", None)))));
    assert_eq!(with_causes(&error), "the store is away: no route: the network is down");
    assert_eq!(with_causes(&because("the store is away", None)), "the store is away");
    let repeated = because("no answer: no route", Some(because("no route", None)));
    assert_eq!(with_causes(&repeated), "no answer: no route", "it has its cause in its own text");
}
