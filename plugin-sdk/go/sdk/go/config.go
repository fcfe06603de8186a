package quipu

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// readConfig reads a configuration into a struct. Errors begin with the key, or name it.
func readConfig(text string, into any) error {
	if strings.TrimSpace(text) == "" {
		text = "{}"
	}
	if with, ok := into.(interface{ Defaults() }); ok {
		with.Defaults()
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &given); err != nil {
		return fmt.Errorf("the configuration is no JSON object: %w", err)
	}
	if kind := reflect.TypeOf(into).Elem().Kind(); kind == reflect.Struct {
		if err := checkKeys(given, reflect.TypeOf(into).Elem()); err != nil {
			return err
		}
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		var unfit *json.UnmarshalTypeError
		if errors.As(err, &unfit) {
			return fmt.Errorf("%s: found %s, expected %s", unfit.Field, unfit.Value, unfit.Type)
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if with, ok := into.(interface{ Check() error }); ok {
		return with.Check()
	}
	return nil
}

// checkKeys finds required keys that are absent, which encoding/json does not, unknown ones, which explain them, and null
// where only a pointer could hold it: encoding/json leaves what was there.
func checkKeys(given map[string]json.RawMessage, fields reflect.Type) error {
	var known, missing, null []string
	for _, field := range reflect.VisibleFields(fields) {
		if !field.IsExported() || field.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		known = append(known, name)
		if _, there := given[name]; !there && !strings.Contains(options, "omitempty") {
			missing = append(missing, name)
		}
		if kind := field.Type.Kind(); kind != reflect.Pointer && kind != reflect.Interface && string(given[name]) == "null" {
			null = append(null, fmt.Sprintf("%s: found null, expected %s", name, field.Type))
		}
	}
	var unknown []string
	for name := range given {
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	switch {
	case len(missing) > 0 && len(unknown) > 0:
		return fmt.Errorf("missing %s (unknown %s)", keys(missing), keys(unknown))
	case len(missing) > 0:
		return fmt.Errorf("missing %s", keys(missing))
	case len(unknown) > 0:
		return fmt.Errorf("unknown %s; known: %s", keys(unknown), strings.Join(known, ", "))
	case len(null) > 0:
		return errors.New(null[0])
	default:
		return nil
	}
}

func keys(names []string) string {
	plural := "s"
	if len(names) == 1 {
		plural = ""
	}
	return "key" + plural + " `" + strings.Join(names, "`, `") + "`"
}
