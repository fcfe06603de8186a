import { forward, drop } from "quipu";

export const schema = { at_least: Number }; // the route's config; a wrong key is named

export function process(message, config) {
  const magnitude = message.jsonAt("properties.mag", Number); // absent: reject, says where
  return magnitude >= config.at_least ? forward() : drop("small");
}
