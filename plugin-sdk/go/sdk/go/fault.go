package quipu

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

const framesMax = 64

func faultText(said any) string {
	if err, ok := said.(error); ok {
		return "panic: " + err.Error()
	}
	return fmt.Sprintf("panic: %v", said)
}

// traceback has the frames between the panic and the router, the innermost first, in Go's own form: a function, and below
// it its place. Frames of the runtime and of this package are left out. The second result is the innermost place, for the
// end of the text, which is often all that is shown.
func traceback() (trace, place string) {
	counters := make([]uintptr, framesMax)
	frames := runtime.CallersFrames(counters[:runtime.Callers(2, counters)])
	own := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		own = info.Main.Path + "/"
	}
	var shown strings.Builder
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if !isOwn(frame.Function) {
			continue
		}
		at := fmt.Sprintf("%s:%d", strings.TrimPrefix(frame.File, own), frame.Line)
		if place == "" {
			place = fmt.Sprintf(" (%s in %s)", at, frame.Function)
		}
		fmt.Fprintf(&shown, "%s\n\t%s\n", frame.Function, at)
	}
	return shown.String(), place
}

func isOwn(function string) bool {
	for _, others := range [...]string{"runtime.", "quipu.", "quipu:plugin/"} {
		if strings.HasPrefix(function, others) {
			return false
		}
	}
	return function != ""
}
