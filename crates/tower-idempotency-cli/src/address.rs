//! Which store a command is for.

mod redis;

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tower_idempotency::internals::{is_marred, read_store_name, spoilt};
use tower_idempotency_postgres::tokio_postgres::config::Host;
use tower_idempotency_postgres::{PostgresBackend, PostgresBackendBuilder};

pub(crate) use self::redis::RedisDatabase;
use crate::failure::Failure;

/// The variables of the environment that name a store, and have a password.
const STORE: &str = "IDEM_STORE";
const PASSWORD: &str = "PGPASSWORD";

/// The namespace of a URL that names none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Where a store is.
pub(crate) enum Address {
    /// The directory of an embedded store.
    Directory(Directory),
    /// A PostgreSQL database.
    Postgres(Box<Database>),
    /// A Redis or Valkey database.
    Redis(Box<RedisDatabase>),
}

/// The directory of an embedded store.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// `None`: the one that made it.
    pub(crate) engine: Option<Engine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sled,
    Fjall,
}

/// A PostgreSQL database, and whose rows in it are meant.
pub(crate) struct Database {
    /// How it is reached, with the password.
    pub(crate) builder: PostgresBackendBuilder,
    /// `None`: the store's default.
    pub(crate) namespace: Option<String>,
}

impl Address {
    /// Returns the address that the command line names, or the environment.
    pub(crate) fn of(argument: Option<String>) -> Result<Self, Failure> {
        // What is not UTF-8 in it is replaced, and refused.
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        match argument {
            Some(named) => Self::read(&named, true, variable),
            None => match variable(STORE) {
                Some(named) => Self::read(&named, false, variable),
                None => Err(Failure::Usage(format!("name a store, or set {STORE}"))),
            },
        }
    }

    /// Reads a store's name. No error repeats it: it may have a password.
    fn read(named: &str, is_argument: bool, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let not_a_name = |hint| {
            Failure::Usage(format!(
                "the store's name can't be read: {hint}. Expected sled:PATH, fjall:PATH, a path with / or ./ before it, \
                 postgres://USER@HOST/DATABASE, or redis://USER@HOST"
            ))
        };
        let (engine, path) = match read_store_name(named).map_err(not_a_name)? {
            ("postgres", url) => {
                let database = Database::read(url, is_argument, password(PASSWORD, variable(PASSWORD))?)?;
                return Ok(Self::Postgres(Box::new(database)));
            }
            ("redis", url) => {
                let password = password(redis::PASSWORD, variable(redis::PASSWORD))?;
                return Ok(Self::Redis(Box::new(RedisDatabase::read(url, is_argument, password)?)));
            }
            ("memory", _) => return Err(not_a_name("no other process has a store that is in memory")),
            ("sled", path) => (Some(Engine::Sled), path),
            ("fjall", path) => (Some(Engine::Fjall), path),
            (_, path) => (None, path),
        };
        Ok(Self::Directory(Directory { path: path.into(), engine }))
    }
}

/// Refuses a password that is not the one its author meant: files of variables keep quotes, and files of passwords have
/// a line break at their end.
fn password(name: &str, value: Option<String>) -> Result<Option<String>, Failure> {
    let is_in = |quote: char, text: &str| text.strip_prefix(quote).is_some_and(|text| text.ends_with(quote));
    let is_spoilt = |text: &String| is_marred(text) || is_in('"', text) || is_in('\'', text);
    if value.as_ref().is_some_and(is_spoilt) {
        return Err(Failure::Usage(format!(
            "{name} has quotes or blanks around the password, or no text: remove them, or give it in {STORE}, with %22 for a \
             quote and %20 for a blank"
        )));
    }
    Ok(value)
}

/// The failure of a command line that has a password.
fn is_seen(variable: &str) -> Failure {
    Failure::Usage(format!(
        "a password on the command line is seen by every user of this machine, and kept by shells; change it. Set {STORE} \
         to the URL, or {variable} to the password"
    ))
}

impl Database {
    fn read(url: &str, is_argument: bool, password: Option<String>) -> Result<Self, Failure> {
        let (url, namespace) = without_namespace(url)?;
        let mut builder = PostgresBackend::from_url(&url).map_err(Failure::usage)?;
        let has_password = builder.config().get_password().is_some();
        if is_argument && has_password {
            return Err(is_seen(PASSWORD));
        }
        if let Some(password) = password.filter(|_| !has_password) {
            builder = builder.password(password);
        }
        Ok(Self { builder, namespace })
    }

    /// Returns whether the database is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let is_local = |host: &Host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            #[cfg(unix)]
            Host::Unix(_) => true,
        };
        self.builder.config().get_hosts().iter().all(is_local)
    }
}

