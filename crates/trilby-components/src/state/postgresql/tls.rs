//! TLS to a PostgreSQL server, as strict as `sslmode` asks for.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio::fs;
use tokio_postgres_rustls::MakeRustlsConnect;
use trilby_component::{ComponentError, Result};

use super::dsn::{Dsn, Trust};

/// What connects with TLS; whether it is used at all is the driver's business.
///
/// # Errors
/// `InvalidMetadata` for a certificate or key that cannot be read, or a mode that does not exist.
pub(super) async fn connector(dsn: &Dsn) -> Result<MakeRustlsConnect> {
    let (_, trust) = dsn.ssl_mode()?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(dsn.get("sslrootcert"), trust, Arc::clone(&provider)).await?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ComponentError::metadata(format!("TLS cannot be used: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match (dsn.get("sslcert"), dsn.get("sslkey")) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("sslcert", certificate).await?;
            let key = PrivateKeyDer::from_pem_slice(&pem("sslkey", key).await?)
                .map_err(|error| ComponentError::metadata(format!("sslkey holds no key in PEM: {error}")))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| ComponentError::metadata(format!("sslcert and sslkey cannot be used: {error}")))?
        }
        _ => return Err(ComponentError::metadata("sslcert and sslkey must be set together")),
    };
    Ok(MakeRustlsConnect::new(config))
}

async fn certificates(name: &str, value: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = pem(name, value).await?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().ok();
    found
        .filter(|found| !found.is_empty())
        .ok_or_else(|| ComponentError::metadata(format!("{name} holds no certificate in PEM")))
}

/// The content of a setting that is a file or, as secrets often are, the content itself.
async fn pem(name: &str, value: &str) -> Result<Vec<u8>> {
    if value.trim_start().starts_with("-----BEGIN") {
        return Ok(value.as_bytes().to_vec());
    }
    let content = fs::read(value).await;
    content.map_err(|error| ComponentError::metadata(format!("{name}: file {value} cannot be read: {error}")))
}

/// Checks the certificate of a server as far as `trust` goes.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    roots: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    async fn new(roots: Option<&str>, trust: Trust, provider: Arc<CryptoProvider>) -> Result<Self> {
        let mut store = RootCertStore::empty();
        let roots = match roots {
            Some(value) => certificates("sslrootcert", value).await?,
            None => Vec::new(),
        };
        if roots.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        } else {
            store.add_parsable_certificates(roots.iter().cloned());
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| ComponentError::metadata(format!("sslrootcert cannot be used: {error}")))?;
        Ok(Self { trust, roots, authorities })
    }

    /// Whether a trusted authority signed the certificate, or it is itself among the trusted ones: libpq takes a
    /// certificate that signed itself, web browsers and with them the verifier below do not.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.roots.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trust == Trust::Anyone {
            return Ok(ServerCertVerified::assertion());
        }
        match self.verify(end_entity, intermediates, name, ocsp, now) {
            // The name is the last thing that is looked at, so the signatures are good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.trust == Trust::Authority => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
