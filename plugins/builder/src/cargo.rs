//! The inner cargo: what it is told, what it hears of the outer one, and what it answers.

use crate::{BuildError, Builder, TARGET};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Variables that begin with `CARGO` and do not depend on what the outer cargo builds: where crates come from, how
/// cargo speaks, and the jobs that both share.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_MAKEFLAGS",
    "CARGO_BUILD_JOBS",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];
/// Others that do. The wrapper would be clippy's, a coverage tool's or an editor's, which skip or change code.
const DROPPED: &[&str] = &[
    "CLIPPY_ARGS",
    "DEBUG",
    "HOST",
    "LLVM_PROFILE_FILE",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
];

/// The target has no randomness of its own but a browser's, whose functions no router has.
const RANDOM: &str = "--cfg=getrandom_backend=\"custom\"";

/// What cargo knows of a guest without building it.
pub(crate) struct Metadata {
    pub(crate) workspace_root: PathBuf,
    pub(crate) manifest: PathBuf,
    pub(crate) package: String,
}

/// One `cdylib` that was built.
pub(crate) struct Built {
    pub(crate) manifest: PathBuf,
    pub(crate) example: Option<String>,
    pub(crate) wasm: PathBuf,
}

pub(crate) fn metadata(dir: &Path) -> Result<Metadata, BuildError> {
    let manifest = fs::canonicalize(dir.join("Cargo.toml"))
        .map_err(|error| BuildError::NoGuest { dir: dir.to_owned(), problem: format!("Cargo.toml: {error}") })?;
    let mut command = inner_cargo();
    command.args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"]).arg(&manifest);
    let answer = run(&mut command)?;
    let bad = |problem: &str| BuildError::Answer { command: describe(&command), problem: problem.into() };
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| bad(&error.to_string()))?;
    let workspace_root = answer["workspace_root"].as_str().ok_or_else(|| bad("no workspace root"))?.into();
    let packages = answer["packages"].as_array().ok_or_else(|| bad("no packages"))?;
    let package = packages.iter().find(|package| is_path(&package["manifest_path"], &manifest));
    let package =
        package.and_then(|package| package["name"].as_str()).ok_or_else(|| bad("the package is not in it"))?;
    Ok(Metadata { workspace_root, package: package.to_owned(), manifest })
}

/// Builds packages of one workspace: their libraries, or an example of that name.
pub(crate) fn build(
    builder: &Builder,
    workspace_root: &Path,
    packages: &BTreeSet<&str>,
    example: Option<&str>,
) -> Result<Vec<Built>, BuildError> {
    let mut command = inner_cargo();
    command.args([
        "build",
        "--target",
        TARGET,
        "--profile",
        &builder.profile,
        "--message-format=json-render-diagnostics",
    ]);
    command.arg("--target-dir").arg(&builder.target_dir);
    // From the root, so that its toolchain and cargo configuration count, and paths in panics are relative to it.
    command.current_dir(workspace_root);
    if workspace_root.join("Cargo.lock").exists() {
        command.arg("--locked");
    }
    match example {
        Some(name) => command.args(["--example", name]),
        None => command.arg("--lib"),
    };
    for package in packages {
        command.args(["--package", package]);
    }
    let answer = run(&mut command)?;
    let bad = |problem: String| BuildError::Answer { command: describe(&command), problem };
    let mut built = Vec::new();
    for line in answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
        built.extend(artifact_of(&message));
    }
    Ok(built)
}

fn artifact_of(message: &Value) -> Option<Built> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let has =
        |key: &str, value: &str| message["target"][key].as_array().is_some_and(|all| all.iter().any(|v| v == value));
    let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
    let wasm = files.map(Path::new).find(|file| file.extension() == Some(OsStr::new("wasm")))?;
    let name = message["target"]["name"].as_str()?;
    has("crate_types", "cdylib").then(|| Built {
        manifest: message["manifest_path"].as_str().unwrap_or_default().into(),
        example: has("kind", "example").then(|| name.to_owned()),
        wasm: wasm.to_owned(),
    })
}

/// A cargo of the same toolchain that hears as little as possible of the outer one.
fn inner_cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if !is_inherited(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    // It also outranks the flags of configuration files, which are meant for the host.
    // What it says has `getrandom` ask the SDK, where a guest has that in it, and keeps the home directory of whoever
    // builds out of the places that panics name.
    let flags = [Some(RANDOM.to_owned()), remap()];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.into_iter().flatten().collect::<Vec<_>>().join("\u{1f}"));
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn is_inherited(name: &str) -> bool {
    if name.starts_with("CARGO") {
        // Whole names end in a letter, prefixes in `_`.
        KEPT.iter().any(|kept| if kept.ends_with('_') { name.starts_with(kept) } else { name == *kept })
    } else {
        !DROPPED.contains(&name) && !name.starts_with("DEP_")
    }
}

fn remap() -> Option<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    Some(format!("--remap-path-prefix={}=cargo", home.to_str()?))
}

fn run(command: &mut Command) -> Result<Vec<u8>, BuildError> {
    let output = command.output().map_err(|source| BuildError::Io { path: command.get_program().into(), source })?;
    if output.status.success() { Ok(output.stdout) } else { Err(BuildError::Failed { command: describe(command) }) }
}

fn describe(command: &Command) -> String {
    let args = command.get_args().map(OsStr::to_string_lossy);
    format!("`cargo {}`", args.collect::<Vec<_>>().join(" "))
}

/// Cargo may spell the path of a manifest differently where links are on the way.
fn is_path(said: &Value, manifest: &Path) -> bool {
    said.as_str().is_some_and(|said| fs::canonicalize(said).is_ok_and(|said| said == manifest))
}

#[cfg(test)]
mod tests {
    use super::{artifact_of, is_inherited};
    use serde_json::json;

    #[test]
    fn hears_little_of_the_outer_cargo() {
        for name in [
            "PATH",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_X_INDEX",
            "CARGO_MAKEFLAGS",
            "RUSTC",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_inherited(name), "{name}");
        }
        for name in [
            "CARGO",
            "CARGO_HOME_X",
            "CARGO_TARGET_DIR",
            "CARGO_CFG_UNIX",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "DEP_Z_ROOT",
            "OUT_DIR",
        ] {
            assert!(!is_inherited(name), "{name}");
        }
    }

    #[test]
    fn reads_what_was_built() {
        let message = |kind, types| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": "/w/p/Cargo.toml",
                "target": { "name": "p-q", "kind": [kind], "crate_types": [types] },
                "filenames": ["/t/libp_q.rlib", "/t/p_q.wasm"],
            })
        };
        let built = artifact_of(&message("cdylib", "cdylib")).unwrap();
        assert_eq!((built.wasm.to_str(), built.example), (Some("/t/p_q.wasm"), None));
        assert_eq!(artifact_of(&message("example", "cdylib")).unwrap().example.as_deref(), Some("p-q"));
        assert!(artifact_of(&message("bin", "bin")).is_none());
        assert!(artifact_of(&json!({ "reason": "build-finished" })).is_none());
    }
}
