//! A Redis or Valkey database.

use tower_idempotency_redis::{RedisBackend, RedisBackendBuilder};

use super::{is_seen, without_namespace};
use crate::failure::Failure;

/// The variable of the environment that has a password. `redis-cli` reads it, too.
pub(super) const PASSWORD: &str = "REDISCLI_AUTH";

/// A Redis or Valkey database, and whose rows in it are meant.
pub(crate) struct RedisDatabase {
    /// How it is reached, with the password and the namespace, and what a write has to reach.
    pub(crate) builder: RedisBackendBuilder,
    /// `None`: the store's default.
    pub(crate) namespace: Option<String>,
    /// The URL asks for TLS.
    pub(crate) is_encrypted: bool,
}

impl RedisDatabase {
    pub(super) fn read(url: &str, is_argument: bool, password: Option<String>) -> Result<Self, Failure> {
        // First as a whole: a part of a password that is not encoded may look like a parameter.
        let mut builder = RedisBackend::from_url(url).map_err(Failure::usage)?;
        let (_, namespace) = without_namespace(url)?;
        let has_password = has_password(url);
        if is_argument && has_password {
            return Err(is_seen(PASSWORD));
        }
        if let Some(password) = password.filter(|_| !has_password) {
            builder = builder.password(password);
        }
        let is_encrypted = url.starts_with("rediss") || url.starts_with("valkeys");
        Ok(Self { builder, namespace, is_encrypted })
    }
}

/// Returns whether a URL that could be read has a password.
fn has_password(url: &str) -> bool {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    let authority = address.split(['/', '?']).next().unwrap_or_default();
    let login = authority.rsplit_once('@').map_or("", |(login, _)| login);
    login.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t";

    fn read(url: &str, is_argument: bool) -> Result<RedisDatabase, Failure> {
        RedisDatabase::read(url, is_argument, None)
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_repeated() {
        for url in [
            format!("redis://u:{SECRET}@h"),
            format!("rediss://:{SECRET}@h:1/2?namespace=n"),
            format!("redis+sentinel://u:{SECRET}@a,b/main?durability=replicas:1"),
            format!("redis+cluster://u:{SECRET}@a,b"),
        ] {
            let Err(failure @ Failure::Usage(_)) = read(&url, true) else { panic!("{url}") };
            assert!(failure.to_string().contains("IDEM_STORE") && !failure.to_string().contains(SECRET), "{failure}");
            assert!(read(&url, false).is_ok(), "{url}");
        }
        for url in [
            format!("redis://u:x@{SECRET}@h"),
            format!("redis://u:{SECRET}@h:port"),
            format!("redis://u:x/{SECRET}@h"),
            format!("redis://u:x?namespace={SECRET}@h"),
            format!("redis+raft://u:{SECRET}@h"),
        ] {
            let Err(failure @ Failure::Usage(_)) = read(&url, false) else { panic!("{url}") };
            assert!(!failure.to_string().contains(SECRET), "{failure}");
        }
        // A user alone is no password.
        assert!(read("redis://u@h", true).is_ok() && read("redis://u:@h", true).is_ok());
    }

    #[test]
    fn a_url_says_which_rows_and_whether_they_are_sent_encrypted() {
        let named =
            read("rediss://h?durability=memory&namespace=a%26b", true).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((named.namespace.as_deref(), named.is_encrypted), (Some("a&b"), true));
        assert!(format!("{:?}", named.builder).contains("a&b"));
        let plain = read("valkey://h", true).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((plain.namespace, plain.is_encrypted), (None, false));
    }
}
