// Package service is `pileus serve`: it holds the state folder's lock, runs the fleet, and listens. It serves
//
//	POST /           the RDS API, to who signs with an access key
//	GET  /healthz    200 while it works, 503 with reasons while it does not
//	GET  /metrics    figures for Prometheus, without identifiers of data
//
// and, on the socket serve.sock in the state folder, which only its account can reach,
// GET /status for `pileus status`.
//
// When it ends, the databases go on; the next serve adopts them.
package service
