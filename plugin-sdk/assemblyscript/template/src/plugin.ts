import { Config, Message, Verdict, drop, forward } from "quipu";

let atLeast: f64 = 0; // the route's config; a wrong key is named

export function configure(config: Config): void {
  atLeast = config.number("at_least");
}

export function process(message: Message): Verdict {
  const magnitude = message.json.number("properties.mag"); // absent: reject, says where
  return magnitude >= atLeast ? forward() : drop("small");
}
