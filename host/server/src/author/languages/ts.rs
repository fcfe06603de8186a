//! TypeScript: checked by tsc, then as JavaScript. The SDK is that of JavaScript.

use std::path::PathBuf;

use super::{Language, js};
use crate::author::embedded::{JS_SDK, TS_TEMPLATE};
use crate::author::job::{BuildError, Job};

pub(crate) static TS: Language = Language {
    name: "ts",
    source: "plugin.ts",
    sdk: JS_SDK,
    template: TS_TEMPLATE,
    tools: &["node", "typescript", "esbuild", "componentize-qjs"],
    build,
};

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    let source = job.source()?;
    if !job.project.dir.join("tsconfig.json").is_file() {
        // Without one tsc would look for it in the folders above.
        let what = format!(
            "tsconfig.json is not there; tsc checks {} by it, and `quipu plugin new` writes one",
            source.display()
        );
        return Err(BuildError::Wrong(what));
    }
    let mut tsc = job.command("typescript")?;
    tsc.args(["--project", "tsconfig.json", "--noEmit", "--pretty", if job.colours { "true" } else { "false" }]);
    job.run(tsc.args(job.args))?;
    js::bundle(job)
}
