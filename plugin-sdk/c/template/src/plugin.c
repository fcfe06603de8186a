#include "quipu.h"

static double at_least; // the route's config; a wrong key is named

void configure(quipu_config *config)
{
    at_least = quipu_config_number(config, "at_least");
}

quipu_verdict process(quipu_message *message)
{
    double magnitude = quipu_json_number(message, "properties.mag"); // absent: reject, says where
    return magnitude >= at_least ? quipu_forward() : quipu_drop("small");
}
