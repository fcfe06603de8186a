//! Builds plugin crates for WebAssembly, from build scripts and from tests.
//!
//! ```no_run
//! use quipu_plugin_builder::{Builder, GuestCrate};
//!
//! let artifacts = Builder::for_build_script()?.build(&[GuestCrate::at("../filter-json")])?;
//! println!("cargo:rustc-env=FILTER_JSON={}", artifacts[0].wasm.display());
//! # Ok::<_, quipu_plugin_builder::BuildError>(())
//! ```
//!
//! It runs a cargo of its own, which shares nothing with the outer one but the toolchain, the downloaded crates and the
//! jobs: not the flags (a `-C target-cpu=native` or clippy's wrapper would break or rebuild the guests), and not the
//! target directory, whose lock the outer cargo holds. The one it uses, `plugins-wasm` inside of the outer one, is
//! common to all callers and profiles, so that it stays warm; callers at the same time wait for each other.
//!
//! It does not encode components: a core module that carries its component type is what the router takes.

mod cargo;
mod dep_info;
mod toolchain;

use cargo::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs, io};
use thiserror::Error;

/// The target of all plugins.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The profile of the guests' workspace that they are built with, unless told otherwise.
const PROFILE: &str = "plugin";
/// The target directory of the guests, inside of the outer one.
const DIRECTORY: &str = "plugins-wasm";

/// A crate that is to become a plugin: its library, or one of its examples, of type `cdylib`.
#[derive(Clone, Debug)]
pub struct GuestCrate {
    dir: PathBuf,
    example: Option<String>,
}

impl GuestCrate {
    /// The library of the package in this directory; relative to the current one, which in build scripts and tests is
    /// that of their own package.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), example: None }
    }

    /// An example of the package instead of its library.
    #[must_use]
    pub fn example(self, name: impl Into<String>) -> Self {
        Self { example: Some(name.into()), ..self }
    }
}

/// A plugin that was built.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Name of the package, or of the example.
    pub name: String,
    /// The core module, with its component type inside. A later build replaces it: copy what is to stay.
    pub wasm: PathBuf,
    /// Every file that it was made from, down to the contract: sources and manifests.
    pub sources: Vec<PathBuf>,
}

