//! Certificates made for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::tokio_rustls::TlsAcceptor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A private authority, a server for `localhost`, a client, and an authority that signed neither.
pub struct Certificates {
    pub ca: PathBuf,
    /// Certificate and key.
    pub server: (PathBuf, PathBuf),
    pub client: (PathBuf, PathBuf),
    pub stranger: PathBuf,
}

impl Certificates {
    pub fn make(dir: &Path) -> Certificates {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let authority = |common_name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
            let certificate = params.self_signed(&key).unwrap();
            (certificate.pem(), rcgen::Issuer::new(params, key))
        };
        let (ca, issuer) = authority("test authority");
        let (stranger, _) = authority("another authority");
        let leaf = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            (write(&format!("{name}.crt"), certificate.pem()), write(&format!("{name}.key"), key.serialize_pem()))
        };
        let (server, client) = (leaf("localhost"), leaf("gateway"));
        Certificates { ca: write("ca.crt", ca), server, client, stranger: write("stranger.crt", stranger) }
    }

    /// Of a server with its certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = CertificateDer::pem_file_iter(&self.server.0).unwrap().map(Result::unwrap).collect();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&self.server.1).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
