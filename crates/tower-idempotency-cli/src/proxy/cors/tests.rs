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
        ("origins = [\"shop.example\"]".to_owned(), Some("write each as https://")),
        ("origins = [\"https://\"]".to_owned(), Some("write each as https://")),
        ("origins = [\"https://shop.example/\"]".to_owned(), Some("no path")),
        ("origins = [\"https://*.example\"]".to_owned(), Some("write each as https://")),
        ("origins = [\"https://a.example\", \"*\"]".to_owned(), Some("write each as https://")),
        // What is not recognised may have a password.
        ("origins = [\"https://user:canary@shop.example\"]".to_owned(), Some("origins: write each as https://")),
        ("origins = [\"https://A.example\"]".to_owned(), Some("small letters")),
        ("origins = [\"https://a.example:443\"]".to_owned(), Some("no port 443 or 80")),
        ("origins = [\"http://a.example:80\"]".to_owned(), Some("no port 443 or 80")),
        (format!("{one}\nheaders = [\"*\"]\nexpose = [\"*\"]"), None),
        (format!("{one}\ncredentials = true\nheaders = [\"*\"]"), Some("methods and headers")),
        (format!("{one}\ncredentials = true\nexpose = [\"x-a\", \"*\"]"), Some("methods and headers")),
        (format!("{one}\nheaders = [\"x_account\"]"), Some("[cors] headers: x_account: the service does not get")),
        (format!("{one}\nheaders = [\"TE\"]"), Some("[cors] headers: te: the service does not get")),
        (format!("{one}\nheaders = [\"x a\"]"), Some("\"x a\" is not the name of a header")),
        (format!("{one}\nexpose = [\"x a\"]"), Some("\"x a\" is not the name of a header")),
        (format!("{one}\nmethods = [\"P OST\"]"), Some("\"P OST\" is not an HTTP method in capital letters")),
        // A browser compares them with their case, and the proxy passes on no `patch`.
        (format!("{one}\nmethods = [\"POST\", \"patch\"]"), Some("\"patch\" is not an HTTP method in capital")),
    ] {
        let checked = toml::from_str::<Cors>(&section).map_err(|error| error.to_string());
        let said = checked.and_then(|cors| cors.checked().map_err(|failure| failure.to_string())).err();
        assert!(!said.as_deref().is_some_and(|said| said.contains("canary")), "{said:?}");
        match wrong {
            Some(wrong) => assert!(said.as_deref().is_some_and(|said| said.contains(wrong)), "{section}: {said:?}"),
            None => assert_eq!(said, None, "{section}"),
        }
    }
}
