use super::*;

// Seeded fault: a note that comes with them makes them new.
#[test]
fn findings_are_known_if_each_replay_differs_so_whatever_is_noted_with_them() {
    let (plan, shared) = (Plan::from_toml("url = \"http://127.0.0.1:1/\"").unwrap(), Mutex::new(Shared::default()));
    let findings = |parts: &[&str], notes: bool| {
        let probe = Probe::new(&plan, &plan.endpoints[0], &shared);
        parts.iter().for_each(|part| probe.differs(Severity::Wrong, Rule::Retry, part, (*part).to_owned()));
        if notes {
            probe.found(Severity::Note, Rule::Retry, "a note");
        }
        probe.end().0
    };
    let noted = findings(&["status"], false).into_iter().filter_map(|finding| finding.part);
    lock(&shared).parts = noted.collect();
    for notes in [false, true] {
        assert!(lock(&shared).knows(&findings(&["status"], notes)), "{notes}");
        assert!(!lock(&shared).knows(&findings(&["status", "etag"], notes)), "{notes}");
    }
}

// Seeded fault: the type of the endpoint's body goes with it.
#[test]
fn a_request_without_a_body_has_the_endpoint_s_headers_but_the_body_s_type() {
    let plan = "url = \"http://127.0.0.1:1/\"\ndata = \"{}\"\nheaders = [\"authorization: Bearer a\"]";
    let plan = Plan::from_toml(plan).unwrap();
    let shared = Mutex::new(Shared::default());
    let bare = Probe::new(&plan, &plan.endpoints[0], &shared).bare(&Method::GET, "/orders");
    assert_eq!(bare.headers, [("authorization".to_owned(), "Bearer a".to_owned())]);
    assert!(bare.body.is_empty());
}

// Each pair of findings. Seeded fault: a note that is not counted decides.
#[test]
fn a_check_is_broken_by_count_if_nothing_else_breaks_it() {
    let plan = Plan::from_toml("url = \"http://127.0.0.1:1/\"\ndata = \"{}\"\ncount = \"GET /\"").unwrap();
    let shared = Mutex::new(Shared::default());
    let findings = [(Severity::Note, false), (Severity::Note, true), (Severity::Wrong, false), (Severity::Wrong, true)];
    for first in findings {
        for second in findings {
            let probe = Probe::new(&plan, &plan.endpoints[0], &shared);
            for (what, (severity, is_counted)) in [("one", first), ("other", second)] {
                if is_counted {
                    probe.counted(severity, Rule::Retry, what);
                } else {
                    probe.found(severity, Rule::Retry, what);
                }
            }
            let breaks = |finding: (Severity, bool)| finding.0 > Severity::Note;
            let by_count = [first, second].into_iter().filter(|finding| breaks(*finding));
            let is_broken = breaks(first) || breaks(second);
            assert_eq!(probe.is_broken(), is_broken, "{first:?}, {second:?}");
            let expected = is_broken && by_count.clone().all(|finding| finding.1);
            assert_eq!(probe.is_broken_by_count(), expected, "{first:?}, {second:?}");
        }
    }
}

// Each retention with each age.
#[test]
fn a_key_is_taken_for_kept_through_half_of_its_retention() {
    let shared = Mutex::new(Shared::default());
    for (retention, seconds, is_kept) in
        [("", 500, true), ("retention = \"10s\"", 4, true), ("retention = \"10s\"", 6, false)]
    {
        let plan = Plan::from_toml(&format!("url = \"http://127.0.0.1:1/\"\n{retention}")).unwrap();
        let since = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let kept = Probe::new(&plan, &plan.endpoints[0], &shared).is_kept(since);
        assert_eq!(kept.is_ok(), is_kept, "{retention:?} {seconds}");
    }
}