/// Takes the parameter `namespace`, which is no parameter of the database's, out of a URL.
fn without_namespace(url: &str) -> Result<(String, Option<String>), Failure> {
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let (namespaces, others): (Vec<_>, Vec<_>) = parameters.partition(|parameter| parameter.starts_with("namespace="));
    let namespace = match namespaces.as_slice() {
        [] => None,
        [namespace] => {
            let encoded = namespace.strip_prefix("namespace=").unwrap_or_default();
            let decoded = percent_decode_str(encoded).decode_utf8();
            let decoded = decoded.map_err(|_| Failure::usage("the namespace is no text"))?;
            spoilt(&decoded).map_or(Ok(()), |hint| Err(Failure::Usage(format!("the namespace: {hint}"))))?;
            Some(decoded.into_owned())
        }
        _ => return Err(Failure::usage("the namespace is given twice")),
    };
    let url = if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) };
    Ok((url, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t";

    fn read(named: &str, is_argument: bool, password: Option<&str>) -> Result<Address, Failure> {
        Address::read(named, is_argument, |name| password.filter(|_| name == PASSWORD).map(str::to_owned))
    }

    fn database(address: Result<Address, Failure>) -> Database {
        match address {
            Ok(Address::Postgres(database)) => *database,
            Ok(_) => panic!("it is another store"),
            Err(failure) => panic!("{failure}"),
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_repeated() {
        for url in [format!("postgres://u:{SECRET}@h/d"), format!("postgres://u@h/d?password={SECRET}&namespace=n")] {
            let Err(failure @ Failure::Usage(_)) = read(&url, true, None) else { panic!("{url}") };
            assert!(!failure.to_string().contains(SECRET), "{failure}");
            assert!(database(read(&url, false, None)).builder.config().get_password().is_some());
        }
        for url in [
            format!("postgres://u:x@{SECRET}@h/d"),
            format!("postgres://u:{SECRET}@h:port/d"),
            format!("mysql://{SECRET}"),
        ] {
            let Err(failure @ Failure::Usage(_)) = read(&url, true, None) else { panic!("{url}") };
            assert!(!failure.to_string().contains(SECRET), "{failure}");
        }
    }

    #[test]
    fn a_password_may_come_from_a_variable() {
        let taken = database(read("postgres://u@h/d", true, Some(SECRET)));
        assert_eq!(taken.builder.config().get_password(), Some(SECRET.as_bytes()));
        let own = database(read("postgres://u:own@h/d", false, Some(SECRET)));
        assert_eq!(own.builder.config().get_password(), Some(b"own".as_slice()));
    }

    // Seeded fault: the password is taken as it is.
    #[test]
    fn a_password_that_a_file_of_variables_has_spoilt_is_refused_and_not_repeated() {
        for spoilt in [
            format!("{SECRET}\n"),
            format!("{SECRET}\r"),
            format!("\"{SECRET}\""),
            format!("'{SECRET}'"),
            format!(" {SECRET}"),
            format!("\u{feff}{SECRET}"),
            format!("{SECRET}\u{a0}"),
            format!("{SECRET}\n{SECRET}"),
        ] {
            let Err(failure @ Failure::Usage(_)) = read("postgres://u@h/d", true, Some(&spoilt)) else {
                panic!("{spoilt:?}")
            };
            let said = failure.to_string();
            assert!(said.starts_with("PGPASSWORD has quotes") && !said.contains(SECRET), "{said}");
        }
        for fine in ["'", "a'", "\"a'", "a b", "$a;", "p\u{e4}ss"] {
            let taken = database(read("postgres://u@h/d", true, Some(fine)));
            assert_eq!(taken.builder.config().get_password(), Some(fine.as_bytes()));
        }
    }

    #[test]
    fn a_namespace_is_a_parameter_of_the_url() {
        let named = database(read("postgres://u@h/d?sslmode=disable&namespace=a%26b", true, None));
        assert_eq!((named.namespace.as_deref(), named.builder.is_mode_open()), (Some("a&b"), false));
        let plain = database(read("postgres://u@localhost,127.0.0.1/d", true, None));
        assert!(plain.namespace.is_none() && plain.builder.is_mode_open() && plain.is_local());
        assert!(!named.is_local());
        for wrong in ["a&namespace=b", "", "'a'", "%20a", "a%0A", "%22a%22", "undefined", "$NAME", "%EF%BB%BFa", "%FF"]
        {
            for url in [format!("postgres://u@h/d?namespace={wrong}"), format!("redis://h?namespace={wrong}")] {
                assert!(matches!(read(&url, true, None), Err(Failure::Usage(_))), "{url}");
            }
        }
    }

    #[test]
    fn a_directory_is_named_with_its_engine_or_without() {
        for (named, path, engine) in [
            ("sled:payments.db", "payments.db", Some(Engine::Sled)),
            ("fjall:payments.db", "payments.db", Some(Engine::Fjall)),
            ("./a:b", "./a:b", None),
            ("/var/lib/p", "/var/lib/p", None),
            ("./payments.db", "./payments.db", None),
            ("./memory", "./memory", None),
        ] {
            let Ok(Address::Directory(found)) = read(named, true, None) else { panic!("{named}") };
            assert_eq!((found.path.to_str(), found.engine), (Some(path), engine));
        }
        for wrong in [
            "", "sled:", "sled://host/p", "fjall:", "fjall://host/p", "redis:h", "mysql://h", "sqlite:x", "memory",
            "memory:", "payments.db",
        ] {
            assert!(matches!(read(wrong, true, None), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
