package postgres

import "strings"

// QuoteIdent quotes an SQL identifier, always with double quotes. A zero byte,
// which no identifier can hold, is dropped.
func QuoteIdent(s string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), `"`, `""`) + `"`
}

// QuoteLiteral quotes an SQL string literal so that it reads the same with
// standard_conforming_strings on and off.
func QuoteLiteral(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''")
	if strings.Contains(s, `\`) {
		return `E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return "'" + s + "'"
}

// quoteReplication quotes a string of the replication grammar, where a quote is
// doubled and a backslash is an ordinary character.
func quoteReplication(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// QuoteConfValue quotes a value for postgresql.conf. Line breaks, which a
// quoted value cannot hold, are written as escapes.
func QuoteConfValue(s string) string {
	r := strings.NewReplacer("\x00", "", "'", "''", `\`, `\\`, "\n", `\n`, "\r", `\r`)
	return "'" + r.Replace(s) + "'"
}

// FormatSetting is one line of postgresql.conf, with its line break.
func FormatSetting(name, value string) string {
	return name + " = " + QuoteConfValue(value) + "\n"
}

// QuoteConninfoValue quotes a value for a libpq keyword/value connection string.
func QuoteConninfoValue(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	if s != "" && !strings.ContainsAny(s, " \t\r\n\v\f'\\") {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
