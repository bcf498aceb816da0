package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"gocloud.dev/gcerrors"
)

// operation is one of the Store's methods, in messages and permissions.
type operation string

const (
	opPut    operation = "write"
	opGet    operation = "read"
	opStat   operation = "look up"
	opList   operation = "list"
	opDelete operation = "delete"
)

// failure is what a provider's error proves.
type failure struct {
	status   int    // HTTP status, 0 if none came
	code     string // the provider's word, such as "NoSuchKey"
	noObject bool   // the service said that the object is not there
	noBucket bool   // the service said that the bucket is not there
}

// errConflict marks that two conditional writes met and neither is decided.
var errConflict = errors.New("another write of the same object is under way")

// mapError turns a provider's error into one of the contract's. Only a service's
// explicit word counts as "not found": the portable layer also says so of
// refused access, of redirects and of host names that do not resolve, and who
// takes those for an absent WAL segment ends recovery too early.
func (b *bucketStore) mapError(ctx context.Context, op operation, key string, err error) error {
	what := fmt.Sprintf("%s %q in %s", op, b.prefix+key, b.provider.label)
	if ctxErr := ctx.Err(); ctxErr != nil {
		return fmt.Errorf("%s: %w", what, ctxErr)
	}
	f := b.provider.proof(err)
	switch {
	case op == opPut && (f.status == http.StatusPreconditionFailed || gcerrors.Code(err) == gcerrors.FailedPrecondition):
		return fmt.Errorf("%s: %w", what, ErrExists)
	case f.noBucket:
		return fmt.Errorf("%s: there is no such bucket; create it, or correct the store's URL: %w", what, err)
	case f.noObject && op != opPut:
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	case f.status == http.StatusMovedPermanently, f.code == "AuthorizationHeaderMalformed":
		return fmt.Errorf("%s: it is in another region; set the region: %w", what, err)
	case temporaryCodes[f.code]:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	case f.status == http.StatusUnauthorized, f.status == http.StatusForbidden:
		return fmt.Errorf("%s: access denied; check the credentials, and allow them %s: %w", what, b.provider.permissions[op], err)
	case f.status == http.StatusConflict:
		return fmt.Errorf("%s: %w: %w: %w", what, ErrUnavailable, errConflict, err)
	case refusals[f.status]:
		return fmt.Errorf("%s: the service refuses the request: %w", what, err)
	}
	hint := ""
	if f.status == 0 && strings.Contains(err.Error(), "credentials") {
		hint = " (no credentials were found: set them in the environment)"
	}
	return fmt.Errorf("%s: %w%s: %w", what, ErrUnavailable, hint, err)
}

// temporaryCodes pass although their HTTP status (400 or 403) would not say so:
// credentials of machine roles are renewed, and clocks step.
var temporaryCodes = map[string]bool{
	"ExpiredToken": true, "RequestTimeout": true, "RequestExpired": true, "SlowDown": true,
	"Throttling": true, "ThrottlingException": true, "TooManyRequests": true,
}

// refusals are the statuses that the same request would meet again.
var refusals = map[int]bool{
	http.StatusBadRequest: true, http.StatusNotFound: true, http.StatusMethodNotAllowed: true, http.StatusLengthRequired: true,
	http.StatusRequestEntityTooLarge: true, http.StatusRequestedRangeNotSatisfiable: true, http.StatusNotImplemented: true,
}
