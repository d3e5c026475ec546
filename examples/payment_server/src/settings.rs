//! Settings from a file (`--config`) and from the environment.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use serde::Deserialize;
use toml::{Table, Value};
#[cfg(feature = "fjall")]
use tower_idempotency::config::FjallConfig;
use tower_idempotency::config::{LayerConfig, MemoryConfig, SledConfig};
#[cfg(feature = "postgres")]
use tower_idempotency_postgres::{PostgresConfig, SharedConfig};
#[cfg(feature = "redis")]
use tower_idempotency_redis::RedisConfig;
#[cfg(all(feature = "redis", not(feature = "postgres")))]
use tower_idempotency_redis::SharedConfig;

type Failure = Box<dyn Error + Send + Sync>;

/// The sections `layer`, `memory` and `sled`, and those of the stores that are features: `fjall`; `shared`,
/// `postgres` and `redis`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) layer: LayerConfig,
    pub(crate) memory: MemoryConfig,
    pub(crate) sled: SledConfig,
    #[cfg(feature = "fjall")]
    pub(crate) fjall: FjallConfig,
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) shared: SharedConfig,
    #[cfg(feature = "postgres")]
    pub(crate) postgres: PostgresConfig,
    #[cfg(feature = "redis")]
    pub(crate) redis: RedisConfig,
}

impl Settings {
    /// Refuses a section of another store than the one that is opened: what it says would change nothing.
    pub(crate) fn require_only(&self, used: &[&str]) -> Result<(), String> {
        let sections = [
            ("memory", self.memory.is_set()),
            ("sled", self.sled.is_set()),
            #[cfg(feature = "fjall")]
            ("fjall", self.fjall.is_set()),
            #[cfg(any(feature = "postgres", feature = "redis"))]
            ("shared", self.shared.is_set()),
            #[cfg(feature = "postgres")]
            ("postgres", self.postgres != PostgresConfig::default()),
            #[cfg(feature = "redis")]
            ("redis", self.redis != RedisConfig::default()),
        ];
        match sections.into_iter().find(|(section, is_set)| *is_set && !used.contains(section)) {
            Some((section, _)) => {
                Err(format!("the settings have a section [{section}], and --store is another: remove it"))
            }
            None => Ok(()),
        }
    }
}

/// Reads the file, if there is one, and then the environment: `PAYMENTS_LAYER__RETENTION=48h`.
pub(crate) fn read(file: Option<&Path>) -> Result<Settings, Failure> {
    let mut settings = file.map(table).transpose()?.unwrap_or_default();
    let variables =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    for (name, value) in variables {
        // Kubernetes sets others with this prefix for a service of this name. They have no section.
        let path = name.strip_prefix("PAYMENTS_").and_then(|path| path.rsplit_once("__"));
        let Some((sections, option)) = path else { continue };
        let mut options = &mut settings;
        for section in sections.split("__") {
            let section = options.entry(section.to_lowercase()).or_insert_with(|| Table::new().into());
            options = section.as_table_mut().ok_or_else(|| format!("{name}: the file has a value in its way"))?;
        }
        // What is no value of TOML is a text: `48h`.
        let value = value.parse().unwrap_or(Value::String(value));
        options.insert(option.to_lowercase(), value);
    }
    settings.try_into().map_err(|error: toml::de::Error| format!("a variable PAYMENTS_…: {error}").into())
}

fn table(file: &Path) -> Result<Table, Failure> {
    let in_file = |error: &dyn Error| format!("--config {}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|error| in_file(&error))?;
    // What is wrong in the file is found in its text: a table of values has no lines.
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    Ok(if is_json {
        serde_json::from_str::<Settings>(&text)
            .and_then(|_| serde_json::from_str(&text))
            .map_err(|error| in_file(&error))?
    } else {
        toml::from_str::<Settings>(&text).and_then(|_| text.parse()).map_err(|error| in_file(&error))?
    })
}
