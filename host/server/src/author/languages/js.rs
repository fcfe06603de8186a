//! JavaScript: `build.mjs` of the SDK bundles the modules with esbuild and puts them into QuickJS, by componentize-qjs.

use std::path::{Path, PathBuf};

use super::Language;
use crate::author::embedded::{JS_SDK, JS_TEMPLATE};
use crate::author::job::{BuildError, Job};

pub(crate) static JS: Language = Language {
    name: "js",
    source: "plugin.js",
    sdk: JS_SDK,
    template: JS_TEMPLATE,
    tools: &["node", "esbuild", "componentize-qjs"],
    build,
};

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    if !job.args.is_empty() {
        return Err(BuildError::Wrong(
            "a build of JavaScript takes no arguments after `--`: it has no command line".into(),
        ));
    }
    bundle(job)
}

/// A component of the source and all that it imports. Types are left out, not checked.
pub(super) fn bundle(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    // Both are libraries that the script looks for by itself, and there an error would name files of npm.
    for package in ["esbuild", "componentize-qjs"] {
        job.toolbox.find(package)?;
    }
    let (source, out) = (job.source()?, job.scratch()?.join("plugin.wasm"));
    let mut node = job.command("node")?;
    // Relative to the project's folder, where it runs.
    let script =
        job.sdk().strip_prefix(&job.project.dir).map_or_else(|_| job.sdk(), Path::to_path_buf).join("build.mjs");
    node.arg(script).arg("--project").arg(&job.project.dir);
    node.arg("--source").arg(source).arg("--out").arg(&out);
    node.arg("--tools").arg(job.toolbox.dir().join("node"));
    if job.colours {
        node.env("FORCE_COLOR", "1");
    }
    job.run(&mut node)?;
    Ok(out)
}
