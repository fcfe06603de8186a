package main

import "quipu"

// Config is the route's; a wrong key is named.
type Config struct {
	AtLeast float64 `json:"at_least"`
}

func process(message *quipu.Message, config *Config) (quipu.Verdict, error) {
	magnitude, err := quipu.JSONAt[float64](message, "properties.mag") // absent: reject, says where
	if err != nil {
		return nil, err
	}
	if magnitude < config.AtLeast {
		return quipu.Drop("small"), nil
	}
	return quipu.Forward(), nil
}

func init() { quipu.Register(process) }

func main() {}
