//! The steps of the demo.

use std::time::{Duration, Instant};

use drivers::{cpu_time, resident_kib};
use futures_util::future::join_all;

use crate::{
    Options, Result,
    client::Client,
    messages,
    process::{Services, Site},
    sockets::Watch,
};

/// How many clients order at once, and how much there is to order.
const BUYERS: usize = 64;
const GOODS: usize = 50;
/// How long and by how many clients the throughput is measured.
const LOAD: Duration = Duration::from_secs(3);
const LOAD_CLIENTS: usize = 16;
const SERVICES: u64 = 4;

/// Tells it, and checks every claim on the way.
pub(crate) async fn tell(options: Options) -> Result<()> {
    let site = Site::prepare(&options).await?;
    let told = tell_at(&site, options).await;
    told.map_err(|problem| format!("{problem}\n\nthe end of the services' log:\n{}", site.end_of_log()))
}

async fn tell_at(site: &Site, options: Options) -> Result<()> {
    println!("\nOrders: four Wasm services in one process, state in SQLite, a secret from a file\n");
    let (services, first) = site.start().await?;
    step("start", first, "four services compiled, started and answering");
    let client = Client::new(site.port);
    let watch = Watch::start(services.pid()?, site.port)?;

    let order = order(&client).await?;
    sell_out(&client).await?;
    rush(&client).await?;
    messages::tell(&client, site, &order).await?;
    let rate = load(&client, &services).await?;
    let sockets = watch.finish()?;
    let resident = resident_kib(services.pid()?)?;
    services.kill().await?;

    let (services, again) = site.start().await?;
    let answer = client.call("GET", &format!("/orders/{order}"), "").await?.expect(200)?;
    step("kill -9 and restart", again, "compiled code comes from the cache");
    step(&format!("GET /orders/{order}"), answer.took, "the order is still there");

    println!("\nmemory     {:.1} MiB resident, {:.1} MiB per service", mib(resident), mib(resident) / SERVICES as f64);
    println!("rate       {rate}");
    println!(
        "sockets    {} opened for capability calls; {} for HTTP to the storefront ({} looks, every millisecond)",
        sockets.other, sockets.http, sockets.looks
    );
    if sockets.other > 0 && options.pubsub.is_none() {
        return Err("a call from a service to a block or to another service opened a socket".to_owned());
    }
    if options.stay {
        stay(site.port, services).await?;
    }
    Ok(())
}

/// Places an order and reads it back. Returns its id.
async fn order(client: &Client) -> Result<String> {
    let answer = client.call("PUT", "/stock/tea", r#"{"quantity": 3}"#).await?.expect(200)?;
    step("PUT /stock/tea 3", answer.took, "HTTP in, one service calls another, state written");
    let answer = client.call("POST", "/orders", r#"{"item": "tea", "quantity": 2}"#).await?.expect(201)?;
    let id = answer.json()?["id"].as_str().ok_or("the order has no id")?.to_owned();
    step(
        "POST /orders 2 tea -> 201",
        answer.took,
        "secret read, stock taken under its etag, order and index in one transaction",
    );
    let answer = client.call("GET", "/orders", "").await?.expect(200)?;
    let listed = answer.json()?.as_array().is_some_and(|ids| ids.iter().any(|listed| *listed == id));
    if !listed {
        return Err(format!("order {id} is not in the index"));
    }
    step("GET /orders", answer.took, "the index has it");
    Ok(id)
}

/// Orders more than is left.
async fn sell_out(client: &Client) -> Result<()> {
    let answer = client.call("POST", "/orders", r#"{"item": "tea", "quantity": 2}"#).await?.expect(409)?;
    step("POST /orders 2 tea -> 409", answer.took, String::from_utf8_lossy(&answer.body).trim());
    let answer = client.call("GET", "/stock/tea", "").await?.expect(200)?;
    let left = answer.json()?["quantity"].as_u64();
    if left != Some(1) {
        return Err(format!("{left:?} tea left instead of 1"));
    }
    step("GET /stock/tea", answer.took, "one is left: nothing was sold twice");
    Ok(())
}

/// Many buyers at once.
async fn rush(client: &Client) -> Result<()> {
    client.call("PUT", "/stock/hat", r#"{"quantity": 50}"#).await?.expect(200)?;
    let started = Instant::now();
    let orders = (0..BUYERS).map(|_| client.call("POST", "/orders", r#"{"item": "hat", "quantity": 1}"#));
    let statuses: Vec<_> =
        join_all(orders).await.into_iter().map(|answer| answer.map(|answer| answer.status)).collect();
    let took = started.elapsed();
    let count = |status| statuses.iter().filter(|answer| **answer == Ok(status)).count();
    let (sold, refused) = (count(201), count(409));
    if (sold, refused) != (GOODS, BUYERS - GOODS) {
        return Err(format!("{sold} sold and {refused} refused of {BUYERS}; the answers: {statuses:?}"));
    }
    let proof = format!("exactly {sold} sold, {refused} refused");
    step(&format!("{BUYERS} orders at once for {GOODS} hats"), took, &proof);
    Ok(())
}

/// Reads stock as fast as a few clients can.
async fn load(client: &Client, services: &Services) -> Result<String> {
    let before = cpu_time(services.pid()?)?;
    let started = Instant::now();
    let readers = (0..LOAD_CLIENTS).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < LOAD {
                took.push(client.call("GET", "/stock/tea", "").await?.expect(200)?.took);
            }
            Ok::<_, String>(took)
        })
    });
    let mut took = Vec::new();
    for reader in join_all(readers).await {
        took.extend(reader.map_err(|error| error.to_string())??);
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = (cpu_time(services.pid()?)? - before).as_secs_f64();
    took.sort_unstable();
    let requests = took.len() as f64;
    Ok(format!(
        "{:.0} requests/s ({:.0} per CPU second) through two services and SQLite; p50 {:.2} ms, p99 {:.2} ms",
        requests / seconds,
        requests / cpu_seconds,
        millis(took[took.len() / 2]),
        millis(took[took.len() * 99 / 100]),
    ))
}

async fn stay(port: u16, services: Services) -> Result<()> {
    println!("\nThe services stay up; ctrl-c ends them. Try:");
    println!("  curl -X PUT localhost:{port}/stock/tea -d '{{\"quantity\": 3}}'");
    println!("  curl -i     localhost:{port}/orders    -d '{{\"item\": \"tea\", \"quantity\": 2}}'");
    println!("  curl        localhost:{port}/orders");
    services.wait().await
}

pub(crate) fn step(what: &str, took: Duration, proof: &str) {
    println!("  {what:<34} {:>9.2} ms   {proof}", millis(took));
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
