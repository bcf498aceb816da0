package store

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"google.golang.org/api/googleapi"

	"cloud.google.com/go/storage"
)

// TestOnlyProofIsNotFound: the portable layer calls refused access, redirects and
// unknown hosts "not found"; taken at its word, a restore would end too early.
func TestOnlyProofIsNotFound(t *testing.T) {
	gcs := &bucketStore{provider: provider{label: "gcs", proof: gcsFailure, permissions: map[operation]string{opGet: "storage.objects.get"}}}
	azure := &bucketStore{provider: provider{label: "azure", proof: azureFailure}}
	for _, c := range []struct {
		name string
		b    *bucketStore
		op   operation
		err  error
		want error // nil: none of the contract's
		says string
	}{
		{"gcs object", gcs, opGet, storage.ErrObjectNotExist, ErrNotFound, ""},
		{"gcs bucket", gcs, opGet, storage.ErrBucketNotExist, nil, "no such bucket"},
		{"gcs refused", gcs, opGet, &googleapi.Error{Code: 403}, nil, "storage.objects.get"},
		{"gcs condition", gcs, opPut, &googleapi.Error{Code: 412}, ErrExists, ""},
		{"gcs throttled", gcs, opPut, &googleapi.Error{Code: 429}, ErrUnavailable, ""},
		{"gcs broken", gcs, opPut, &googleapi.Error{Code: 503}, ErrUnavailable, ""},
		{"azure object", azure, opGet, azureError(404, "BlobNotFound"), ErrNotFound, ""},
		{"azure container", azure, opStat, azureError(404, "ContainerNotFound"), nil, "no such bucket"},
		{"azure taken", azure, opPut, azureError(409, "BlobAlreadyExists"), ErrExists, ""},
		{"azure refused", azure, opPut, azureError(403, "AuthorizationFailure"), nil, "access denied"},
		{"azure busy", azure, opPut, azureError(503, "ServerBusy"), ErrUnavailable, ""},
		{"host unknown", azure, opGet, errors.New("dial tcp: lookup x: no such host"), ErrUnavailable, ""},
		{"nonsense", azure, opPut, azureError(400, "InvalidHeaderValue"), nil, "refuses"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.b.mapError(t.Context(), c.op, "k", c.err)
			for _, sentinel := range []error{ErrNotFound, ErrExists, ErrUnavailable} {
				if errors.Is(got, sentinel) != (sentinel == c.want) {
					t.Errorf("%v: is %v: %t", got, sentinel, sentinel != c.want)
				}
			}
			if !strings.Contains(got.Error(), c.says) {
				t.Errorf("%v does not say %q", got, c.says)
			}
		})
	}
}

func azureError(status int, code string) error {
	return &azcore.ResponseError{StatusCode: status, ErrorCode: code, RawResponse: &http.Response{
		StatusCode: status, Body: http.NoBody, Request: &http.Request{Method: http.MethodGet},
	}}
}
