// Plugins for Quipu in AssemblyScript.
//
// A plugin is a file with two functions: `configure(config: Config): void` reads its configuration, once, and
// `process(message: Message): Verdict` says what becomes of the message in hand.

export { Config, Json, Kind, quoted } from "./json";
export {
  Header, Message, Outgoing, Refusal, Verdict, context, drop, forward, log, refusalName, reject, retry, retryAfter,
  route, utf8,
} from "./message";
