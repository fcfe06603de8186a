// Places in the author's own files. The engine's stack speaks of the bundle; the build leaves a table behind
// (globalThis.__quipuPlaces, as JSON) that leads from its lines back to the files, and has the lines' text.

/** Frames of an error that lie in the author's files, innermost first. */
export function located(error) {
  const frames = String(error.stack ?? "").split("\n");
  return frames.map(locate).filter((frame) => frame !== undefined).slice(0, FRAMES_MAX);
}

const FRAMES_MAX = 32;

let table;

function locate(frame) {
  const found = /^\s*at (?:(.*) \()?[^()]*:(\d+):(\d+)\)?$/.exec(frame);
  if (found === null) return undefined;
  table ??= JSON.parse(globalThis.__quipuPlaces ?? '{"lines":{}}');
  const [, name, line, column] = found;
  const marks = table.lines[line];
  if (marks === undefined) return undefined;
  // Columns of the engine begin with 1, those of the table with 0.
  const mark = marks.findLast(([from]) => from < Number(column)) ?? marks[0];
  const [, file, sourceLine, sourceColumn] = mark;
  const place = `${table.files[file]}:${sourceLine + 1}:${sourceColumn + 1}`;
  const source = table.sources[file][sourceLine]?.trim().slice(0, SOURCE_CHARS_MAX);
  const shown = name === undefined || name === "<anonymous>" ? `at ${place}` : `at ${name} (${place})`;
  return { place, shown, source };
}

const SOURCE_CHARS_MAX = 160;
