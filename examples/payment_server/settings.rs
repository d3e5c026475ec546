//! Settings from a file (`--config`) and from the environment.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format as _, Json, Toml};
use serde::Deserialize;
use tower_idempotency::config::IdempotencyConfig;
use tower_idempotency_postgres::PostgresConfig;

/// The sections `layer`, `memory`, `sled`, `fjall`, `shared` and `postgres`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(flatten)]
    pub(crate) idempotency: IdempotencyConfig,
    #[serde(default)]
    pub(crate) postgres: PostgresConfig,
}

impl Settings {
    /// Refuses a section of another store than the one that is opened: what it says would change nothing.
    pub(crate) fn require_only(&self, used: &[&str]) -> Result<(), String> {
        let IdempotencyConfig { memory, sled, fjall, shared, .. } = &self.idempotency;
        let sections = [
            ("memory", memory.is_set()),
            ("sled", sled.is_set()),
            ("fjall", fjall.is_set()),
            ("shared", shared.is_set()),
            ("postgres", self.postgres != PostgresConfig::default()),
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
pub(crate) fn read(file: Option<&Path>) -> Result<Settings, Box<figment::Error>> {
    let settings = match file {
        Some(file) if file.extension().is_some_and(|extension| extension == "json") => {
            Figment::from(Json::file_exact(file))
        }
        Some(file) => Figment::from(Toml::file_exact(file)),
        None => Figment::new(),
    };
    // Kubernetes sets others with this prefix for a service of this name. They have no section.
    let environment = Env::prefixed("PAYMENTS_").filter(|name| name.as_str().contains("__")).split("__");
    settings.merge(environment).extract().map_err(Box::new)
}
