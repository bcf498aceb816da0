// Package terraform reads Terraform's plans and refuses those that could lose a
// database. It is the plan guard of the cut-over, and stands alone in anyone's CI.
//
// # Words
//
// A plan is what `terraform show -json` prints of a saved plan, by Terraform 0.12
// or later or by OpenTofu; the format is HashiCorp's "JSON Output Format", major
// version 1 (and 0.1 to 0.2 before it). A change is one element of its
// resource_changes. A database is a resource whose deletion deletes data: a DB
// cluster, an instance of it, a snapshot; see kindOf. The surroundings of a
// database are what it cannot be reached or decrypted without: its security
// groups, subnet group, secret and KMS key.
//
// # Contract
//
// [Check] gives each change one of four levels:
//
//	expected    part of a healthy cut-over or of an ordinary apply, and loses nothing
//	allowed     not expected, but the caller named its address
//	unexpected  may be harmless; nobody has said so yet
//	refused     could lose the database; no allowance changes that
//
// A plan is safe if nothing is unexpected or refused. What cannot be seen in the plan,
// an attribute not known before apply, an action of a later Terraform, is never taken
// for harmless. An argument that replaces a cluster in any version of the AWS provider
// is refused even where the plan says "update", since the next version may say "replace".
//
// No value that Terraform marks as sensitive, and no value of an attribute that is not
// listed in shownAttributes, is ever part of a [Report] or of an error.
package terraform
