//! Certificates by openssl: an authority of the tests' own, servers and clients.

use crate::command::Tool;
use crate::temporary;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A certificate authority.
#[derive(Debug)]
pub struct Authority(TempDir);

/// A certificate and its private key, in PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who must have signed a client's certificate, if one is asked for.
    clients: Option<PathBuf>,
}

impl Default for Authority {
    fn default() -> Self {
        let directory = temporary();
        let at = |name: &str| directory.path().join(name);
        Tool::new("openssl")
            .with([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .with(["-subj", "/CN=tests of sandbox", "-days", "3650"])
            .with(["-addext", "basicConstraints=critical,CA:TRUE"])
            .with(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .option("-keyout", at("ca.key"))
            .option("-out", at("ca.crt"))
            .run();
        Self(directory)
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.at("ca.crt")
    }

    /// Certifies a server of these names, or a client.
    pub fn certify(&self, names: &[&str]) -> Identity {
        let file = |ending: &str| self.at(&format!("{}.{ending}", names[0].replace('*', "any")));
        let (key, request, extensions, certificate) =
            (file("key"), file("csr"), file("ext"), file("crt"));
        Tool::new("openssl")
            .with(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .with(["-subj", &format!("/CN={}", names[0])])
            .option("-keyout", &key)
            .option("-out", &request)
            .run();
        let names: Vec<String> = names
            .iter()
            .map(|name| match name.parse::<std::net::IpAddr>() {
                Ok(address) => format!("IP:{address}"),
                Err(_) => format!("DNS:{name}"),
            })
            .collect();
        let text = format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", names.join(","));
        fs::write(&extensions, text).unwrap();
        Tool::new("openssl")
            .with(["x509", "-req", "-days", "3650", "-CAcreateserial"])
            .option("-in", &request)
            .option("-CA", self.certificate())
            .option("-CAkey", self.at("ca.key"))
            .option("-extfile", &extensions)
            .option("-out", &certificate)
            .run();
        Identity { certificate, key, clients: None }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Identity {
    /// As a server it asks clients for a certificate of this authority's.
    pub fn for_clients_of(mut self, authority: &Authority) -> Self {
        self.clients = Some(authority.certificate());
        self
    }

    pub(crate) fn server_config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate(authority)).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        builder.with_single_cert(vec![certificate(&self.certificate)], key).unwrap()
    }
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}
