//! What the host keeps for one instance of a guest: the blocks it may use, the call it serves, and its WASI state.

use std::sync::Arc;

use trilby_core::{Api, Ctx};
use trilby_wasm::{Grants, HostState, Limits, Logs, Meter};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::outgoing::{Outgoing, Routes};

/// What all instances of an app have in common.
pub(crate) struct Seed {
    pub(crate) api: Api,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
    pub(crate) logs: Logs,
    pub(crate) routes: Arc<Routes>,
    pub(crate) max_body_bytes: usize,
}

impl Seed {
    /// The state of a new instance.
    ///
    /// # Errors
    /// A granted folder cannot be opened.
    pub(crate) fn guest(self: &Arc<Self>) -> wasmtime::Result<Guest> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.limits.resources);
        Ok(Guest {
            outgoing: Outgoing::new(Arc::clone(&self.routes)),
            wasi: self.grants.context(&self.logs)?,
            http: WasiHttpCtx::new(),
            table,
            meter: Meter::new(&self.limits),
            seed: Arc::clone(self),
        })
    }
}

/// The data of a guest's store, and the receiver of every call it makes.
pub(crate) struct Guest {
    seed: Arc<Seed>,
    outgoing: Outgoing,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    meter: Meter,
}

impl Guest {
    /// Makes `ctx` the context of all that the guest does from now on.
    pub(crate) fn begin(&mut self, ctx: Ctx) {
        self.outgoing.ctx = ctx;
    }

    /// The blocks, and the context to use them in.
    pub(crate) fn blocks(&self) -> (&Api, &Ctx) {
        (&self.seed.api, &self.outgoing.ctx)
    }

    /// The host's things that the guest holds.
    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.seed.logs
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.seed.max_body_bytes
    }
}

impl HostState for Guest {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}
