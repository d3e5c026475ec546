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
    for (name, value) in env::vars_os() {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix("PAYMENTS_") else { continue };
        // Kubernetes sets these for a service of this name, and for one whose name begins so.
        let of_kubernetes = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
        if !rest.contains("__") && of_kubernetes.iter().any(|part| format!("_{rest}").contains(part)) {
            continue;
        }
        let (sections, option) = rest.rsplit_once("__").ok_or_else(|| {
            format!("the variable {name} is no setting: write it as PAYMENTS_SECTION__OPTION, or give it another name")
        })?;
        let value = value.into_string().map_err(|_| format!("the variable {name} is not UTF-8"))?;
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
    let bytes = fs::read(file).map_err(|error| in_file(&error))?;
    // As Windows PowerShell writes it.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] = *bytes {
        return Err(format!("--config {}: the file is UTF-16: save it as UTF-8", file.display()).into());
    }
    let text = String::from_utf8(bytes).map_err(|error| in_file(&error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // What is wrong in the file is found in its text: a table of values has no lines.
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    Ok(if is_json {
        serde_json::from_str::<Settings>(text)
            .and_then(|_| serde_json::from_str(text))
            .map_err(|error| in_file(&error))?
    } else {
        toml::from_str::<Settings>(text).and_then(|_| text.parse()).map_err(|error| in_file(&error))?
    })
}
