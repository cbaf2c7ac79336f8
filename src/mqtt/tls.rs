//! Certificates: PEM files, or the system's roots, to a rustls configuration with the ring provider.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config;

/// What is wrong with the certificates of `[broker.tls]`.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("broker.tls.{key}: can't read {path} as PEM: {error}", path = path.display())]
    Unreadable { key: &'static str, path: PathBuf, error: pem::Error },
    #[error("broker.tls.{key}: {path} holds no certificate", path = path.display())]
    Empty { key: &'static str, path: PathBuf },
    #[error("broker.tls.ca: {path} holds a certificate that can't be an authority: {error}", path = path.display())]
    BadAuthority { path: PathBuf, error: rustls::Error },
    #[error("broker.tls: a client certificate needs both cert and key")]
    HalfIdentity,
    #[error("broker.tls: client certificate and key can't be used: {0}")]
    Identity(rustls::Error),
    #[error("the system has no root certificates (install ca-certificates, or set broker.tls.ca): {0}")]
    NoSystemRoots(String),
    #[error("TLS can't be set up: {0}")]
    Setup(rustls::Error),
}

/// Reads the files anew at each call, so that renewed certificates are taken up at the next connection.
pub(crate) fn client_config(tls: &config::Tls) -> Result<Arc<ClientConfig>, TlsError> {
    // Given here, not installed for the process: other parts of it may choose their own.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots(tls.ca.as_deref())?);
    let config = match (&tls.cert, &tls.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("cert", cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Unreadable {
                key: "key",
                path: key.clone(),
                error,
            })?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Identity)?
        }
        _ => return Err(TlsError::HalfIdentity),
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("ca", path)? {
                store.add(certificate).map_err(|error| TlsError::BadAuthority { path: path.to_path_buf(), error })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // System bundles hold the odd certificate that webpki won't parse; the others serve.
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(TlsError::NoSystemRoots(why.join("; ")));
            }
        }
    }
    Ok(store)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| TlsError::Unreadable { key, path: path.to_path_buf(), error };
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<Vec<_>, _>>();
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty { key, path: path.to_path_buf() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ca: &str, cert: Option<&str>) -> config::Tls {
        config::Tls { ca: Some(ca.into()), cert: cert.map(Into::into), key: None }
    }

    #[test]
    fn each_fault_names_its_key_and_file() {
        let missing = client_config(&config("/nonexistent/ca.pem", None)).unwrap_err().to_string();
        assert!(missing.contains("broker.tls.ca") && missing.contains("/nonexistent/ca.pem"), "{missing}");
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let empty = client_config(&config(empty.to_str().unwrap(), None)).unwrap_err();
        assert!(matches!(empty, TlsError::Empty { key: "ca", .. }), "{empty}");
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let tls = config::Tls { ca: None, cert: Some("c.pem".into()), key: None };
        // Machines without any system root report that first.
        let error = client_config(&tls).unwrap_err();
        assert!(matches!(error, TlsError::HalfIdentity | TlsError::NoSystemRoots(_)), "{error}");
    }
}
