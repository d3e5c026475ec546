//! The settings of the proxy's file.

use std::path::Path;

use serde::Deserialize;
use tower_idempotency::config::{FjallConfig, LayerConfig, SledConfig};
use tower_idempotency::{IdempotencyLayer, MemoryStore};
use tower_idempotency_postgres::{PostgresConfig, SharedConfig};
use tower_idempotency_redis::RedisConfig;

use super::cors::Cors;
use super::whose::require_passed_on;
use crate::failure::Failure;
use crate::text;

/// The sections of the file. Each may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) layer: LayerConfig,
    pub(super) sled: SledConfig,
    pub(super) fjall: FjallConfig,
    pub(super) shared: SharedConfig,
    pub(super) postgres: PostgresConfig,
    pub(super) redis: RedisConfig,
    /// Without it, the proxy does not answer CORS.
    pub(super) cors: Option<Cors>,
}

impl Settings {
    /// Reads the file, if there is one, and sets the profile that the command line names.
    pub(super) fn read(file: Option<&Path>, profile: Option<&str>) -> Result<Self, Failure> {
        let mut settings = match file {
            Some(file) => {
                let text = text::of_file(file)?;
                // The line itself may have a password, and so may a value with a login.
                let wrong = |error: toml::de::Error| {
                    let line =
                        text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default().matches('\n').count()
                            + 1;
                    let why = if error.message().contains('@') { "a value can't be used" } else { error.message() };
                    Failure::usage(format!("{}, line {line}: {why}", file.display()))
                };
                toml::from_str(&text).map_err(wrong)?
            }
            None => Self::default(),
        };
        if let Some(profile) = profile {
            let layer = LayerConfig::deserialize(toml::Table::from_iter([("profile".to_owned(), profile.into())]));
            settings.layer.profile = layer.map_err(|error| Failure::Usage(format!("--profile: {error}")))?.profile;
        }
        require_passed_on("header_name", settings.layer.header_name.as_slice())?;
        require_passed_on("credential_headers", settings.layer.credential_headers.as_deref().unwrap_or_default())?;
        require_passed_on("fingerprint_headers", settings.layer.fingerprint_headers.as_deref().unwrap_or_default())?;
        // What the names are for does not depend on the store, and none is opened yet.
        let layer = settings.layer.clone().apply(IdempotencyLayer::new(MemoryStore::new()));
        layer.check().map_err(Failure::usage)?;
        Ok(settings)
    }

    /// Refuses a section of another store than the one that is opened: what it says would change nothing.
    pub(super) fn require_only(&self, used: &[&str]) -> Result<(), Failure> {
        let sections = [
            ("sled", self.sled.is_set()),
            ("fjall", self.fjall.is_set()),
            ("shared", self.shared.is_set()),
            ("postgres", self.postgres != PostgresConfig::default()),
            ("redis", self.redis != RedisConfig::default()),
        ];
        match sections.into_iter().find(|(section, is_set)| *is_set && !used.contains(section)) {
            Some((section, _)) => Err(Failure::Usage(format!(
                "the settings have a section [{section}], which this store does not use ({}): remove it",
                used.join(" and ")
            ))),
            None => Ok(()),
        }
    }
}
