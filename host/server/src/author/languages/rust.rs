//! Rust: cargo, for `wasm32-unknown-unknown`. The SDK is the crate `quipu-plugin`, in `.quipu/sdk/rust`.

use std::env;
use std::path::PathBuf;

use serde_json::Value;

use super::Language;
use crate::author::embedded::{RUST_SDK, RUST_TEMPLATE};
use crate::author::job::{BuildError, Job};

const TARGET: &str = "wasm32-unknown-unknown";
/// The target has no randomness of its own but a browser's, whose functions no router has: the SDK gives it.
const RANDOM: &str = "--cfg=getrandom_backend=\"custom\"";

/// What an outer build or a user's shell says to cargo and the compiler about the host, not about plugins.
const UNHEARD: [&str; 5] =
    ["CARGO_BUILD_TARGET", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_LINKER"];

pub(crate) static RUST: Language = Language {
    name: "rust",
    source: "src/lib.rs",
    sdk: RUST_SDK,
    template: RUST_TEMPLATE,
    tools: &["cargo", TARGET],
    build,
};

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    // Is it there? Cargo would say that it cannot find `core`.
    job.toolbox.find(TARGET)?;
    let mut cargo = job.command("cargo")?;
    cargo.args(["build", "--quiet", "--lib", "--release", "--target", TARGET]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.args(["--color", if job.colours { "always" } else { "never" }]);
    for name in UNHEARD {
        cargo.env_remove(name);
    }
    // They outrank the flags of configuration files, which are meant for the host, and keep the author's home directory
    // out of the places that panics name.
    let flags = [Some(RANDOM.to_owned()), remap()];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.into_iter().flatten().collect::<Vec<_>>().join("\u{1f}"));
    if env::var_os("CARGO_TARGET_DIR").is_none() {
        cargo.env("CARGO_TARGET_DIR", job.project.work_dir().join("target"));
    }
    if job.debug {
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only").env("CARGO_PROFILE_RELEASE_STRIP", "none");
    }
    let answer = job.answer(cargo.args(job.args))?;
    let manifest = job.project.dir.join("Cargo.toml");
    let built = answer.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let module = built.filter_map(|message: Value| module_of(&message, &manifest)).next_back();
    module.ok_or_else(|| {
        let what = "Cargo.toml makes no module: the plugin is a library with `crate-type = [\"cdylib\"]`";
        BuildError::Wrong(what.into())
    })
}

/// The project's own module, where this is the message that tells of it.
fn module_of(message: &Value, manifest: &std::path::Path) -> Option<PathBuf> {
    let is_ours = message["reason"] == "compiler-artifact"
        && message["manifest_path"].as_str().is_some_and(|path| std::path::Path::new(path) == manifest);
    let files = message["filenames"].as_array().filter(|_| is_ours)?;
    files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

fn remap() -> Option<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    Some(format!("--remap-path-prefix={}=cargo", home.to_str()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_module_is_that_of_the_project() {
        let message = |manifest: &str| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": manifest,
                "filenames": ["/p/.quipu/target/big_quakes.d", "/p/.quipu/target/big_quakes.wasm"],
            })
        };
        let manifest = Path::new("/p/Cargo.toml");
        let found = module_of(&message("/p/Cargo.toml"), manifest);
        assert_eq!(found.as_deref(), Some(Path::new("/p/.quipu/target/big_quakes.wasm")));
        assert_eq!(module_of(&message("/p/.quipu/sdk/rust/Cargo.toml"), manifest), None);
        assert_eq!(module_of(&json!({ "reason": "build-finished" }), manifest), None);
    }
}
