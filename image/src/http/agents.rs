//! The connections: TLS as it is wanted for each host, and nothing that the library would do by
//! itself.

use super::{
    Certificates, Error, Options, Url,
    certificates::{ClientCertificate, HostCertificates, host_key},
};
use crate::Text;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use std::{collections::BTreeMap, sync::Arc};
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

/// Longest status line and headers of an answer.
const MAX_HEADERS: usize = 64 << 10;

/// An agent for most hosts, and those for hosts with certificates or rules of their own.
#[derive(Clone, Debug)]
pub(super) struct Agents {
    default: Agent,
    hosts: BTreeMap<String, Agent>,
}

impl Agents {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let Certificates { roots, hosts } = &options.certificates;
        let none = HostCertificates::default();
        let default = agent(options, "all hosts", roots, &none, options.insecure_tls)?;
        let mut agents = BTreeMap::new();
        let insecure = options.insecure_hosts.iter().filter(|host| !hosts.contains_key(*host));
        for (host, own) in hosts.iter().chain(insecure.map(|host| (host, &none))) {
            let insecure = options.insecure_tls || options.insecure_hosts.contains(host);
            agents.insert(host.clone(), agent(options, host, roots, own, insecure)?);
        }
        Ok(Self { default, hosts: agents })
    }

    pub(super) fn of(&self, url: &Url) -> &Agent {
        let own = host_key(&url.authority()).and_then(|key| self.hosts.get(&key));
        own.unwrap_or(&self.default)
    }
}

fn agent(
    options: &Options,
    host: &str,
    roots: &[String],
    own: &HostCertificates,
    insecure: bool,
) -> Result<Agent, Error> {
    let refused =
        |problem: &str| Error::Certificates { host: Text::new(host), problem: Text::new(problem) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut trusted = Vec::new();
    for pem in roots.iter().chain(&own.roots) {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate =
                certificate.map_err(|_| refused("an authority's PEM is malformed"))?;
            trusted.push(Certificate::from_der(&certificate).to_owned());
        }
    }
    let client = match &own.client {
        Some(client) => Some(client_certificate(client, &provider).map_err(refused)?),
        None => None,
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&trusted))
        .client_cert(client)
        .disable_verification(insecure)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let timeouts = &options.timeouts;
    let config = Agent::config_builder()
        .tls_config(tls)
        // Redirects are followed by the client, which knows what may be sent where.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("sandbox/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(MAX_HEADERS)
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_send_request(Some(timeouts.answer))
        .timeout_recv_response(Some(timeouts.answer))
        .timeout_per_read(Some(timeouts.stall))
        .timeout_per_write(Some(timeouts.stall))
        .build();
    Ok(Agent::new_with_config(config))
}

/// Reads the client's certificate, and tries it: the library would panic over one that does not
/// fit its key.
fn client_certificate(
    client: &ClientCertificate,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientCert, &'static str> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(client.chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| "the client certificate's PEM is malformed")?;
    let pem = client.key.expose().as_bytes();
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "the client certificate's private key can't be read")?;
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS is not available")?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain.clone(), key)
        .map_err(|_| "the client certificate and its private key don't fit")?;
    let chain: Vec<_> =
        chain.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    let key = PrivateKey::from_pem(pem)
        .map_err(|_| "the client certificate's private key can't be read")?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
