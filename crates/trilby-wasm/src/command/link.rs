//! What a command is linked with, WASI and HTTP if it asks for that, and what the host keeps for one run.

use wasmtime::component::{self, ResourceTable};
use wasmtime::{InstancePre, Linker, ModuleExport};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::draft::{self, Draft};
use super::outgoing::Outgoing;
use crate::error::{LoadError, LoadReason};
use crate::limits::{HostState, Meter};
use crate::program::{Kind, Program};

/// Where a preview 1 command begins.
const START: &str = "_start";

/// What a preview 1 program imports from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// A program that can be run.
pub(super) struct Linked {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) speaks_http: bool,
    pub(super) entry: Entry,
}

pub(super) enum Entry {
    Module { pre: InstancePre<ModuleState>, start: ModuleExport },
    Component(CommandPre<ComponentState>),
}

impl Linked {
    pub(super) fn new(program: &Program) -> Result<Self, LoadError> {
        let link = || {
            let imports = program.surface().imports;
            let (speaks_http, entry) = match program.kind() {
                Kind::Module => {
                    let speaks_http = imports.interface(draft::HANDLER).is_some();
                    (speaks_http, link_module(program, speaks_http)?)
                }
                Kind::Component => {
                    let speaks_http =
                        imports.interfaces.iter().any(|interface| interface.name.starts_with("wasi:http/"));
                    (speaks_http, link_component(program, speaks_http)?)
                }
            };
            Ok(Self { wasmtime: program.wasmtime().clone(), speaks_http, entry })
        };
        link().map_err(|error| LoadReason::Link(error).of(program.name()))
    }
}

fn link_module(program: &Program, speaks_http: bool) -> wasmtime::Result<Entry> {
    let module = program.module()?;
    let Some(start) = module.get_export_index(START) else {
        return Err(wasmtime::format_err!("it exports no {START}, so it is a library and not a command"));
    };
    let mut linker = Linker::new(program.wasmtime());
    p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
    // Wasmtime's own takes codes from 126 on for an error of the host; programs say them all the same.
    linker.allow_shadowing(true);
    linker.func_wrap(PREVIEW_1, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) })?;
    if speaks_http {
        draft::add_to_linker(&mut linker)?;
    }
    Ok(Entry::Module { pre: linker.instantiate_pre(module)?, start })
}

fn link_component(program: &Program, speaks_http: bool) -> wasmtime::Result<Entry> {
    let mut linker = component::Linker::new(program.wasmtime());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    if speaks_http {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    }
    Ok(Entry::Component(CommandPre::new(linker.instantiate_pre(program.component()?)?)?))
}

pub(super) struct ModuleState {
    pub(super) wasi: WasiP1Ctx,
    /// There if the program speaks HTTP.
    pub(super) draft: Option<Box<Draft>>,
    pub(super) meter: Meter,
}

impl HostState for ModuleState {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

pub(super) struct ComponentState {
    pub(super) wasi: WasiCtx,
    pub(super) http: WasiHttpCtx,
    pub(super) outgoing: Outgoing,
    pub(super) table: ResourceTable,
    pub(super) meter: Meter,
}

impl HostState for ComponentState {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}
