package config

import "time"

// Recovery is what the runbook needs to know about the application whose database it
// recovers: the `recovery` section. One file describes one application.
type Recovery struct {
	// Provider is ProviderPileus or ProviderAWS.
	Provider string
	// Endpoint is the URL of the RDS API; empty: this file's serve.listen, or AWS's own.
	Endpoint string
	// Region is that of the API; empty: serve.region, or what the environment says.
	Region string
	// AccessKey and SecretFile sign requests; without them the AWS SDK looks for credentials as always.
	AccessKey  string
	SecretFile string
	// Database is the application's.
	Database string
	// MaintenanceDatabase is another one, where the administrator stays while Database is fenced.
	MaintenanceDatabase string
	// SSLMode and SSLRootCert are libpq's, for every connection of the runbook.
	SSLMode     string
	SSLRootCert string
	// Administrator fences and validates; Application is what the fence is tried with.
	Administrator Login
	Application   Login
	// ExemptRoles keep their access while the database is fenced.
	ExemptRoles []string
	// PreparedTransactions is PreparedRefuse or PreparedRollback.
	PreparedTransactions string
	// Halt and Resume stop the work of the application and start it again; Drained succeeds once
	// nothing is under way. In the order of the file.
	Halt, Resume, Drained []Command
	DrainTimeout          time.Duration
	Expect                []Expectation
	Cutover               Cutover
	// Cumulus is set where the application is one; then its API is not empty.
	Cumulus Cumulus
	// DrillEvery is how often `pileus serve` rehearses a recovery of each of DrillClusters; 0: never.
	DrillEvery    time.Duration
	DrillClusters []string
}

// What Recovery.Provider may be.
const (
	ProviderPileus = "pileus"
	ProviderAWS    = "aws"
)

// What Recovery.PreparedTransactions may be.
const (
	PreparedRefuse   = "refuse"
	PreparedRollback = "rollback"
)

// Login is a role of the database, with its password in a file or in a secret.
type Login struct {
	User         string
	PasswordFile string
	Secret       string // ARN or name in Secrets Manager, JSON with username and password
}

// Command is one line for /bin/sh -c.
type Command struct{ Name, Line string }

// Expectation is SQL with one value, and what that must be. A nil bound is none.
type Expectation struct {
	Name   string
	SQL    string
	Least  *float64
	Most   *float64
	Equals *string
}

// What Cutover.Method may be.
const (
	CutoverPrint    = "print"
	CutoverCommands = "commands"
	CutoverSecret   = "secret"
)

// Cutover says how clients are sent to the new cluster.
type Cutover struct {
	Method   string
	Commands []Command
	// Secret is a secret in Secrets Manager whose keys host and port clients read.
	Secret string
}

// Cumulus is a deployment of NASA Cumulus.
type Cumulus struct {
	// API is the URL of the archive API; TokenFile holds a bearer token for it.
	API       string
	TokenFile string
	// Prefix is the deployment's, its stackName.
	Prefix string
	// Queues hold work besides those that every deployment has, by name.
	Queues []string
}

func newRecovery() Recovery {
	return Recovery{Provider: ProviderPileus, MaintenanceDatabase: "postgres", SSLMode: "require", PreparedTransactions: PreparedRefuse,
		DrainTimeout: 30 * time.Minute, Cutover: Cutover{Method: CutoverPrint}}
}
