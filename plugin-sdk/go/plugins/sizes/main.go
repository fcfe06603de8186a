// Sizes sorts earthquakes by size: marks small ones, sends big ones on with a copy for the audit, raises alarms.
package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"quipu"
)

// Config is the route's.
type Config struct {
	AtLeast float64 `json:"at_least"`
	Audit   string  `json:"audit,omitempty"`
	AlarmAt float64 `json:"alarm_at,omitempty"`
}

// Defaults are what holds for keys that are left out.
func (c *Config) Defaults() { c.Audit, c.AlarmAt = "audit", 6 }

// Check says what types cannot.
func (c *Config) Check() error {
	switch {
	case c.Audit == "":
		return errors.New("audit: empty")
	case c.AlarmAt < c.AtLeast:
		return errors.New("alarm_at: below at_least")
	default:
		return nil
	}
}

func init() { quipu.Register(process) }

func main() {}

func process(message *quipu.Message, config *Config) (quipu.Verdict, error) {
	switch kind, _ := message.Header("type"); kind {
	case "quarry blast":
		quipu.Debugf("a quarry blast is left out")
		return quipu.Drop("quarry blast"), nil
	case "later":
		return quipu.Retry("comes later", 1500*time.Millisecond), nil
	case "fault":
		message.SetHeader("size", "lost")
		if err := message.EmitCopy(config.Audit); err != nil {
			return nil, err
		}
		panic("asked to fail")
	case "swap":
		swapped := slices.Clone(message.Payload())
		slices.Reverse(swapped)
		message.SetPayload(swapped)
		message.SetKey([]byte("swapped"))
		return quipu.Forward(), nil
	case "echo":
		return echo(message)
	}
	if message.PayloadLen() == 0 {
		return quipu.Reject("empty payload"), nil
	}
	// Into a map, whose keys compare exactly; fields of a struct would match `Mag` too.
	var payload any
	if message.JSON(&payload) != nil {
		return quipu.Reject("the payload is no JSON"), nil
	}
	whole, _ := payload.(map[string]any)
	quake, _ := whole["properties"].(map[string]any)
	magnitude, is := quake["mag"].(float64)
	if !is {
		return quipu.Reject("no magnitude"), nil
	}
	net, _ := quake["net"].(string)
	if net == "" {
		quipu.Warnf("no network")
	}
	if magnitude < config.AtLeast {
		message.SetHeader("size", "small")
		message.RemoveHeader("trace")
		return quipu.Forward(), nil
	}
	return big(message, config, quake, net)
}

func big(message *quipu.Message, config *Config, quake map[string]any, net string) (quipu.Verdict, error) {
	message.SetHeader("size", "big")
	message.AddHeader("seen", "sizes")
	var key []byte
	if net == "" {
		message.RemoveKey()
	} else {
		key = []byte(net)
		message.SetKey(key)
	}
	audit, there := message.Header("audit")
	if !there {
		audit = config.Audit
	}
	if refused, is := errors.AsType[quipu.Refusal](message.EmitCopy(audit)); is {
		return quipu.Retry("audit refused: "+string(refused), 5*time.Second), nil
	}
	if quake["mag"].(float64) >= config.AlarmAt {
		place, is := quake["place"].(string)
		if !is {
			place = "unknown"
		}
		emit(message, "alarm", quipu.Outgoing{
			Subject:  "alarms",
			Key:      key,
			Headers:  []quipu.Header{{Name: "type", Value: "alarm"}},
			Priority: 9,
			Payload:  []byte(place),
		})
	}
	return quipu.Route("alerts", "big"), nil
}

func emit(message *quipu.Message, what string, outgoing quipu.Outgoing) {
	if refused, is := errors.AsType[quipu.Refusal](message.Emit(outgoing)); is {
		panic(what + " refused: " + string(refused))
	}
}

func echo(message *quipu.Message) (quipu.Verdict, error) {
	emit(message, "echo", quipu.Outgoing{
		Subject: "echoes",
		Key:     message.Key(),
		Headers: message.Headers(),
		Payload: message.PayloadRange(4, 6),
	})
	if quipu.PluginName() == "" || quipu.RouteName() == "" {
		panic("no context")
	}
	if quipu.Now().Before(message.Published()) {
		panic("no clock")
	}
	_ = quipu.Seed()
	expires, reply, traces := "none", "none", "none"
	if at, does := message.Expires(); does {
		expires = fmt.Sprint(at.UnixMilli())
	}
	if to, there := message.ReplyTo(); there {
		reply = to
	}
	if values := message.HeaderValues("trace"); len(values) > 0 {
		traces = strings.Join(values, "|")
	}
	quipu.Infof("%s %s %s %d %d %d %s %s %s", message.ID(), message.Subject(), message.OriginSubject(),
		message.Attempt(), message.Priority(), message.PayloadLen(), expires, reply, traces)
	echoed := fmt.Sprintf("echo of %d bytes", message.PayloadLen())
	if text, is := message.Text(); is {
		echoed = "echo " + text
	}
	message.SetPayload([]byte(echoed))
	message.RemoveKey()
	message.RemoveHeader("trace")
	return quipu.Forward(), nil
}
