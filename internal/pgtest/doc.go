// Package pgtest runs real PostgreSQL servers for the tests of all packages.
//
//	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
//		s := pgtest.Start(t, v, pgtest.Scram("secret"))
//		s.Exec("CREATE TABLE t (n int)")
//	})
//
// Servers are looked for in $PILEUS_TOOLS/pg/<major>/bin (default
// /var/tmp/pileus-tools-<uid>) and in /usr/lib/postgresql/<major>/bin. All of 13 to 18 must be
// there; with -short only the newest that is there is used. PILEUS_PG=15,17 narrows a run
// down to some majors while working on them. When root runs the tests, servers run as the
// account postgres, because PostgreSQL refuses root.
package pgtest
