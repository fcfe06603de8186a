//go:build wasm

package quipu

import "unsafe"

//go:wasmimport quipu:plugin/message@0.1.0 id
func messageID(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 subject
func messageSubject(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 origin-subject
func messageOriginSubject(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 key
func messageKey(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 header
func messageHeader(name string, ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 header-values
func messageHeaderValues(name string, ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 headers
func messageHeaders(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 payload-len
func messagePayloadLen() uint32

//go:wasmimport quipu:plugin/message@0.1.0 payload
func messagePayload(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 payload-range
func messagePayloadRange(offset, length uint32, ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 published-ms
func messagePublishedMs() uint64

//go:wasmimport quipu:plugin/message@0.1.0 expires-ms
func messageExpiresMs(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/message@0.1.0 attempt
func messageAttempt() uint32

//go:wasmimport quipu:plugin/message@0.1.0 priority
func messagePriority() uint32

//go:wasmimport quipu:plugin/message@0.1.0 reply-to
func messageReplyTo(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/edit@0.1.0 set-header
func editSetHeader(name, value string)

//go:wasmimport quipu:plugin/edit@0.1.0 add-header
func editAddHeader(name, value string)

//go:wasmimport quipu:plugin/edit@0.1.0 remove-header
func editRemoveHeader(name string)

//go:wasmimport quipu:plugin/edit@0.1.0 set-key
func editSetKey(key string)

//go:wasmimport quipu:plugin/edit@0.1.0 remove-key
func editRemoveKey()

//go:wasmimport quipu:plugin/edit@0.1.0 set-payload
func editSetPayload(payload string)

//go:wasmimport quipu:plugin/emit@0.1.0 publish
func emitPublish(subject string, hasKey uint32, key string, headers unsafe.Pointer, count uint32, payload string, ret unsafe.Pointer)

//go:wasmimport quipu:plugin/emit@0.1.0 copy
func emitCopy(subject string, ret unsafe.Pointer)

//go:wasmimport quipu:plugin/context@0.1.0 plugin
func contextPlugin(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/context@0.1.0 route
func contextRoute(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/context@0.1.0 config
func contextConfig(ret unsafe.Pointer)

//go:wasmimport quipu:plugin/context@0.1.0 now-ms
func contextNowMs() uint64

//go:wasmimport quipu:plugin/context@0.1.0 seed
func contextSeed() uint64

//go:wasmimport quipu:plugin/log@0.1.0 log
func logLog(level uint32, text string)

//go:wasmimport quipu:plugin/log@0.1.0 fault
func logFault(text, trace string)
