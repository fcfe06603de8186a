// Makes a component of a plugin: bundles its modules with this SDK, and puts them into the engine.
//
//   node build.mjs --project DIR --source FILE --out FILE.wasm --tools DIR
//
// TOOLS is where `npm install --prefix` put esbuild and componentize-qjs. Types of TypeScript are left out, not checked:
// that is for tsc, before this. What the tools say goes to standard error as it is. Exit: 0 built, 1 a mistake in the
// plugin, 2 anything else.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const sdk = path.dirname(fileURLToPath(import.meta.url));
const names = ["project", "source", "out", "tools"];
const given = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) }).values;
for (const name of names) {
  if (given[name] === undefined) stop(2, `--${name} is missing`);
}
const project = path.resolve(given.project);
const source = path.resolve(project, given.source);
const out = path.resolve(given.out);
const work = path.join(path.dirname(sdk), "build");
const tool = createRequire(path.join(path.resolve(given.tools), "tools.js"));

function stop(code, text) {
  process.stderr.write(`${text}\n`);
  process.exit(code);
}

/** One module out of the author's and the SDK's; gives the table that leads back to the author's lines. */
async function bundle() {
  const entry = path.join(work, "entry.js");
  const runtime = path.join(sdk, "runtime.js");
  // The runtime comes first, so that the author's modules find clock and console in place as they load.
  const text = `import { handler as make } from ${JSON.stringify(runtime)};
import * as plugin from ${JSON.stringify(source)};
export const handler = make(plugin);
`;
  writeFileSync(entry, text);
  const esbuild = tool("esbuild");
  let result;
  try {
    result = await esbuild.build({
      entryPoints: [entry],
      outfile: path.join(work, "bundle.js"),
      absWorkingDir: project,
      bundle: true,
      format: "esm",
      target: "es2023",
      platform: "neutral",
      mainFields: ["module", "main"],
      alias: { quipu: path.join(sdk, "quipu.js") },
      external: ["quipu:plugin/*"],
      plugins: [onlyTheSdk],
      keepNames: false,
      sourcemap: "external",
      logLevel: "warning",
      write: false,
    });
  } catch (e) {
    if (!Array.isArray(e.errors)) throw e;
    const isMissing = e.errors.some(({ text }) => text.startsWith("Could not resolve"));
    const hint = "A package of npm goes into the project's folder by `npm install`, and must do without Node.js.";
    stop(1, isMissing ? hint : "");
  }
  const file = (end) => result.outputFiles.find((one) => one.path.endsWith(end)).text;
  return { code: file("bundle.js"), table: tableOf(JSON.parse(file("bundle.js.map"))) };
}

/** Errors that say what to do, where a plugin imports what no plugin can have. */
const onlyTheSdk = {
  name: "only-the-sdk",
  setup(build) {
    build.onResolve({ filter: /^(node|wasi|quipu):/ }, ({ path: name, importer }) => {
      if (name.startsWith("quipu:plugin/") && importer.startsWith(sdk)) return { path: name, external: true };
      const instead = name.startsWith("quipu:")
        ? 'import from "quipu"'
        : "a plugin has no files, no network and no clock but the router's";
      return { errors: [{ text: `"${name}" is not there for plugins: ${instead}` }] };
    });
  },
};

/** From lines of the bundle to those of the author's files. A map's own form is base64 in groups; this one is JSON. */
function tableOf(map) {
  const own = new Map();
  const files = [];
  const sources = [];
  map.sources.forEach((name, index) => {
    const full = path.resolve(work, name);
    if (full.startsWith(sdk + path.sep) || full.startsWith(work + path.sep)) return;
    own.set(index, files.length);
    files.push(path.relative(project, full));
    sources.push(map.sourcesContent[index].split("\n"));
  });
  const lines = {};
  let [file, line, column] = [0, 0, 0];
  map.mappings.split(";").forEach((group, index) => {
    let from = 0;
    for (const segment of group === "" ? [] : group.split(",")) {
      const [dFrom, dFile = 0, dLine = 0, dColumn = 0] = numbers(segment);
      [from, file, line, column] = [from + dFrom, file + dFile, line + dLine, column + dColumn];
      if (own.has(file)) (lines[index + 1] ??= []).push([from, own.get(file), line, column]);
    }
  });
  return { files, sources, lines };
}

/** The numbers of one segment: base64 digits of 5 bits, the lowest first, the sixth bit says that more follow. */
function numbers(segment) {
  const found = [];
  let [value, shift] = [0, 0];
  for (const digit of segment) {
    const bits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".indexOf(digit);
    value += (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    found.push(value & 1 ? -(value >> 1) : value >> 1);
    [value, shift] = [0, 0];
  }
  return found;
}

async function componentize({ code, table }) {
  // At its end, so that no line of the bundle moves.
  const jsSource = `${code}\nglobalThis.__quipuPlaces = ${JSON.stringify(JSON.stringify(table))};\n`;
  const { componentize: make } = tool("componentize-qjs");
  let made;
  try {
    made = await make({ witPath: path.join(sdk, "wit", "0.1.0"), world: "plugin", jsSource, stubWasi: true, sync: true });
  } catch (e) {
    stop(1, await readable(String(e.message ?? e), table));
  }
  // Whoever reads the file meanwhile sees the old one or the new one.
  writeFileSync(`${out}.part`, made.component);
  renameSync(`${out}.part`, out);
}

/** What the engine says of a module that fails as it loads, with the author's places. */
async function readable(said, table) {
  globalThis.__quipuPlaces = JSON.stringify(table);
  const { located } = await import("./stack.js");
  const problem = said.split("\n")[0].replace(/^[\s:]*(Failed to [^:]*: )*/, "");
  const frames = located({ stack: said }).map(({ shown, source }) => `    ${shown}\n        ${source ?? ""}`);
  return [`the plugin fails as its module loads, which happens when it is built: ${problem}`, ...frames].join("\n");
}

if (!existsSync(source)) {
  stop(1, `there is no ${given.source} in ${project}: \`source\` of plugin.toml says which file to build`);
}
mkdirSync(work, { recursive: true });
await componentize(await bundle());
