//! How much was billed: kept up to date by messages, written down every night.

use serde::{Deserialize, Serialize};

use crate::{
    invoices::Invoice,
    store,
    trilby::dapr::types::{Error, ErrorKind},
};

const TOTALS: &str = "totals";
const REPORT: &str = "report";
/// How many of the last invoices are remembered, so that a message that comes twice counts once.
const REMEMBERED: usize = 1000;

#[derive(Default, Serialize, Deserialize)]
struct Totals {
    invoices: u64,
    cents: u64,
    last: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    time: Option<String>,
    invoices: u64,
    cents: u64,
}

/// Adds invoices, all of them in one write. If another instance did so meanwhile, begins again with what is there now.
pub fn add(invoices: &[Invoice]) -> Result<(), Error> {
    loop {
        let (mut totals, etag) = store::read_versioned::<Totals>(TOTALS)?;
        for invoice in invoices {
            if !totals.last.contains(&invoice.id) {
                totals.invoices += 1;
                totals.cents += invoice.cents;
                totals.last.push(invoice.id.clone());
            }
        }
        totals.last.drain(..totals.last.len().saturating_sub(REMEMBERED));
        match store::save_unchanged(TOTALS, &totals, etag) {
            Err(error) if error.kind == ErrorKind::Conflict => continue,
            done => return done,
        }
    }
}

/// Writes down what was billed up to now.
pub fn write_report(time: Option<String>) -> Result<(), Error> {
    let (Totals { invoices, cents, .. }, _) = store::read_versioned(TOTALS)?;
    store::save(REPORT, &Report { time, invoices, cents })
}

/// The last report.
pub fn report() -> Result<Option<Vec<u8>>, Error> {
    store::read(REPORT)
}
