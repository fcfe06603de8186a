//! Python: `build.py` of the SDK has componentize-py put the project's modules into CPython.

use std::path::{Path, PathBuf};

use super::Language;
use crate::author::embedded::{PYTHON_SDK, PYTHON_TEMPLATE};
use crate::author::job::{BuildError, Job};

pub(crate) static PYTHON: Language = Language {
    name: "python",
    source: "app.py",
    sdk: PYTHON_SDK,
    template: PYTHON_TEMPLATE,
    tools: &["python3", "componentize-py"],
    build,
};

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    let (source, out) = (job.source()?, job.scratch()?.join("plugin.wasm"));
    let tool = job.toolbox.find("componentize-py")?.program;
    let mut python = job.command("python3")?;
    // Relative to the project's folder, where it runs.
    let script =
        job.sdk().strip_prefix(&job.project.dir).map_or_else(|_| job.sdk(), Path::to_path_buf).join("build.py");
    // Nothing is to appear beside the script: the SDK's folder holds the SDK alone.
    python.arg("-B").arg(script).arg("--project").arg(&job.project.dir);
    python.arg("--source").arg(source).arg("--out").arg(&out);
    python.arg("--componentize-py").arg(tool).arg("--").args(job.args);
    job.run(&mut python)?;
    Ok(out)
}
