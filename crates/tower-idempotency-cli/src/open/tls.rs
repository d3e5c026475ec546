//! Encryption of connections to a database.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::failure::Failure;
use crate::text::unmarked;

/// Returns a configuration that trusts the certificates in `file`, or those that this machine trusts.
pub(crate) fn config(file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", file.display()));
            let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
            for certificate in CertificateDer::pem_slice_iter(unmarked(&bytes).map_err(|why| wrong(&why))?) {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"the file has no certificate in PEM"));
            }
        }
        // One that can't be read is not trusted. If there is none, the server's is refused, with an error that says so.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| Failure::Store(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
