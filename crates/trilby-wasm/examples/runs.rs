//! Measures what one run of a program costs: `cargo run --release --example runs -- 20000 tool.wasm arg …`. Loads it as
//! `bindings.wasm` does: what is big runs as baseline code first, and then optimised.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use trilby_wasm::{Capture, Command, Engine, Grants, Invocation, Limits, Options, Source};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let runs: u32 = args.next().ok_or("say how often it is to run")?.parse()?;
    let source = Source::parse(&args.next().ok_or("say which program is to run")?)?;
    let grants = Grants { args: std::iter::once(source.program_name()).chain(args).collect(), ..Grants::default() };
    let mut out = io::stdout();

    let engine = Engine::new(Options::default());
    let began = Instant::now();
    let loaded = engine.load_tiered(&source).await?;
    let command = Command::new(&engine, &loaded.program, Limits::default())?;
    writeln!(out, "ready after   {:>10.1?}", began.elapsed())?;
    if let Some(better) = loaded.better {
        measure(&command, &grants, runs).await?;
        let began = Instant::now();
        command.replace(&better.load().await?)?;
        writeln!(out, "optimised in  {:>10.1?}", began.elapsed())?;
    }
    measure(&command, &grants, runs).await
}

async fn measure(command: &Command, grants: &Grants, runs: u32) -> Outcome<()> {
    let mut out = io::stdout();
    let (began, used) = (Instant::now(), processor_time()?);
    let mut bytes = 0;
    for _ in 0..runs {
        let invocation =
            Invocation { grants: grants.clone(), capture: Capture::AtMost(1 << 20), ..Invocation::default() };
        bytes = command.run(invocation).await?.stdout.len();
    }
    let (took, used) = (began.elapsed() / runs, (processor_time()? - used) / runs);
    writeln!(out, "each run      {took:>10.1?}, of which processor {used:.1?}, {bytes} bytes of output")?;
    Ok(())
}

/// What this process has used, to a hundredth of a second.
fn processor_time() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).unwrap_or(&"0").parse::<u64>();
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
