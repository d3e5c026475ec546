use super::*;

fn given(status: u16, body: &'static str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    answer(Some(status), headers.collect(), body.into())
}

#[test]
fn an_answer_that_says_json_and_is_none_is_refused() {
    for content_type in ["application/json", "application/problem+json; charset=utf-8"] {
        let headers = [("content-type", content_type)];
        given(200, r#"{"id":"ch_1"}"#, &headers).unwrap();
        given(200, "{id}", &headers).unwrap_err();
        assert!(given(200, "", &headers).unwrap_err().contains("the body is empty"));
        let marked = given(200, "\u{feff}{}", &headers).unwrap();
        assert!(matches!(marked, Answer::Http(answer) if answer.body() == "{}"));
    }
    given(200, "{id}", &[("content-type", "text/plain")]).unwrap();
}

#[test]
fn an_answer_that_http_does_not_have_is_refused() {
    for status in [0, 100, 199, 1_000] {
        given(status, "", &[]).unwrap_err();
    }
    for header in [("a b", "c"), ("a", "b\r\nset-cookie: c")] {
        given(200, "", &[header]).unwrap_err();
    }
    let encoding = BodyEncoding::Base64;
    WrittenAnswer { body: "no base64!".to_owned(), encoding, ..WrittenAnswer::default() }.answer().unwrap_err();
}

#[test]
fn an_outcome_of_a_consumer_is_json() {
    let given = |body: &'static str| answer(None, Vec::new(), body.into());
    assert!(matches!(given("[\"sent\", 17]").unwrap(), Answer::Bytes(json) if json == "[\"sent\", 17]"));
    for wrong in ["sent", "", "\"\\ud800\""] {
        given(wrong).unwrap_err();
    }
}

#[test]
fn bytes_that_are_no_text_come_back_as_they_were() {
    let bytes = Bytes::from_static(b"\xff\0a");
    let written = WrittenAnswer::of(Answer::Http(Response::new(bytes.clone())));
    assert_eq!(written.encoding, BodyEncoding::Base64);
    assert!(matches!(written.answer().unwrap(), Answer::Http(again) if *again.body() == bytes));
}
