import { drop, forward, type ConfigOf, type Message, type Verdict } from "quipu";

export const schema = { at_least: Number }; // the route's config; a wrong key is named

export function process(message: Message, config: ConfigOf<typeof schema>): Verdict {
  const magnitude = message.jsonAt("properties.mag", Number); // absent: reject, says where
  return magnitude >= config.at_least ? forward() : drop("small");
}
