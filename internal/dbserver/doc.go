// Package dbserver runs one PostgreSQL server of a managed cluster: it initialises or takes over
// its data directory, writes its settings and access rules, starts, stops and supervises it, and
// makes standbys of it.
//
//	DIR/pileus-server   marker: all below DIR is Pileus's own and may be removed
//	DIR/data            data directory; pileus.conf in it is included last
//	DIR/conf            pg_hba.conf, pg_ident.conf, server.crt, server.key
//	DIR/log             the server's logs
//	DIR/run             socket, for the server's account only; in a short folder below the
//	                    system's temporary one where the path would be too long for a socket
//	DIR/tblspc/OID      tablespaces
//
// Pileus reaches a server as the superuser pileus_admin over that socket, which peer
// authentication gives to root and to the server's account. Over TCP pileus_admin is refused, and
// everybody else needs TLS, an address in Spec.Access, and a password. So whatever the master
// user does, Pileus is not locked out.
//
// A server outlives the process that started it; Supervise adopts one that runs.
package dbserver
