//! TLS to a server, with the settings that Dapr's brokers share: `caCert`, `clientCert` and `clientKey`, all PEM.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde::Deserialize;
use trilby_component::{ComponentError, Properties, Result};

/// Whom to trust, and who we are.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Settings {
    /// Authorities that vouch for the server. Default: those that browsers trust.
    pub(crate) ca_cert: String,
    /// Our certificate. Default: none.
    pub(crate) client_cert: String,
    /// The key of `clientCert`. Default: none.
    pub(crate) client_key: String,
    /// Whether any certificate of the server will do. For components that have a setting of their own for it.
    #[serde(skip)]
    pub(crate) trusts_anyone: bool,
}

impl Settings {
    /// # Errors
    /// `InvalidMetadata` if one is not PEM, or the client's certificate comes without its key.
    pub(crate) fn parse(properties: &Properties) -> Result<Self> {
        let settings: Self = properties.parse()?;
        let all =
            [("caCert", &settings.ca_cert), ("clientCert", &settings.client_cert), ("clientKey", &settings.client_key)];
        match all.iter().find(|(_, value)| !value.is_empty() && !value.contains("-----BEGIN ")) {
            Some((name, _)) => Err(ComponentError::metadata(format!("invalid {name}: it is not PEM"))),
            None if settings.client_cert.is_empty() != settings.client_key.is_empty() => {
                Err(ComponentError::metadata("metadata clientCert and clientKey must be set together"))
            }
            None => Ok(settings),
        }
    }

    /// # Errors
    /// `InvalidMetadata` for a certificate or key that cannot be used.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ComponentError::metadata(format!("TLS cannot be used: {error}")))?
            .with_root_certificates(self.roots()?);
        let mut config = self.with_client(builder)?;
        if self.trusts_anyone {
            let verifier = Anyone(Arc::clone(config.crypto_provider()));
            config.dangerous().set_certificate_verifier(Arc::new(verifier));
        }
        Ok(Arc::new(config))
    }

    fn with_client(&self, builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Result<ClientConfig> {
        if self.client_cert.is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let key = PrivateKeyDer::from_pem_slice(self.client_key.as_bytes())
            .map_err(|error| ComponentError::metadata(format!("metadata clientKey holds no key in PEM: {error}")))?;
        builder.with_client_auth_cert(certificates("clientCert", &self.client_cert)?, key).map_err(|error| {
            ComponentError::metadata(format!("metadata clientCert and clientKey cannot be used: {error}"))
        })
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if self.ca_cert.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        } else {
            roots.add_parsable_certificates(certificates("caCert", &self.ca_cert)?);
        }
        Ok(roots)
    }
}

/// Takes every certificate, as long as the server has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    if found.is_empty() {
        return Err(ComponentError::metadata(format!("metadata {name} holds no certificate in PEM")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        Settings::parse(&pairs.iter().copied().collect())
    }

    #[test]
    fn what_is_not_pem_is_refused_by_its_name() {
        for name in ["caCert", "clientCert", "clientKey"] {
            let error = settings(&[(name, "/etc/ca.pem")]).err().expect("not PEM");
            assert_eq!(error.to_string(), format!("invalid {name}: it is not PEM"));
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_content() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let error = settings(&[("clientCert", pem)]).err().expect("no key");
        assert_eq!(error.to_string(), "metadata clientCert and clientKey must be set together");
        let empty = "-----BEGIN CERTIFICATE-----";
        let error = settings(&[("caCert", empty)]).expect("PEM, as far as one can tell").client_config().err();
        assert_eq!(error.expect("empty").to_string(), "metadata caCert holds no certificate in PEM");
    }
}
