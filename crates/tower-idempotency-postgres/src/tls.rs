//! The encryption of connections.

/// With TLS or without.
#[derive(Clone, Default)]
pub(super) enum Tls {
    #[default]
    /// Connections are in plain. A URL that asks for TLS fails then.
    Without,
    #[cfg(feature = "rustls")]
    Rustls(tokio_postgres_rustls::MakeRustlsConnect),
}

#[cfg(feature = "rustls")]
impl Tls {
    pub(super) fn rustls(config: rustls::ClientConfig) -> Self {
        Self::Rustls(tokio_postgres_rustls::MakeRustlsConnect::new(config))
    }
}
