package fleet

import "fmt"

// Code is an error code of the RDS API.
type Code string

// The codes, spelled as on the wire, which is not always as the SDKs name the type.
const (
	CodeInvalidParameter      Code = "InvalidParameterValue"
	CodeInvalidCombination    Code = "InvalidParameterCombination"
	CodeMissingParameter      Code = "MissingParameter"
	CodeClusterNotFound       Code = "DBClusterNotFoundFault"
	CodeClusterExists         Code = "DBClusterAlreadyExistsFault"
	CodeClusterState          Code = "InvalidDBClusterStateFault"
	CodeClusterQuota          Code = "DBClusterQuotaExceededFault"
	CodeSnapshotNotFound      Code = "DBClusterSnapshotNotFoundFault"
	CodeSnapshotExists        Code = "DBClusterSnapshotAlreadyExistsFault"
	CodeSnapshotState         Code = "InvalidDBClusterSnapshotStateFault"
	CodeSnapshotQuota         Code = "SnapshotQuotaExceeded"
	CodeInvalidRestore        Code = "InvalidRestoreFault"
	CodeBackupNotFound        Code = "DBClusterAutomatedBackupNotFoundFault"
	CodeBackupState           Code = "InvalidDBClusterAutomatedBackupStateFault"
	CodeInstanceNotFound      Code = "DBInstanceNotFound"
	CodeInstanceExists        Code = "DBInstanceAlreadyExists"
	CodeInstanceState         Code = "InvalidDBInstanceState"
	CodeSubnetGroupNotFound   Code = "DBSubnetGroupNotFoundFault"
	CodeSubnetGroupExists     Code = "DBSubnetGroupAlreadyExists"
	CodeSubnetGroupState      Code = "InvalidDBSubnetGroupStateFault"
	CodeInvalidSubnet         Code = "InvalidSubnet"
	CodeParameterGroupMissing Code = "DBParameterGroupNotFound" // of a cluster parameter group, too, in its own operations
	CodeClusterGroupMissing   Code = "DBClusterParameterGroupNotFound"
	CodeParameterGroupExists  Code = "DBParameterGroupAlreadyExists"
	CodeParameterGroupState   Code = "InvalidDBParameterGroupState"
	CodeStorageFull           Code = "StorageQuotaExceeded"
	CodeInsufficientCapacity  Code = "InsufficientDBClusterCapacityFault"
	CodeInsufficientStorage   Code = "InsufficientStorageClusterCapacity"
	CodeInternal              Code = "InternalFailure"
)

// Fault is an error that the client is told: what is wrong and what to do.
type Fault struct {
	Code    Code
	Message string
	Err     error // the cause, if there is one; for the log
}

func (f *Fault) Error() string { return fmt.Sprintf("%s: %s", f.Code, f.Message) }

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.Err }

func fault(code Code, format string, args ...any) *Fault {
	return &Fault{Code: code, Message: fmt.Sprintf(format, args...)}
}
