from quipu import plugin, forward, drop


@plugin(at_least=float)  # the route's config; a wrong key is named
def process(message, config):
    magnitude = message.json_at("properties.mag", float)  # absent: reject, says where
    return forward() if magnitude >= config["at_least"] else drop("small")
