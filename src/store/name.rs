//! The names of stores, as command lines, variables and settings have them.

const UNSET: &str = "it is empty, a placeholder, or a variable that was not set or not expanded";

/// Reads a store's name. Returns its kind, and the path of a directory or the URL of a database. The kinds are `sled`,
/// `fjall`, `directory` (a path alone, of either engine), `memory`, `postgres` and `redis`.
///
/// # Errors
/// What to write in its place. The name itself is left out: it may have a password.
pub fn read_store_name(name: &str) -> Result<(&'static str, &str), &'static str> {
    let (scheme, rest) = name.split_once(':').unwrap_or((name, ""));
    spoilt(name).map_or(Ok(()), Err)?;
    match scheme {
        // A path says that it is one.
        _ if has_drive(name) || ["/", "./", "../"].iter().any(|start| name.starts_with(start)) => {
            require_path("directory", name)
        }
        "sled" => require_path("sled", rest),
        "fjall" => require_path("fjall", rest),
        "memory" if name == "memory:" => Ok(("memory", rest)),
        scheme => match database(scheme) {
            Some(kind) if rest.starts_with("//") => Ok((kind, name)),
            _ => Err(meant(name, &scheme.to_ascii_lowercase())),
        },
    }
}

/// Returns what is wrong with a text that a file of variables, a shell or a template has not read as its author meant.
#[must_use]
pub fn spoilt(text: &str) -> Option<&'static str> {
    let is_quote = |c| matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}' | '«' | '»' | ',' | ';');
    let is_unset = text.is_empty()
        || text.starts_with(['$', '<'])
        || ["${", "$(", "{{"].iter().any(|form| text.contains(form))
        || ["undefined", "null", "none", "nil"].iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_marred(text) || text.trim_matches(is_quote) != text {
        return Some("remove the quotes, blanks, line breaks and invisible characters around it or in it");
    }
    is_unset.then_some(UNSET)
}

/// Returns whether a text has what is not seen at an end of it, or is no text.
#[must_use]
pub fn is_marred(text: &str) -> bool {
    let is_invisible = |c| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{206f}' | '\u{feff}');
    // What was not UTF-8 has become U+FFFD.
    text.trim_matches(|c: char| is_invisible(c) || c.is_whitespace()) != text
        || text.contains(|c: char| c.is_control() || c == '\u{fffd}')
}

fn has_drive(path: &str) -> bool {
    cfg!(windows) && matches!(path.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic())
}

/// Refuses a path that looks like something else.
fn require_path<'a>(kind: &'static str, path: &'a str) -> Result<(&'static str, &'a str), &'static str> {
    let is_variable = |after: &str| after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let first = path.split(['/', '\\']).next().unwrap_or_default();
    if path.starts_with(['~', '%']) || path.split('$').skip(1).any(is_variable) {
        return Err(UNSET);
    }
    // The first part after `//` would be a host.
    if path.starts_with("//") || path.contains("://") || first.contains(':') && !has_drive(path) {
        return Err("a path has no // before it and no ://; for one with a colon, write ./ before it");
    }
    let has_login = path.split('@').rev().skip(1).any(|before| before.contains(':'));
    if has_login || ["namespace=", "password="].iter().any(|parameter| path.contains(parameter)) {
        return Err("a path has no login, and no parameters of a database");
    }
    spoilt(path).map_or(Ok((kind, path)), Err)
}

/// Returns the kind of database that has this scheme. What comes after a `+` is for the database's own reader.
fn database(scheme: &str) -> Option<&'static str> {
    match scheme.split_once('+').filter(|(_, kind)| !kind.is_empty()).map_or(scheme, |(server, _)| server) {
        "redis" | "rediss" | "valkey" | "valkeys" => Some("redis"),
        "postgres" | "postgresql" if !scheme.contains('+') => Some("postgres"),
        _ => None,
    }
}

