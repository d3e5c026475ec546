use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use serde_json::Value;

use super::*;

fn form(text: &str) -> Option<String> {
    canonical(text.as_bytes(), &[]).map(|form| String::from_utf8(form).unwrap())
}

#[test]
fn the_same_json_has_one_form() {
    let same = [
        (r#"{ "b": 1.0, "a": [1e2, "\u0065"], "\u0063": null }"#, r#"{"a":[100,"e"],"b":1,"c":null}"#),
        (r#"{"amount": 19.99, "n": -0.0}"#, r#"{"amount":19.99,"n":0}"#),
        ("  [1E-7, 0.1, 9007199254740994] ", "[1e-7,0.1,9007199254740994]"),
        // RFC 8785, section 3.2.3, sorts by UTF-16 code units.
        ("{\"\u{fb33}\":1,\"\u{1f600}\":2}", "{\"\u{1f600}\":2,\"\u{fb33}\":1}"),
    ];
    for (text, expected) in same {
        assert_eq!(form(text).as_deref(), Some(expected));
    }
}

#[test]
fn members_are_left_out_where_they_are() {
    let without = |pointers: &[&str], text: &str| {
        let pointers: Vec<_> = pointers.iter().map(|text| Pointer::new(text).unwrap()).collect();
        String::from_utf8(canonical(text.as_bytes(), &pointers).unwrap()).unwrap()
    };
    let call = r#"{"id":7,"params":{"_meta":{"key":"k"},"amount":5,"id":1},"list":[{"id":1,"a":2},3]}"#;
    assert_eq!(
        without(&["/id", "/params/_meta/key", "/list/0/id", "/list/1", "/list/00", "/none/of/these", "/id/x"], call),
        r#"{"list":[{"a":2},null],"params":{"amount":5,"id":1}}"#
    );
    // What has nothing else in it is as if it had not been sent, and a number that is left out may be any.
    let nested = r#"{"a":{"b":{"c":12345678901234567890}},"d":{}}"#;
    assert_eq!([without(&["/a/b/c"], nested), without(&["/a/b"], nested)], [r#"{"d":{}}"#; 2]);
    // One that stays is compared by its digits, and not taken for a text.
    assert_eq!(without(&["/d"], nested), r#"~{"a":{"b":{"c":"n12345678901234567890"}}}"#);
    let number = without(&["/id"], r#"{"id":1,"a":12345678901234567891,"b":"x"}"#);
    assert_eq!(number, without(&["/id"], r#"{"b":"x","id":2,"a":12345678901234567891}"#));
    for other in [r#"{"a":12345678901234567892,"b":"x"}"#, r#"{"a":"12345678901234567891","b":"x"}"#] {
        assert_ne!(number, without(&["/id"], other));
    }
    assert_eq!(canonical(nested.as_bytes(), &[]), None);
    assert_eq!(without(&["/id"], "[1]"), "[1]");
}

#[test]
fn what_could_mean_something_else_has_none() {
    let without = [
        "",
        "{",
        "{\"a\":1} x",
        "{'a':1}",
        "\u{feff}{}",
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"[{"x":{"a":1,"a":2}}]"#,
        "9007199254740993",
        "12345678901234567890",
        "0.10000000000000000555",
        "1e400",
        "1e-400",
        "1e99999999999999999999",
        r#""\ud800""#,
        // With a feature of `serde_json`, a number is read as such an object.
        r#"{"$serde_json::private::Number":"5"}"#,
        r#"{"$serde_json::private::Number":5}"#,
        r#"[{"$serde_json::private::Number":5},6]"#,
        r#"{"a":{"\u0024serde_json::private::Number":"5"},"b":6}"#,
    ];
    for text in without {
        assert_eq!(form(text), None, "{text}");
    }
    assert_eq!(canonical(b"\"\xff\"", &[]), None);
    assert_eq!(form(&format!("{}{}", "[".repeat(200), "]".repeat(200))), None, "too deep to be read");
}

#[test]
fn members_that_serde_json_gives_a_meaning_have_none_here() {
    let raw = |inside: &str| format!("{{\"$serde_json::private::RawValue\":{}}}", serde_json::json!(inside));
    for inside in ["5", "{\"a\":1,\"a\":2}", "9007199254740993", "["] {
        assert_eq!(form(&raw(inside)), Some(raw(inside)), "{inside}");
    }
    let mut deep = "5".to_owned();
    for _ in 0..12 {
        deep = raw(&format!("{}{deep}{}", "[".repeat(100), "]".repeat(100)));
    }
    assert_eq!(form(&deep), Some(deep.clone()), "read no deeper than it is");
}

#[test]
fn digits_in_strings_are_no_numbers() {
    let text = r#"{"9007199254740993":"9007199254740993 \" 1e400","a\\":1,"b":"-"}"#;
    let mut reader = Reader { rest: text };
    assert_eq!((reader.next_number(), reader.next_number()), (Some("1"), None));
    assert!(form(text).is_some());
}

/// Up to so many digits.
fn any_digits(source: &mut Unstructured<'_>, most: u8) -> Result<String> {
    (0..source.int_in_range(1..=most)?).map(|_| Ok(char::from(source.int_in_range(b'0'..=b'9')?))).collect()
}

/// A number as JSON writes it.
fn any_number(source: &mut Unstructured<'_>) -> Result<String> {
    let mut number = if source.arbitrary()? { "-".to_owned() } else { String::new() };
    let whole = any_digits(source, 25)?;
    let significant = whole.trim_start_matches('0');
    number += if significant.is_empty() { "0" } else { significant };
    if source.arbitrary()? {
        number = format!("{number}.{}", any_digits(source, 24)?);
    }
    if source.arbitrary()? {
        let (letter, sign) = (source.choose(&["e", "E"])?, source.choose(&["", "+", "-"])?);
        number = format!("{number}{letter}{sign}{}", any_digits(source, 3)?);
    }
    Ok(number)
}

/// Up to eight characters, of all that there are.
fn any_text(source: &mut Unstructured<'_>) -> Result<String> {
    (0..source.int_in_range(0..=8_u8)?).map(|_| source.arbitrary::<char>()).collect()
}

fn any_json(source: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    let kinds = if depth == 0 { 5 } else { 7 };
    Ok(match source.int_in_range(1..=kinds)? {
        1 => Value::Null,
        2 => source.arbitrary::<bool>()?.into(),
        3 => source.arbitrary::<i32>()?.into(),
        4 => source.arbitrary::<f64>()?.into(),
        5 => any_text(source)?.into(),
        6 => (0..source.int_in_range(0..=3_u8)?).map(|_| any_json(source, depth - 1)).collect::<Result<_>>()?,
        _ => {
            let many = source.int_in_range(0..=3_u8)?;
            let members = (0..many).map(|_| Ok((any_text(source)?, any_json(source, depth - 1)?)));
            Value::Object(members.collect::<Result<_>>()?)
        }
    })
}

#[test]
fn what_has_one_form_is_the_same_value() {
    arbtest(|source| {
        let number = any_number(source)?;
        // They are compared as decimals, which no rounding touches.
        if let Some(form) = form(&number) {
            assert_eq!(decimal(&form), decimal(&number));
        }
        Ok(())
    });
}

#[test]
fn a_form_has_itself_as_its_form() {
    arbtest(|source| {
        let value = any_json(source, 3)?;
        if let Some(canonical) = form(&value.to_string()) {
            assert_eq!(form(&canonical), Some(canonical.clone()));
            assert_eq!(form(&serde_json::to_string_pretty(&value).unwrap()), Some(canonical));
        }
        Ok(())
    });
}
