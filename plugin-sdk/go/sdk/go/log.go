package quipu

import (
	"fmt"
	stdlog "log"
	"strings"
)

const (
	levelTrace uint32 = iota
	levelDebug
	levelInfo
	levelWarn
	levelError
)

// Tracef logs a line.
func Tracef(format string, args ...any) { logLog(levelTrace, fmt.Sprintf(format, args...)) }

// Debugf logs a line.
func Debugf(format string, args ...any) { logLog(levelDebug, fmt.Sprintf(format, args...)) }

// Infof logs a line.
func Infof(format string, args ...any) { logLog(levelInfo, fmt.Sprintf(format, args...)) }

// Warnf logs a line.
func Warnf(format string, args ...any) { logLog(levelWarn, fmt.Sprintf(format, args...)) }

// Errorf logs a line.
func Errorf(format string, args ...any) { logLog(levelError, fmt.Sprintf(format, args...)) }

// lines is where the standard library's log goes: its standard error is not there.
type lines struct{}

func (lines) Write(text []byte) (int, error) {
	logLog(levelInfo, strings.TrimSuffix(string(text), "\n"))
	return len(text), nil
}

func init() {
	stdlog.SetFlags(0)
	stdlog.SetOutput(lines{})
}
