//! Go: a WASI library, whose stray imports the router answers. The SDK is the module `quipu`, in `.quipu/sdk/go`.

use std::path::PathBuf;

use super::Language;
use crate::author::embedded::{GO_SDK, GO_TEMPLATE};
use crate::author::job::{BuildError, Job};

/// What a user's environment says to Go about his other projects.
const UNHEARD: [&str; 4] = ["GOFLAGS", "GOEXPERIMENT", "GOWASM", "GO111MODULE"];

pub(crate) static GO: Language =
    Language { name: "go", source: "main.go", sdk: GO_SDK, template: GO_TEMPLATE, tools: &["go"], build };

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    let (source, out) = (job.source()?, job.scratch()?.join("plugin.wasm"));
    let mut go = job.command("go")?;
    for name in UNHEARD {
        go.env_remove(name);
    }
    // Another version of Go than the one that was looked for would come from the network.
    go.env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off");
    // What a user has set for himself stays; without it Go would keep some hundred MB in the home directory.
    if std::env::var_os("GOCACHE").is_none() {
        go.env("GOCACHE", job.toolbox.dir().join("go-cache"));
    }
    go.args(["build", "-trimpath", "-buildmode=c-shared", "-o"]).arg(&out);
    if !job.debug {
        // Without DWARF; the names of functions stay.
        go.arg("-ldflags=-w");
    }
    // The package of the source, which is a whole folder.
    let package = source.parent().map_or_else(|| job.project.dir.clone(), PathBuf::from);
    job.run(go.args(job.args).arg(package))?;
    Ok(out)
}
