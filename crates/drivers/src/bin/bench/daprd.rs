//! A daprd binary, ours or a peer's, with the components that a load needs.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use drivers::Result;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use crate::load::HttpConnection;

const STATE: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: mem }
spec: { type: state.in-memory, version: v1 }
";

/// Value of the item that is read: 100 bytes of JSON.
pub(crate) const ITEM: &str = r#"[{"key":"k","value":"vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"}]"#;

/// A running daprd. Killed when dropped.
pub(crate) struct Daprd {
    pub(crate) http_port: u16,
    pub(crate) grpc_port: u16,
    /// From start to the first healthy answer.
    pub(crate) ready_after: Duration,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Daprd {
    /// One with an in-memory state store that holds [`ITEM`].
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let daprd = Self::start_with(binary, STATE).await?;
        HttpConnection::open(daprd.http_port).await?.call("POST", "/v1.0/state/mem", ITEM).await?;
        Ok(daprd)
    }

    /// One with these components.
    pub(crate) async fn start_with(binary: &Path, components: &str) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        std::fs::write(folder.path().join("components.yaml"), components).map_err(|error| error.to_string())?;
        let [http_port, grpc_port, internal, metrics] =
            [free_port().await?, free_port().await?, free_port().await?, free_port().await?];
        let started = Instant::now();
        let child = Command::new(binary)
            .args(["--app-id", "bench", "--dapr-listen-addresses", "127.0.0.1", "--log-level", "error"])
            .args(["--dapr-http-port", &http_port.to_string(), "--dapr-grpc-port", &grpc_port.to_string()])
            .args(["--dapr-internal-grpc-port", &internal.to_string(), "--metrics-port", &metrics.to_string()])
            .arg("--resources-path")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut daprd = Self { http_port, grpc_port, ready_after: Duration::ZERO, child, _folder: folder };
        loop {
            if let Ok(mut connection) = HttpConnection::open(http_port).await
                && connection.call("GET", "/v1.0/healthz", "").await.is_ok()
            {
                daprd.ready_after = started.elapsed();
                return Ok(daprd);
            }
            let ended = daprd.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} did not become healthy", binary.display()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "daprd has ended".to_owned())
    }
}

/// A port that was free a moment ago.
pub(crate) async fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
