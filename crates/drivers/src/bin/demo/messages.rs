//! The acts in which nobody calls anybody: messages, configuration and a clock.

use std::time::{Duration, Instant};

use crate::{Result, client::Client, process::Site, story::step};

/// How long a message, a change or a tick may take to show.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sees what came of `order`, then changes prices and waits for the clock.
pub(crate) async fn tell(client: &Client, site: &Site, order: &str) -> Result<()> {
    let (took, _) = wait_for(client, &format!("/invoices/{order}"), |_| true).await?;
    step("GET /invoices/ORDER", took, "a message: the order was billed, through the outbox");

    site.configure(r#"{"discount": "20", "price-tea": "cheap"}"#)?;
    let (took, _) = wait_for(client, "/discount", |body| body.contains("20")).await?;
    step("discount 0 -> 20", took, "the file changed, and billing was told while it runs");

    let answer = client.call("POST", "/orders", r#"{"item": "tea", "quantity": 1}"#).await?.expect(201)?;
    let poison = answer.json()?["id"].as_str().ok_or("the order has no id")?.to_owned();
    let (took, _) = wait_for(client, &format!("/unbilled/{poison}"), |_| true).await?;
    step("an order that cannot be billed", took, "tried again for five seconds, then a dead letter");
    if client.call("GET", &format!("/invoices/{poison}"), "").await?.status != 404 {
        return Err(format!("order {poison} was billed although tea has no price"));
    }

    let (took, report) = wait_for(client, "/report", |_| true).await?;
    step("the nightly report", took, report.trim());
    Ok(())
}

/// Asks until the answer is 200 and its body `fits`; how long that took, and the body.
async fn wait_for(client: &Client, path: &str, fits: impl Fn(&str) -> bool) -> Result<(Duration, String)> {
    let started = Instant::now();
    loop {
        let answer = client.call("GET", path, "").await?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 && fits(&body) {
            return Ok((started.elapsed(), body));
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("GET {path} still answers {} {body:?} after {PATIENCE:?}", answer.status));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
