//go:build !wasm

package quipu

import "unsafe"

// There is no router anywhere but inside of it. These are here so that editors and `go vet` can read a plugin.

func absent() {
	panic("quipu: there is no router outside of WebAssembly; try the plugin by `quipu plugin test`")
}

func messageID(ret unsafe.Pointer)                                  { absent() }
func messageSubject(ret unsafe.Pointer)                             { absent() }
func messageOriginSubject(ret unsafe.Pointer)                       { absent() }
func messageKey(ret unsafe.Pointer)                                 { absent() }
func messageHeader(name string, ret unsafe.Pointer)                 { absent() }
func messageHeaderValues(name string, ret unsafe.Pointer)           { absent() }
func messageHeaders(ret unsafe.Pointer)                             { absent() }
func messagePayloadLen() uint32                                     { absent(); return 0 }
func messagePayload(ret unsafe.Pointer)                             { absent() }
func messagePayloadRange(offset, length uint32, ret unsafe.Pointer) { absent() }
func messagePublishedMs() uint64                                    { absent(); return 0 }
func messageExpiresMs(ret unsafe.Pointer)                           { absent() }
func messageAttempt() uint32                                        { absent(); return 0 }
func messagePriority() uint32                                       { absent(); return 0 }
func messageReplyTo(ret unsafe.Pointer)                             { absent() }
func editSetHeader(name, value string)                              { absent() }
func editAddHeader(name, value string)                              { absent() }
func editRemoveHeader(name string)                                  { absent() }
func editSetKey(key string)                                         { absent() }
func editRemoveKey()                                                { absent() }
func editSetPayload(payload string)                                 { absent() }
func emitPublish(subject string, hasKey uint32, key string, headers unsafe.Pointer, count uint32, payload string, ret unsafe.Pointer) {
	absent()
}
func emitCopy(subject string, ret unsafe.Pointer) { absent() }
func contextPlugin(ret unsafe.Pointer)            { absent() }
func contextRoute(ret unsafe.Pointer)             { absent() }
func contextConfig(ret unsafe.Pointer)            { absent() }
func contextNowMs() uint64                        { absent(); return 0 }
func contextSeed() uint64                         { absent(); return 0 }
func logLog(level uint32, text string)            { absent() }
func logFault(text, trace string)                 { absent() }
