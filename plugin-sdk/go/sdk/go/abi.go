package quipu

import "unsafe"

// The canonical ABI, by hand. A text or a list goes in as pointer and length, which is how Go passes a string. A result of
// more than one number comes back through a pointer to the words below. What the router hands over lies in memory that
// cabi_realloc gave, which the garbage collector frees as any other.

// words is where results are written: at most a tag and a number of 8 bytes, at an address that fits both.
type words [4]uint64

type ret = unsafe.Pointer

// pinned keeps what the router was given for results, until those have become texts and lists that Go knows of.
var pinned [][]uint64

//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	block := make([]uint64, max(size+7, 8)/8)
	pinned = append(pinned, block)
	fresh := unsafe.Pointer(unsafe.SliceData(block))
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(fresh), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return fresh
}

func word(at *words, index uintptr) uint32 {
	return *(*uint32)(unsafe.Add(unsafe.Pointer(at), index*4))
}

func pointer(address uint32) *byte { return (*byte)(unsafe.Pointer(uintptr(address))) }

// call gives the words that a call of the router wrote.
func call(read func(ret)) *words {
	at := new(words)
	read(ret(at))
	return at
}

func bytesAt(at *words, index uintptr) []byte {
	length := word(at, index+1)
	if length == 0 {
		return []byte{}
	}
	return unsafe.Slice(pointer(word(at, index)), length)
}

func textAt(at *words, index uintptr) string {
	length := word(at, index+1)
	if length == 0 {
		return ""
	}
	return unsafe.String(pointer(word(at, index)), length)
}

func text(read func(ret)) string      { return textAt(call(read), 0) }
func someBytes(read func(ret)) []byte { return bytesAt(call(read), 0) }

func maybeText(read func(ret)) (string, bool) {
	at := call(read)
	if byte(at[0]) == 0 {
		return "", false
	}
	return textAt(at, 1), true
}

func maybeBytes(read func(ret)) []byte {
	at := call(read)
	if byte(at[0]) == 0 {
		return nil
	}
	return bytesAt(at, 1)
}

func maybeNumber(read func(ret)) (uint64, bool) {
	at := call(read)
	return at[1], byte(at[0]) != 0
}

// pair is a pointer and a length, as they lie in a list.
type pair struct{ at, length uint32 }

func (p pair) text() string {
	if p.length == 0 {
		return ""
	}
	return unsafe.String(pointer(p.at), p.length)
}

func pairOf(text string) pair {
	return pair{uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))), uint32(len(text))}
}

func texts(read func(ret)) []string {
	at := call(read)
	list := unsafe.Slice((*pair)(unsafe.Pointer(pointer(word(at, 0)))), word(at, 1))
	found := make([]string, len(list))
	for i, one := range list {
		found[i] = one.text()
	}
	return found
}

func headers(read func(ret)) []Header {
	at := call(read)
	list := unsafe.Slice((*[2]pair)(unsafe.Pointer(pointer(word(at, 0)))), word(at, 1))
	found := make([]Header, len(list))
	for i, one := range list {
		found[i] = Header{one[0].text(), one[1].text()}
	}
	return found
}

func refusal(send func(ret)) error {
	at := call(send)
	if byte(at[0]) == 0 {
		return nil
	}
	return refusals[byte(at[0]>>8)]
}

// sending keeps what lies behind the addresses of a list, on the heap and alive.
var sending []Header

func publish(subject string, key []byte, all []Header, payload []byte) error {
	list := make([][2]pair, len(all)+1) // never empty, so that it has an address
	for i, header := range all {
		list[i] = [2]pair{pairOf(header.Name), pairOf(header.Value)}
	}
	sending = all
	defer func() { sending = nil }()
	hasKey := uint32(0)
	if key != nil {
		hasKey = 1
	}
	return refusal(func(ret ret) {
		emitPublish(subject, hasKey, string(key), unsafe.Pointer(unsafe.SliceData(list)), uint32(len(all)), string(payload), ret)
	})
}

// answer is what a call by the router comes to; it keeps all that the words point to.
var answer struct {
	words
	texts []string
	list  []pair
}

func say(index uintptr, text string) {
	answer.texts = append(answer.texts, text)
	*(*pair)(unsafe.Add(unsafe.Pointer(&answer.words), index*4)) = pairOf(text)
}

func begin(tag uint64) {
	answer.words, answer.texts, answer.list = words{tag}, answer.texts[:0], nil
}

func (forward) write() { begin(0) }

func (r route) write() {
	begin(1)
	answer.list = make([]pair, len(r.subjects)+1)
	for i, subject := range r.subjects {
		answer.texts = append(answer.texts, subject)
		answer.list[i] = pairOf(subject)
	}
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(answer.list))))
	*(*pair)(unsafe.Add(unsafe.Pointer(&answer.words), 8)) = pair{at, uint32(len(r.subjects))}
}

func (d drop) write() {
	begin(2)
	say(2, d.reason)
}

func (r retry) write() {
	begin(3)
	answer.words[1] = r.ms
	say(4, r.reason)
}

func (r reject) write() {
	begin(4)
	say(2, r.reason)
}

//go:wasmexport quipu:plugin/handler@0.1.0#configure
func handlerConfigure() unsafe.Pointer {
	defer guard()
	pinned = pinned[:0]
	begin(0)
	if plugin == nil {
		refuse("the plugin registers no function: func init() { quipu.Register(process) }")
	} else if err := plugin.configure(text(contextConfig)); err != nil {
		refuse(err.Error())
	}
	return unsafe.Pointer(&answer.words)
}

func refuse(reason string) {
	begin(1)
	say(1, reason)
}

//go:wasmexport quipu:plugin/handler@0.1.0#process
func handlerProcess() unsafe.Pointer {
	defer guard()
	clear(pinned)
	pinned = pinned[:0]
	verdict, err := plugin.process(&Message{})
	switch {
	case err != nil:
		reject{err.Error()}.write()
	case verdict == nil:
		panic("the plugin's function gave neither a verdict nor an error")
	default:
		verdict.write()
	}
	return unsafe.Pointer(&answer.words)
}

// guard says a panic before it traps.
func guard() {
	if said := recover(); said != nil {
		trace, place := traceback()
		logFault(faultText(said)+place, trace)
		panic(said)
	}
}
