use super::*;

// Each body with each header. Seeded fault: the default is sent next to the plan's own.
#[test]
fn a_body_has_the_content_type_of_the_plan_or_one_that_fits_it() {
    for (body, fitting) in [
        ("", None),
        ("{}", Some("application/json")),
        (" [1]", Some("application/json")),
        ("a=1", Some("application/x-www-form-urlencoded")),
    ] {
        for (header, own) in
            [("Accept: */*", None), ("Content-Type: text/x", Some("text/x")), ("content-TYPE: text/y", Some("text/y"))]
        {
            let plan = format!("url = \"http://127.0.0.1:1/\"\ndata = '{body}'\nheaders = [\"{header}\"]");
            let endpoint = &Plan::from_toml(&plan).unwrap().endpoints[0];
            let of_type = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("content-type");
            let types: Vec<_> =
                endpoint.request.headers.iter().filter(of_type).map(|(_, value)| value.as_str()).collect();
            let expected: Vec<_> = own.or(fitting).into_iter().collect();
            assert_eq!(types, expected, "{body:?} {header}");
        }
    }
}

#[test]
fn a_request_to_count_by_is_a_method_and_a_path_with_any_blanks() {
    for text in ["GET /a", " GET /a", "GET /a ", "GET   /a"] {
        let plan = Plan::from_toml(&format!("url = \"http://127.0.0.1:1/\"\ncount = \"{text}\"")).unwrap();
        let Some(Count::Request(method, path)) = &plan.endpoints[0].count else { panic!("{text:?}") };
        assert_eq!((method, path.as_str()), (&Method::GET, "/a"), "{text:?}");
    }
    for text in ["", "GET", "/a", "GET a", "G(T /a", "get /a", "Get /a"] {
        Plan::from_toml(&format!("url = \"http://127.0.0.1:1/\"\ncount = \"{text}\"")).unwrap_err();
    }
    for (method, is_one) in [("PATCH", true), ("patch", false), ("Post", false)] {
        let plan = Plan::from_toml(&format!("url = \"http://127.0.0.1:1/\"\nmethod = \"{method}\""));
        assert_eq!(plan.is_ok(), is_one, "{method}");
    }
}

// With endpoints of its own, what a plan says is what they have in common.
#[test]
fn a_plan_has_its_endpoints_or_is_one_and_all_are_of_one_server() {
    let targets = |endpoints: &str| -> Result<Vec<_>, _> {
        let plan = Plan::from_toml(&format!("url = \"http://127.0.0.1:1/a\"\n{endpoints}"))?;
        Ok::<_, PlanError>(plan.endpoints.into_iter().map(|endpoint| endpoint.request.target).collect())
    };
    assert_eq!(targets("").unwrap(), ["/a"]);
    assert_eq!(targets("[[endpoint]]\nmethod = \"PUT\"").unwrap(), ["/a"]);
    let url = |port, path| format!("[[endpoint]]\nurl = \"http://127.0.0.1:{port}/{path}\"\n");
    assert_eq!(targets(&[url(1, "b"), url(1, "c")].concat()).unwrap(), ["/b", "/c"]);
    let error = targets(&[url(1, "b"), url(2, "c")].concat()).unwrap_err().to_string();
    assert_eq!(error, "all endpoints have to be of one server, http://127.0.0.1:1");
}

// A value of the wrong type is a secret between quotes; a quote that TOML expects is none.
#[test]
fn what_is_wrong_with_the_toml_is_said_without_a_value() {
    for (line, said) in [
        ("headers = \"s3cr3t\"", "invalid type: string \"***\", expected a sequence"),
        ("data = \"s3cr3t", "invalid basic string, expected `\"`"),
        ("data = 5", "invalid type: integer `5`, expected a string"),
    ] {
        let error = Settings::from_toml(&format!("url = \"http://127.0.0.1:1/\"\n{line}")).unwrap_err().to_string();
        assert_eq!(error, format!("line 2 of the plan can't be read: {said}"), "{line}");
    }
}
