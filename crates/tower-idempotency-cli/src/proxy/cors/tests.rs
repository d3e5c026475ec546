use super::*;

#[test]
fn a_section_that_no_browser_could_follow_is_refused() {
    let any = "origins = [\"*\"]";
    let one = "origins = [\"https://shop.example\"]";
    for (section, wrong) in [
        (any.to_owned(), None),
        (one.to_owned(), None),
        ("origins = [\"http://shop.example:8080\", \"https://shop.example:80\"]".to_owned(), None),
        (format!("{one}\ncredentials = true"), None),
        (format!("{one}\ncredentials = true\nmethods = [\"POST\"]"), None),
        (format!("{one}\nmethods = [\"*\"]"), None),
        (format!("{one}\nheaders = [\"x-a\"]\nexpose = [\"x-b\"]"), None),
        ("origins = []".to_owned(), Some("`origins` is empty")),
        (format!("{any}\ncredentials = true"), Some("name the origins")),
        (format!("{one}\ncredentials = true\nmethods = [\"POST\", \"*\"]"), Some("name the methods")),
        ("origins = [\"shop.example\"]".to_owned(), Some("\"shop.example\" can't be used")),
        ("origins = [\"https://\"]".to_owned(), Some("\"https://\" can't be used")),
        ("origins = [\"https://shop.example/\"]".to_owned(), Some("no path")),
        ("origins = [\"https://*.example\"]".to_owned(), Some("\"https://*.example\" can't be used")),
        ("origins = [\"https://a.example\", \"*\"]".to_owned(), Some("\"*\" can't be used")),
        ("origins = [\"https://A.example\"]".to_owned(), Some("small letters")),
        ("origins = [\"https://a.example:443\"]".to_owned(), Some("no port 443 or 80")),
        ("origins = [\"http://a.example:80\"]".to_owned(), Some("no port 443 or 80")),
        (format!("{one}\nheaders = [\"x a\"]"), Some("headers: \"x a\" can't be used")),
        (format!("{one}\nexpose = [\"x a\"]"), Some("expose: \"x a\" can't be used")),
        (format!("{one}\nmethods = [\"P OST\"]"), Some("methods: \"P OST\" can't be used")),
    ] {
        let checked = toml::from_str::<Cors>(&section).unwrap().checked();
        let said = checked.err().map(|failure| failure.to_string());
        match wrong {
            Some(wrong) => assert!(said.as_deref().is_some_and(|said| said.contains(wrong)), "{section}: {said:?}"),
            None => assert_eq!(said, None, "{section}"),
        }
    }
}
