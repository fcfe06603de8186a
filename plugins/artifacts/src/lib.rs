//! The stock plugins, built from source by the build script: their bytes, and where they are on disk.

/// A stock plugin.
#[derive(Clone, Copy)]
pub struct StockPlugin {
    /// What routes call it.
    pub name: &'static str,
    /// The module: a core module that carries its component type.
    pub wasm: &'static [u8],
    /// The same bytes on the disk of the machine that built this crate, for tests and tools that want a file.
    pub path: &'static str,
    /// Its largest size, in KiB, as its manifest has it.
    pub kib_max: usize,
}

/// All of them.
pub const ALL: &[StockPlugin] = include!(concat!(env!("OUT_DIR"), "/stock.rs"));

/// The one of this name.
pub fn by_name(name: &str) -> Option<&'static StockPlugin> {
    ALL.iter().find(|plugin| plugin.name == name)
}

impl std::fmt::Debug for StockPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.wasm.len())
    }
}
