// Package cumulus knows NASA Cumulus: its archive API, the AWS triggers of its rules, what idle means, and what a sound
// database looks like. It does not know in which order a recovery uses them.
//
// What makes this hard was found by running Cumulus 21.0.0. A list that the database cannot answer is an HTTP 200
// without a count; so nothing is believed without meta.count. Counts without a filter are estimates. A PATCH may answer 400
// after it has committed, and 200 although it did nothing; so after each the rule is read again, and its trigger is
// looked up in AWS.
//
//	type       stopped by                                  started again by
//	onetime    PATCH DISABLED: the database only           PATCH ENABLED
//	scheduled  PATCH DISABLED: the EventBridge rule, too   PATCH ENABLED
//	sqs        PATCH DISABLED: the database only           PATCH ENABLED
//	sns        PATCH DISABLED: unsubscribes                PATCH ENABLED: subscribes anew
//	kinesis    the Lambda event-source mappings, disabled  the mappings, enabled: the position in the stream is kept
//
// A kinesis rule is never PATCHed, neither DISABLED nor ENABLED: the API ends each PATCH by deleting the mappings that the
// row had, unless another rule has the same, and creates them again only at the beginning of the stream. So EnableKinesis
// changes the rows of a restored database itself. One that was made disabled has mappings that read its stream, too.
package cumulus
