package quipu

import (
	"bytes"
	"encoding/json"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
)

// JSONAt reads one field of a JSON payload by its dotted path: `properties.mag`. A number picks an element of an array; a
// dot that belongs to a name is written `\.`. Names compare exactly; of names that occur twice, the last one counts. The
// error says where the path ended, or what was found instead of a T.
func JSONAt[T any](message *Message, path string) (T, error) {
	var value T
	names, err := splitPath(path)
	if err != nil {
		return value, err
	}
	raw, err := find(message.Payload(), path, names)
	if err != nil {
		return value, err
	}
	if raw.Kind() == 'n' && reflect.TypeFor[T]().Kind() != reflect.Pointer {
		return value, fmt.Errorf("%s: found null, expected %s", path, reflect.TypeFor[T]())
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return value, jsonProblem(path, err)
	}
	return value, nil
}

func splitPath(path string) ([]string, error) {
	names, escaped := []string{""}, false
	for _, c := range path {
		switch {
		case c == '\\' && !escaped:
			escaped = true
			continue
		case c == '.' && !escaped:
			names = append(names, "")
		default:
			names[len(names)-1] += string(c)
		}
		escaped = false
	}
	for _, name := range names {
		if name == "" {
			return nil, fmt.Errorf("invalid path %q: an empty name", path)
		}
	}
	return names, nil
}

// find reads to the end in any case: what is wrong behind the field is wrong with the payload.
func find(payload []byte, path string, names []string) (jsontext.Value, error) {
	walk := walk{
		decoder: jsontext.NewDecoder(bytes.NewBuffer(payload), jsontext.AllowDuplicateNames(true)),
		names:   names,
	}
	err := walk.enter(0)
	if err == nil {
		// The decoder takes one value after the other.
		if _, err = walk.decoder.ReadToken(); err == io.EOF {
			err = nil
		} else if err == nil {
			err = errors.New("there is more behind the value")
		}
	}
	switch {
	case err != nil:
		return nil, jsonProblem("", err)
	case walk.found == nil:
		return nil, fmt.Errorf("%s: absent: %s", path, walk.problem)
	default:
		return walk.found, nil
	}
}

type walk struct {
	decoder *jsontext.Decoder
	names   []string
	found   jsontext.Value
	// Where the path ended, while nothing is found.
	problem string
}

// enter reads one value, of which so many names are on the way already.
func (w *walk) enter(depth int) error {
	if depth == len(w.names) {
		value, err := w.decoder.ReadValue()
		w.found = value.Clone()
		return err
	}
	kind, name := w.decoder.PeekKind(), w.names[depth]
	place := "the payload"
	if depth > 0 {
		place = quoted(strings.Join(w.names[:depth], "."))
	}
	if kind != '{' && (kind != '[' || !isIndex(name)) {
		w.found, w.problem = nil, fmt.Sprintf("%s is %s, not an object", place, kinds[kind])
		return w.decoder.SkipValue()
	}
	w.found, w.problem = nil, place+" has no "+quoted(name)
	if _, err := w.decoder.ReadToken(); err != nil {
		return err
	}
	for index := 0; ; index++ {
		next := w.decoder.PeekKind()
		if next == '}' || next == ']' || next == jsontext.KindInvalid {
			_, err := w.decoder.ReadToken()
			return err
		}
		is := strconv.Itoa(index) == name
		if kind == '{' {
			token, err := w.decoder.ReadToken()
			if err != nil {
				return err
			}
			is = token.String() == name
		}
		read := w.decoder.SkipValue
		if is {
			read = func() error { return w.enter(depth + 1) }
		}
		if err := read(); err != nil {
			return err
		}
	}
}

func isIndex(name string) bool { return strings.Trim(name, "0123456789") == "" }

// quoted is a name as JSON has it, for %q would write out what other languages leave as it is.
func quoted(name string) string {
	text, _ := jsontext.AppendQuote(nil, name)
	return string(text)
}

var kinds = map[jsontext.Kind]string{
	'n': "null", 't': "a boolean", 'f': "a boolean", '"': "text", '0': "a number", '[': "an array",
}

// jsonProblem leaves out what encoding/json says about itself, and where in the text it was: that differs from message to
// message.
func jsonProblem(path string, err error) error {
	var unfit *json.UnmarshalTypeError
	if errors.As(err, &unfit) {
		at := strings.Trim(path+"."+unfit.Field, ".")
		if at != "" {
			at += ": "
		}
		return fmt.Errorf("%sfound %s, expected %s", at, unfit.Value, unfit.Type)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the payload is no JSON: it ends too early")
	}
	said := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "jsontext: "), "json: ")
	return fmt.Errorf("the payload is no JSON: %s", said)
}
