//! Temporary.
use trilby_wasm::*;
#[tokio::main]
async fn main() {
    let engine = Engine::new(Options::default());
    #[cfg(feature = "compiler")]
    std::fs::write("/tmp/adhoc/g.cwasm", engine.precompile("g", &wat::parse_str("(component (core module $m (func (export \"one\") (result i32) (i32.const 1))) (core instance $i (instantiate $m)) (func (export \"one\") (result u32) (canon lift (core func $i \"one\"))))").unwrap()).unwrap()).unwrap();
    println!("{:?}", engine.load(&Source::File("/tmp/adhoc/g.cwasm".into())).await.map(|p| p.surface()));
}
