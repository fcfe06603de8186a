//! The standard library for WebAssembly: looked for in the toolchain at hand, and added by rustup where it is missing.

use crate::{BuildError, TARGET};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Sees to it that the toolchain in use can build for [`TARGET`]. `lock_dir` holds a lock file, for two build scripts
/// may find it missing at the same time.
pub(crate) fn ensure_target(lock_dir: &Path) -> Result<(), BuildError> {
    let sysroot = sysroot()?;
    if has_target(&sysroot) {
        return Ok(());
    }
    let path = lock_dir.join("add-target.lock");
    let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
    let _held = lock.map_err(|source| BuildError::Io { path, source })?;
    add_target(sysroot, || {
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", TARGET]);
        if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
            rustup.arg("--toolchain").arg(toolchain);
        }
        // Whatever a build script prints to standard output is for the outer cargo.
        rustup.stdin(Stdio::null()).stdout(Stdio::null());
        match rustup.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err("`rustup target add` failed; its own words are above".into()),
            Err(error) => Err(format!("there is no rustup to add it: {error}")),
        }
    })
}

/// Adds the target unless someone else has done so meanwhile.
fn add_target(sysroot: PathBuf, add: impl FnOnce() -> Result<(), String>) -> Result<(), BuildError> {
    if has_target(&sysroot) {
        return Ok(());
    }
    let problem = match add() {
        Ok(()) if has_target(&sysroot) => return Ok(()),
        Ok(()) => "rustup added it to another toolchain".to_owned(),
        Err(problem) => problem,
    };
    Err(BuildError::NoTarget { sysroot, problem })
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

fn sysroot() -> Result<PathBuf, BuildError> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let output = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| BuildError::Io { path: rustc.into(), source })?;
    let command = || "`rustc --print sysroot`".to_owned();
    if !output.status.success() {
        return Err(BuildError::Failed { command: command() });
    }
    let path = str::from_utf8(&output.stdout)
        .map_err(|error| BuildError::Answer { command: command(), problem: error.to_string() })?;
    Ok(PathBuf::from(path.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::{add_target, has_target};
    use crate::TARGET;
    use std::fs;

    #[test]
    fn adds_what_is_missing_once() {
        let sysroot = tempfile::tempdir().unwrap();
        let root = sysroot.path().to_owned();
        let library = root.join("lib/rustlib").join(TARGET).join("lib");
        add_target(root.clone(), || fs::create_dir_all(library).map_err(|error| error.to_string())).unwrap();
        assert!(has_target(&root));
        add_target(root, || panic!("it is there")).unwrap();
    }

    #[test]
    fn says_what_to_do() {
        let sysroot = tempfile::tempdir().unwrap();
        let root = sysroot.path().to_owned();
        let error = add_target(root.clone(), || Err("there is no rustup".into())).unwrap_err().to_string();
        assert!(
            error.contains("there is no rustup") && error.contains(&format!("`rustup target add {TARGET}`")),
            "{error}"
        );
        let error = add_target(root, || Ok(())).unwrap_err().to_string();
        assert!(error.contains("another toolchain"), "{error}");
    }
}
