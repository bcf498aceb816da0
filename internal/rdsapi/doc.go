// Package rdsapi is the wire of the RDS API: the Query protocol, version 2014-10-31, with
// requests signed by Signature Version 4. It checks who calls, takes requests apart, calls the
// fleet and writes its answers; it decides nothing.
//
// A request is a form of POST /: Action, Version, and parameters, lists as Name.N or Name.Element.N. An
// answer is XML:
//
//	<ActionResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/">
//	  <ActionResult>...</ActionResult>
//	  <ResponseMetadata><RequestId>...</RequestId></ResponseMetadata>
//	</ActionResponse>
//
// and an error is ErrorResponse with Error/Code, whose status depends on the code.
//
// Sources: the service model of RDS that AWS publishes with its SDKs, and the documentation of
// Signature Version 4. What of it is honoured is told in docs/rds-api.md.
package rdsapi
