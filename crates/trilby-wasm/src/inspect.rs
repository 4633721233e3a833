//! What a program imports and exports, as data: for people to read and for checks before it runs.

use std::collections::BTreeMap;
use std::fmt;

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{ExternType, Module};

/// The two sides of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// What it needs from its host.
    pub imports: Side,
    /// What it offers.
    pub exports: Side,
}

/// One side: interfaces in the order of the file, and what belongs to no interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Interfaces, such as `wasi:http/types@0.2.3`. For a core module: the modules it imports from.
    pub interfaces: Vec<Interface>,
    /// Functions outside of any interface.
    pub functions: Vec<Function>,
    /// Other things outside of any interface: types, memories, globals.
    pub others: Vec<String>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name without the version: `wasi:http/types`.
    pub name: String,
    /// Version, if the name has one: `0.2.3`.
    pub version: Option<String>,
    /// Its functions, methods included: `[method]fields.get`.
    pub functions: Vec<Function>,
    /// Its resources and other types by name; for a core module its memories, tables and globals.
    pub types: Vec<String>,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name within its interface.
    pub name: String,
    /// Whether it is an `async` function of WASI 0.3.
    pub is_async: bool,
}

impl Side {
    /// The interface of this name, in any version.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }
}

impl Interface {
    fn new(full_name: &str) -> Self {
        let (name, version) = match full_name.split_once('@') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (full_name, None),
        };
        Self { name: name.to_owned(), version, ..Self::default() }
    }
}

/// The name as it stands in the program: `wasi:http/types@0.2.3`.
impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

impl Surface {
    pub(crate) fn of_component(component: &Component) -> Self {
        let engine = component.engine();
        let ty = component.component_type();
        let mut surface = Self::default();
        for (name, import) in ty.imports(engine) {
            surface.imports.add(engine, name, &import.ty);
        }
        for (name, export) in ty.exports(engine) {
            surface.exports.add(engine, name, &export.ty);
        }
        surface
    }

    pub(crate) fn of_module(module: &Module) -> Self {
        let mut modules: BTreeMap<&str, Interface> = BTreeMap::new();
        for import in module.imports() {
            let interface = modules.entry(import.module()).or_insert_with(|| Interface::new(import.module()));
            match import.ty() {
                ExternType::Func(_) => interface.functions.push(Function::sync(import.name())),
                _ => interface.types.push(import.name().to_owned()),
            }
        }
        let mut surface = Self::default();
        surface.imports.interfaces = modules.into_values().collect();
        for export in module.exports() {
            match export.ty() {
                ExternType::Func(_) => surface.exports.functions.push(Function::sync(export.name())),
                _ => surface.exports.others.push(export.name().to_owned()),
            }
        }
        surface
    }
}

impl Side {
    fn add(&mut self, engine: &wasmtime::Engine, name: &str, item: &ComponentItem) {
        match item {
            ComponentItem::ComponentInstance(instance) => {
                let mut interface = Interface::new(name);
                for (name, item) in instance.exports(engine) {
                    match item.ty {
                        ComponentItem::ComponentFunc(function) => {
                            interface.functions.push(Function { name: name.to_owned(), is_async: function.async_() });
                        }
                        _ => interface.types.push(name.to_owned()),
                    }
                }
                self.interfaces.push(interface);
            }
            ComponentItem::ComponentFunc(function) => {
                self.functions.push(Function { name: name.to_owned(), is_async: function.async_() });
            }
            _ => self.others.push(name.to_owned()),
        }
    }
}

impl Function {
    fn sync(name: &str) -> Self {
        Self { name: name.to_owned(), is_async: false }
    }
}
