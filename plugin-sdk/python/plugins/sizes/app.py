"""Sorts earthquakes by size: marks small ones, sends big ones on with a copy for the audit, raises alarms."""

from quipu import ConfigError, Refused, Reject, configure, context, drop, forward, log, plugin, reject, retry, route


@configure
def check(config):
    if config["audit"] == "":
        raise ConfigError("audit: empty")
    if config["alarm_at"] < config["at_least"]:
        raise ConfigError("alarm_at: below at_least")


@plugin(at_least=float, audit="audit", alarm_at=6.0)
def process(message, config):
    match message.header("type"):
        case "quarry blast":
            log.debug("a quarry blast is left out")
            return drop("quarry blast")
        case "later":
            return retry("comes later", 1500)
        case "fault":
            message.set_header("size", "lost")
            message.emit_copy(config["audit"])
            raise RuntimeError("asked to fail")
        case "swap":
            message.set_payload(message.payload[::-1])
            message.set_key("swapped")
            return forward()
        case "echo":
            return echo(message)
    if message.payload_len == 0:
        return reject("empty payload")
    try:
        quake = message.json
    except Reject:
        return reject("the payload is no JSON")
    try:
        magnitude = message.json_at("properties.mag", float)
    except Reject:
        return reject("no magnitude")
    quake = quake["properties"]
    net = quake.get("net")
    if not isinstance(net, str) or net == "":
        net = ""
        log.warn("no network")
    if magnitude < config["at_least"]:
        message.set_header("size", "small")
        message.remove_header("trace")
        return forward()
    return big(message, config, quake, net)


def big(message, config, quake, net):
    message.set_header("size", "big")
    message.add_header("seen", "sizes")
    if net:
        message.set_key(net)
    else:
        message.remove_key()
    audit = message.header("audit")
    try:
        message.emit_copy(config["audit"] if audit is None else audit)
    except Refused as e:
        return retry(f"audit refused: {e.refusal}", 5000)
    if quake["mag"] >= config["alarm_at"]:
        place = quake.get("place")
        payload = place if isinstance(place, str) else "unknown"
        emit(message, "alarm", "alarms", payload, key=net or None, headers={"type": "alarm"}, priority=9)
    return route("alerts", "big")


def emit(message, what, *args, **kwargs):
    try:
        message.emit(*args, **kwargs)
    except Refused as e:
        raise RuntimeError(f"{what} refused: {e.refusal}") from None


def echo(message):
    emit(message, "echo", "echoes", message.payload_range(4, 6), key=message.key, headers=message.headers)
    if context.plugin == "" or context.route == "":
        raise RuntimeError("no context")
    if context.now_ms < message.published_ms:
        raise RuntimeError("no clock")
    _ = context.seed
    line = [
        message.id,
        message.subject,
        message.origin_subject,
        message.attempt,
        message.priority,
        message.payload_len,
        message.expires_ms,
        message.reply_to,
        "|".join(message.header_values("trace")) or None,
    ]
    log.info(" ".join("none" if part is None else str(part) for part in line))
    text = message.text
    message.set_payload(f"echo of {message.payload_len} bytes" if text is None else f"echo {text}")
    message.remove_key()
    message.remove_header("trace")
    return forward()
