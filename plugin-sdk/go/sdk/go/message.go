package quipu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Message is the message in hand, as the plugins before this one left it. Each read asks the router; the payload is
// fetched on first use and then kept.
type Message struct {
	payload []byte
	fetched bool
}

// Header is one of a message's.
type Header struct{ Name, Value string }

// ID is the message's id.
func (*Message) ID() string { return text(messageID) }

// Subject is the subject that brought it here.
func (*Message) Subject() string { return text(messageSubject) }

// OriginSubject is the subject it was first published to.
func (*Message) OriginSubject() string { return text(messageOriginSubject) }

// Key is nil where it has none.
func (*Message) Key() []byte { return maybeBytes(messageKey) }

// Header is the first value of this header; names compare without case.
func (*Message) Header(name string) (string, bool) {
	return maybeText(func(ret ret) { messageHeader(name, ret) })
}

// HeaderValues has all values of this header, in order.
func (*Message) HeaderValues(name string) []string {
	return texts(func(ret ret) { messageHeaderValues(name, ret) })
}

// Headers has all of them, in order.
func (*Message) Headers() []Header { return headers(messageHeaders) }

// Published is when it was published.
func (*Message) Published() time.Time { return time.UnixMilli(int64(messagePublishedMs())) }

// Expires is when it expires, if it does.
func (*Message) Expires() (time.Time, bool) {
	ms, does := maybeNumber(messageExpiresMs)
	return time.UnixMilli(int64(ms)), does
}

// Attempt is 1 on the first try.
func (*Message) Attempt() int { return int(messageAttempt()) }

// Priority is 0 to 9.
func (*Message) Priority() int { return int(messagePriority()) }

// ReplyTo is the subject that waits for a reply.
func (*Message) ReplyTo() (string, bool) { return maybeText(messageReplyTo) }

// Payload is the payload; it is not to be changed in place, which SetPayload is for.
func (m *Message) Payload() []byte {
	if !m.fetched {
		m.payload, m.fetched = someBytes(messagePayload), true
	}
	return m.payload
}

// PayloadLen is the payload's length in bytes, without fetching it.
func (*Message) PayloadLen() int { return int(messagePayloadLen()) }

// PayloadRange is part of the payload, clamped to it; fetches that part alone.
func (*Message) PayloadRange(offset, length uint32) []byte {
	return someBytes(func(ret ret) { messagePayloadRange(offset, length, ret) })
}

// Text is the payload, where it is UTF-8.
func (m *Message) Text() (string, bool) {
	payload := m.Payload()
	return string(payload), utf8.Valid(payload)
}

// JSON reads the whole payload into a value. Names compare as encoding/json compares them: without case.
func (m *Message) JSON(into any) error {
	if !utf8.Valid(m.Payload()) {
		return fmt.Errorf("the payload is no JSON: it is not UTF-8")
	}
	if err := json.Unmarshal(m.Payload(), into); err != nil {
		return jsonProblem("", err)
	}
	return nil
}

// SetHeader takes the place of all values of this header.
func (*Message) SetHeader(name, value string) { editSetHeader(name, value) }

// AddHeader adds a value.
func (*Message) AddHeader(name, value string) { editAddHeader(name, value) }

// RemoveHeader removes all values.
func (*Message) RemoveHeader(name string) { editRemoveHeader(name) }

// SetKey sets the key.
func (*Message) SetKey(key []byte) { editSetKey(string(key)) }

// RemoveKey removes the key.
func (*Message) RemoveKey() { editRemoveKey() }

// SetPayload replaces the payload.
func (m *Message) SetPayload(payload []byte) {
	editSetPayload(string(payload))
	m.payload, m.fetched = nil, false
}

// SetJSON replaces the payload with this value as JSON.
func (m *Message) SetJSON(value any) error {
	payload, err := json.Marshal(value)
	if err == nil {
		m.SetPayload(payload)
	}
	return err
}

// Outgoing is a new message. What is left empty it does not have.
type Outgoing struct {
	Subject string
	Key     []byte
	Headers []Header
	Payload []byte
	// ID stores a repeated message once. Without it the router derives one.
	ID        string
	Expires   time.Time
	DeliverAt time.Time
	// Priority is 0 to 9.
	Priority int
}

// Refusal is why the router did not take a new message.
type Refusal string

// What a Refusal may be.
const (
	Limit      Refusal = "limit"
	Invalid    Refusal = "invalid"
	NotGranted Refusal = "not-granted"
	Loop       Refusal = "loop"
)

func (r Refusal) Error() string { return "the router refused the new message: " + string(r) }

var refusals = [...]Refusal{Limit, Invalid, NotGranted, Loop}

// Emit publishes a new message. The error is a Refusal; the plugin may go on.
func (*Message) Emit(message Outgoing) error {
	all := message.Headers[:len(message.Headers):len(message.Headers)]
	property := func(name, value string, given bool) {
		if given {
			all = append(all, Header{name, value})
		}
	}
	ms := func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }
	property("quipu-id", message.ID, message.ID != "")
	property("quipu-expires-ms", ms(message.Expires), !message.Expires.IsZero())
	property("quipu-deliver-at-ms", ms(message.DeliverAt), !message.DeliverAt.IsZero())
	property("quipu-priority", strconv.Itoa(message.Priority), message.Priority != 0)
	return publish(message.Subject, message.Key, all, message.Payload)
}

// EmitCopy publishes a copy of the message in hand, as changed so far; the payload stays with the router. The error is a
// Refusal; the plugin may go on.
func (*Message) EmitCopy(subject string) error {
	return refusal(func(ret ret) { emitCopy(subject, ret) })
}