/// Guesses what a name was meant to be that is none.
fn meant(name: &str, small: &str) -> &'static str {
    if !name.starts_with(small) && (database(small).is_some() || ["sled", "fjall", "memory"].contains(&small)) {
        "write what is before the colon in small letters"
    } else if name.contains([':', '@', '=']) {
        "write sled:PATH, or the URL alone, as redis://HOST:PORT or postgres://USER@HOST/DATABASE"
    } else {
        "for a directory, write ./ before it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_store_has_its_name() {
        for (name, kind, rest) in [
            ("sled:payments.db", "sled", "payments.db"),
            ("sled:/var/lib/a b%20c?d=e@f", "sled", "/var/lib/a b%20c?d=e@f"),
            ("sled:./a:b", "sled", "./a:b"),
            ("fjall:../x", "fjall", "../x"),
            ("/var/lib/p", "directory", "/var/lib/p"),
            ("./memory", "directory", "./memory"),
            ("../a:b", "directory", "../a:b"),
            ("memory:", "memory", ""),
            ("postgres://u:p,$x@h,i/d?a='b'&c=d", "postgres", "postgres://u:p,$x@h,i/d?a='b'&c=d"),
            ("postgresql://h", "postgres", "postgresql://h"),
            ("redis://h", "redis", "redis://h"),
            ("rediss://:p@h:1/2?namespace=a%22", "redis", "rediss://:p@h:1/2?namespace=a%22"),
            ("valkey+cluster://a,b", "redis", "valkey+cluster://a,b"),
            ("valkeys+sentinel://a,b/c", "redis", "valkeys+sentinel://a,b/c"),
        ] {
            assert_eq!(read_store_name(name), Ok((kind, rest)), "{name}");
        }
        assert_eq!(read_store_name(r"C:\payments.db").is_ok(), cfg!(windows));
        assert_eq!(read_store_name(r"sled:C:\payments.db").is_ok(), cfg!(windows));
    }

    // Seeded fault: the reader before took all of these for directories, but those of a known scheme.
    #[test]
    fn what_is_no_name_of_a_store_is_refused_with_a_hint_and_is_not_repeated() {
        let secret = "s3cr3t";
        let url = format!("redis://:{secret}@cache:6379?namespace=t");
        for (name, hint) in [
            (String::new(), "variable"),
            ("sled:".to_owned(), "variable"),
            (format!("\"{url}\""), "quotes"),
            (format!("'{url}'"), "quotes"),
            (format!("\u{201c}{url}\u{201d}"), "quotes"),
            (format!("{url}\""), "quotes"),
            (format!("{url};"), "quotes"),
            ("\"sled:x\"".to_owned(), "quotes"),
            ("sled:\"x\"".to_owned(), "quotes"),
            ("fjall:'/x'".to_owned(), "quotes"),
            ("'./x'".to_owned(), "quotes"),
            (format!(" {url}"), "blanks"),
            (format!("{url}\n"), "line breaks"),
            (format!("{url}\r"), "line breaks"),
            (format!("\t{url}"), "blanks"),
            (format!("\u{feff}{url}"), "invisible"),
            (format!("\u{200b}{url}"), "invisible"),
            (format!("{url}\u{a0}"), "invisible"),
            ("sled: x".to_owned(), "blanks"),
            ("./x\u{2060}".to_owned(), "invisible"),
            ("./a\nb".to_owned(), "line breaks"),
            ("./\u{fffd}b".to_owned(), "in it"),
            (format!("postgres://u:{secret}\n@h/d"), "line breaks"),
            (format!("<{url}>"), "placeholder"),
            ("<store>".to_owned(), "placeholder"),
            ("sled:<path>".to_owned(), "placeholder"),
            ("$REDIS_URL".to_owned(), "variable"),
            ("${REDIS_URL}".to_owned(), "variable"),
            ("postgres://u:$(PASSWORD)@h/d".to_owned(), "variable"),
            ("redis://{{ .Values.host }}".to_owned(), "variable"),
            ("sled:$HOME/x".to_owned(), "variable"),
            ("sled:/data/$HOSTNAME".to_owned(), "variable"),
            ("./${NAME}".to_owned(), "variable"),
            ("sled:~/x".to_owned(), "variable"),
            ("%APPDATA%".to_owned(), "./"),
            ("undefined".to_owned(), "variable"),
            ("null".to_owned(), "variable"),
            ("None".to_owned(), "variable"),
            ("nil".to_owned(), "variable"),
            ("sled:undefined".to_owned(), "variable"),
            (format!("export IDEM_STORE={url}"), "the URL alone"),
            ("IDEM_STORE=sled:x".to_owned(), "the URL alone"),
            (format!("jdbc:postgresql://u:{secret}@h/d"), "the URL alone"),
            (format!("redis-cli -u {url}"), "the URL alone"),
            (format!("REDIS://:{secret}@h"), "small letters"),
            ("SLED:x".to_owned(), "small letters"),
            (format!("redis:/{secret}"), "the URL alone"),
            (format!("redis+://:{secret}@h"), "the URL alone"),
            (format!("redis:{secret}"), "the URL alone"),
            (format!("postgres:u:{secret}@h/d"), "the URL alone"),
            ("host:6379".to_owned(), "the URL alone"),
            ("10.0.0.7:6379".to_owned(), "the URL alone"),
            ("cache-1.internal:6379".to_owned(), "the URL alone"),
            (format!(":{secret}@cache"), "the URL alone"),
            (format!("host=h password={secret}"), "the URL alone"),
            (format!("mysql://u:{secret}@h"), "the URL alone"),
            (format!("postgres+psycopg://u:{secret}@h"), "the URL alone"),
            ("sqlite:x".to_owned(), "the URL alone"),
            ("memory".to_owned(), "write ./ before it"),
            ("memory:x".to_owned(), "sled:PATH"),
            ("memory://".to_owned(), "sled:PATH"),
            ("payments.db".to_owned(), "write ./ before it"),
            ("data/payments".to_owned(), "write ./ before it"),
            ("sled".to_owned(), "variable"),
            (".".to_owned(), "write ./ before it"),
            ("sled://host/x".to_owned(), "no // before it"),
            ("//host/x".to_owned(), "no // before it"),
            (format!("sled:postgres://u:{secret}@h"), "no ://"),
            (format!("./{url}"), "no ://"),
            ("sled:cache:6379".to_owned(), "./"),
            ("sled:x?namespace=a".to_owned(), "no parameters"),
            (format!("sled:/x?password={secret}"), "no parameters"),
            (format!("/x/host=h password={secret}"), "no parameters"),
            (format!("./u:{secret}@host:6379"), "no login"),
            (format!("/x/redis%3A%2F%2F:{secret}@h"), "no login"),
            ("sled:sled:x".to_owned(), "./"),
            ("sled:redis:h".to_owned(), "./"),
        ] {
            let said = read_store_name(&name).expect_err(&name);
            assert!(said.contains(hint) && !said.contains(secret), "{name:?}: {said}");
        }
    }
}
