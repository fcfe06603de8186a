// Package quipu is for writing routing plugins in Go.
//
//	type Config struct {
//		AtLeast float64 `json:"at_least"`
//	}
//
//	func process(message *quipu.Message, config *Config) (quipu.Verdict, error) {
//		magnitude, err := quipu.JSONAt[float64](message, "properties.mag")
//		if err != nil {
//			return nil, err
//		}
//		if magnitude < config.AtLeast {
//			return quipu.Drop("small"), nil
//		}
//		return quipu.Forward(), nil
//	}
//
//	func init() { quipu.Register(process) }
//	func main() {}
//
// It calls the router by the canonical ABI, by hand, and needs no module but itself.
package quipu

import "time"

// Verdict says what becomes of the message in hand. Forward, Route, Drop, Retry and Reject make one.
type Verdict interface{ write() }

type (
	forward struct{}
	route   struct{ subjects []string }
	drop    struct{ reason string }
	retry   struct {
		ms     uint64
		reason string
	}
	reject struct{ reason string }
)

// Forward sends it to the next plugin of the chain; after the last one, to the route's `to`.
func Forward() Verdict { return forward{} }

// Route is as Forward, but these 1 to 64 subjects take the place of `to`.
func Route(subjects ...string) Verdict { return route{subjects} }

// Drop settles it, and it is gone. Reasons are counted: leave out what differs from message to message.
func Drop(reason string) Verdict { return drop{reason} }

// Retry tries again after a while; 0 means the route's own backoff. A fraction of a millisecond counts as a whole one.
func Retry(reason string, after time.Duration) Verdict {
	ms := (max(after, 0) + time.Millisecond - 1) / time.Millisecond
	return retry{uint64(ms), reason}
}

// Reject sends it to the dead-letter queue now. An error out of the plugin's function does the same with its text.
func Reject(reason string) Verdict { return reject{reason} }

// registered is what Register leaves for the router to call.
type registered struct {
	configure func(config string) error
	process   func(*Message) (Verdict, error)
}

var plugin *registered

// Register names the function that says what becomes of a message; call it from init, once. C is the configuration: a
// struct, read by encoding/json. A key without `omitempty` is required, and one that no field reads is an error. Where
// *C has a method Defaults(), it is called before the configuration is read; where it has Check() error, after, and an
// error refuses the configuration with its text.
//
// An error out of the function rejects the message. A panic is a fault: the attempt fails with its text and traceback, and
// the route tries again.
func Register[C any](process func(message *Message, config *C) (Verdict, error)) {
	if plugin != nil {
		panic("quipu.Register is called twice; a plugin has one function")
	}
	config := new(C)
	plugin = &registered{
		configure: func(text string) error { return readConfig(text, config) },
		process:   func(message *Message) (Verdict, error) { return process(message, config) },
	}
}

// PluginName is the plugin's name.
func PluginName() string { return text(contextPlugin) }

// RouteName is the route's name.
func RouteName() string { return text(contextRoute) }

// Now is the time; it stands still while one message is processed, so that a replay sees the same.
func Now() time.Time { return time.UnixMilli(int64(contextNowMs())) }

// Seed is a random number below 2^53; the same for each look at one message.
func Seed() uint64 { return contextSeed() }
