//! What wasmtime is told, and why.

#[cfg(feature = "compiler")]
use wasmtime::Strategy;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Addresses behind a memory in which a stray access is caught. Wasmtime's own default.
const GUARD_BYTES: u64 = 32 << 20;

/// The largest table a guest can have in the pool; more than any toolchain is known to make.
const POOL_TABLE_ELEMENTS: usize = 100_000;

/// Most that an unused slot of the pool keeps of a memory, and of a table.
const KEPT_BYTES: usize = 256 << 10;

/// Memories keep 4 GiB of addresses each. Then code needs no bounds checks, and any memory limit fits. A process has
/// 128 TiB of addresses, so thousands of them fit; only touched pages cost memory.
pub(super) fn pooling(max_instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(max_instances)
        // A store keeps the stack of its last call.
        .total_stacks(max_instances)
        // A guest may be composed of several components, and each is several core instances: the program, its adapters
        // and the glue between them.
        .total_component_instances(max_instances.saturating_mul(4))
        .total_core_instances(max_instances.saturating_mul(16))
        .total_tables(max_instances.saturating_mul(4))
        .max_tables_per_module(16)
        .max_memories_per_module(16)
        .table_elements(POOL_TABLE_ELEMENTS)
        // Room for the bookkeeping of big guests, such as interpreters; it is a bound, not a reservation.
        .max_core_instance_size(16 << 20)
        .max_component_instance_size(16 << 20);
    // Where the kernel can tell which pages were written, up to so many are made good and kept: an instance for each call
    // then costs about half of what it does with fresh pages. Elsewhere all that is kept would be written, each time.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(KEPT_BYTES).table_keep_resident(KEPT_BYTES);
    }

    let mut config = common();
    config
        .memory_reservation(4 << 30)
        .memory_guard_size(GUARD_BYTES)
        .memory_may_move(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Memories take the addresses they need and move when they outgrow them, for systems where addresses are scarce.
pub(super) fn on_demand() -> Config {
    let mut config = common();
    config
        .memory_reservation(16 << 20)
        .memory_reservation_for_growth(16 << 20)
        .memory_guard_size(64 << 10)
        .memory_may_move(true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config
}

/// Compiles several times faster, to code that is several times slower. It is used for seconds, so its instances need no
/// pool; memories are laid out as those of the other engine are.
#[cfg(feature = "compiler")]
pub(super) fn baseline(is_pooling: bool) -> Config {
    let mut config = on_demand();
    if is_pooling {
        config.memory_reservation(4 << 30).memory_guard_size(GUARD_BYTES).memory_may_move(false);
    }
    config.strategy(Strategy::Winch);
    config
}

fn common() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model_async(true)
        .memory_init_cow(true)
        // Interpreters carry an initial memory of tens of megabytes; mapping it beats copying it for each instance.
        .memory_guaranteed_dense_image_size(64 << 20);
    // Only native debuggers read it, and it makes compiled files a fifth larger. Windows cannot do without.
    #[cfg(not(windows))]
    config.native_unwind_info(false);
    config
}
