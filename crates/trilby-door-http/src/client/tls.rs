//! Whom a client trusts and how it shows who it is.

use std::fmt;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use trilby_tls::builder;

/// TLS settings of a client, all as PEM text. An HTTPEndpoint's `clientTLS`.
///
/// Its `renegotiation` has no counterpart: TLS 1.3 has none, and this client never renegotiates TLS 1.2.
#[derive(Clone, Default)]
pub struct Tls {
    /// Certificates to trust. Default: Mozilla's list.
    pub root_ca: Option<String>,
    /// The client's own certificate, followed by those between it and the root. Needs `private_key`.
    pub certificate: Option<String>,
    /// The key of `certificate`.
    pub private_key: Option<String>,
}

/// TLS settings that cannot be used. The message names the setting.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl Tls {
    pub(super) fn config(&self) -> Result<ClientConfig, TlsError> {
        let trusting = match &self.root_ca {
            None => builder().with_webpki_roots(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("root CA", pem)? {
                    roots.add(certificate).map_err(|error| unusable("root CA", error))?;
                }
                builder().with_root_certificates(roots)
            }
        };
        match (&self.certificate, &self.private_key) {
            (None, None) => Ok(trusting.with_no_client_auth()),
            (Some(certificate), Some(key)) => {
                let certificates = certificates("client certificate", certificate)?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
                let key = key.map_err(|error| unusable("client private key", error))?;
                trusting
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| unusable("client certificate with its private key", error))
            }
            (Some(_), None) => Err(TlsError("client certificate has no private key; set both or neither".into())),
            (None, Some(_)) => Err(TlsError("client private key has no certificate; set both or neither".into())),
        }
    }
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| unusable(what, error))?;
    if found.is_empty() { Err(TlsError(format!("{what} holds no PEM certificate"))) } else { Ok(found) }
}

fn unusable(what: &str, error: impl fmt::Display) -> TlsError {
    TlsError(format!("{what} cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_is_named() {
        let pem = || Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned());
        for (tls, expect) in [
            (Tls { root_ca: Some("nonsense".into()), ..Tls::default() }, "root CA holds no PEM certificate"),
            (Tls { root_ca: pem(), ..Tls::default() }, "root CA cannot be used"),
            (Tls { certificate: pem(), ..Tls::default() }, "client certificate has no private key"),
            (Tls { private_key: pem(), ..Tls::default() }, "client private key has no certificate"),
            (
                Tls { certificate: pem(), private_key: Some("nonsense".into()), ..Tls::default() },
                "client private key cannot be used",
            ),
        ] {
            let error = tls.config().expect_err(expect).to_string();
            assert!(error.starts_with(expect), "{error}");
        }
        assert!(Tls::default().config().is_ok());
    }
}
