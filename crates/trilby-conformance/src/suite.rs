//! Which cases run over which component and door, as tests by name: `state.in-memory/http/a_stale_etag_is_rejected`.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;

use crate::{
    cases::{Case, Running},
    client::Client,
};

/// A door, as the suite names it, and a client of it.
#[derive(Clone)]
pub struct Door {
    /// `embedded`, `http`, `grpc` or `wasm`.
    pub name: &'static str,
    /// Calls through it.
    pub client: Arc<dyn Client>,
}

/// A component that is open behind every door.
pub struct Subject {
    /// The component's resource name.
    pub component: String,
    /// How its tests are called: `state.in-memory`.
    pub label: String,
    /// What it says it can do, by Dapr's names.
    pub capabilities: Vec<&'static str>,
    /// Cases that it is not to pass.
    pub except: &'static [&'static str],
}

/// The tests of one component through one door. A case that needs what the component does not claim is not made.
pub fn trials(runtime: &Arc<Runtime>, subject: &Subject, door: &Door, cases: Vec<Case>) -> Vec<Trial> {
    let able = |case: &Case| case.needs.iter().all(|feature| subject.capabilities.contains(feature));
    let fits = |case: &Case| able(case) && !subject.except.contains(&case.name);
    let trial = |case: Case| {
        let name = format!("{}/{}/{}", subject.label, door.name, case.name);
        let (runtime, client, component) = (Arc::clone(runtime), Arc::clone(&door.client), subject.component.clone());
        Trial::test(name, move || run(&runtime, &*client, &component, case.run))
    };
    cases.into_iter().filter(fits).map(trial).collect()
}

fn run(
    runtime: &Runtime,
    client: &dyn Client,
    component: &str,
    case: for<'a> fn(&'a dyn Client, &'a str) -> Running<'a>,
) -> Result<(), Failed> {
    runtime.block_on(case(client, component)).map_err(Failed::from)
}
