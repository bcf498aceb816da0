// Package config reads pileus.yaml, strictly, and writes the commented first one.
//
// Strictly means: an unknown key, a key twice, a value of the wrong type or out of
// its range is an error that gives line, column and key, and for a misspelt key the
// nearest known one. All errors of a file are reported at once.
//
// The file never holds a secret. Passwords come from a file of their own, from
// PGPASSFILE or from the environment; a key such as `password:` is refused.
//
// Glossary: a field is one key of the file with its documentation, its default and
// the function that reads it. The tables of fields (fields.go) are the only list of
// keys: reading, suggestions and the file that `pileus init` writes all use them.
package config
