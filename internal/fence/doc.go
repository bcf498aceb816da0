// Package fence takes a database away from everybody but its administrator, proves it, and gives it back
// as it was.
//
//	open ──save──► saved ──revoke──► closing ──end sessions──► fenced ──probe──► proven
//	  ▲                                                                            │
//	  └────────────────────────────── restore what was saved ◄────────────────────┘
//
// What was is saved before anything is changed, outside the database, and saved once: a fence that is
// put up a second time, after a crash, does not take the fenced state for the one to restore.
//
// A fence has two parts, for neither is enough. CONNECT is revoked from everybody who has it, and granted to
// the administrator; so he needs no other way in, even if he is no superuser, as on RDS, where a connection limit
// would lock him out too. A role that could still connect, since it belongs to a role
// that may, loses LOGIN. Superusers are not kept out, unless the application is one: they keep the server and
// what protects it working. Their sessions on the database are ended all the same.
//
// The fence is written to the WAL: a cluster that is restored to a moment after it is fenced as well, and
// Lift opens it by what was saved.
package fence
