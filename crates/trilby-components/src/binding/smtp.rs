//! `bindings.smtp`: sends mail.
//!
//! The data is the body, HTML; a JSON string is unquoted first. Addresses, subject and priority of the component can be
//! replaced by each call. Several addresses are separated by semicolons.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox, MessageBuilder,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{Tls, TlsParameters},
        extension::ClientId,
    },
};
use serde::Deserialize;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
};

/// The port where TLS begins with the connection. At any other it begins when the server offers it.
const TLS_PORT: u16 = 465;
/// Longest wait for an answer of the server.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// Name of the server. Required.
    host: String,
    /// Required; mostly 587 or 465.
    port: u16,
    /// Default: none, and then there is no login. Needs `password`.
    user: String,
    password: String,
    /// Whether the server's certificate goes unchecked. Default: false.
    #[serde(rename = "skipTLSVerify")]
    skip_tls_verify: bool,
}

/// What a component may say once for all its mails, and each call instead.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Envelope {
    email_from: String,
    email_to: String,
    #[serde(rename = "emailCC")]
    email_cc: String,
    #[serde(rename = "emailBCC")]
    email_bcc: String,
    subject: String,
    /// 1 is lowest, 5 is highest, says Dapr; mail programs read it the other way. Default: 3.
    priority: String,
}

/// Reads the settings. Nothing is sent, and the server need not be up.
///
/// # Errors
/// `InvalidMetadata` if server, or one of user and password, is missing, or the priority is none.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config: Config = request.properties.parse()?;
    let envelope: Envelope = request.properties.parse()?;
    if config.host.is_empty() || config.port == 0 {
        return Err(ComponentError::metadata("smtp binding error: host and port fields are required in metadata"));
    }
    if config.user.is_empty() != config.password.is_empty() {
        let message = "smtp binding error: both user and password fields are required in metadata";
        return Err(ComponentError::metadata(message));
    }
    priority(&envelope.priority).map_err(ComponentError::metadata)?;
    let output = Smtp { transport: transport(&config)?, envelope };
    Ok(Arc::new(Binding { input: None, output: Some(Arc::new(output)) }))
}

fn transport(config: &Config) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = TlsParameters::builder(config.host.clone())
        .dangerous_accept_invalid_certs(config.skip_tls_verify)
        .dangerous_accept_invalid_hostnames(config.skip_tls_verify)
        .build()
        .map_err(|error| ComponentError::metadata(format!("smtp binding error: TLS cannot be used: {error}")))?;
    let tls = if config.port == TLS_PORT { Tls::Wrapper(tls) } else { Tls::Opportunistic(tls) };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .tls(tls)
        .timeout(Some(TIMEOUT))
        .hello_name(ClientId::Domain("localhost".to_owned()));
    if !config.user.is_empty() {
        builder = builder
            .credentials(Credentials::new(config.user.clone(), config.password.clone()))
            .authentication(vec![Mechanism::Plain, Mechanism::Login]);
    }
    Ok(builder.build())
}

struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    envelope: Envelope,
}

#[async_trait]
impl OutputBinding for Smtp {
    fn operations(&self) -> &[&'static str] {
        &["create"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let message = self.envelope.message(&request.metadata, &request.data)?;
        let sent = self.transport.send(message).await;
        sent.map_err(|error| {
            let kind = if error.is_timeout() {
                ErrorKind::Timeout
            } else if error.is_permanent() {
                ErrorKind::Denied
            } else {
                ErrorKind::Unavailable
            };
            let message = format!("error from smtp binding, sending email failed: {error}");
            ComponentError::new(kind, message).with_source(error)
        })?;
        Ok(InvokeResponse::default())
    }
}

impl Envelope {
    fn message(&self, metadata: &Metadata, data: &[u8]) -> Result<Message> {
        let field = |name: &str, own: &str| {
            metadata.get(name).filter(|value| !value.is_empty()).cloned().unwrap_or_else(|| own.to_owned())
        };
        let required = |name: &str, own: &str| match field(name, own) {
            missing if missing.is_empty() => Err(ComponentError::request(format!(
                "smtp binding error: {name} property not supplied in configuration- or request-metadata"
            ))),
            value => Ok(value),
        };
        let from = required("emailFrom", &self.email_from)?;
        let to = required("emailTo", &self.email_to)?;
        let subject = required("subject", &self.subject)?;
        let priority = priority(&field("priority", &self.priority)).map_err(ComponentError::request)?;

        let mut builder = Message::builder().from(mailbox(&from)?).subject(subject).header(Priority(priority));
        let more: [(String, fn(MessageBuilder, Mailbox) -> MessageBuilder); 3] = [
            (to, MessageBuilder::to),
            (field("emailCC", &self.email_cc), MessageBuilder::cc),
            (field("emailBCC", &self.email_bcc), MessageBuilder::bcc),
        ];
        for (addresses, add) in more {
            for address in addresses.split(';').filter(|address| !address.trim().is_empty()) {
                builder = add(builder, mailbox(address)?);
            }
        }
        // What came over gRPC is not quoted.
        let body = serde_json::from_slice(data).unwrap_or_else(|_| String::from_utf8_lossy(data).into_owned());
        builder.header(ContentType::TEXT_HTML).body(body).map_err(|error| {
            ComponentError::request(format!("smtp binding error: the mail cannot be written: {error}"))
        })
    }
}

fn mailbox(text: &str) -> Result<Mailbox> {
    text.trim().parse().map_err(|error| ComponentError::request(format!("smtp binding error: {text:?}: {error}")))
}

fn priority(text: &str) -> Result<u8, String> {
    if text.is_empty() {
        return Ok(3);
    }
    let number = text.parse().ok().filter(|number| (1..=5).contains(number));
    // Two spaces, as Dapr has them.
    number.ok_or_else(|| "smtp binding error:  priority value must be between 1 (highest) and 5 (lowest)".to_owned())
}

/// `X-Priority`, which no standard has.
#[derive(Clone)]
struct Priority(u8);

impl Header for Priority {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("X-Priority")
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.parse()?))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.to_string())
    }
}

#[cfg(test)]
mod tests;
