// What the router calls. The build gives these exports the contract's names.

import { configure as readConfig, process as judge } from "../../src/plugin";
import * as abi from "quipu/abi";
import { Config } from "quipu/json";
import { Message, Verdict, reject } from "quipu/message";

/** The largest result: a verdict to retry. */
const RETURNED: usize = memory.data(24, 8);

/** The texts that the router is still to read; they must outlive the call. */
let given: ArrayBuffer[] = [];
let list: StaticArray<u32> = [];

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  return abi.realloc(old, oldSize, align, size);
}

/** The compiler's `throw` and failed checks come here. */
export function fault(text: string | null, file: string | null, line: u32, column: u32): void {
  const said = String.UTF8.encode(text === null ? "aborted" : text);
  const place = String.UTF8.encode((file === null ? "" : file) + ":" + line.toString() + ":" + column.toString());
  abi.log_fault(changetype<usize>(said), said.byteLength, changetype<usize>(place), place.byteLength);
  unreachable();
}

/** A text for the router, at `at`. */
function give(text: string, at: usize): void {
  const bytes = String.UTF8.encode(text);
  given.push(bytes);
  store<u32>(at, changetype<usize>(bytes));
  store<u32>(at, bytes.byteLength, 4);
}

export function configure(): usize {
  abi.context_config(abi.RESULT);
  const text = abi.textAt(abi.RESULT);
  const config = new Config(Uint8Array.wrap(String.UTF8.encode(text.length ? text : "{}")));
  readConfig(config);
  const problem = config.verdict();
  store<u8>(RETURNED, problem.length ? 1 : 0);
  if (problem.length) give(problem, RETURNED + 4);
  return RETURNED;
}

export function process(): usize {
  const message = new Message();
  const said = judge(message);
  const wrong = message.wrong;
  const verdict: Verdict = wrong.length ? reject(wrong) : said;
  store<u8>(RETURNED, verdict.kind);
  if (verdict.kind == 1) giveSubjects(verdict.subjects);
  else if (verdict.kind == 3) {
    store<u64>(RETURNED, verdict.delayMs, 8);
    give(verdict.reason, RETURNED + 16);
  } else if (verdict.kind) give(verdict.reason, RETURNED + 8);
  return RETURNED;
}

function giveSubjects(subjects: string[]): void {
  list = new StaticArray<u32>(subjects.length * 2);
  for (let i = 0; i < subjects.length; i++) give(subjects[i], changetype<usize>(list) + i * 8);
  store<u32>(RETURNED, changetype<usize>(list), 8);
  store<u32>(RETURNED, subjects.length, 12);
}

/** Called once the router has read the verdict. */
export function post_process(verdict: usize): void {
  given = [];
  abi.settle();
}
