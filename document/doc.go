// Package document reads what people write in YAML, or JSON, into values.
//
// Unknown fields, wrong types, and what the value itself says is wrong are
// reported all at once, each with file, line and column.
//
// It knows no field of any document.
package document
