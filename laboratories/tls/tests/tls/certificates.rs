//! Certificates, made by `openssl`.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// Two authorities, and a server's certificate by the first of them.
#[derive(Debug)]
pub(crate) struct Certificates(TempDir);

/// An authority: the one that has signed the server's certificate, or another one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Authority {
    Its,
    Another,
}

impl Authority {
    fn name(self) -> &'static str {
        match self {
            Self::Its => "its",
            Self::Another => "another",
        }
    }
}

impl Certificates {
    /// Makes certificates. The server's is for `localhost` and for `address`. The error names the part that is missing.
    pub(crate) fn new(address: IpAddr) -> Result<Self, String> {
        let certificates = Self(TempDir::with_prefix("certificates").map_err(|error| error.to_string())?);
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        for name in [Authority::Its.name(), Authority::Another.name()] {
            let (pem, to) = (format!("{name}.pem"), format!("{name}.key"));
            let files = ["-x509", "-subj", "/CN=an authority", "-keyout", &to, "-out", &pem];
            certificates.openssl("req", &[&key[..], &files].concat())?;
            certificates.openssl("x509", &["-in", &pem, "-outform", "DER", "-out", &format!("{name}.der")])?;
        }
        let request = ["-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
        certificates.openssl("req", &[&key[..], &request].concat())?;
        let extensions = format!("subjectAltName = DNS:localhost, IP:{address}\nbasicConstraints = CA:FALSE\n");
        fs::write(certificates.0.path().join("extensions"), extensions).unwrap();
        let by = ["-CA", "its.pem", "-CAkey", "its.key", "-CAcreateserial", "-extfile", "extensions"];
        let files = ["-req", "-in", "server.csr", "-out", "server.crt"];
        certificates.openssl("x509", &[&files[..], &by].concat())?;
        Ok(certificates)
    }

    fn openssl(&self, command: &str, arguments: &[&str]) -> Result<(), String> {
        let mut openssl = Command::new("openssl");
        openssl.arg(command).args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        let output = openssl.output().map_err(|_| "the program openssl is missing")?;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Puts the server's certificate and its key into the server's directory, with the server's user as their owner.
    pub(crate) fn install(&self, directory: &Path) {
        let owner = fs::metadata(directory).unwrap();
        for name in ["server.key", "server.crt"] {
            let there = directory.join(name);
            fs::copy(self.0.path().join(name), &there).unwrap();
            fs::set_permissions(&there, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&there, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }

    /// The configuration of a client that trusts one of the authorities.
    pub(crate) fn trusting(&self, authority: Authority) -> ClientConfig {
        let root = fs::read(self.0.path().join(format!("{}.der", authority.name()))).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.into()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth()
    }
}