impl Artifact {
    /// The bytes of the module.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn bytes(&self) -> Result<Vec<u8>, BuildError> {
        fs::read(&self.wasm).map_err(|source| BuildError::Io { path: self.wasm.clone(), source })
    }

    /// Hands the path of the module to the crate of the build script: `quipu-guest-x` is found by
    /// `env!("WASM_QUIPU_GUEST_X")`.
    pub fn set_env(&self) {
        println!("cargo:rustc-env={}={}", self.env_name(), self.wasm.display());
    }

    fn env_name(&self) -> String {
        format!("WASM_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

/// Why there is no plugin.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Called outside of a build script.
    #[error("OUT_DIR is not set: only build scripts have one, others name a directory")]
    NoOutDir,
    /// The guest is not where it was said to be, or has no such library or example.
    #[error("no plugin in {}: {problem}", dir.display())]
    NoGuest {
        /// Where it was looked for.
        dir: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The toolchain cannot build for WebAssembly, and could not be taught to.
    #[error(
        "the Rust toolchain in {} has no standard library for {TARGET}, and {problem}\n\
         install it: `rustup target add {TARGET}`, for the toolchain that runs this build; without rustup it is a \
         package of the distribution (Debian: libstd-rust-dev-wasm32, Fedora: rust-std-static-{TARGET})",
        sysroot.display()
    )]
    NoTarget {
        /// The root of the toolchain.
        sysroot: PathBuf,
        /// Why it could not be added.
        problem: String,
    },
    /// A tool failed, and has said why on standard error.
    #[error("{command} failed; its own words are above")]
    Failed {
        /// The command line.
        command: String,
    },
    /// A tool gave an answer that makes no sense.
    #[error("{command} gave an unexpected answer: {problem}")]
    Answer {
        /// The command line.
        command: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or a tool could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or the tool.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Builds guests; see the crate's own words.
#[derive(Debug)]
pub struct Builder {
    target_dir: PathBuf,
    profile: String,
    announces: bool,
}

impl Builder {
    /// For build scripts: tells cargo on standard output to run the script again when a source of a guest changes.
    ///
    /// # Errors
    ///
    /// There is no `OUT_DIR`.
    pub fn for_build_script() -> Result<Self, BuildError> {
        let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or(BuildError::NoOutDir)?);
        let triple = env::var("TARGET").unwrap_or_default();
        Ok(Self { announces: true, ..Self::in_target_dir(&outer_target_dir(&out_dir, &triple)) })
    }

    /// For tests, which know the outer target directory otherwise: it is the parent of `env!("CARGO_TARGET_TMPDIR")`.
    pub fn in_target_dir(outer: &Path) -> Self {
        Self { target_dir: outer.join(DIRECTORY), profile: PROFILE.into(), announces: false }
    }

    /// Uses another profile than `plugin`, for guests whose workspace has none of that name.
    #[must_use]
    pub fn profile(self, profile: impl Into<String>) -> Self {
        Self { profile: profile.into(), ..self }
    }

    /// Builds these guests, and gives them back in the same order. Guests of one workspace are built together.
    ///
    /// # Errors
    ///
    /// The toolchain cannot build for WebAssembly, or a guest does not compile.
    pub fn build(&self, guests: &[GuestCrate]) -> Result<Vec<Artifact>, BuildError> {
        fs::create_dir_all(&self.target_dir)
            .map_err(|source| BuildError::Io { path: self.target_dir.clone(), source })?;
        toolchain::ensure_target(&self.target_dir)?;
        let known = guests.iter().map(|guest| cargo::metadata(&guest.dir)).collect::<Result<Vec<_>, _>>()?;
        let mut groups = BTreeMap::<_, BTreeSet<&str>>::new();
        for (guest, known) in guests.iter().zip(&known) {
            groups.entry((&known.workspace_root, &guest.example)).or_default().insert(&known.package);
        }
        let mut built = Vec::new();
        for ((root, example), packages) in groups {
            built.extend(cargo::build(self, root, &packages, example.as_deref())?);
        }
        guests.iter().zip(&known).map(|(guest, known)| self.artifact(guest, known, &built)).collect()
    }

    fn artifact(&self, guest: &GuestCrate, known: &Metadata, built: &[cargo::Built]) -> Result<Artifact, BuildError> {
        let made = built.iter().find(|built| built.manifest == known.manifest && guest.example == built.example);
        let Some(cargo::Built { wasm, .. }) = made else {
            let problem = "its library or example is no `cdylib`".into();
            return Err(BuildError::NoGuest { dir: guest.dir.clone(), problem });
        };
        let sources = dep_info::sources(wasm, &known.workspace_root)?;
        if self.announces {
            for source in &sources {
                println!("cargo:rerun-if-changed={}", source.display());
            }
        }
        let name = guest.example.clone().unwrap_or_else(|| known.package.clone());
        Ok(Artifact { name, wasm: wasm.clone(), sources })
    }
}

/// The target directory that a build script runs in: `…/PROFILE/build/PACKAGE-HASH/out`, where the outer build names
/// its target `…/TRIPLE/PROFILE/build/PACKAGE-HASH/out`. Should cargo ever order them otherwise, `OUT_DIR` serves.
fn outer_target_dir(out_dir: &Path, triple: &str) -> PathBuf {
    let build = out_dir.ancestors().skip(1).find(|dir| dir.file_name().is_some_and(|name| name == "build"));
    let Some(above_profile) = build.and_then(Path::parent).and_then(Path::parent) else {
        return out_dir.to_owned();
    };
    let named_for_target = above_profile.file_name().is_some_and(|name| name == triple);
    if named_for_target { above_profile.parent().unwrap_or(above_profile).to_owned() } else { above_profile.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Artifact, outer_target_dir};
    use std::path::Path;

    #[test]
    fn finds_the_outer_target_dir() {
        let found = |out_dir| outer_target_dir(Path::new(out_dir), "x86_64-unknown-linux-gnu").display().to_string();
        assert_eq!(found("/w/target/debug/build/tests-1f/out"), "/w/target");
        assert_eq!(found("/w/build/release/build/tests-1f/out"), "/w/build");
        assert_eq!(found("/t/x86_64-unknown-linux-gnu/debug/build/tests-1f/out"), "/t");
        assert_eq!(found("/t/debug/build/tests/1f/out"), "/t");
        assert_eq!(found("/elsewhere/out"), "/elsewhere/out");
    }

    #[test]
    fn names_the_variable() {
        let artifact = Artifact { name: "quipu-guest-x".into(), wasm: "x.wasm".into(), sources: Vec::new() };
        assert_eq!(artifact.env_name(), "WASM_QUIPU_GUEST_X");
    }
}
